import torch

from nern.rendering import render_blocks, render_layer
from tests.support.networks import odd, resnet8
from tests.support.representations import untrained


def test_a_permuted_kernel_is_predicted_at_the_coordinate_of_its_position() -> None:
    representation = untrained(resnet8())
    layer, number = 2, 17
    position = int(representation.positions(layer)[number])
    filter, channel = divmod(position, representation.layers[layer].channels)
    features = representation.predictor.features(torch.tensor([layer]), torch.tensor([filter]), torch.tensor([channel]))
    expected = representation.predictor.predict(0, features) * representation.scales[layer]
    [(_, _, found)] = representation.render(torch.tensor([representation.tiles.starts[layer] + number]))
    torch.testing.assert_close(found, expected)


def test_blocks_have_the_layers_dtype_and_cover_it_once() -> None:
    state_dict = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in resnet8().items()}
    representation = untrained(state_dict)
    for number, layer in enumerate(representation.layers):
        blocks = list(render_blocks(representation, number))
        assert sum(len(block) for block in blocks) == layer.kernels
        assert {block.dtype for block in blocks} == {torch.float16}


def test_blocks_and_whole_layers_are_the_same_weights() -> None:
    representation = untrained(odd())
    for number, weight in enumerate(representation.render_all()):
        torch.testing.assert_close(render_layer(representation, number), weight)
