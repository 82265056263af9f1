"""Networks for CIFAR and other small images.

They have the names and shapes of widely used implementations, and are written from the papers that their modules name.
`NETWORKS` has the ways to build each: functions from the number of classes to the network. The ways of one name differ in the
names of the layers or in the kind of shortcut; shapes tell which is meant.
"""

from collections.abc import Callable
from functools import partial

from torch import nn

from nern.architectures.cifar.aggregated import DenseNet, DualPathNet, LayerAggregation, PlainTree, PNASNet, Tree
from nern.architectures.cifar.mobile import (
    BranchedShuffleNetV2,
    EfficientNetB0,
    MobileNet,
    MobileNetV2,
    ScaledMobileNetV2,
    ShuffleNet,
    ShuffleNetV2,
)
from nern.architectures.cifar.plain import VGG, VGG_STAGES, Classifier, GoogLeNet, LeNet, RepVGG
from nern.architectures.cifar.preactivated import BiasedWideResNet, NarrowPreActivatedResNet, PreActivatedResNet, WideResNet
from nern.architectures.cifar.residual import (
    DEPTHS,
    STAGES,
    Layout,
    RegNet,
    ResNet,
    ResNeXt,
    SequentialResNet,
    Shortcut,
    WideStem,
)

__all__ = ["DEPTHS", "NETWORKS", "SAME_SHAPES_AS_TORCHVISION", "ResNet", "Shortcut"]

Build = Callable[[int], nn.Module]

LAYOUTS = [Layout(shortcut, head) for shortcut in ("shortcut", "downsample") for head in ("linear", "fc")]

# The layers before the head are torchvision's own, as are the names, in networks that were made from torchvision's for CIFAR.
OF_TORCHVISION = Layout("downsample", "fc")

# The widths of the wide residual networks that papers use, by depth.
WIDE = {16: (1, 2, 4, 8), 22: (8,), 28: (2, 4, 8, 10, 12), 34: (10, 20), 40: (1, 2, 4, 8, 10), 70: (16,)}

SHUFFLENET_V2 = {"0_5": (48, 96, 192, 1024), "1": (116, 232, 464, 1024), "1_5": (176, 352, 704, 1024)}

# Networks whose names and shapes a network of torchvision has too. Their published weights have 10 or 100 classes.
SAME_SHAPES_AS_TORCHVISION = {
    "cifar/mobilenetv2_x1_0",
    "cifar/shufflenetv2_x0_5",
    "cifar/shufflenetv2_x1_0",
    "cifar/shufflenetv2_x1_5",
    "cifar/shufflenetv2_x2_0",
}


def _networks() -> dict[str, list[Build]]:
    """The ways to build each network, by the name of its architecture."""
    made: dict[str, list[Build]] = {}
    for depth in DEPTHS:
        made[f"resnet{depth}"] = [
            partial(_residual, depth, "A", Layout()),
            *(partial(_residual, depth, "B", layout) for layout in LAYOUTS),
        ]
    made["resnet164"] = [partial(_residual, 164, "B", layout) for layout in LAYOUTS]
    for depth in STAGES:
        made[f"resnet{depth}"] = [
            *(partial(WideStem, depth, layout=layout) for layout in LAYOUTS),
            partial(SequentialResNet, depth),
        ]
        made[f"resnet{depth}_pooled"] = [partial(WideStem, depth, layout=OF_TORCHVISION, pooled=True)]
        made[f"preactresnet{depth}"] = [partial(PreActivatedResNet, depth, last_norm=last) for last in (False, True)]
    made["senet18"] = [partial(PreActivatedResNet, 18, stem_norm=True, squeeze=True)]
    for depth in (20, 32, 44, 56, 110):
        made[f"preresnet{depth}"] = [partial(NarrowPreActivatedResNet, depth)]
    made["preresnet164"] = [partial(NarrowPreActivatedResNet, 164, bottleneck=True)]
    for depth, widths in WIDE.items():
        for width in widths:
            made[f"wrn{depth}_{width}"] = [partial(WideResNet, depth, width), partial(BiasedWideResNet, depth, width)]
    for depth in VGG_STAGES:
        for norms, suffix in ((False, ""), (True, "_bn")):
            kinds: tuple[Classifier, ...] = ("linear", "512", "4096", "512 after dropout")
            made[f"vgg{depth}{suffix}"] = [partial(VGG, depth, classifier=kind, norms=norms) for kind in kinds]
    for cardinality, width in ((2, 64), (4, 64), (8, 64), (32, 4)):
        made[f"resnext29_{cardinality}x{width}d"] = [partial(ResNeXt, cardinality, width)]
    for name, blocks, growth in (
        ("densenet121", (6, 12, 24, 16), 32),
        ("densenet169", (6, 12, 32, 32), 32),
        ("densenet201", (6, 12, 48, 32), 32),
        ("densenet161", (6, 12, 36, 24), 48),
        ("densenet_cifar", (6, 12, 24, 16), 12),
    ):
        made[name] = [partial(DenseNet, blocks, growth)]
    made |= {
        "lenet": [LeNet],
        "googlenet": [GoogLeNet],
        "repvgg_a0": [partial(RepVGG, (48, 96, 192, 1280))],
        "repvgg_a1": [partial(RepVGG, (64, 128, 256, 1280))],
        "repvgg_a2": [partial(RepVGG, (96, 192, 384, 1408))],
        "dpn26": [partial(DualPathNet, (2, 2, 2, 2))],
        "dpn92": [partial(DualPathNet, (3, 4, 20, 3))],
        "dla": [partial(LayerAggregation, tree=Tree)],
        "dla_simple": [partial(LayerAggregation, tree=PlainTree)],
        "pnasnet_a": [partial(PNASNet, 44, large=False)],
        "pnasnet_b": [partial(PNASNet, 32, large=True)],
        "regnetx_200mf": [partial(RegNet, (1, 1, 4, 7), (24, 56, 152, 368), 8)],
        "regnetx_400mf": [partial(RegNet, (1, 2, 7, 12), (32, 64, 160, 384), 16)],
        "regnety_400mf": [partial(RegNet, (1, 2, 7, 12), (32, 64, 160, 384), 16, squeezed=True)],
        "mobilenet": [MobileNet],
        "mobilenetv2": [MobileNetV2],
        "efficientnet_b0": [EfficientNetB0],
        "shufflenet_g2": [partial(ShuffleNet, (200, 400, 800), 2)],
        "shufflenet_g3": [partial(ShuffleNet, (240, 480, 960), 3)],
        "shufflenetv2_2": [partial(ShuffleNetV2, (224, 488, 976, 2048))],
    }
    made |= {f"mobilenetv2_x{width}".replace(".", "_"): [partial(ScaledMobileNetV2, width)] for width in (0.5, 0.75, 1.0, 1.4)}
    made |= {f"shufflenetv2_{name}": [partial(ShuffleNetV2, widths)] for name, widths in SHUFFLENET_V2.items()}
    scaled = {"0_5": SHUFFLENET_V2["0_5"], "1_0": SHUFFLENET_V2["1"], "1_5": SHUFFLENET_V2["1_5"]}
    scaled["2_0"] = (244, 488, 976, 2048)
    made |= {f"shufflenetv2_x{name}": [partial(BranchedShuffleNetV2, widths)] for name, widths in scaled.items()}
    return made


def _residual(depth: int, shortcut: Shortcut, layout: Layout, classes: int) -> nn.Module:
    return ResNet(depth, classes=classes, shortcut=shortcut, layout=layout, bottleneck=depth == 164)


NETWORKS = {f"cifar/{name}": builds for name, builds in _networks().items()}
