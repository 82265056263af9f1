"""Programs for any number of samples."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from nern.errors import BadProgram
from nern.graph.batching import Batched, Way
from nern.graph.interpreter import GraphNetwork
from nern.graph.operators import OPERATORS
from nern.graph.program import Node, Port, Program, Ref
from tests.support.exports import difference, flat, opened, saved, zoo_file
from tests.support.zoo import ZOO


def batched(content: bytes, samples: Sequence[Sequence[int]] | None = None) -> Batched:
    found = opened(content)
    return Batched(GraphNetwork(found.program, found.state_dict), samples)


@pytest.mark.parametrize("name", ZOO)
def test_a_program_for_one_sample_takes_any_number(name: str) -> None:
    network = ZOO[name].network()
    graph = batched(zoo_file(name), ZOO[name].shapes)
    for count in (1, 4):
        inputs = ZOO[name].inputs(count, seed=7)
        with torch.no_grad():
            one_by_one = [flat(network(*(value[i : i + 1] for value in inputs))) for i in range(count)]
            expected = [torch.cat(parts) for parts in zip(*one_by_one, strict=True)]
            assert difference(graph(*inputs), expected) < 1e-5


@pytest.mark.parametrize("name", ["tutorial", "windows", "recurrent", "detector", "vision"])
@pytest.mark.parametrize("way", ["mapped", "one by one"])
def test_replaced_weights_get_the_gradients_of_all_samples(name: str, way: Way) -> None:
    network = ZOO[name].network()
    graph = batched(zoo_file(name))
    graph.way = way
    inputs = ZOO[name].inputs(3, seed=7)
    own = {key: (2 * value.detach()).requires_grad_() for key, value in network.named_parameters()}
    sum(output.square().sum() for output in flat(functional_call(network, own, inputs))).backward()  # type: ignore[union-attr]
    given = {key: (2 * value.detach()).requires_grad_() for key, value in network.named_parameters()}
    sum(output.square().sum() for output in flat(graph(*inputs, weights=given))).backward()  # type: ignore[union-attr]
    for key, weight in given.items():
        expected = own[key].grad
        assert weight.grad is not None
        assert expected is not None
        assert float((weight.grad - expected).norm()) <= 1e-4 * float(expected.norm()) + 1e-4, key


def test_the_fastest_way_that_is_right_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert batched(zoo_file("tutorial")).way == "direct"
    assert batched(zoo_file("windows", free=True)).way == "direct"
    # The program of a vision transformer names the batch extent in its reshapes.
    assert batched(zoo_file("vision")).way == "mapped"
    # torch.vmap can't map what turns a tensor into a number.
    monkeypatch.setitem(OPERATORS, "test.scaled", lambda x: x * float(x.abs().sum()))
    program = Program(
        inputs=(Port("x", "F32", (1, 3)),),
        outputs=(Port("y", "F32", (1, 3)),),
        tensors={},
        nodes=(Node("test.scaled", (Ref("x"),), {}, ("y",)),),
    )
    graph = Batched(GraphNetwork(program, {}))
    assert graph.way == "one by one"
    x = torch.tensor([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
    assert torch.equal(graph(x), torch.tensor([[6.0, 12.0, 18.0], [3.0, 3.0, 3.0]]))


def test_samples_that_influence_each_other_are_kept_apart() -> None:
    class Centred(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x - x.mean()

    graph = batched(saved(Centred(), [torch.zeros(1, 4)]))
    assert graph.way == "mapped"
    x = torch.arange(8.0).view(2, 4)
    assert torch.equal(graph(x), x - x.mean(1, keepdim=True))


def test_masks_that_are_made_part_by_part_can_be_mapped() -> None:
    class Masked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            mask = x.new_zeros(6, 6)
            for number, part in enumerate((slice(0, -4), slice(-4, -2), slice(-2, None))):
                mask[part, part] = number
            return (x.view(1, 6, 6) @ mask).softmax(-1)

    graph = batched(saved(Masked(), [torch.zeros(1, 6, 6)]))
    assert graph.way == "mapped"
    x = torch.randn(3, 6, 6)
    assert difference(graph(x), torch.cat([Masked()(value[None]) for value in x])) < 1e-6


class Flattened(nn.Module):
    """Takes an image with or without a batch axis."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x.reshape(12))
        return y


