"""Building the network of each architecture with torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor, nn

from nern.architectures import cifar
from nern.architectures.matching import match, shapes_of

# The shapes of a vision transformer depend on the image size. torchvision has weights for 224 pixels and for these sizes.
PRETRAINED_SIZES = {"vit_b_16": 384, "vit_l_16": 512, "vit_h_14": 518}


@dataclass(frozen=True)
class Variant:
    """One way to build an architecture.

    build: builds the network for a number of classes.
    classes: the number of classes of the published weights.
    image_size: the height and width of the images, in pixels.
    """

    build: Callable[[int], nn.Module]
    classes: int
    image_size: int


def build(name: str, state_dict: Mapping[str, Tensor]) -> nn.Module:
    """See `nern.architectures.build`."""
    matched = match(name, shapes_of(state_dict))
    module = variants(name)[matched.variant].build(matched.classes)
    stem = next(conv for conv in module.modules() if isinstance(conv, nn.Conv2d))
    if matched.channels != stem.in_channels:
        _set_input_channels(module, matched.channels)
    seen = matched.view.of(state_dict)
    tensors = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in seen.items()}
    # The state_dict of the module has the metadata that some modules look for, and counters that `state_dict` may lack.
    own = module.state_dict()
    own.update(tensors)
    module.load_state_dict(own)
    return module.eval().requires_grad_(False)


def names() -> list[str]:
    """The names of all architectures: the networks for CIFAR, and the classifiers of the installed torchvision."""
    from torchvision import models

    of_torchvision = [f"torchvision/{name}" for name in models.list_models(module=models)]
    return [f"cifar/resnet{depth}" for depth in cifar.DEPTHS] + of_torchvision


def variants(name: str) -> list[Variant]:
    """The variants of an architecture. `name` is one of `names`."""
    family, _, model = name.partition("/")
    if family == "cifar":
        depth = int(model.removeprefix("resnet"))
        return [_cifar(depth, "A"), _cifar(depth, "B")]
    if model in ("googlenet", "inception_v3"):
        # torchvision's pretrained networks are built so. They take images with ImageNet's mean and standard deviation.
        options = {"init_weights": False, "transform_input": True}
        size = 299 if model == "inception_v3" else 224
        return [_torchvision(model, size, aux_logits=aux, **options) for aux in (True, False)]
    built = [_torchvision(model)]
    if model.startswith("densenet"):
        built.append(_with_old_names(built[0]))
    elif model in PRETRAINED_SIZES:
        size = PRETRAINED_SIZES[model]
        built.append(_torchvision(model, size, image_size=size))
    return built


def _torchvision(model: str, image_size: int = 224, /, **options: Any) -> Variant:
    from torchvision import models  # slow to import, and most processes do not need it

    def build(classes: int) -> nn.Module:
        network: nn.Module = models.get_model(model, weights=None, num_classes=classes, **options)
        return network

    return Variant(build, classes=1000, image_size=image_size)


def _cifar(depth: int, shortcut: Literal["A", "B"]) -> Variant:
    return Variant(lambda classes: cifar.ResNet(depth, classes=classes, shortcut=shortcut), classes=10, image_size=32)


def _with_old_names(variant: Variant) -> Variant:
    """A DenseNet whose layers have submodules `norm.1` and so on, as torchvision's published files do, in place of `norm1`."""

    def build(classes: int) -> nn.Module:
        network = variant.build(classes)
        layers = [module for path, module in network.named_modules() if path.rpartition(".")[2].startswith("denselayer")]
        for layer in layers:
            for kind in ("norm", "conv"):
                pair = nn.ModuleDict({number: getattr(layer, kind + number) for number in "12"})
                for number, module in pair.items():
                    delattr(layer, kind + number)
                    # `forward` reads this attribute. It must not be a submodule, which would be in the state_dict.
                    object.__setattr__(layer, kind + number, module)
                layer.add_module(kind, pair)
        return network

    return replace(variant, build=build)


def _set_input_channels(module: nn.Module, channels: int) -> None:
    """Replaces the first convolution by one with so many input channels."""
    path, stem = next((path, conv) for path, conv in module.named_modules() if isinstance(conv, nn.Conv2d))
    first = nn.Conv2d(
        channels,
        stem.out_channels,
        stem.kernel_size,  # type: ignore[arg-type]  # always a pair in a Conv2d
        stem.stride,  # type: ignore[arg-type]
        stem.padding,  # type: ignore[arg-type]
        bias=stem.bias is not None,
    )
    parent, _, child = path.rpartition(".")
    setattr(module.get_submodule(parent), child, first)
    if hasattr(module, "transform_input"):
        # The transformation needs three channels. The type checker takes attributes of modules for tensors or modules.
        module.transform_input = False  # type: ignore[assignment]
