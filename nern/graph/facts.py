"""What a program tells about the tensors of its state_dict, without computing anything. This module does not import torch."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nern.graph.program import Argument, Node, Port, Program, Ref
from nern.graph.roles import ACTIVATIONS, CONVOLUTION_PLACES, CONVOLUTIONS, NORMS, PASSED, SAME, Activation, epsilon

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Convolution:
    """A call of a convolution whose weight is a tensor of the state_dict.

    node: the number of the node in the program. weight, bias: names of tensors; the bias is None if there is none.
    transposed: whether it is a transposed convolution, whose weight is inputs x filters x kernel.
    """

    node: int
    weight: str
    bias: str | None
    groups: int
    strides: tuple[int, ...]
    transposed: bool


@dataclass(frozen=True)
class Linear:
    """A matrix product with a tensor of the state_dict. `transposed`: whether the tensor is inputs x outputs."""

    node: int
    weight: str
    bias: str | None
    transposed: bool


@dataclass(frozen=True)
class Embedding:
    """A look-up of rows of a tensor of the state_dict by numbers that the network is given or computes."""

    node: int
    weight: str


@dataclass(frozen=True)
class Norm:
    """A batch norm with statistics.

    input: the name of the value that it normalises.
    mean, variance, weight, bias: names of tensors of the state_dict; weight
    and bias are None if the batch norm has none.
    """

    node: int
    input: str
    mean: str
    variance: str
    weight: str | None
    bias: str | None
    eps: float


@dataclass(frozen=True)
class GraphFacts:
    """What a program tells.

    repeated: the tensors that several nodes take, and how many nodes. dead: the tensors that no node takes.
    folded: the weights of convolutions with a bias that no batch norm follows, in a network that has convolutions and no batch
        norm at all behind them: there a batch norm may have been folded into the convolution, as exporters do.
    activations: for each output, the function that it is the result of, if that is one of three.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    convolutions: tuple[Convolution, ...]
    linears: tuple[Linear, ...]
    embeddings: tuple[Embedding, ...]
    norms: tuple[Norm, ...]
    repeated: Mapping[str, int]
    dead: tuple[str, ...]
    folded: tuple[str, ...]
    activations: Mapping[str, Activation | None]

    @property
    def weights(self) -> set[str]:
        """The names of the weights of all convolutions, linear layers and embeddings."""
        weights = [convolution.weight for convolution in self.convolutions]
        weights += [linear.weight for linear in self.linears]
        return {*weights, *(embedding.weight for embedding in self.embeddings)}


def facts(program: Program, shapes: Shapes) -> GraphFacts:
    """What a program tells about a state_dict whose tensors have these shapes."""
    return _Finder(program, shapes).find()


