from typing import Any
from xml.etree import ElementTree

import pytest

from service.figures import FIGURES, draw
from service.problems import NotFound

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


def test_what_was_not_measured_is_not_drawn() -> None:
    with pytest.raises(NotFound, match="did not ask for it"):
        draw("importance", {**REPORT, "importance": None})


def test_another_figure_is_not_found_and_those_that_are_there_are_named() -> None:
    with pytest.raises(NotFound, match="layers, bytes, importance"):
        draw("activations", REPORT)
