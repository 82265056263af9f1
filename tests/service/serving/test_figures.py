from typing import Any
from xml.etree import ElementTree

import pytest

from service.problems import NotFound
from service.serving.figures import FIGURES, draw

REPORT: dict[str, Any] = {
    "relative_error": {"overall": 0.2, "layers": [{"index": 0, "name": "conv1.weight", "relative_error": 0.1}]},
    "bytes": {"predictor": 40, "permutation": 4, "kept": 5, "total": 60, "original": 100},
    "importance": {
        "metric": "accuracy",
        "fractions": [0.1, 0.5],
        "curves": {"weight": {"random": [0.9, 0.2]}, "kernel": {"magnitude": [0.9, 0.5]}},
    },
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_an_svg_and_the_same_every_time(name: str) -> None:
    picture = draw(name, REPORT)
    assert ElementTree.fromstring(picture).tag.endswith("svg")  # noqa: S314  # our own
    assert draw(name, REPORT) == picture


def layers(names: list[str], *, overall: float | None = 0.2) -> dict[str, Any]:
    described = [{"index": index, "name": name, "relative_error": 0.1} for index, name in enumerate(names)]
    return {**REPORT, "relative_error": {"overall": overall, "layers": described}}


def test_names_are_drawn_as_they_are() -> None:
    assert b"a$x^{$" in draw("layers", layers(["a$x^{$.weight"]))
    assert b"x" * 100 not in draw("layers", layers(["x" * 900]))


def test_many_layers_are_drawn_without_their_names() -> None:
    assert b"layer7" in draw("layers", layers([f"layer{number}" for number in range(100)]))
    assert b"layer7" not in draw("layers", layers([f"layer{number}" for number in range(2000)]))


def test_an_error_that_is_no_number_is_left_out() -> None:
    report = layers(["a.weight"], overall=None)
    report["relative_error"]["layers"][0]["relative_error"] = None
    assert ElementTree.fromstring(draw("layers", report)).tag.endswith("svg")  # noqa: S314  # our own


def test_what_was_not_measured_is_not_drawn() -> None:
    with pytest.raises(NotFound, match="the job did not ask for it"):
        draw("importance", {**REPORT, "importance": None})


def test_another_figure_is_not_found_and_those_that_are_there_are_named() -> None:
    with pytest.raises(NotFound, match="layers, bytes, importance"):
        draw("activations", REPORT)