def test_the_shape_of_the_data_decides_whether_there_is_a_batch_axis() -> None:
    network = Flattened()
    content = saved(network, [torch.zeros(1, 3, 4)])
    inputs = torch.randn(5, 3, 4)
    expected = torch.stack([network(value) for value in inputs])
    assert difference(batched(content, [(1, 3, 4)])(inputs.unsqueeze(1)), expected) < 1e-6
    assert difference(batched(content, [(3, 4)])(inputs), expected) < 1e-6
    with pytest.raises(BadProgram, match="takes 1 x 3 x 4, and the samples have the shape 3 x 5"):
        batched(content, [(3, 5)])
    with pytest.raises(BadProgram, match=r"takes 1 inputs \(x\), and 2 are given"):
        batched(content, [(3, 4), (3, 4)])


def test_a_batch_extent_above_one_takes_that_many_samples_at_a_time() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(0), nn.Unflatten(0, (2, 8))).eval()
    graph = batched(saved(network, [torch.zeros(2, 1, 4, 4)]))
    assert graph.way == "mapped"
    inputs = torch.randn(5, 1, 4, 4)
    expected = torch.cat([network(inputs[:2]), network(inputs[2:4]), network(inputs[[4, 4]])[:1]])
    seen: list[Tensor] = []
    with graph.observed(lambda node, arguments, result: seen.append(result)):
        assert difference(graph(inputs), expected) < 1e-6
    assert [len(value) for value in seen[:2]] == [5, 5]


def test_samples_that_torch_cannot_compute_are_refused_with_the_place() -> None:
    program = Program(
        inputs=(Port("x", "F32", (None, None)),),
        outputs=(Port("y", "F32", None),),
        tensors={"w": "weight"},
        nodes=(Node("aten.linear.default", (Ref("x"), Ref("w")), {}, ("y",), "head"),),
    )
    network = GraphNetwork(program, {"weight": torch.ones(2, 3)})
    assert Batched(network, [(3,)])(torch.ones(4, 3)).shape == (4, 2)
    with pytest.raises(BadProgram, match=r"samples of 5: .* in the operator aten.linear.default at 'head'"):
        Batched(network, [(5,)])
    with pytest.raises(BadProgram, match="'x' has free extents"):
        Batched(network)


def test_a_recurrent_network_with_states_of_another_batch_is_an_error() -> None:
    found = opened(zoo_file("memory"))
    with pytest.raises(ValueError, match="states of a recurrent network have shapes that do not fit"):
        GraphNetwork(found.program, found.state_dict)(torch.zeros(3, 9, dtype=torch.int64))


@pytest.mark.parametrize("name", ["residual", "windows", "two-inputs", "shared"])
@pytest.mark.parametrize("core", [False, True], ids=["training-ir", "core-ir"])
def test_observers_see_the_values_of_all_samples_whatever_the_way(name: str, core: bool) -> None:
    inputs = ZOO[name].inputs(3, seed=7)
    reference = batched(zoo_file(name, free=True, core=core))
    assert reference.way == "direct"
    graph = batched(zoo_file(name, core=core))

    def seen(network: Batched) -> list[Tensor]:
        values: list[Tensor] = []

        def observe(node: Node, arguments: Sequence[Any], result: Any) -> None:
            if node.operator.startswith(
                ("aten.conv", "aten.batch_norm", "aten._native_batch", "aten.layer_norm", "aten.linear")
            ):
                values.extend([arguments[0], result[0] if isinstance(result, tuple) else result])

        with network.observed(observe):
            network(*inputs)
        network(*inputs)
        return values

    expected = seen(reference)
    assert expected
    for way in ("mapped", "one by one"):
        graph.way = way
        assert difference(seen(graph), expected) < 1e-5
