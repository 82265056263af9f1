"""The networks that can be rebuilt from a state_dict: how each architecture is built."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor, nn

from nern.architectures import cifar
from nern.architectures.matching import match, shapes_of

# Vision transformers whose shapes depend on the size of the images, and the other size that torchvision has weights for.
PRETRAINED_SIZES = {"vit_b_16": 384, "vit_l_16": 512, "vit_h_14": 518}


@dataclass(frozen=True)
class Variant:
    """One way to build an architecture. `build` takes the number of classes, whose default is `classes`.

    `image_size` is the height and width of the images, in pixels.
    """

    build: Callable[[int], nn.Module]
    classes: int
    image_size: int


def build(name: str, state_dict: Mapping[str, Tensor]) -> nn.Module:
    """See `nern.architectures.build`."""
    found = match(name, shapes_of(state_dict))
    module = variants(name)[found.variant].build(found.classes)
    stem = next(conv for conv in module.modules() if isinstance(conv, nn.Conv2d))
    if found.channels != stem.in_channels:
        _widen_input(module, found.channels)
    tensors = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in state_dict.items()}
    # The module's own keeps the metadata that some modules look for; only counters can be missing from a match.
    own = module.state_dict()
    own.update(tensors)
    module.load_state_dict(own)
    return module.eval().requires_grad_(False)


def names() -> list[str]:
    """All architectures of this module and of the installed torchvision."""
    from torchvision import models

    found = [f"torchvision/{name}" for name in models.list_models(module=models)]
    return [f"cifar/resnet{depth}" for depth in cifar.DEPTHS] + found


def variants(name: str) -> list[Variant]:
    """All ways to build an architecture of `names`."""
    family, _, model = name.partition("/")
    if family == "cifar":
        depth = int(model.removeprefix("resnet"))
        return [_cifar(depth, "A"), _cifar(depth, "B")]
    if model in ("googlenet", "inception_v3"):
        # As torchvision's pretrained ones, these take images in ImageNet's mean and deviation, like all others.
        options = {"init_weights": False, "transform_input": True}
        size = 299 if model == "inception_v3" else 224
        return [_torchvision(model, size, aux_logits=aux, **options) for aux in (True, False)]
    found = [_torchvision(model)]
    if model.startswith("densenet"):
        found.append(_with_old_names(found[0]))
    elif model in PRETRAINED_SIZES:
        size = PRETRAINED_SIZES[model]
        found.append(_torchvision(model, size, image_size=size))
    return found


def _torchvision(model: str, image_size: int = 224, /, **options: Any) -> Variant:
    from torchvision import models  # takes as long as torch itself, and most processes can do without

    def build(classes: int) -> nn.Module:
        network: nn.Module = models.get_model(model, weights=None, num_classes=classes, **options)
        return network

    return Variant(build, classes=1000, image_size=image_size)


def _cifar(depth: int, shortcut: Literal["A", "B"]) -> Variant:
    return Variant(lambda classes: cifar.ResNet(depth, classes=classes, shortcut=shortcut), classes=10, image_size=32)


def _with_old_names(variant: Variant) -> Variant:
    """A densenet whose layers have submodules `norm.1` and so on, as in torchvision's files, in place of `norm1`."""

    def build(classes: int) -> nn.Module:
        network = variant.build(classes)
        layers = [module for path, module in network.named_modules() if path.rpartition(".")[2].startswith("denselayer")]
        for layer in layers:
            for kind in ("norm", "conv"):
                pair = nn.ModuleDict({number: getattr(layer, kind + number) for number in "12"})
                for number, module in pair.items():
                    delattr(layer, kind + number)
                    # What forward() looks for, though no longer a submodule.
                    object.__setattr__(layer, kind + number, module)
                layer.add_module(kind, pair)
        return network

    return replace(variant, build=build)


def _widen_input(module: nn.Module, channels: int) -> None:
    path, stem = next((path, conv) for path, conv in module.named_modules() if isinstance(conv, nn.Conv2d))
    first = nn.Conv2d(
        channels,
        stem.out_channels,
        stem.kernel_size,  # type: ignore[arg-type]  # a pair, as Conv2d itself made it
        stem.stride,  # type: ignore[arg-type]
        stem.padding,  # type: ignore[arg-type]
        bias=stem.bias is not None,
    )
    parent, _, child = path.rpartition(".")
    setattr(module.get_submodule(parent), child, first)
    if hasattr(module, "transform_input"):
        # It is for three channels alone. To the type checker, attributes of modules are tensors and modules.
        module.transform_input = False  # type: ignore[assignment]
