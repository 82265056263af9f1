"""The allow-list of operators."""

from pathlib import Path
from typing import Any

import pytest
import torch

from nern.errors import BadProgram
from nern.graph import reference
from nern.graph.interpreter import GraphNetwork
from nern.graph.operators import ON_DEVICE, OPERATORS, aten
from nern.graph.program import Node, Port, Program, Ref

DOCUMENT = Path(__file__).parents[3] / "docs/graphs.md"


def test_the_documented_list_is_up_to_date() -> None:
    text = DOCUMENT.read_text()
    assert reference.updated(text) == text, "run python -m nern.graph.reference docs/graphs.md"


def test_no_operator_of_the_list_changes_its_arguments_or_is_random() -> None:
    # These write running statistics or draw random numbers in training mode. Here they are computed in evaluation mode.
    ours = ("batch_norm", "rrelu", "dropout", "attention", "lstm", "gru", "rnn_")
    for name in OPERATORS:
        if (schema := aten.schema(name)) is not None and not any(part in name for part in ours):
            assert not schema.is_mutable, name
            overload = getattr(getattr(torch.ops.aten, name.split(".")[1]), name.split(".")[2])
            assert torch.Tag.nondeterministic_seeded not in overload.tags, name


def test_operators_that_create_tensors_use_the_device_of_the_inputs() -> None:
    program = Program(
        inputs=(Port("x", "F32", (2,)),),
        outputs=(Port("y", "F32", (2,)),),
        tensors={},
        nodes=(
            Node("aten.arange.default", (2,), {"dtype": "F64"}, ("a",)),
            Node("aten.add.Tensor", (Ref("x"), Ref("a")), {}, ("y",)),
        ),
    )
    given = GraphNetwork(program, {})(torch.empty(2, device="meta", dtype=torch.float64))
    assert given.device.type == "meta"
    assert given.dtype == torch.float32
    assert {"aten.zeros.default", "aten.full.default", "aten.arange.start_step"} <= ON_DEVICE


@pytest.mark.parametrize(
    ("operator", "arguments", "message"),
    [
        ("aten.zeros.default", [[2**20, 2**20]], "creates a tensor of more than"),
        ("aten.arange.default", [2**40], "creates a tensor of more than"),
        ("aten.empty.memory_format", [[2**40]], "creates a tensor of more than"),
        ("aten.expand.default", [Ref("x"), [2**40, 1]], "computes a tensor of the shape .*, which is too large"),
    ],
)
def test_a_tensor_of_any_size_is_refused(operator: str, arguments: list[Any], message: str) -> None:
    program = Program(
        inputs=(Port("x", "F32", (1,)),),
        outputs=(Port("y", "F32", None),),
        tensors={},
        nodes=(Node(operator, tuple(arguments), {}, ("y",)),),
    )
    with pytest.raises(BadProgram, match=message):
        GraphNetwork(program, {})(torch.zeros(1))


def test_a_dtype_that_is_not_supported_is_named() -> None:
    with pytest.raises(BadProgram, match="X1, which is not supported"):
        OPERATORS["aten.to.dtype"](torch.zeros(1), "X1")


@pytest.mark.parametrize("divisor", [-1, torch.tensor([-1, -1, 2])])
def test_a_division_that_would_end_the_process_wraps_around(divisor: Any) -> None:
    smallest = torch.iinfo(torch.int64).min
    divided = OPERATORS["aten.div.Tensor_mode"](torch.tensor([smallest, 7, -7]), divisor, rounding_mode="trunc")
    assert divided.tolist() == [smallest, -7, 7 if isinstance(divisor, int) else -3]
