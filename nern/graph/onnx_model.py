"""Reading an ONNX file: from its bytes to a program, a state_dict, and what is needed to write the file again.

Only the parser of the `onnx` package reads the file: no checker, no shape inference, nothing that opens a file. Shapes are not
inferred, because a program computes them when it runs: a batch of one in the file does not become part of the program.
docs/graphs.md says what can be read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto
from torch import Tensor

from nern.errors import BadProgram
from nern.graph.onnx_nodes import DOMAINS, NodeReader, opset_of
from nern.graph.onnx_tensors import MAX_BYTES, Files, dtype_of, program_dtype, read_tensor
from nern.graph.program import Port, Program

# A Constant node with so many elements is taken for a weight. So is a smaller one that a layer takes as its weight.
WEIGHT_ELEMENTS = 1024

_WEIGHT_INPUTS = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "GRU": (1, 2),
    "Gemm": (0, 1),
    "LSTM": (1, 2),
    "MatMul": (0, 1),
    "RNN": (1, 2),
}

NO_FILES: Files = {}


@dataclass(frozen=True)
class OnnxModel:
    """An ONNX file that has been read.

    program: the network. Floating-point numbers are in float32, whatever they are in the file.
    state_dict: the initialisers, with their names and dtypes. Constant nodes that hold weights are among them.
    notes: sentences about what was changed or left out.
    skeleton: the file without its initialisers, for `nern.graph.onnx_writer`.
    """

    program: Program
    state_dict: dict[str, Tensor]
    notes: tuple[str, ...]
    skeleton: bytes


def sniff(start: bytes) -> bool:
    """Whether a file that begins with these bytes may be an ONNX file: a version of 1 to 31, then a field of a model."""
    fields = {field.number << 3 | wire for field in ModelProto.DESCRIPTOR.fields for wire in (0, 2) if field.number < 16}
    return len(start) > 2 and start[0] == 0x08 and 0 < start[1] < 32 and (start[2] in fields or start[2] & 0x80 > 0)


def read(content: bytes, files: Files = NO_FILES) -> OnnxModel:
    """Reads an ONNX file. `files` are those in which the file may keep tensors. Raises BadProgram."""
    if len(content) > MAX_BYTES:
        raise BadProgram("the file is larger than 2 GiB, which no ONNX file can be")
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except MemoryError:
        raise
    except Exception as error:  # the DecodeError of the library that onnx uses
        raise BadProgram("the file is not an ONNX file, or is damaged") from error
    del content
    try:
        return _read(model, files)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise BadProgram("the ONNX file is damaged") from error


def _read(model: ModelProto, files: Files) -> OnnxModel:
    """Reads a model, and takes its tensors out of it."""
    if not model.HasField("graph") or not model.graph.node:
        raise BadProgram("the file is not an ONNX file, or has no graph")
    graph = model.graph
    opset = opset_of(model.opset_import)
    lifted = _lift_weights(graph)
    state_dict = _take_initialisers(graph, files)
    notes = _notes(state_dict, lifted)
    inputs = [value for value in graph.input if value.name not in state_dict]
    reader = NodeReader(state_dict, _functions(model), _used(graph))
    names = reader.read_graph(graph, [_text(value.name) for value in inputs], opset)
    nodes, tensors, constants = reader.finish({_text(value.name): names.get(value.name) for value in graph.output})
    program = Program(
        inputs=tuple(_port(value) for value in inputs),
        outputs=tuple(_port(value) for value in graph.output),
        tensors=tensors,
        nodes=tuple(nodes),
        constants=constants,
    )
    strip(model)
    return OnnxModel(program, state_dict, notes, model.SerializeToString(deterministic=True))


def _text(name: str | bytes) -> str:
    """The parser gives bytes where a name is not text."""
    if isinstance(name, bytes):
        raise BadProgram(f"the file has a name that is not text: {name!r}")
    return name


def _functions(model: ModelProto) -> Mapping[tuple[str, str], FunctionProto]:
    return {(function.domain, function.name): function for function in model.functions}


def _used(graph: GraphProto) -> set[str]:
    """The names that the nodes of a graph and of its branches take, and the outputs."""
    names = {value.name for value in graph.output}
    for node in graph.node:
        names.update(node.input)
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                names |= _used(attribute.g)
    return names


def _lift_weights(graph: GraphProto) -> list[str]:
    """Makes initialisers of the Constant nodes that hold weights. Returns their names."""
    taken = {
        node.input[position]
        for node in graph.node
        for position in _WEIGHT_INPUTS.get(node.op_type, ())
        if len(node.input) > position
    }
    lifted, kept = [], []
    for node in graph.node:
        tensor = _constant_tensor(node)
        if tensor is None:
            kept.append(node)
            continue
        elements = 1
        for extent in tensor.dims:
            elements *= extent
        floating = tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
        if elements >= WEIGHT_ELEMENTS or (floating and len(tensor.dims) >= 2 and node.output[0] in taken):
            initialiser = graph.initializer.add()
            initialiser.CopyFrom(tensor)
            initialiser.name = node.output[0]
            lifted.append(node.output[0])
        else:
            kept.append(node)
    if lifted:
        copies = [NodeProto.FromString(node.SerializeToString()) for node in kept]
        del graph.node[:]
        graph.node.extend(copies)
    return lifted


def _constant_tensor(node: NodeProto) -> TensorProto | None:
    if node.op_type != "Constant" or node.domain not in DOMAINS or len(node.output) != 1:
        return None
    return next((one.t for one in node.attribute if one.name == "value" and one.type == AttributeProto.TENSOR), None)


def _take_initialisers(graph: GraphProto, files: Files) -> dict[str, Tensor]:
    """Takes the initialisers out of the graph."""
    if graph.sparse_initializer:
        raise BadProgram("the file has sparse initialisers, which are not supported")
    state_dict: dict[str, Tensor] = {}
    for proto in graph.initializer:
        if not proto.name or proto.name in state_dict:
            raise BadProgram(f"the file has two initialisers named {proto.name!r}, or one without a name")
        state_dict[_text(proto.name)] = read_tensor(proto, f"the tensor {proto.name!r}", files)
        proto.ClearField("raw_data")  # the memory is needed for the tensors
    del graph.initializer[:]
    return state_dict


def _port(value: ValueInfoProto) -> Port:
    if not value.type.HasField("tensor_type"):
        raise BadProgram(f"{value.name!r} is an input or output that is not a tensor, which is not supported")
    kind: TypeProto.Tensor = value.type.tensor_type
    dtype = program_dtype(dtype_of(kind.elem_type, f"the input or output {value.name!r}"))
    if not kind.HasField("shape"):
        return Port(value.name, dtype, None)
    return Port(value.name, dtype, tuple(extent.dim_value if extent.dim_value > 0 else None for extent in kind.shape.dim))


def _notes(state_dict: Mapping[str, Tensor], lifted: list[str]) -> tuple[str, ...]:
    notes = []
    others = {str(tensor.dtype).removeprefix("torch.") for tensor in state_dict.values() if tensor.is_floating_point()}
    if others := others - {"float32"}:
        notes.append(f"The network has weights in {' and '.join(sorted(others))}. It runs in float32 here.")
    if lifted:
        names = ", ".join(lifted[:3]) + (", …" if len(lifted) > 3 else "")
        notes.append(f"The graph has tensors that are constants in place of initialisers; they are kept like weights: {names}.")
    return tuple(notes)


def strip(model: ModelProto) -> None:
    """Removes comments and traces of the exporter, which can be larger than the graph."""
    graph = model.graph
    messages: Iterable[NodeProto | ValueInfoProto | GraphProto] = (*graph.node, *graph.input, *graph.output, graph)
    for message in messages:
        message.ClearField("doc_string")
        message.ClearField("metadata_props")
    del graph.value_info[:]
