"""The allow-list: every operator that a program may call, by name, and the function that computes it with torch."""

from nern.errors import BadProgram
from nern.graph.operators import aten as aten
from nern.graph.operators import onnx as onnx
from nern.graph.operators.registry import ON_DEVICE as ON_DEVICE
from nern.graph.operators.registry import OPERATORS as OPERATORS
from nern.graph.operators.registry import Function as Function
from nern.graph.operators.registry import operator as operator


def find(name: str, place: str) -> Function:
    """The function of an operator. Raises BadProgram for an operator that is not in the allow-list."""
    if name not in OPERATORS:
        raise BadProgram(f"the operator {name} at {place!r} is not supported")
    return OPERATORS[name]
