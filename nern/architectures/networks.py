"""Building the network of each architecture with torch."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from nern.architectures import cifar, of_timm, of_torchvision
from nern.architectures.heads import Head, HeadLayer
from nern.architectures.matching import match, shapes_of
from nern.architectures.table import read
from nern.architectures.variant import Variant
from nern.errors import UnknownArchitecture


def build(name: str, state_dict: Mapping[str, Tensor]) -> nn.Module:
    """See `nern.architectures.build`."""
    matched = match(name, shapes_of(state_dict))
    module = variants(matched.architecture)[matched.variant].build(matched.classes or 1)
    entry = read().entries[matched.architecture][matched.variant]
    for stem in entry.ends.stems:
        if matched.channels != entry.shapes[stem][1]:
            _set_input_channels(module, stem.removesuffix(".weight"), matched.channels)
    if matched.head is not None and not matched.head.own:
        parent, _, child = matched.head.path.rpartition(".")
        setattr(module.get_submodule(parent), child, _head(matched.head))
    tensors = {
        bare: tensor.float() if tensor.is_floating_point() else tensor for bare, tensor in matched.view.of(state_dict).items()
    }
    # The state_dict of the module has the metadata that some modules look for, and counters that `state_dict` may lack.
    own = module.state_dict()
    if unlike := next((bare for bare, tensor in tensors.items() if bare not in own or own[bare].shape != tensor.shape), None):
        library = matched.architecture.partition("/")[0]
        detail = f"the installed {library} builds another {matched.architecture} than this release knows: {unlike!r} differs"
        raise UnknownArchitecture(detail, "/architecture")
    own.update(tensors)
    module.load_state_dict(own)
    return module.eval().requires_grad_(False)


def names() -> list[str]:
    """The names of all architectures, except those of timm, which `nern.architectures.tabulate` chooses."""
    return [*cifar.NETWORKS, *of_torchvision.names()]


def variants(name: str) -> list[Variant]:
    """The variants of an architecture of the table. Raises UnknownArchitecture if the library that builds it is missing."""
    family, _, model = name.partition("/")
    if family == "timm":
        return of_timm.variants(model)
    if family == "torchvision":
        return of_torchvision.variants(model)
    usual = (10, 100) if name in cifar.SAME_SHAPES_AS_TORCHVISION else ()
    return [Variant(build, classes=10, image_size=32, usual_classes=usual) for build in cifar.NETWORKS[name]]


def _head(head: Head) -> nn.Module:
    """The module that a file has in place of a head."""
    if not head.layers:
        return nn.Identity()
    if [layer.name for layer in head.layers] == [""]:
        return _layer(head.layers[0])
    layers: dict[str, nn.Module] = {layer.name: _layer(layer) for layer in head.layers}
    layers |= {name: nn.ReLU() for name in head.activations}
    order = sorted(layers, key=int) if all(name.isdecimal() for name in layers) else _relu_after(layers)
    module = nn.Sequential()
    for name in order:
        module.add_module(name, layers[name])
    return module


def _relu_after(layers: Mapping[str, nn.Module]) -> list[str]:
    """The names of layers that have no numbers, each ReLU after its layer."""
    return [one for name in layers if not name.endswith("_relu") for one in (name, f"{name}_relu") if one in layers]


def _layer(layer: HeadLayer) -> nn.Module:
    if layer.kind == "linear":
        return nn.Linear(layer.inputs, layer.outputs, bias=layer.bias)
    return nn.BatchNorm1d(layer.inputs) if layer.kind == "batch norm" else nn.LayerNorm(layer.inputs)


def _set_input_channels(module: nn.Module, path: str, channels: int) -> None:
    """Gives a convolution that takes the images another number of input channels."""
    stem = module.get_submodule(path)
    assert isinstance(stem, _ConvNd)
    stem.in_channels = channels
    stem.weight = nn.Parameter(stem.weight.new_empty(stem.out_channels, channels, *stem.weight.shape[2:]))
    if hasattr(module, "transform_input"):
        # The transformation needs three channels. The type checker takes attributes of modules for tensors or modules.
        module.transform_input = False  # type: ignore[assignment]
