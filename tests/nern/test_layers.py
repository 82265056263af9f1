import pytest
import torch
import torch.nn.utils.prune

from nern.errors import NotRepresentable
from nern.layers import find_layers, find_linear, layout_notes, select_layers
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


def shaped(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {name.replace("__", "."): torch.ones(shape) for name, shape in shapes.items()}


def test_weights_with_other_names_are_found_where_shapes_tell() -> None:
    found = shaped(conv1=(8, 3, 3, 3), net__w=(4, 2, 3), net__kernel=(8, 3, 3, 3), volume=(4, 2, 3, 3, 3), head__W=(3, 4, 5))
    found |= {"conv2d/kernel:0": torch.ones(3, 3, 3, 8), "0": torch.ones(8, 3, 1, 1)}
    assert [layer.name for layer in find_layers(found)] == list(found)


def test_other_tensors_of_many_dimensions_are_kept() -> None:
    kept = shaped(
        pos_embed=(1, 197, 192), cls_token=(1, 1, 192), attn_mask=(4, 2, 8, 8), relative_coords_table=(1, 15, 15, 2),
        layer_scale=(8, 1, 1), pixel_mean=(1, 3, 1, 1), norm__gamma=(1, 8, 1, 1), weight_g=(8, 1, 1, 1), any3=(4, 5, 6),
        grid=(2, 3, 4, 5), only=(1, 8, 1, 1),
    )  # fmt: skip
    assert find_layers(kept) == []


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.complex64])
def test_dtypes_that_are_no_ordinary_floats_are_kept(dtype: torch.dtype) -> None:
    assert find_layers({"weight": torch.ones(4, 3, 3, 3).to(dtype)}) == []


def test_channels_in_the_last_dimensions_are_told() -> None:
    layers = find_layers(
        {"a/kernel:0": torch.ones(3, 3, 3, 8), "b.kernel": torch.ones(8, 3, 3, 3), "c": torch.ones(3, 3, 3, 8)}
    )
    (note,) = layout_notes(layers)
    assert note.startswith("'a/kernel:0' seem")


def test_selection_keeps_network_order() -> None:
    layers = find_layers(odd())
    assert [layer.name for layer in select_layers(layers, ["point.weight", "stem.weight"])] == ["stem.weight", "point.weight"]


def test_selecting_what_is_no_convolution_is_refused_by_name() -> None:
    with pytest.raises(NotRepresentable, match=r"head\.weight"):
        select_layers(find_layers(odd()), ["head.weight"])


def test_a_network_without_convolutions_is_refused() -> None:
    with pytest.raises(NotRepresentable, match="no convolution"):
        select_layers(find_layers({"weight": torch.zeros(3, 3)}), [])
