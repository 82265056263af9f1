"""The networks that can be rebuilt from a state_dict, recognised by the names and shapes of its tensors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from nern.architectures import cifar
from nern.architectures.skeleton import skeleton
from nern.errors import NotRepresentable, UnknownArchitecture

Shape = tuple[int, ...]

# Batch norm counts its batches since torch 0.4.1; the number plays no part in evaluation.
COUNTER = "num_batches_tracked"

# Vision transformers whose shapes depend on the size of the images, and the other size that torchvision has weights for.
PRETRAINED_SIZES = {"vit_b_16": 384, "vit_l_16": 512, "vit_h_14": 518}


@dataclass(frozen=True)
class Variant:
    """One way to build an architecture. `build` takes the number of classes; `size` is the extent of the images."""

    build: Callable[[int], nn.Module]
    classes: int
    size: int
    channels: int = 3


@dataclass(frozen=True)
class Fit:
    """How a state_dict fits a variant: what its shapes say about both ends of the network."""

    variant: Variant
    classes: int
    channels: int


def architectures() -> list[str]:
    """All names: `cifar/resnet20`, ..., `torchvision/resnet18`, ..."""
    return list(_variants())


def recognise(state_dict: Mapping[str, Tensor]) -> list[str]:
    """The architectures whose state_dict has exactly these names and shapes, up to classes and input channels.

    Looks at no values: tensors on the meta device will do.
    """
    shapes = _shapes_of(state_dict)
    return [name for name, variants in _variants().items() if any(_fit(variant, shapes) for variant in variants)]


def build(name: str, state_dict: Mapping[str, Tensor]) -> nn.Module:
    """The network in eval mode with these weights, float32.

    Raises UnknownArchitecture if there is no such name or the state_dict is of another network.
    """
    fit = fit_of(name, state_dict)
    module = fit.variant.build(fit.classes)
    if fit.channels != fit.variant.channels:
        _widen_input(module, fit.channels)
    tensors = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in state_dict.items()}
    # The module's own keeps the metadata that some modules look for; `_fit` has seen that only counters can be missing.
    own = module.state_dict()
    own.update(tensors)
    module.load_state_dict(own)
    return module.eval().requires_grad_(False)


def groups(name: str, state_dict: Mapping[str, Tensor]) -> dict[str, int]:
    """The number of groups of every convolution, by the name of its weight."""
    variant = fit_of(name, state_dict).variant
    module = skeleton(partial(variant.build, variant.classes))
    return {f"{path}.weight": conv.groups for path, conv in module.named_modules() if isinstance(conv, _ConvNd)}


def input_shape(name: str, state_dict: Mapping[str, Tensor]) -> tuple[int, int, int]:
    """Channels, height and width of the images that the architecture was made for."""
    fit = fit_of(name, state_dict)
    return fit.channels, fit.variant.size, fit.variant.size


def paper_layers(name: str | None, convolutions: Mapping[str, Shape]) -> list[str]:
    """The convolutions that the authors of NeRN predict: all of a CIFAR network, the 3x3 ones of an ImageNet ResNet.

    Raises NotRepresentable for networks that they did not represent.
    """
    if name is not None and name.startswith("cifar/"):
        return list(convolutions)
    if name is not None and name.startswith("torchvision/resnet"):
        return [layer for layer, shape in convolutions.items() if shape[2:] == (3, 3)]
    raise NotRepresentable(
        'layers "paper" is defined for cifar/resnet* and torchvision/resnet* only; use "all" or names', "/layers"
    )


@cache
def _variants() -> dict[str, list[Variant]]:
    from torchvision import models  # takes as long as torch itself, and most processes can do without

    def variant(name: str, size: int = 224, **options: Any) -> Variant:
        return Variant(lambda classes: models.get_model(name, weights=None, num_classes=classes, **options), 1000, size)

    found = {f"cifar/resnet{depth}": [_cifar(depth, "A"), _cifar(depth, "B")] for depth in cifar.DEPTHS}
    for name in models.list_models(module=models):
        variants = [variant(name)]
        if name in ("googlenet", "inception_v3"):
            # As torchvision's pretrained ones, these take images in ImageNet's mean and deviation, like all others.
            options = {"init_weights": False, "transform_input": True}
            size = 299 if name == "inception_v3" else 224
            variants = [variant(name, size, aux_logits=aux, **options) for aux in (True, False)]
        elif name.startswith("densenet"):
            variants.append(_with_old_names(variants[0]))
        elif name in PRETRAINED_SIZES:
            size = PRETRAINED_SIZES[name]
            variants.append(variant(name, size, image_size=size))
        found[f"torchvision/{name}"] = variants
    return found


def _cifar(depth: int, shortcut: Literal["A", "B"]) -> Variant:
    return Variant(lambda classes: cifar.ResNet(depth, classes=classes, shortcut=shortcut), classes=10, size=32)


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


@cache
def _shapes(variant: Variant) -> dict[str, Shape]:
    return _shapes_of(skeleton(partial(variant.build, variant.classes)).state_dict())


def _shapes_of(state_dict: Mapping[str, Tensor]) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in state_dict.items() if not name.endswith(COUNTER)}


def _fit(variant: Variant, given: Mapping[str, Shape]) -> Fit | None:
    expected = _shapes(variant)
    if expected.keys() != given.keys():
        return None
    stem = next(name for name, shape in expected.items() if len(shape) == 4)
    channels = given[stem][1] if len(given[stem]) == 4 else 0
    classes = {given[name][0] for name in expected if expected[name] != given[name] and name != stem and given[name]}
    fit = Fit(variant, next(iter(classes), variant.classes), channels)

    def fitted(name: str) -> Shape:
        shape = expected[name]
        if name == stem:
            return (shape[0], fit.channels, *shape[2:])
        head = shape[:1] == (variant.classes,) and given[name] != shape
        return (fit.classes, *shape[1:]) if head else shape

    return fit if channels and fit.classes and all(fitted(name) == given[name] for name in expected) else None


def fit_of(name: str, state_dict: Mapping[str, Tensor]) -> Fit:
    """How a state_dict fits an architecture; tensors on the meta device will do.

    Raises UnknownArchitecture if there is no such name or the state_dict is of another network.
    """
    if name not in _variants():
        raise UnknownArchitecture(f"there is no architecture {name!r}", "/architecture")
    shapes = _shapes_of(state_dict)
    for variant in _variants()[name]:
        if fit := _fit(variant, shapes):
            return fit
    difference = _first_difference(_shapes(_variants()[name][0]), shapes)
    raise UnknownArchitecture(f"the checkpoint is not a {name}: {difference}", "/architecture")


def _first_difference(expected: Mapping[str, Shape], given: Mapping[str, Shape]) -> str:
    for name, shape in expected.items():
        if name not in given:
            return f"it has no tensor {name!r}"
        if given[name] != shape:
            return f"{name!r} has the shape {list(given[name])} instead of {list(shape)}"
    extra = next(name for name in given if name not in expected)
    return f"it has an unexpected tensor {extra!r}"


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
