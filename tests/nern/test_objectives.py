import pytest

from nern.errors import UnusableImages
from nern.graph.program import Argument, Node, Port, Program, Ref
from nern.objectives import LabelFacts, OutputFacts, choose, outputs_of
from nern.request.options import ObjectiveChoice

LOGITS, PICTURE, MASK = OutputFacts("y", (None, 10)), OutputFacts("y", (None, 3, 8, 8)), OutputFacts("out", (None, 4, 8, 8))
ONE_CLASS, PIXELS = LabelFacts("classes", (), 10), LabelFacts("classes", (8, 8), 3)


@pytest.mark.parametrize(
    ("output", "labels", "by_name", "kind"),
    [
        (LOGITS, None, True, "classes"),
        (LOGITS, ONE_CLASS, False, "classes"),
        (LOGITS, None, False, "values"),
        (LOGITS, LabelFacts("classes", (), 11), False, "values"),
        (LOGITS, LabelFacts("values", (10,)), False, "values"),
        (OutputFacts("y", (None, 1)), None, True, "values"),
        (OutputFacts("y", (None,)), LabelFacts("classes", (), 2), False, "values"),
        (OutputFacts("y", (None, 10), softmax_axis=1), None, False, "classes"),
        (OutputFacts("y", (None, 10), softmax_axis=-1), None, False, "classes"),
        (OutputFacts("y", (None, 5, 10), softmax_axis=-1), None, False, "values"),
        (PICTURE, None, True, "values"),
        (PICTURE, ONE_CLASS, False, "values"),
        (PICTURE, PIXELS, False, "classes"),
        (PICTURE, LabelFacts("values", (3, 8, 8)), False, "values"),
        (MASK, None, True, "classes"),
        (MASK, None, False, "values"),
        (OutputFacts("y", (None, None, None, None)), PIXELS, False, "classes"),
        (OutputFacts("y", (None, 10), floating=False), ONE_CLASS, False, "ignore"),
    ],
)
def test_what_an_output_holds_follows_from_its_end_the_labels_and_the_name(
    output: OutputFacts, labels: LabelFacts | None, by_name: bool, kind: str
) -> None:
    beside = OutputFacts("beside", (None, 1, 2, 2))
    assert choose([output, beside], None, labels, by_name=by_name)[0].kind == kind


def test_labels_belong_to_the_output_with_as_many_classes() -> None:
    outputs = [OutputFacts("boxes", (None, 12)), OutputFacts("classes", (None, 10)), OutputFacts("again", (None, 10))]
    assert [one.kind for one in choose(outputs, None, ONE_CLASS, by_name=False)] == ["values", "classes", "classes"]
    fewer = LabelFacts("classes", (), 9)
    assert [one.kind for one in choose(outputs, None, fewer, by_name=False)] == ["classes"] * 3


@pytest.mark.parametrize(
    ("wanted", "kinds"),
    [
        ("values", ["values", "values", "ignore"]),
        ("classes", ["classes", "classes", "ignore"]),
        ({"out": "ignore"}, ["classes", "ignore", "ignore"]),
        ({"y": "values", "out": "classes"}, ["values", "classes", "ignore"]),
    ],
)
def test_a_request_may_say_what_the_outputs_hold(wanted: ObjectiveChoice, kinds: list[str]) -> None:
    outputs = [LOGITS, MASK, OutputFacts("number", (None, 10), floating=False)]
    assert [one.kind for one in choose(outputs, wanted, ONE_CLASS, by_name=False)] == kinds


@pytest.mark.parametrize(
    ("outputs", "wanted", "reason"),
    [
        ([LOGITS], {"z": "values"}, "has no output 'z'; its outputs are y"),
        ([OutputFacts("y", (None, 1))], "classes", "'y' has no axis of classes"),
        ([OutputFacts("y", (None,))], {"y": "classes"}, "'y' has no axis of classes"),
        ([LOGITS, OutputFacts("n", (None, 3), floating=False)], {"n": "values"}, "'n' holds integers"),
        ([LOGITS], {"y": "ignore"}, "nothing to distil"),
        ([OutputFacts("n", (None, 3), floating=False)], None, "nothing to distil"),
    ],
)
def test_an_objective_that_an_output_can_not_have_is_refused(
    outputs: list[OutputFacts], wanted: ObjectiveChoice, reason: str
) -> None:
    with pytest.raises(UnusableImages, match=reason) as refused:
        choose(outputs, wanted, None, by_name=False)
    assert refused.value.pointer == "/objective"


def ending(*nodes: tuple[str, tuple[Argument, ...], dict[str, Argument]], dtype: str = "F32") -> Program:
    """A program whose nodes each take the result of the node before."""
    made = tuple(
        Node(operator, (Ref(f"v{number}"), *arguments), keywords, (f"v{number + 1}",))
        for number, (operator, arguments, keywords) in enumerate(nodes)
    )
    shape = (None, 10)
    return Program((Port("v0", "F32", shape),), (Port(f"v{len(nodes)}", dtype, shape),), {}, made)


@pytest.mark.parametrize(
    ("program", "probabilities"),
    [
        (ending(("aten.softmax.int", (1,), {})), True),
        (ending(("aten.softmax.int", (-1,), {})), True),
        (ending(("aten._softmax.default", (1, False), {})), True),
        (ending(("onnx.Softmax", (), {"axis": 1})), True),
        (ending(("onnx.Softmax", (), {})), True),
        (ending(("onnx.Softmax", (), {}), ("onnx.Identity", (), {})), True),
        (ending(("aten.softmax.int", (0,), {})), False),
        (ending(("aten.softmax.int", (1,), {}), ("aten.relu.default", (), {})), False),
        (ending(("aten.sigmoid.default", (), {})), False),
        (ending(), False),
    ],
)
def test_a_softmax_at_the_end_of_a_program_is_seen(program: Program, probabilities: bool) -> None:
    [objective] = choose(outputs_of(program), None, None, by_name=False)
    assert objective.probabilities == probabilities
    assert objective.kind == ("classes" if probabilities else "values")


def test_outputs_of_integers_are_known_by_their_dtype() -> None:
    [output] = outputs_of(ending(dtype="I64"))
    assert not output.floating
