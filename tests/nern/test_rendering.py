import torch

from nern.rendering import render_layer
from tests.support.networks import odd, resnet8
from tests.support.representations import untrained


def test_kernels_smaller_than_the_prediction_are_its_centre() -> None:
    representation = untrained(odd(), permutation="none")
    index = torch.arange(len(representation.coordinates))
    predicted = representation.predict(index)
    crops = {
        "stem.weight": (0, 5, 0, 5),
        "depthwise.weight": (1, 4, 1, 4),
        "wide.weight": (2, 3, 1, 4),
        "point.weight": (2, 3, 2, 3),
    }
    for layer, number, kernels in representation.render(index):
        top, bottom, left, right = crops[representation.layers[layer].name]
        start = representation.coordinates.starts[layer]
        expected = predicted[start + number, top:bottom, left:right] * representation.scale
        torch.testing.assert_close(kernels, expected)


def test_a_permuted_kernel_is_predicted_at_the_coordinate_of_its_position() -> None:
    representation = untrained(resnet8())
    layer, number = 2, 17
    position = int(representation.positions[layer][number])
    filter, channel = divmod(position, representation.layers[layer].channels)
    expected = representation.predictor(torch.tensor([layer]), torch.tensor([filter]), torch.tensor([channel]))
    index = torch.tensor([representation.coordinates.starts[layer] + number])
    torch.testing.assert_close(representation.predict(index), expected)


def test_blocks_have_the_layers_dtype_and_cover_it_once() -> None:
    state_dict = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in resnet8().items()}
    representation = untrained(state_dict)
    for number, layer in enumerate(representation.layers):
        blocks = list(render_layer(representation, number))
        assert sum(len(block) for block in blocks) == layer.kernels
        assert {block.dtype for block in blocks} == {torch.float16}
