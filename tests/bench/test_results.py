"""The documents say what the stored results say."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench.fidelity import CASES
from bench.figure import rival

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "bench"


def stored(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((BENCH / "results" / name).read_text())["rows"]
    return rows


def lines() -> list[list[str]]:
    """The cells of every line of a table in RESULTS.md."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in (BENCH / "RESULTS.md").read_text().splitlines()]


@pytest.mark.parametrize("row", stored("fidelity.json"), ids=lambda row: row["case"])
def test_a_predictor_has_its_line_in_the_results(row: dict[str, Any]) -> None:
    assert row["case"] in CASES
    nbytes = [f"{100 * row[part]:.1f}%" for part in ("file", "artefact", "with kept")]
    accuracies = [f"{row[name]:.2f}%" for name in ("original", "best", "last")]
    assert [*nbytes, f"{row['minutes']:.1f}", *accuracies] in [cells[2:] for cells in lines()]
    assert row["drop"] == pytest.approx(row["original"] - row["best"])


@pytest.mark.parametrize("row", stored("quantisation.json"), ids=lambda row: f"{row['method']} {row['setting']}")
def test_a_rival_has_its_line_and_its_style(row: dict[str, Any]) -> None:
    nbytes = ["" if row[part] is None else f"{100 * row[part]:.1f}%" for part in ("file", "artefact", "with kept")]
    cells = [row["method"], row["setting"], *nbytes, f"{row['divergence']:.4f}", f"{row['accuracy']:.2f}%"]
    assert cells in [line[: len(cells)] for line in lines()]
    assert rival(row)


@pytest.mark.parametrize("document", ["README.md", "docs/method.md", "bench/RESULTS.md", "bench/NOTEBOOK.md"])
def test_links_to_files_and_sections_lead_somewhere(document: str) -> None:
    path = ROOT / document
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", path.read_text())
    assert links
    for file, section in links:
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), file
        headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if section else []
        assert not section or section in [heading.lower().replace(" ", "-") for heading in headings], section
