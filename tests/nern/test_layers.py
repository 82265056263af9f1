import pytest
import torch

from nern.errors import NotRepresentable
from nern.layers import find_layers, find_linear, select_layers
from tests.support.networks import odd


def test_convolutions_are_found_in_network_order() -> None:
    layers = find_layers(odd())
    assert [(layer.name, layer.shape) for layer in layers] == [
        ("stem.weight", (8, 3, 5, 5)),
        ("depthwise.weight", (8, 1, 3, 3)),
        ("wide.weight", (6, 8, 1, 3)),
        ("point.weight", (4, 6, 1, 1)),
        ("wide_point.weight", (3, 20, 1, 1)),
        ("grouped.weight", (6, 4, 3, 3)),
        ("up.weight", (4, 5, 2, 2)),
        ("line.weight", (3, 7, 3)),
        ("volume.weight", (3, 2, 2, 3, 3)),
    ]


def test_a_linear_layer_has_kernels_of_one_weight() -> None:
    [layer] = find_linear(odd())
    assert (layer.name, layer.filters, layer.channels, layer.kernel_size) == ("head.weight", 2, 4, (1, 1))


def test_the_weight_of_a_layer_norm_is_no_convolution() -> None:
    norm = {f"norm.{name}": tensor for name, tensor in torch.nn.LayerNorm((4, 5, 6)).state_dict().items()}
    assert [layer.name for layer in find_layers(odd() | norm)] == [layer.name for layer in find_layers(odd())]


def test_selection_keeps_network_order() -> None:
    layers = find_layers(odd())
    assert [layer.name for layer in select_layers(layers, ["point.weight", "stem.weight"])] == ["stem.weight", "point.weight"]


def test_selecting_what_is_no_convolution_is_refused_by_name() -> None:
    with pytest.raises(NotRepresentable, match=r"head\.weight"):
        select_layers(find_layers(odd()), ["head.weight"])


def test_a_network_without_convolutions_is_refused() -> None:
    with pytest.raises(NotRepresentable, match="no convolution"):
        select_layers(find_layers({"weight": torch.zeros(3, 3)}), [])
