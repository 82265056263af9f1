"""Draws accuracy against bytes: predictors, plain rounding, and what was published.

python -m bench.figure FILE ... --output docs/fidelity.svg

The files are what bench.fidelity and bench.quantisation print with --json. Bytes are those of predictor, permutation and
kept tensors, or of codes, steps and kept tensors, over those of the represented weights.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from bench.tables import Row

Points = list[tuple[float, float]]

# arXiv 2212.13554, cross-filter: the artefact's bytes over those of the weights, and points of accuracy lost. Kept tensors
# are not in them.
PUBLISHED: dict[str, Points] = {
    "ResNet-20": [(0.391, 1.30), (0.476, 0.53), (0.570, 0.19)],
    "ResNet-56": [(0.403, 0.98), (0.499, 0.56)],
}

# The rest of the axis is for networks that have lost almost everything.
MOST = 3.0


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("files", type=Path, nargs="+", metavar="FILE")
    arguments.add_argument("--output", type=Path, required=True, help="an .svg")
    options = arguments.parse_args()
    rows = [row for path in options.files for row in json.loads(path.read_text())["rows"]]
    rcParams["svg.hashsalt"] = "nern"
    figure = Figure((10, 4), layout="constrained")
    panels = figure.subplots(1, len(PUBLISHED), sharey=True)
    for axes, network in zip(panels, PUBLISHED, strict=True):
        draw(axes, network, rows)
    panels[0].set_ylabel("points of accuracy lost")
    panels[0].legend()
    with options.output.open("wb") as file:
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})  # type: ignore[no-untyped-call]


def draw(axes: Axes, network: str, rows: Iterable[Row]) -> None:
    """One network's panel; smaller and higher is better."""
    slug = network.lower().replace("-", "")
    ours = [row for row in rows if str(row.get("case", "")).startswith(slug)]
    with_images = [row for row in ours if "data-free" not in row["case"]]
    without = [row for row in ours if "data-free" in row["case"]]
    plain = [row for row in rows if row.get("network") == f"cifar/{slug}"]
    axes.plot(*_columns(PUBLISHED[network]), "C7s--", label="NeRN, published")
    axes.plot(*_columns(_points(plain)), "C1x:", label="weights rounded to 8 to 3 bits")
    axes.plot(*_columns(_points(with_images)), "C0o-", label="this library")
    axes.plot(*_columns(_points(without)), "C0^", mfc="none", label="this library, without images")
    axes.axhline(0, color="C7", linewidth=0.5)
    axes.set(title=network, xlabel="bytes / bytes of the represented weights", ylim=(MOST, -0.3), xlim=(0, 0.65))


def _points(rows: Iterable[Row]) -> Points:
    return sorted((row["with kept"], row["drop"]) for row in rows)


def _columns(points: Points) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


if __name__ == "__main__":
    main()
