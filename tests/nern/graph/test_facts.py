"""What is learned from a program."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nern.graph.facts import Convolution, Embedding, GraphFacts, Linear, facts
from nern.graph.program import Node, Port, Program, Ref
from tests.support.exports import opened, saved, zoo_file

IMAGE = torch.zeros(2, 3, 8, 8)


def of(content: bytes) -> GraphFacts:
    found = opened(content)
    return facts(found.program, {name: tuple(tensor.shape) for name, tensor in found.state_dict.items()})


def of_module(module: nn.Module, *, core: bool = False) -> GraphFacts:
    return of(saved(module.eval(), [IMAGE], core=core))


def onnx(nodes: Sequence[Node], shapes: dict[str, tuple[int, ...]]) -> GraphFacts:
    """The facts of a program of ONNX from x to y, in which values that are tensors have the names of the tensors."""
    program = Program((Port("x", "F32", (1, 4)),), (Port("y", "F32", None),), {name: name for name in shapes}, tuple(nodes))
    return facts(program, shapes)


def test_convolutions_have_groups_strides_and_kinds() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=(2, 1), groups=3),
        nn.ConvTranspose2d(6, 4, 2, stride=2, bias=False, groups=2),
        nn.Conv2d(4, 2, 1, padding="same"),
    )
    for core in (False, True):
        assert [
            (found.weight, found.bias, found.groups, found.strides, found.transposed)
            for found in of_module(network, core=core).convolutions
        ] == [
            ("0.weight", "0.bias", 3, (2, 1), False),
            ("1.weight", None, 2, (2, 2), True),
            ("2.weight", "2.bias", 1, (1, 1), False),
        ]


def test_linear_layers_are_found_however_they_are_written() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.Linear(5, 2, bias=False))
    for core in (False, True):
        assert [(found.weight, found.bias, found.transposed) for found in of_module(network, core=core).linears] == [
            ("1.weight", "1.bias", False),
            ("2.weight", None, False),
        ]


def test_operators_of_onnx_tell_the_same() -> None:
    found = onnx(
        [
            Node("onnx.Conv", (Ref("x"), Ref("conv"), Ref("bias")), {"group": 2, "strides": [2]}, ("a",)),
            Node("onnx.ConvTranspose", (Ref("a"), Ref("up")), {}, ("b",)),
            Node("onnx.Gemm", (Ref("b"), Ref("gemm"), Ref("bias")), {"transB": 1}, ("c",)),
            Node("onnx.Transpose", (Ref("turned"),), {"perm": [1, 0]}, ("d",)),
            Node("onnx.MatMul", (Ref("c"), Ref("d")), {}, ("e",)),
            Node("onnx.MatMul", (Ref("e"), Ref("straight")), {}, ("f",)),
            Node("onnx.Gather", (Ref("table"), Ref("f")), {"axis": 0}, ("g",)),
            Node("onnx.Softmax", (Ref("g"),), {"axis": -1}, ("h",)),
            Node("onnx.Reshape", (Ref("h"), [1, -1]), {}, ("y",)),
        ],
        {
            "conv": (4, 2, 3),
            "up": (4, 2, 3),
            "bias": (4,),
            "gemm": (5, 4),
            "turned": (6, 5),
            "straight": (6, 7),
            "table": (9, 3),
        },
    )
    assert found.convolutions == (
        Convolution(0, "conv", "bias", 2, (2,), False),
        Convolution(1, "up", None, 1, (1,), True),
    )
    assert found.linears == (
        Linear(2, "gemm", "bias", False),
        Linear(4, "turned", None, False),
        Linear(5, "straight", None, True),
    )
    assert found.embeddings == (Embedding(6, "table"),)
    assert found.repeated == {"bias": 2}
    assert found.activations == {"y": "softmax"}


def test_tensors_that_are_used_twice_and_never_are_told() -> None:
    shared = of(zoo_file("shared"))
    assert shared.repeated["shared.weight"] == 2
    # The program takes one of the two names of a tied weight, twice.
    assert {"first.weight", "second.weight"} & set(shared.repeated)
    assert of(zoo_file("residual")).dead == tuple(
        f"{norm}.num_batches_tracked" for norm in ("stem.1", "layer1.bn1", "layer1.bn2", "layer2.bn1", "layer2.bn2",
                                                   "layer2.downsample.1")
    )  # fmt: skip


def test_batch_norms_are_told_with_their_statistics() -> None:
    for core in (False, True):
        found = of(zoo_file("residual", core=core))
        assert len(found.norms) == 6
        first = found.norms[0]
        names = [f"stem.1.{part}" for part in ("running_mean", "running_var", "weight", "bias")]
        assert [first.mean, first.variance, first.weight, first.bias] == names
        assert first.eps == 1e-5
        convolution = opened(zoo_file("residual", core=core)).program.nodes[found.convolutions[0].node]
        assert first.input == convolution.results[0]
        assert found.folded == ()
    onnx_norm = onnx(
        [Node("onnx.BatchNormalization", (Ref("x"), Ref("s"), Ref("b"), Ref("m"), Ref("v")), {"epsilon": 1e-3}, ("y",))],
        {"s": (4,), "b": (4,), "m": (4,), "v": (4,)},
    )
    assert [(norm.mean, norm.variance, norm.eps) for norm in onnx_norm.norms] == [("m", "v", 1e-3)]


def test_batch_norms_may_be_folded_where_there_are_none() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, bias=False))
    assert of_module(network).folded == ("0.weight",)


def test_the_last_function_of_each_output_is_told() -> None:
    assert set(of(zoo_file("recurrent")).activations.values()) == {"log_softmax"}
    assert set(of(zoo_file("super-resolution", core=True)).activations.values()) == {"sigmoid"}
    assert list(of(zoo_file("detector")).activations.values()) == [None, "softmax"]


def test_a_weight_that_is_computed_is_no_layer() -> None:
    class Standardised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 3, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.conv2d(x, self.weight - self.weight.mean())

    found = of_module(Standardised())
    assert found.convolutions == ()
    assert found.repeated == {"weight": 2}