class _Finder:
    def __init__(self, program: Program, shapes: Shapes) -> None:
        self.program = program
        self.shapes = shapes
        # For values that are a tensor of the state_dict: its name, and whether it was transposed.
        self.origins: dict[str, tuple[str, bool]] = {value: (name, False) for value, name in program.tensors.items()}
        self.makers: dict[str, Node] = {}
        self.convolutions: list[Convolution] = []
        self.linears: list[Linear] = []
        self.embeddings: list[Embedding] = []
        self.norms: list[Norm] = []

    def find(self) -> GraphFacts:
        uses: Counter[str] = Counter()
        for number, node in enumerate(self.program.nodes):
            self.makers.update((name, node) for name in node.results if name is not None)
            if self._passes(node):
                continue
            uses.update({self.origins[name][0] for name in node.references() if name in self.origins})
            self._node(number, node)
        outputs = {self.origins[port.name][0] for port in self.program.outputs if port.name in self.origins}
        return GraphFacts(
            inputs=self.program.inputs,
            outputs=self.program.outputs,
            convolutions=tuple(self.convolutions),
            linears=tuple(self.linears),
            embeddings=tuple(self.embeddings),
            norms=tuple(self.norms),
            repeated={name: count for name, count in uses.items() if count > 1},
            dead=tuple(name for name in self.shapes if name not in uses and name not in outputs),
            folded=self._folded(),
            activations={port.name: self._activation(port.name) for port in self.program.outputs},
        )

    def _passes(self, node: Node) -> bool:
        """Follows a tensor of the state_dict through calls that only copy or transpose it."""
        if not node.arguments or not isinstance(first := node.arguments[0], Ref) or first.name not in self.origins:
            return False
        name, transposed = self.origins[first.name]
        if node.operator in SAME:
            pass
        elif len(self.shapes.get(name, ())) == 2 and _transposes(node):
            transposed = not transposed
        else:
            return False
        self.origins.update((result, (name, transposed)) for result in node.results if result is not None)
        return True

    def _node(self, number: int, node: Node) -> None:
        operator, arguments = node.operator, node.arguments
        if operator in CONVOLUTIONS:
            self._convolution(number, node)
        elif operator in NORMS:
            self._norm(number, node)
        elif operator in ("aten.embedding.default", "onnx.Gather"):
            if (
                (weight := self._tensor(node, 0))
                and len(self.shapes.get(weight, ())) == 2
                and node.keywords.get("axis", 0) == 0
            ):
                self.embeddings.append(Embedding(number, weight))
        elif operator == "aten.linear.default":
            self._linear(number, node, weight=1, bias=2, inputs_first=False)
        elif operator in ("aten.addmm.default", "aten.baddbmm.default"):
            self._linear(number, node, weight=2, bias=0, inputs_first=True)
        elif operator in ("aten.mm.default", "aten.matmul.default", "aten.bmm.default", "onnx.MatMul"):
            self._linear(number, node, weight=1, bias=None, inputs_first=True)
            if len(arguments) > 1 and self._tensor(node, 1) is None:
                self._linear(number, node, weight=0, bias=None, inputs_first=False)
        elif operator == "onnx.Gemm":
            self._linear(number, node, weight=1, bias=2, inputs_first=not node.keywords.get("transB", 0))

    def _convolution(self, number: int, node: Node) -> None:
        if (weight := self._tensor(node, 1)) is None or weight not in self.shapes:
            return
        axes = len(self.shapes[weight]) - 2
        if node.operator.startswith("onnx."):
            transposed = node.operator == "onnx.ConvTranspose"
            strides, groups = node.keywords.get("strides"), node.keywords.get("group", 1)
        else:
            stride_at, groups_at = CONVOLUTION_PLACES[node.operator]
            transposed = "conv_transpose" in node.operator or (
                node.operator == "aten.convolution.default" and _at(node, 6, False) is True
            )
            strides, groups = _at(node, stride_at, None), _at(node, groups_at, 1)
        given = [step for step in strides if isinstance(step, int)] if isinstance(strides, list | tuple) else []
        steps = given * axes if len(given) == 1 else given or [1] * axes
        count = groups if isinstance(groups, int) else 1
        self.convolutions.append(Convolution(number, weight, self._tensor(node, 2), count, tuple(steps), transposed))

    def _norm(self, number: int, node: Node) -> None:
        value = node.arguments[0]
        mean, variance = self._tensor(node, 3), self._tensor(node, 4)
        if isinstance(value, Ref) and mean is not None and variance is not None:
            weight, bias = self._tensor(node, 1), self._tensor(node, 2)
            self.norms.append(Norm(number, value.name, mean, variance, weight, bias, epsilon(node, node.arguments)))

    def _linear(self, number: int, node: Node, *, weight: int, bias: int | None, inputs_first: bool) -> None:
        name = self._tensor(node, weight)
        argument = _at(node, weight, None)
        if name is None or not isinstance(argument, Ref) or len(self.shapes.get(name, ())) != 2:
            return
        transposed = self.origins[argument.name][1] != inputs_first
        self.linears.append(Linear(number, name, None if bias is None else self._tensor(node, bias), transposed))

    def _tensor(self, node: Node, place: int) -> str | None:
        """The name of the tensor of the state_dict that an argument is."""
        argument = _at(node, place, None)
        return self.origins[argument.name][0] if isinstance(argument, Ref) and argument.name in self.origins else None

    def _folded(self) -> tuple[str, ...]:
        convolved = {
            name
            for convolution in self.convolutions
            for name in self.program.nodes[convolution.node].results
            if name is not None
        }
        if any(norm.input in convolved for norm in self.norms):
            return ()
        return tuple(convolution.weight for convolution in self.convolutions if convolution.bias is not None)

    def _activation(self, name: str) -> Activation | None:
        while (node := self.makers.get(name)) is not None and node.operator in PASSED:
            first = node.arguments[0]
            if not isinstance(first, Ref):
                return None
            name = first.name
        return None if node is None else ACTIVATIONS.get(node.operator)


def _at(node: Node, place: int, default: Argument) -> Argument:
    return node.arguments[place] if len(node.arguments) > place else default


def _transposes(node: Node) -> bool:
    """Whether a call transposes a matrix."""
    rest = node.arguments[1:]
    if node.operator in ("aten.t.default", "aten.numpy_T.default", "aten.mT.default"):
        return True
    if node.operator == "aten.permute.default":
        return [axis % 2 for axis in rest[0] if isinstance(axis, int)] == [1, 0] if isinstance(rest[0], list | tuple) else False
    if node.operator == "aten.transpose.int":
        return sorted(axis % 2 for axis in rest if isinstance(axis, int)) == [0, 1]
    if node.operator == "onnx.Transpose":
        order = node.keywords.get("perm")
        return order is None or (isinstance(order, list | tuple) and list(order) == [1, 0])
    return False
