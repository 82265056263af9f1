"""Objectives: how each output of a student is compared with the same output of the teacher.

An output holds *classes* (logits or probabilities along axis 1) or *values* (numbers that matter themselves). `choose` decides
which. The loss of classes is the divergence KL(teacher || student), and the loss of values is the squared error relative to the
teacher's own spread. This module does not import torch.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nern.errors import UnusableImages
from nern.graph.program import Node, Program, Ref
from nern.graph.roles import ACTIVATIONS, SAME
from nern.request.options import ObjectiveChoice, ObjectiveKind

Shape = tuple[int | None, ...]

# The class of dense labels that means "no class". 255 is usual in datasets for segmentation.
NO_CLASS = 255


@dataclass(frozen=True)
class OutputFacts:
    """An output: name, shape or None, whether it holds floating-point numbers, and the axis of a final softmax or None."""

    name: str
    shape: Shape | None
    floating: bool = True
    softmax_axis: int | None = None

    @property
    def may_hold_classes(self) -> bool:
        """Whether axis 1 can be an axis of classes, as far as the shape is known."""
        return self.floating and (self.shape is None or (len(self.shape) > 1 and self.shape[1] != 1))

    @property
    def ends_in_softmax(self) -> bool:
        """Whether a softmax over axis 1 is the last operation."""
        axis, shape = self.softmax_axis, self.shape
        return axis == 1 or (axis is not None and shape is not None and axis + len(shape) == 1)


@dataclass(frozen=True)
class LabelFacts:
    """The labels of a dataset.

    kind: `classes` for the number of a class, or `values` for floating-point targets.
    shape: the shape of the label of one input: () for one class.
    classes: the largest class + 1, or None for targets. In dense labels, NO_CLASS is no class.
    """

    kind: ObjectiveKind
    shape: tuple[int, ...]
    classes: int | None = None

    def fit(self, output: OutputFacts) -> bool:
        """Whether the labels can be labels of this output: classes for axis 1, or targets of the same shape."""
        if output.shape is None or not output.floating:
            return False
        if self.kind == "values":
            return len(output.shape) > 0 and agree(output.shape[1:], self.shape)
        enough = output.may_hold_classes and (output.shape[1] is None or (self.classes or 0) <= output.shape[1])
        return enough and agree(output.shape[2:], self.shape)


@dataclass(frozen=True)
class Objective:
    """How one output is compared. `probabilities`: the output holds probabilities, and not logits or their logarithms."""

    name: str
    kind: ObjectiveKind
    probabilities: bool = False


def choose(
    outputs: Sequence[OutputFacts],
    wanted: ObjectiveChoice,
    labels: LabelFacts | None,
    *,
    by_name: Collection[str] = (),
) -> tuple[Objective, ...]:
    """The objectives of all outputs, in order.

    `wanted` is the option of the request. `by_name` has the names of the outputs that hold classes because the architecture is
    known. Where the request leaves the choice open, an output holds classes

    - if a softmax over axis 1 is its last operation,
    - if the labels are numbers of classes, and fit the output: (N,) for an output B x C, (N, height, width) for
      B x C x height x width. If some of the outputs that fit have exactly as many classes as the labels, only these count,
    - or if the architecture is known and says so.

    Every other output holds values. Outputs of integers are ignored. Raises UnusableImages for an output that can't hold
    classes, for a name that no output has, and if nothing is left to distil.
    """
    named = wanted if isinstance(wanted, Mapping) else {}
    names = [output.name for output in outputs]
    for name in named:
        if name not in names:
            raise UnusableImages(f"the network has no output {name[:200]!r}; its outputs are {', '.join(names)}", "/objective")
    labelled = _labelled(outputs, labels)
    objectives = []
    for output in outputs:
        given = named.get(output.name, wanted if isinstance(wanted, str) and output.floating else None)
        kind = given or _default(output, output.name in labelled or output.name in by_name)
        if kind == "classes" and not output.may_hold_classes:
            raise UnusableImages(f"the output {output.name!r} has no axis of classes: choose values", "/objective")
        if kind == "values" and not output.floating:
            raise UnusableImages(f"the output {output.name!r} holds integers, which have no gradient: ignore it", "/objective")
        objectives.append(Objective(output.name, kind, kind == "classes" and output.ends_in_softmax))
    if all(objective.kind == "ignore" for objective in objectives):
        raise UnusableImages("all outputs are ignored, so there is nothing to distil", "/objective")
    return tuple(objectives)


def outputs_of(program: Program) -> list[OutputFacts]:
    """The outputs of a program, as far as the program tells."""
    producers = {name: node for node in program.nodes for name in node.results if name is not None}
    return [
        OutputFacts(port.name, port.shape, not port.dtype.startswith(("I", "U", "BOOL")), _softmax_axis(port.name, producers))
        for port in program.outputs
    ]


def agree(shape: Shape, other: Shape) -> bool:
    """Whether two shapes can be equal. None is any extent."""
    return len(shape) == len(other) and all(None in pair or pair[0] == pair[1] for pair in zip(shape, other, strict=True))


def _labelled(outputs: Sequence[OutputFacts], labels: LabelFacts | None) -> set[str]:
    """The names of the outputs whose classes the labels number."""
    if labels is None or labels.kind != "classes":
        return set()
    fitting = {output.name: output.shape for output in outputs if labels.fit(output)}
    exactly = {name for name, shape in fitting.items() if shape is not None and shape[1] == labels.classes}
    return exactly or set(fitting)


def _default(output: OutputFacts, known: bool) -> ObjectiveKind:
    if not output.floating:
        return "ignore"
    holds_classes = output.may_hold_classes and (output.ends_in_softmax or known)
    return "classes" if holds_classes else "values"


def _softmax_axis(name: str, producers: Mapping[str, Node]) -> int | None:
    """The axis of the softmax that gives this value, or None if it is not the result of a softmax."""
    while (node := producers.get(name)) is not None:
        if ACTIVATIONS.get(node.operator) == "softmax":
            return next((axis for axis in _axes(node) if isinstance(axis, int)), None)
        if node.operator not in SAME or not isinstance(node.arguments[0], Ref):
            return None
        name = node.arguments[0].name
    return None


def _axes(node: Node) -> Iterator[object]:
    """The axis of a softmax, wherever the node has it. The axis of an ONNX Softmax is the last one by default."""
    yield from (node.keywords[name] for name in ("dim", "axis") if name in node.keywords)
    yield from node.arguments[1:2]
    if node.operator == "onnx.Softmax":
        yield -1
