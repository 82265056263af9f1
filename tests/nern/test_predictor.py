import math

import pytest
import torch

from nern.embedding import Embedding, EmbeddingConfig, axis_table
from nern.layers import Layer
from nern.predictor import Predictor, PredictorConfig, hidden_for_ratio, largest_size

PUBLISHED = EmbeddingConfig(base=0.76, levels=40)
RESNET20_A = [Layer("all", (29_744, 1, 3, 3), torch.float32)]


def test_embedding_values() -> None:
    table = axis_table(EmbeddingConfig(base=0.5, levels=2), 3)
    angles = [[math.pi * 0.5**k * v for k in range(2)] for v in range(3)]
    expected = [[*map(math.sin, row), *map(math.cos, row)] for row in angles]
    torch.testing.assert_close(table, torch.tensor(expected))


def test_embedding_puts_layer_filter_and_channel_side_by_side() -> None:
    config = EmbeddingConfig(levels=3)
    layers = [Layer("a", (4, 2, 3, 3), torch.float32), Layer("b", (2, 5, 3, 3), torch.float32)]
    embedded = Embedding(config, layers)(torch.tensor([1]), torch.tensor([3]), torch.tensor([4]))
    expected = torch.cat([axis_table(config, 5)[1], axis_table(config, 5)[3], axis_table(config, 5)[4]])
    torch.testing.assert_close(embedded[0], expected)


@pytest.mark.parametrize(
    ("hidden", "parameters"),
    [(140, 94_229), (160, 117_289), (180, 142_749), (200, 170_609), (280, 306_049), (1024, 3_404_809)],
)
def test_published_numbers_of_parameters(hidden: int, parameters: int) -> None:
    config = PredictorConfig(embedding=PUBLISHED, hidden=hidden, size=(3, 3))
    assert config.parameters == parameters
    layers = [Layer("a", (2, 2, 3, 3), torch.float32)]
    assert sum(parameter.numel() for parameter in Predictor(config, layers).parameters()) == parameters


@pytest.mark.parametrize("ratio", [1e-6, 0.1, 0.4, 1.0])
def test_a_ratio_gives_the_widest_predictor_within_it(ratio: float) -> None:
    hidden = hidden_for_ratio(ratio, RESNET20_A, PUBLISHED)
    parameters = [PredictorConfig(embedding=PUBLISHED, hidden=width, size=(3, 3)).parameters for width in (hidden, hidden + 1)]
    assert parameters[1] > ratio * 29_744 * 9
    assert parameters[0] <= ratio * 29_744 * 9 or hidden == 1


def test_largest_size_covers_every_kernel() -> None:
    layers = [Layer("a", (1, 1, 1, 7), torch.float32), Layer("b", (1, 1, 3, 3), torch.float32)]
    assert largest_size(layers) == (3, 7)
