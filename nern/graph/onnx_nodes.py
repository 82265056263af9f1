"""The nodes of an ONNX graph as the nodes of a program.

What differs between versions of ONNX is resolved here, so that an operator of a program has one meaning. Integers that do not
depend on the inputs (shapes, axes, indices) are computed here, with the same operators. They become literals.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto
from torch import Tensor

from nern import tensorfile
from nern.errors import BadProgram
from nern.graph import operators
from nern.graph.onnx_tensors import dtype_of, program_dtype, read_tensor
from nern.graph.program import Argument, Constant, Node, Ref

OLDEST_OPSET, NEWEST_OPSET = 7, 28

# Larger constants are not computed with.
KNOWN_ELEMENTS = 1024

# A float initialiser of more elements is never a literal.
LITERAL_ELEMENTS = 16

# Functions can call functions, so a small file can describe a huge graph.
MAX_NODES = 50_000
MAX_DEPTH = 32

DOMAINS = ("", "ai.onnx")

_CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")
_QUANTISED = (
    "ConvInteger",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
)

# Inputs (by position) that are literals of a program where they are known.
_LITERALS: dict[str, tuple[int, ...]] = {
    "Clip": (1, 2),
    "ConstantOfShape": (0,),
    "CumSum": (1,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1, 2, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    **{f"Reduce{kind}": (1,) for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")},
}
# Inputs that are literals where they are known and a single number.
_SCALARS: dict[str, tuple[int, ...]] = {"Gather": (1,), "Pow": (1,)}

# What shapes are computed with.
_FOLDABLE = {
    *("Abs", "Add", "And", "Cast", "Ceil", "Concat", "ConstantOfShape", "CumSum", "Div", "Equal", "Expand", "Flatten", "Floor"),
    *("Gather", "GatherElements", "GatherND", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul"),
    *("Neg", "NonZero", "Not", "Or", "Pad", "Pow", "Range", "Reciprocal", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum"),
    *(
        "Reshape",
        "Round",
        "ScatterND",
        "Shape",
        "Sign",
        "Size",
        "Slice",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Tile",
        "Transpose",
    ),
    *("Unsqueeze", "Where", "Xor"),
}

# Operators that always give this number of results.
_RESULTS = {"GRU": 2, "LSTM": 3, "RNN": 2, "TopK": 2}

# Attributes that change nothing for a network that runs in float32. With a value, only this value changes nothing.
_ANY = object()
_IDLE: dict[str, dict[str, Any]] = {
    "Attention": {"qk_matmul_output_mode": _ANY, "softmax_precision": _ANY, "left_window_size": -1, "right_window_size": -1},
    "BatchNormalization": {"spatial": 1, "training_mode": 0},
    "Cast": {"saturate": _ANY, "round_mode": _ANY},
    "CastLike": {"saturate": _ANY, "round_mode": _ANY},
    "Dropout": {"ratio": _ANY, "seed": _ANY},
    "GRU": {"activations": ["Sigmoid", "Tanh"]},
    "GroupNormalization": {"stash_type": _ANY},
    "LSTM": {"activations": ["Sigmoid", "Tanh", "Tanh"], "input_forget": 0},
    "LayerNormalization": {"stash_type": _ANY},
    "MaxPool": {"storage_order": 0},
    "RMSNormalization": {"stash_type": _ANY},
    "Resize": {"extrapolation_value": _ANY},
}

_AUTO_PADS = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
_CHOICES: dict[str, dict[str, tuple[Any, ...]]] = {
    "AveragePool": {"auto_pad": _AUTO_PADS},
    "Conv": {"auto_pad": _AUTO_PADS},
    "ConvTranspose": {"auto_pad": _AUTO_PADS},
    "DepthToSpace": {"mode": ("DCR", "CRD")},
    "GRU": {"direction": ("forward", "reverse", "bidirectional")},
    "Gelu": {"approximate": ("none", "tanh")},
    "GridSample": {"mode": ("linear", "nearest", "cubic"), "padding_mode": ("zeros", "border", "reflection")},
    "LSTM": {"direction": ("forward", "reverse", "bidirectional")},
    "MaxPool": {"auto_pad": _AUTO_PADS},
    "Pad": {"mode": ("constant", "reflect", "edge", "wrap")},
    "RNN": {"direction": ("forward", "reverse", "bidirectional")},
    "Resize": {
        "coordinate_transformation_mode": (
            "align_corners",
            "asymmetric",
            "half_pixel",
            "half_pixel_symmetric",
            "pytorch_half_pixel",
        ),
        "mode": ("nearest", "linear", "cubic"),
        "nearest_mode": ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"),
        "keep_aspect_ratio_policy": ("stretch", "not_larger", "not_smaller"),
    },
    "ScatterElements": {"reduction": ("none", "add", "mul", "max", "min")},
    "ScatterND": {"reduction": ("none", "add", "mul", "max", "min")},
}


@dataclass(frozen=True)
class _Scope:
    """Where a node stands.

    names: for each value of the graph or function, its name in the program; None for an input that a caller leaves out.
    prefix: what the names of values in a function begin with.
    opset: the version of ONNX.
    attributes: those of the call of a function.
    """

    names: dict[str, str | None]
    prefix: str
    opset: int
    attributes: Mapping[str, Any]
    depth: int = 0


@dataclass
class _Call:
    """A node whose differences between versions are being resolved."""

    operator: str
    inputs: list[str | None]
    attributes: dict[str, Any]
    outputs: list[str]
    opset: int
    place: str

    def refuse(self, why: str) -> BadProgram:
        return BadProgram(f"the operator {self.operator} at {self.place!r} {why}")


@dataclass
class NodeReader:
    """Reads the nodes of one file.

    initialisers: the tensors of the file, by name.
    functions: the functions of the file, by domain and name.
    used: every name that a node takes or that is an output, to tell results that nothing uses.
    """

    initialisers: Mapping[str, Tensor]
    functions: Mapping[tuple[str, str], FunctionProto]
    used: set[str]
    max_nodes: ClassVar[int] = MAX_NODES
    nodes: list[Node] = field(default_factory=list)
    _known: dict[str, Tensor] = field(default_factory=dict)
    _hosted: set[str] = field(default_factory=set)
    _defined: set[str] = field(default_factory=set)
    _visited: int = 0

    def __post_init__(self) -> None:
        for name, tensor in self.initialisers.items():
            if not tensor.is_floating_point() and tensor.numel() <= KNOWN_ELEMENTS:
                self._known[name] = tensor.bool() if tensor.dtype == torch.bool else tensor.long()

    def read_graph(self, graph: GraphProto, inputs: Iterable[str], opset: int) -> dict[str, str | None]:
        """Reads all nodes. Returns for each value of the graph its name in the program."""
        names: dict[str, str | None] = {name: name for name in (*inputs, *self.initialisers)}
        self._defined.update(names)
        scope = _Scope(names, "", opset, {})
        self._read(graph.node, scope)
        return scope.names

    def finish(self, outputs: Mapping[str, str | None]) -> tuple[list[Node], dict[str, str], dict[str, Constant]]:
        """The nodes that the outputs need, and the tensors and constants that these nodes take.

        `outputs` has for each output the name of its value. An output that is not the result of a node becomes one.
        """
        results = {name for node in self.nodes for name in node.results}
        for output, name in outputs.items():
            if name is None:
                raise BadProgram(f"no node gives the output {output!r}")
            if name != output or name not in results:
                self.nodes.append(Node("onnx.Identity", (Ref(name),), {}, (output,), output))
        needed, kept = set(outputs), []
        for node in reversed(self.nodes):
            if needed.intersection(node.results):
                needed.update(node.references())
                results_needed = tuple(name if name in needed else None for name in node.results)
                kept.append(Node(node.operator, node.arguments, node.keywords, results_needed, node.place))
        tensors = {name: name for name in self.initialisers if name in needed}
        constants = {name: _constant(self._known[name]) for name in self._known if name in needed and name not in tensors}
        return kept[::-1], tensors, constants

    def _read(self, nodes: Iterable[NodeProto], scope: _Scope) -> None:
        for node in nodes:
            self._visited += 1
            if self._visited > self.max_nodes:
                raise BadProgram(f"the graph has more than {self.max_nodes} nodes")
            place = scope.prefix + (node.name or next(iter(node.output), "") or node.op_type)
            inputs = [self._value(name, node.op_type, place, scope) for name in node.input]
            if (node.domain, node.op_type) in self.functions:
                self._inline(self.functions[node.domain, node.op_type], node, inputs, place, scope)
                continue
            if node.domain not in DOMAINS:
                raise BadProgram(
                    f"the operator {node.domain}.{node.op_type} at {place!r} is not one of ONNX's own: not supported"
                )
            attributes = {one.name: value for one in node.attribute if (value := _attribute(one, place, scope)) is not None}
            call = _Call(node.op_type, inputs, attributes, list(node.output), scope.opset, place)
            if not call.outputs:
                raise call.refuse("has no outputs")
            try:
                if node.op_type == "If":
                    self._branch(call, scope)
                else:
                    self._call(call, scope)
            except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
                raise call.refuse("has inputs or attributes that it can't take") from error

    def _value(self, name: str, operator: str, place: str, scope: _Scope) -> str | None:
        if not name:
            return None
        if name not in scope.names:
            raise BadProgram(f"the operator {operator} at {place!r} takes {name!r}, which no earlier node gives")
        return scope.names[name]

    def _define(self, name: str, scope: _Scope) -> str:
        """A new value, for a name of the graph or function. Returns its name in the program."""
        full = scope.prefix + name
        if full in self._defined:
            raise BadProgram(f"two nodes give the value {full!r}")
        self._defined.add(full)
        scope.names[name] = full
        return full

    def _inline(
        self, function: FunctionProto, node: NodeProto, inputs: Sequence[str | None], place: str, scope: _Scope
    ) -> None:
        """Reads the nodes of a function in place of its call."""
        if scope.depth >= MAX_DEPTH:
            raise BadProgram(f"the functions at {place!r} call each other too deep")
        given = dict(zip(function.input, inputs, strict=False))
        names: dict[str, str | None] = {name: given.get(name) for name in function.input}
        attributes = {one.name: _attribute(one, place, scope) for one in (*function.attribute_proto, *node.attribute)}
        inner = _Scope(names, f"{place}/{self._visited}/", opset_of(function.opset_import), attributes, scope.depth + 1)
        self._read(function.node, inner)
        for outside, inside in zip(node.output, function.output, strict=False):
            if outside:
                scope.names[outside] = inner.names.get(inside)

    def _branch(self, call: _Call, scope: _Scope) -> None:
        """Reads the branch of an If whose condition is known."""
        condition = self._known.get(call.inputs[0] or "")
        if condition is None or scope.depth >= MAX_DEPTH:
            raise call.refuse("decides at run time; export the network without control flow, for inputs of a fixed shape")
        graph: GraphProto = call.attributes["then_branch" if condition.any() else "else_branch"]
        inner = _Scope(dict(scope.names), scope.prefix, scope.opset, scope.attributes, scope.depth + 1)
        for proto in graph.initializer:
            self._know(self._define(proto.name, inner), read_tensor(proto, f"the tensor {proto.name!r}", {}))
        self._read(graph.node, inner)
        for outside, inside in zip(call.outputs, graph.output, strict=True):
            scope.names[outside] = inner.names.get(inside.name)

    def _know(self, name: str, tensor: Tensor) -> None:
        self._known[name] = tensor.to(tensorfile.DTYPES[program_dtype(tensor.dtype)])

    def _call(self, call: _Call, scope: _Scope) -> None:
        if call.operator == "Constant":
            self._know(self._define(call.outputs[0], scope), _constant_value(call))
            return
        if call.operator in _CONTROL_FLOW:
            raise call.refuse("is control flow, which is not supported")
        if call.operator in _QUANTISED:
            raise call.refuse("is quantised; export the network before it is quantised")
        if call.operator in _RESOLUTIONS:
            _RESOLUTIONS[call.operator](call, self._known)
        _drop_idle(call)
        if call.operator == "Identity":  # a second name for the value
            scope.names[call.outputs[0]] = call.inputs[0]
            self._only_one_result(call)
            return
        name = f"onnx.{call.operator}"
        function = operators.find(name, call.place)
        _check(call, function)
        count = len(call.outputs) if call.operator == "Split" else _RESULTS.get(call.operator, 1)
        if call.operator not in _RESULTS and call.operator != "Split":
            self._only_one_result(call)
        if self._fold(call, function, count, scope):
            return
        hosted = self._is_hosted(call)
        arguments = [self._argument(call, position, hosted) for position in range(len(call.inputs))]
        outputs = [*call.outputs[:count], *[""] * (count - len(call.outputs))]
        results = tuple(self._define(output, scope) if output else None for output in outputs)
        if hosted:
            self._hosted.update(name for name in results if name is not None)
        self.nodes.append(Node(name, tuple(arguments), call.attributes, results, call.place))

    def _only_one_result(self, call: _Call) -> None:
        for name in call.outputs[1:]:
            if name in self.used:
                raise call.refuse(f"gives a second result, {name!r}, which is not supported")

    def _argument(self, call: _Call, position: int, hosted: bool) -> Argument:
        name = call.inputs[position]
        if name is None:
            return None
        known = self._known.get(name)
        if known is not None and (
            hosted
            or position in _LITERALS.get(call.operator, ())
            or (position in _SCALARS.get(call.operator, ()) and known.ndim == 0)
        ):
            return _literal(known)
        initialiser = self.initialisers.get(name)
        if position in _LITERALS.get(call.operator, ()) and initialiser is not None and initialiser.numel() <= LITERAL_ELEMENTS:
            return _literal(initialiser)
        return Ref(name)

    def _is_hosted(self, call: _Call) -> bool:
        """Whether the result is computed from shapes alone, and so in the memory of the CPU."""
        if call.operator in ("Shape", "Size"):
            return True
        names = [name for name in call.inputs if name is not None]
        return (
            call.operator in _FOLDABLE
            and all(name in self._known or name in self._hosted for name in names)
            and any(name in self._hosted for name in names)
        )

    def _fold(self, call: _Call, function: operators.Function, count: int, scope: _Scope) -> bool:
        """Computes the node if its inputs are known and its result is small. Returns whether it did."""
        if call.operator == "Shape" and (tensor := self.initialisers.get(call.inputs[0] or "")) is not None:
            values: list[Any] = [tensor]
        else:
            values = [None if name is None else self._known.get(name) for name in call.inputs]
        if call.operator not in _FOLDABLE or any(
            name is not None and value is None for name, value in zip(call.inputs, values, strict=True)
        ):
            return False
        if _elements(call.operator, values) > KNOWN_ELEMENTS:
            return False
        result = function(*values, **call.attributes)
        results = result if count > 1 else (result,)
        for output, one in zip(call.outputs, results, strict=False):
            if output:
                self._know(self._define(output, scope), one.contiguous())
        return True


def opset_of(imports: Iterable[Any]) -> int:
    """The version of ONNX that a model or a function uses. Raises BadProgram for one that is too old or too new."""
    opset = max((one.version for one in imports if one.domain in DOMAINS), default=NEWEST_OPSET)
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise BadProgram(f"the file has opset {opset}; opsets {OLDEST_OPSET} to {NEWEST_OPSET} can be read: export it again")
    return int(opset)


def _attribute(proto: AttributeProto, place: str, scope: _Scope) -> Any:
    if proto.ref_attr_name:
        return scope.attributes.get(proto.ref_attr_name)
    kind = proto.type
    if kind == AttributeProto.FLOAT:
        return proto.f
    if kind == AttributeProto.INT:
        return proto.i
    if kind == AttributeProto.STRING:
        return proto.s.decode(errors="replace")
    if kind == AttributeProto.FLOATS:
        return list(proto.floats)
    if kind == AttributeProto.INTS:
        return list(proto.ints)
    if kind == AttributeProto.STRINGS:
        return [text.decode(errors="replace") for text in proto.strings]
    if kind == AttributeProto.TENSOR:
        return read_tensor(proto.t, f"the attribute {proto.name!r} at {place!r}", {})
    if kind == AttributeProto.GRAPH:
        return proto.g
    raise BadProgram(f"the attribute {proto.name!r} at {place!r} has a type that is not supported")


def _constant_value(call: _Call) -> Tensor:
    for name, value in call.attributes.items():
        if name == "value":
            assert isinstance(value, Tensor)
            return value
        if name in ("value_float", "value_floats"):
            return torch.tensor(value, dtype=torch.float32)
        if name in ("value_int", "value_ints"):
            return torch.tensor(value, dtype=torch.int64)
    raise call.refuse("holds something that is not a dense tensor of numbers")


def _constant(tensor: Tensor) -> Constant:
    return Constant(tensorfile.NAMES[tensor.dtype], tuple(tensor.shape), tensorfile.to_bytes(tensor))


def _literal(tensor: Tensor) -> Argument:
    literal: Argument = tensor.tolist()
    return literal


def _elements(operator: str, values: Sequence[Any]) -> int:
    """A bound on the number of elements of a result."""
    if operator == "ConstantOfShape":
        return math.prod(values[0].tolist())
    if operator == "Range":
        start, limit, delta = (value.item() for value in values)
        return max(0, math.ceil((limit - start) / delta))
    elements = max(value.numel() for value in values if value is not None) if operator != "Shape" else 0
    if operator in ("Expand", "Tile"):
        return max(1, elements) * math.prod(max(1, extent) for extent in values[1].tolist())
    if operator == "Pad":
        return elements + values[1].abs().sum().item() ** values[0].ndim  # type: ignore[no-any-return]
    return elements if operator != "Concat" else sum(value.numel() for value in values)


def _drop_idle(call: _Call) -> None:
    for name, value in _IDLE.get(call.operator, {}).items():
        if name not in call.attributes:
            continue
        given = call.attributes[name]
        repeated = isinstance(value, list) and given in (value, value * 2)
        if value is _ANY or given == value or repeated:
            del call.attributes[name]


def _check(call: _Call, function: operators.Function) -> None:
    """Raises BadProgram for attributes and inputs that the function does not take."""
    while call.inputs and call.inputs[-1] is None:
        call.inputs.pop()
    signature = inspect.signature(function)
    for name, value in call.attributes.items():
        if name not in signature.parameters:
            raise call.refuse(f"has the attribute {name} = {value}, which is not supported")
        if value not in _CHOICES.get(call.operator, {}).get(name, (value,)):
            raise call.refuse(f"has the attribute {name} = {value!r}, which is not supported")
        if isinstance(value, Tensor | GraphProto):
            raise call.refuse(f"has an attribute {name} of a type that is not supported")
    try:
        signature.bind(*call.inputs, **call.attributes)
    except TypeError as error:
        raise call.refuse(f"has inputs or attributes that it can't take: {error}") from error


Known = Mapping[str, Tensor]


def _resolve_batch_normalization(call: _Call, known: Known) -> None:
    if call.attributes.get("training_mode"):
        raise call.refuse("is in training mode; export the network after model.eval()")


def _resolve_dropout(call: _Call, known: Known) -> None:
    mode = call.inputs[2] if len(call.inputs) > 2 else None
    if mode is not None and (mode not in known or known[mode].any()):
        raise call.refuse("is in training mode; export the network after model.eval()")
    call.operator, call.inputs = "Identity", call.inputs[:1]
    for name in ("ratio", "seed"):
        call.attributes.pop(name, None)


def _resolve_cast(call: _Call, known: Known) -> None:
    call.attributes["to"] = program_dtype(dtype_of(call.attributes.get("to", 0), f"the cast at {call.place!r}"))


def _resolve_constant_of_shape(call: _Call, known: Known) -> None:
    value = call.attributes.pop("value", None)
    if value is not None:
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise call.refuse("has a value that is not one number")
        call.attributes |= {"value": value.item(), "dtype": program_dtype(value.dtype)}


def _resolve_eye_like(call: _Call, known: Known) -> None:
    if "dtype" in call.attributes:
        call.attributes["dtype"] = program_dtype(dtype_of(call.attributes["dtype"], f"EyeLike at {call.place!r}"))


def _resolve_softmax(call: _Call, known: Known) -> None:
    if call.opset < 13:
        call.attributes = {"axis": 1, **call.attributes, "flatten": True}


def _resolve_hardmax(call: _Call, known: Known) -> None:
    if call.opset < 13:
        raise call.refuse("of before opset 13 is not supported")


def _resolve_pad(call: _Call, known: Known) -> None:
    if "value" in call.attributes:  # before opset 11
        call.attributes["constant_value"] = call.attributes.pop("value")


def _resolve_split(call: _Call, known: Known) -> None:
    if len(call.outputs) == 1:
        call.operator, call.inputs, call.attributes = "Identity", call.inputs[:1], {}
    else:
        call.attributes["num_outputs"] = len(call.outputs)


def _resolve_resize(call: _Call, known: Known) -> None:
    if call.operator == "Upsample" or call.opset < 11:
        # Scales are an attribute, or the second input.
        call.operator = "Resize"
        call.attributes |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        if len(call.inputs) > 1:
            call.inputs = [call.inputs[0], None, call.inputs[1]]
    elif call.attributes.get("coordinate_transformation_mode") != "tf_crop_and_resize":
        call.inputs[1:2] = [None]
    for position in (2, 3):
        # Before opset 13, what is not given is given as an empty tensor.
        if len(call.inputs) > position and (value := known.get(call.inputs[position] or "")) is not None and not value.numel():
            call.inputs[position] = None
    if call.attributes.get("mode") in ("bilinear", "trilinear"):
        call.attributes["mode"] = "linear"


def _resolve_group_normalization(call: _Call, known: Known) -> None:
    if call.opset < 21:
        call.attributes["by_group"] = True


def _resolve_grid_sample(call: _Call, known: Known) -> None:
    modes = {"bilinear": "linear", "bicubic": "cubic"}
    if (mode := call.attributes.get("mode")) in modes:  # before opset 20
        call.attributes["mode"] = modes[mode]


def _resolve_scatter(call: _Call, known: Known) -> None:
    call.operator = "ScatterElements"


def _resolve_recurrent(call: _Call, known: Known) -> None:
    if len(call.inputs) > 4 and call.inputs[4] is not None:
        raise call.refuse("takes the lengths of sequences, which is not supported; export it without packed sequences")
    activations = [name.lower() for name in call.attributes.get("activations", [])]
    if call.operator == "RNN" and not set(activations) <= {"tanh", "relu"}:
        raise call.refuse(f"has the activations {activations}, which are not supported")


_RESOLUTIONS: dict[str, Callable[[_Call, Known], None]] = {
    "BatchNormalization": _resolve_batch_normalization,
    "Cast": _resolve_cast,
    "ConstantOfShape": _resolve_constant_of_shape,
    "Dropout": _resolve_dropout,
    "EyeLike": _resolve_eye_like,
    "GRU": _resolve_recurrent,
    "GridSample": _resolve_grid_sample,
    "GroupNormalization": _resolve_group_normalization,
    "Hardmax": _resolve_hardmax,
    "LSTM": _resolve_recurrent,
    "LogSoftmax": _resolve_softmax,
    "Pad": _resolve_pad,
    "RNN": _resolve_recurrent,
    "Resize": _resolve_resize,
    "Scatter": _resolve_scatter,
    "Softmax": _resolve_softmax,
    "Split": _resolve_split,
    "Upsample": _resolve_resize,
}
