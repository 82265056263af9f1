"""Programs from a short description of a plain sequential network, for those who have the weights and not the code.

A description is a list of steps, such as `["conv padding=1", "relu", "maxpool 2", "flatten", "linear"]`. A step is a module of
torch.nn, by its name (`Conv2d`) or in short (`conv`), with those fields of the module that differ from their defaults. A value
without a name belongs to the first field: `maxpool 2` has a kernel size of 2. Steps with weights take the weights of the
checkpoint in order. Numbers of channels, kernel sizes of convolutions and the number of dimensions follow from the weights.
This module does not import torch.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nern.errors import BadDescription
from nern.graph.program import Argument, Node, Port, Program, Ref

Shape = tuple[int, ...]
Fields = dict[str, Any]

# A step: the name in torch.nn, perhaps with its number of dimensions, and fields.
STEP = re.compile(r"([A-Za-z_]+?6?)_?(?:[123]d)?((?:\s+\S+)*)", re.ASCII)


@dataclass(frozen=True)
class Group:
    """The tensors of one module of a checkpoint: `tensors` has names and shapes by the last part of the names."""

    path: str
    tensors: Mapping[str, tuple[str, Shape]]

    @property
    def weight(self) -> Shape:
        """The shape of the weight. It is empty without a weight."""
        return self.tensors["weight"][1] if "weight" in self.tensors else ()

    @property
    def kind(self) -> str | None:
        """What the shapes tell: "conv", "linear", "norm", or None."""
        if len(self.weight) in (3, 4, 5):
            return "conv"
        if len(self.weight) == 2:
            return "linear"
        return "norm" if len(self.weight) == 1 or "running_mean" in self.tensors else None

    def __str__(self) -> str:
        name, shape = next(iter(self.tensors.values()))
        return f"{name!r} of shape {list(shape)}"


def groups_of(shapes: Mapping[str, Sequence[int]]) -> list[Group]:
    """The modules of a checkpoint, in order: neighbouring tensors whose names differ only in the last part."""
    groups: list[Group] = []
    for name, shape in shapes.items():
        path, _, leaf = name.rpartition(".")
        tensors = {leaf: (name, tuple(shape))}
        if groups and groups[-1].path == path:
            tensors = {**groups.pop().tensors, **tensors}
        groups.append(Group(path, tensors))
    return groups


def to_program(steps: Sequence[str], shapes: Mapping[str, Sequence[int]], input_shape: Sequence[int] | None = None) -> Program:
    """The program that a description means for a checkpoint with tensors of these shapes.

    `input_shape` is the shape of one input, without the batch. Without it, only the number of channels is checked. Raises
    BadDescription, which names the first step that does not fit.
    """
    return _Builder(groups_of(shapes), tuple(input_shape) if input_shape else None).build(steps)


class Misfit(Exception):
    """A step does not fit. The builder adds which step."""


@dataclass
class _Builder:
    """Builds a program step by step. `shape` is the shape of the current value without the batch, or None if it is unknown."""

    groups: list[Group]
    shape: Shape | None
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, str] = field(default_factory=dict)
    value: str = "input"
    step: str = ""

    def build(self, steps: Sequence[str]) -> Program:
        first = next((group for group in self.groups if group.kind in ("conv", "linear")), None)
        if first is None:
            raise BadDescription("the checkpoint has no convolution and no linear layer")
        self.dimensions = max(len(first.weight) - 2, 0)
        unknown = (first.weight[1] if self.dimensions == 0 else None, *[None] * self.dimensions)
        entry = Port("input", "F32", (None, *(self.shape or unknown)))
        for number, step in enumerate(steps):
            self.step = step
            try:
                self._add(step)
            except Misfit as error:
                raise BadDescription(f"step {number + 1}, {step[:100]!r}: {error}", f"/{number}") from error
        if self.groups:
            raise BadDescription(f"the description ends, but the checkpoint goes on with {self.groups[0]}", f"/{len(steps)}")
        shape = None if self.shape is None else (None, *self.shape)
        if not self.nodes:
            raise BadDescription("the description has no step that does anything")
        self.nodes[-1] = replace(self.nodes[-1], results=("output", *self.nodes[-1].results[1:]))
        return Program((entry,), (Port("output", "F32", shape),), self.tensors, tuple(self.nodes))

    def _add(self, step: str) -> None:
        if not (parsed := STEP.fullmatch(step.strip())):
            raise Misfit("a step is a name and fields, such as 'conv padding=1'")
        name = parsed[1].lower().replace("_", "")
        kind = KINDS.get(ALIASES.get(name, name))
        if kind is None:
            raise Misfit(f"there is no step {parsed[1]!r}; the steps are {', '.join(KINDS)}")
        fields = _fields(parsed[2].split(), kind.fields)
        group = self._take(kind.takes) if kind.takes else None
        kind.build(self, group, fields)

    def _take(self, kind: str) -> Group:
        if not self.groups:
            raise Misfit("the checkpoint has no weights left")
        if self.groups[0].kind != kind:
            raise Misfit(f"the next weights of the checkpoint are {self.groups[0]}, which do not fit")
        return self.groups.pop(0)

    def tensor(self, group: Group, leaf: str) -> Ref | None:
        """The value of a tensor of a module, or None if the module has no such tensor."""
        if leaf not in group.tensors:
            return None
        name = group.tensors[leaf][0]
        self.tensors[name] = name
        return Ref(name)

    def call(self, operator: str, *arguments: Argument, shape: Shape | None, results: int = 1) -> None:
        """Adds a node that takes the current value and gives the next one, of this shape."""
        result = f"step {len(self.nodes) + 1}"
        names = (result, *[None] * (results - 1))
        self.nodes.append(Node(f"aten.{operator}", (Ref(self.value), *arguments), {}, names, self.step))
        self.value, self.shape = result, shape

    def windows(self, extents: Callable[[int, int], int], channels: int | None = None) -> Shape | None:
        """The next shape, if extent number i becomes extents(i, extent)."""
        if self.shape is None:
            return None
        if len(self.shape) != self.dimensions + 1:
            raise Misfit(f"it takes channels and {self.dimensions} extents, but the step gets the shape {list(self.shape)}")
        shape = tuple(extents(axis, extent) for axis, extent in enumerate(self.shape[1:]))
        if min(shape) < 1:
            raise Misfit(f"the step gets the shape {list(self.shape)}, which is too small")
        return (channels or self.shape[0], *shape)

    def require(self, channels: int, what: str) -> None:
        """Raises Misfit unless the current value has so many channels or features."""
        if self.shape is not None and self.shape[0] != channels:
            raise Misfit(f"{what} takes {channels} channels, but the step gets the shape {list(self.shape)}")

    def each(self, value: Any) -> list[int]:
        """A number, or several, as one number for each dimension."""
        numbers = list(value) if isinstance(value, tuple) else [value] * self.dimensions
        if len(numbers) != self.dimensions or not all(isinstance(number, int) for number in numbers):
            raise Misfit(f"give one whole number, or {self.dimensions} of them")
        return numbers


def _conv(builder: _Builder, group: Group | None, fields: Fields) -> None:
    assert group is not None
    weight, groups = group.weight, fields["groups"]
    builder.dimensions = len(weight) - 2
    builder.require(weight[1] * groups, str(group))
    stride, dilation, padding = builder.each(fields["stride"]), builder.each(fields["dilation"]), fields["padding"]
    whole = [spacing * (extent - 1) for spacing, extent in zip(dilation, weight[2:], strict=True)]
    overload = "default"
    if padding in ("same", "valid"):
        overload, margins = "padding", whole if padding == "same" else [0] * len(whole)
    else:
        padding = builder.each(padding)
        margins = [2 * number for number in padding]
    shape = builder.windows(lambda axis, extent: (extent + margins[axis] - whole[axis] - 1) // stride[axis] + 1, weight[0])
    tensors = builder.tensor(group, "weight"), builder.tensor(group, "bias")
    builder.call(f"conv{builder.dimensions}d.{overload}", *tensors, stride, padding, dilation, groups, shape=shape)


def _transposed(builder: _Builder, group: Group | None, fields: Fields) -> None:
    assert group is not None
    weight, groups = group.weight, fields["groups"]
    builder.dimensions = len(weight) - 2
    builder.require(weight[0], str(group))
    stride, padding, more, dilation = (
        builder.each(fields[name]) for name in ("stride", "padding", "output_padding", "dilation")
    )

    def extent(axis: int, old: int) -> int:
        return (old - 1) * stride[axis] - 2 * padding[axis] + dilation[axis] * (weight[2 + axis] - 1) + more[axis] + 1

    shape = builder.windows(extent, weight[1] * groups)
    tensors = builder.tensor(group, "weight"), builder.tensor(group, "bias")
    overload = "default" if builder.dimensions == 1 else "input"
    operator = f"conv_transpose{builder.dimensions}d.{overload}"
    builder.call(operator, *tensors, stride, padding, more, groups, dilation, shape=shape)


def _linear(builder: _Builder, group: Group | None, fields: Fields) -> None:
    assert group is not None
    filters, channels = group.weight
    if builder.shape is not None and builder.shape[-1] != channels:
        missing = ": a flatten is missing before it" if math.prod(builder.shape) == channels else ""
        raise Misfit(f"{group} takes {channels} numbers, but the step gets the shape {list(builder.shape)}{missing}")
    shape = None if builder.shape is None else (*builder.shape[:-1], filters)
    builder.call("linear.default", builder.tensor(group, "weight"), builder.tensor(group, "bias"), shape=shape)


def _batch_norm(builder: _Builder, group: Group | None, fields: Fields) -> None:
    assert group is not None
    if "running_mean" not in group.tensors:
        raise Misfit(f"{group} has no running statistics")
    builder.require(group.tensors["running_mean"][1][0], str(group))
    leaves = ("weight", "bias", "running_mean", "running_var")
    tensors = [builder.tensor(group, leaf) for leaf in leaves]
    builder.call("batch_norm.default", *tensors, False, 0.1, fields["eps"], False, shape=builder.shape)


def _layer_norm(builder: _Builder, group: Group | None, fields: Fields) -> None:
    assert group is not None
    tensors = builder.tensor(group, "weight"), builder.tensor(group, "bias")
    builder.call("layer_norm.default", list(group.weight), *tensors, fields["eps"], shape=builder.shape)


def _group_norm(builder: _Builder, group: Group | None, fields: Fields) -> None:
    assert group is not None
    builder.require(group.weight[0], str(group))
    tensors = builder.tensor(group, "weight"), builder.tensor(group, "bias")
    builder.call("group_norm.default", fields["num_groups"], *tensors, fields["eps"], shape=builder.shape)


def _prelu(builder: _Builder, group: Group | None, fields: Fields) -> None:
    assert group is not None
    builder.call("prelu.default", builder.tensor(group, "weight"), shape=builder.shape)


def _pool(operator: str) -> Callable[["_Builder", Group | None, Fields], None]:
    def build(builder: _Builder, group: Group | None, fields: Fields) -> None:
        size = builder.each(fields["kernel_size"])
        stride = size if fields["stride"] is None else builder.each(fields["stride"])
        padding, ceil = builder.each(fields["padding"]), fields["ceil_mode"]

        def extent(axis: int, old: int) -> int:
            reach = old + 2 * padding[axis] - size[axis]
            number = (-(-reach // stride[axis]) if ceil else reach // stride[axis]) + 1
            # A window must begin inside of the input or of the padding on the left.
            return number - 1 if ceil and (number - 1) * stride[axis] >= old + padding[axis] else number

        shape = builder.windows(extent)
        last = [1] * builder.dimensions if operator == "max_pool" else ceil
        other = ceil if operator == "max_pool" else fields["count_include_pad"]
        name = f"{operator}{builder.dimensions}d.default"
        builder.call(name, size, stride, padding, last, other, shape=shape)

    return build


def _adaptive_pool(operator: str, results: int) -> Callable[["_Builder", Group | None, Fields], None]:
    def build(builder: _Builder, group: Group | None, fields: Fields) -> None:
        size = builder.each(fields["output_size"])
        shape = builder.windows(lambda axis, extent: size[axis])
        builder.call(f"{operator}{builder.dimensions}d.default", size, shape=shape, results=results)

    return build


def _flatten(builder: _Builder, group: Group | None, fields: Fields) -> None:
    first = fields["start_dim"]
    if not isinstance(first, int) or first < 1:
        raise Misfit("start_dim must be at least 1, because the batch is not flattened")
    shape = None if builder.shape is None else (*builder.shape[: first - 1], math.prod(builder.shape[first - 1 :]))
    builder.call("flatten.using_ints", first, -1, shape=shape)


def _upsample(builder: _Builder, group: Group | None, fields: Fields) -> None:
    factors, mode = builder.each(fields["scale_factor"]), str(fields["mode"])
    shape = builder.windows(lambda axis, extent: extent * factors[axis])
    linear = {1: "linear", 2: "bilinear", 3: "trilinear"}[builder.dimensions]
    scale: list[Argument] = [float(factor) for factor in factors]
    if mode == "nearest":
        builder.call(f"upsample_nearest{builder.dimensions}d.vec", None, scale, shape=shape)
    elif mode == linear:
        builder.call(f"upsample_{linear}{builder.dimensions}d.vec", None, fields["align_corners"], scale, shape=shape)
    else:
        raise Misfit(f"mode must be nearest or {linear}")


def _pixel_shuffle(builder: _Builder, group: Group | None, fields: Fields) -> None:
    factor = fields["upscale_factor"]
    if builder.shape is not None and builder.shape[0] % factor**2:
        raise Misfit(f"{builder.shape[0]} channels can't be divided by {factor**2}")
    channels = None if builder.shape is None else builder.shape[0] // factor**2
    shape = builder.windows(lambda axis, extent: extent * factor, channels)
    builder.call("pixel_shuffle.default", factor, shape=shape)


def _zero_pad(builder: _Builder, group: Group | None, fields: Fields) -> None:
    given = fields["padding"]
    margins = list(given) if isinstance(given, tuple) else [given] * 2 * builder.dimensions
    if len(margins) != 2 * builder.dimensions:
        raise Misfit(f"give one number, or {2 * builder.dimensions} of them")
    # The numbers are those of the last axis, then those of the axis before it, as in torch.nn.
    pairs = [(margins[2 * axis], margins[2 * axis + 1]) for axis in range(builder.dimensions)][::-1]
    shape = builder.windows(lambda axis, extent: extent + sum(pairs[axis]))
    builder.call("pad.default", margins, "constant", 0.0, shape=shape)


def _nothing(builder: _Builder, group: Group | None, fields: Fields) -> None:
    """A step without effect in eval mode."""


def _elementwise(operator: str) -> Callable[["_Builder", Group | None, Fields], None]:
    def build(builder: _Builder, group: Group | None, fields: Fields) -> None:
        builder.call(operator, *fields.values(), shape=builder.shape)

    return build


@dataclass(frozen=True)
class Kind:
    """A kind of step: its fields with their defaults, how it becomes nodes, and which weights it takes.

    The default REQUIRED is none: the field must be given.
    """

    build: Callable[[_Builder, Group | None, Fields], None]
    fields: Mapping[str, Any] = field(default_factory=dict)
    takes: str | None = None


REQUIRED = object()

_CONV = {"padding": 0, "stride": 1, "dilation": 1, "groups": 1}
_POOL = {"kernel_size": REQUIRED, "stride": None, "padding": 0, "ceil_mode": False}

KINDS: dict[str, Kind] = {
    "conv": Kind(_conv, _CONV, "conv"),
    "convtranspose": Kind(_transposed, {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1, "groups": 1}, "conv"),
    "linear": Kind(_linear, {}, "linear"),
    "batchnorm": Kind(_batch_norm, {"eps": 1e-5}, "norm"),
    "layernorm": Kind(_layer_norm, {"eps": 1e-5}, "norm"),
    "groupnorm": Kind(_group_norm, {"num_groups": REQUIRED, "eps": 1e-5}, "norm"),
    "prelu": Kind(_prelu, {}, "norm"),
    "relu": Kind(_elementwise("relu.default")),
    "relu6": Kind(_elementwise("relu6.default")),
    "leakyrelu": Kind(_elementwise("leaky_relu.default"), {"negative_slope": 0.01}),
    "elu": Kind(_elementwise("elu.default"), {"alpha": 1.0}),
    "selu": Kind(_elementwise("selu.default")),
    "gelu": Kind(_elementwise("gelu.default")),
    "silu": Kind(_elementwise("silu.default")),
    "mish": Kind(_elementwise("mish.default")),
    "hardswish": Kind(_elementwise("hardswish.default")),
    "softplus": Kind(_elementwise("softplus.default")),
    "tanh": Kind(_elementwise("tanh.default")),
    "sigmoid": Kind(_elementwise("sigmoid.default")),
    "softmax": Kind(_elementwise("softmax.int"), {"dim": 1}),
    "logsoftmax": Kind(_elementwise("log_softmax.int"), {"dim": 1}),
    "maxpool": Kind(_pool("max_pool"), _POOL),
    "avgpool": Kind(_pool("avg_pool"), {**_POOL, "count_include_pad": True}),
    "adaptiveavgpool": Kind(_adaptive_pool("adaptive_avg_pool", 1), {"output_size": 1}),
    "adaptivemaxpool": Kind(_adaptive_pool("adaptive_max_pool", 2), {"output_size": 1}),
    "flatten": Kind(_flatten, {"start_dim": 1}),
    "upsample": Kind(_upsample, {"scale_factor": REQUIRED, "mode": "nearest", "align_corners": False}),
    "pixelshuffle": Kind(_pixel_shuffle, {"upscale_factor": REQUIRED}),
    "zeropad": Kind(_zero_pad, {"padding": REQUIRED}),
    "dropout": Kind(_nothing, {"p": 0.5}),
    "identity": Kind(_nothing),
}
"""Every kind of step, by its name in torch.nn without case, underscores and number of dimensions."""

# The words that stand for numbers, and the fields that must be positive.
WORDS = {("padding", "same"), ("padding", "valid")}
POSITIVE = {
    "stride", "dilation", "groups", "num_groups", "kernel_size", "output_size", "scale_factor", "upscale_factor",
}  # fmt: skip

ALIASES = {"bn": "batchnorm", "fc": "linear", "deconv": "convtranspose", "swish": "silu"}


def _fields(words: Sequence[str], defaults: Mapping[str, Any]) -> Fields:
    """The fields of a step, in the order of the defaults. Raises Misfit."""
    given: Fields = {}
    for position, word in enumerate(words):
        name, equals, text = word.rpartition("=")
        if not equals and position == 0 and defaults:
            name = next(iter(defaults))
        if name not in defaults:
            known = f"its fields are {', '.join(defaults)}" if defaults else "it has no fields"
            raise Misfit(f"{word[:50]!r} is not a field of this step; {known}")
        given[name] = _value(text)
    fields = {name: given.get(name, default) for name, default in defaults.items()}
    for name, value in fields.items():
        if value is REQUIRED:
            raise Misfit(f"{name} is missing")
        if isinstance(defaults[name], int | float) and isinstance(value, str) and (name, value) not in WORDS:
            raise Misfit(f"{name} must be a number")
        if name in POSITIVE and any(number < 1 for number in _numbers(value)):
            raise Misfit(f"{name} must be at least 1")
    return fields


def _numbers(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,) if isinstance(value, int | float) else ()


def _value(text: str) -> Any:
    """A number, a pair of numbers such as `2,2`, a truth value, or a word."""
    parts = text.strip("()[]").split(",")
    if all(re.fullmatch(r"-?\d{1,6}", part) for part in parts):
        numbers = tuple(map(int, parts))
        return numbers if len(numbers) > 1 else numbers[0]
    if re.fullmatch(r"-?\d*\.?\d+(e-?\d+)?", text):
        return float(text)
    return {"true": True, "false": False, "none": None}.get(text.lower(), text.strip("'\""))
