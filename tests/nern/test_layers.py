import pytest
import torch

from nern.errors import NotRepresentable
from nern.layers import Coordinates, find_layers, select_layers
from tests.support.networks import odd, resnet8


def test_convolutions_are_found_in_network_order() -> None:
    layers = find_layers(odd())
    assert [(layer.name, layer.shape) for layer in layers] == [
        ("stem.weight", (8, 3, 5, 5)),
        ("depthwise.weight", (8, 1, 3, 3)),
        ("wide.weight", (6, 8, 1, 3)),
        ("point.weight", (4, 6, 1, 1)),
    ]


def test_selection_keeps_network_order() -> None:
    layers = find_layers(odd())
    assert [layer.name for layer in select_layers(layers, ["point.weight", "stem.weight"])] == ["stem.weight", "point.weight"]


def test_selecting_what_is_no_convolution_is_refused_by_name() -> None:
    with pytest.raises(NotRepresentable, match=r"head\.weight"):
        select_layers(find_layers(odd()), ["head.weight"])


def test_a_network_without_convolutions_is_refused() -> None:
    with pytest.raises(NotRepresentable, match="no convolution"):
        select_layers(find_layers({"weight": torch.zeros(3, 3)}), None)


def test_coordinates_number_kernels_row_major_layer_by_layer() -> None:
    layers = find_layers(resnet8())
    coordinates = Coordinates(layers)
    expected = [
        (number, filter, channel)
        for number, layer in enumerate(layers)
        for filter in range(layer.filters)
        for channel in range(layer.channels)
    ]
    found = coordinates.of(torch.arange(len(coordinates)))
    assert list(zip(*(axis.tolist() for axis in found), strict=True)) == expected
