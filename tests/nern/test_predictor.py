import math

import pytest
import torch

from nern.architectures.cifar import ResNet, Shortcut
from nern.embedding import Embedding, EmbeddingConfig, axis_table
from nern.facts import NetworkFacts
from nern.layers import Layer, TensorFacts, find_layers
from nern.plan import Plan
from nern.planning import make_plan
from nern.predictor import Predictor, PredictorConfig
from nern.request import DecoupledRequest, read_request
from nern.request.options import MAX_HIDDEN
from nern.tiles import Tiles


def embedding_config(*, base: float = 1.25, levels: int = 20, layer_features: int | None = None) -> EmbeddingConfig:
    return EmbeddingConfig(base=base, levels=levels, layer_features=layer_features)


def published(hidden: int) -> PredictorConfig:
    """The published predictor, of any width."""
    return PredictorConfig(embedding=embedding_config(base=0.76, levels=40), hidden=hidden, depth=5, activation="relu")


RESNET20_A = Tiles([Layer("all", (29_744, 1, 3, 3), torch.float32)], "tiled")


def test_embedding_values() -> None:
    table = axis_table(embedding_config(base=0.5, levels=2), 3)
    angles = [[math.pi * 0.5**k * v for k in range(2)] for v in range(3)]
    expected = [[*map(math.sin, row), *map(math.cos, row)] for row in angles]
    torch.testing.assert_close(table, torch.tensor(expected))


def test_embedding_puts_layer_filter_and_channel_side_by_side() -> None:
    config = embedding_config(levels=3)
    embedded = Embedding(config, (2, 4, 5))(torch.tensor([1]), torch.tensor([3]), torch.tensor([4]))
    expected = torch.cat([axis_table(config, 5)[1], axis_table(config, 5)[3], axis_table(config, 5)[4]])
    torch.testing.assert_close(embedded[0], expected)


@pytest.mark.parametrize(
    ("hidden", "parameters"),
    [
        (140, 94_229),
        (160, 117_289),
        (180, 142_749),
        (200, 170_609),
        (240, 233_529),
        (280, 306_049),
        (320, 388_169),
        (360, 479_889),
        (400, 581_209),
        (1024, 3_404_809),
        (1140, 4_187_229),
        (1256, 5_050_385),
        (1372, 5_994_277),
    ],
)
def test_published_numbers_of_parameters(hidden: int, parameters: int) -> None:
    config = published(hidden)
    assert config.parameters(RESNET20_A) == parameters
    assert sum(parameter.numel() for parameter in Predictor(config, RESNET20_A).parameters()) == parameters


@pytest.mark.parametrize(
    ("hidden", "shortcut", "percent"),
    [(140, "B", 34.9), (160, "B", 43.4), (180, "B", 52.8), (200, "B", 63.1)],
)
def test_published_ratios_of_resnet20(hidden: int, shortcut: Shortcut, percent: float) -> None:
    tiles = Tiles(find_layers(ResNet(20, shortcut=shortcut).state_dict()), "cropped")
    weights = sum(layer.weights for layer in tiles.layers)
    assert (len(tiles), weights) == (32_304, 270_256)
    parameters = published(hidden).parameters(tiles)
    assert 100 * parameters / weights == pytest.approx(percent, abs=0.05)


@pytest.mark.parametrize("ratio", [1e-6, 0.1, 0.4, 1.0])
def test_a_ratio_gives_the_widest_predictor_within_it(ratio: float) -> None:
    hidden = published(1).within(ratio, RESNET20_A).hidden
    parameters = [published(width).parameters(RESNET20_A) for width in (hidden, hidden + 1)]
    assert parameters[1] > ratio * 29_744 * 9
    assert parameters[0] <= ratio * 29_744 * 9 or hidden == 1


def test_a_huge_network_has_a_predictor_that_can_be_asked_for_again() -> None:
    network = NetworkFacts({"huge.weight": TensorFacts((8192, 8192, 3, 3), torch.float32)}, architecture=None)
    plan = make_plan(DecoupledRequest(ratio=4), network, None)
    assert isinstance(plan, Plan)
    assert plan.request.hidden == plan.predictor.hidden == MAX_HIDDEN
    assert make_plan(read_request(plan.request.model_dump(mode="json")), network, None) == plan


def test_gradients_of_learned_features_do_not_depend_on_how_threads_are_scheduled() -> None:
    embedding = Embedding(embedding_config(layer_features=16), (3, 4, 5))
    layer, filter, tile = (torch.randint(high, (50_000,)) for high in (3, 4, 5))
    weights = torch.randn(50_000, embedding.layer.shape[1] + 80)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = []
        for _ in range(10):
            embedding.zero_grad()
            (embedding(layer, filter, tile) * weights).sum().backward()
            assert embedding.layer.grad is not None
            found.append(embedding.layer.grad.clone())
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(gradient, found[0]) for gradient in found)


def test_every_shape_of_tile_has_a_head() -> None:
    tiles = Tiles([Layer("a", (2, 2, 3, 3), torch.float32), Layer("b", (4, 64, 1, 1), torch.float32)], "tiled")
    config = PredictorConfig(embedding=embedding_config(), hidden=8, depth=5, activation="relu")
    predictor = Predictor(config, tiles)
    features = predictor.features(*torch.zeros(3, 5, dtype=torch.int64))
    assert [predictor.predict(head, features).shape[1:] for head in (0, 1)] == [(1, 3, 3), (16, 1, 1)]
    assert sum(parameter.numel() for parameter in predictor.parameters()) == config.parameters(tiles)
