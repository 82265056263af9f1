"""How much is lost at how many bytes, drawn: predictors, plain rounding, and what was published.

python -m bench.figure FIDELITY.json [FIDELITY.json ...] --rounding QUANTISATION.json --to docs/fidelity.svg

The files are what bench.fidelity and bench.quantisation print with --json; only the rows of ResNet-20 are drawn.
"""

import argparse
import json
from pathlib import Path

from matplotlib import rcParams
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from bench.tables import Row

# arXiv 2212.13554, ResNet-20 with option B (91.69%), cross-filter: hidden units, accuracy. The bytes follow from the
# predictor's parameters (3 h^2 + 253 h + 9), four bytes each, 45.5 kB of permutation, and 270,256 represented weights.
PUBLISHED = {140: 90.39, 160: 91.16, 180: 91.50}
PUBLISHED_ORIGINAL = 91.69

# Markers by what the name of a case says after network and size; nothing: half precision, on training images.
KINDS = {
    "float": ("C0", "s", "predictor in float32"),
    "data-free": ("C2", "^", "half precision, from the checkpoint alone"),
    "regularised": ("C4", "v", "half precision, regularised, not permuted"),
    "int8": ("C3", "o", "8 bits, entropy coded"),
    "7-bits": ("C3", "D", "7 bits, entropy coded"),
    "int4": ("C3", "s", "4 bits, entropy coded"),
    "paper": ("C1", "P", "the published recipe, as measured here, float32"),
    "": ("C0", "o", "predictor in half precision"),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("fidelity", type=Path, nargs="+")
    arguments.add_argument("--rounding", type=Path, required=True)
    arguments.add_argument("--to", type=Path, required=True, metavar="FILE.svg")
    options = arguments.parse_args()
    rcParams["svg.hashsalt"] = "nern"
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    axes = figure.subplots()
    rounded = sorted((row for row in rows(options.rounding) if row["network"] == "cifar/resnet20"), key=bytes_of)
    axes.plot(
        [bytes_of(row) for row in rounded],
        [-row["drop"] for row in rounded],
        "C7.--",
        label="the weights rounded, no predictor",
    )
    axes.plot(
        [100 * (4 * (3 * h**2 + 253 * h + 9) + 45_500) / (4 * 270_256) for h in PUBLISHED],
        [accuracy - PUBLISHED_ORIGINAL for accuracy in PUBLISHED.values()],
        "kx--",
        label="published (without kept tensors)",
    )
    ours = [row for file in options.fidelity for row in rows(file) if row["case"].startswith("resnet20")]
    for ending, (colour, marker, label) in KINDS.items():
        some = [row for row in ours if kind(row) == ending]
        if some:
            axes.scatter(
                [bytes_of(row) for row in some], [-row["drop"] for row in some], color=colour, marker=marker, label=label
            )
    axes.axhline(0, color="C7", linewidth=0.5)
    axes.set_ylim(-2, 0.3)
    axes.set_xlim(0, 60)
    axes.set_xlabel("bytes, kept tensors included, in percent of the represented weights' in float32")
    axes.set_ylabel("points of accuracy, CIFAR-10 test images")
    axes.set_title("ResNet-20: what is lost at how many bytes")
    figure.legend(loc="outside right upper")
    with options.to.open("wb") as file:
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})  # type: ignore[no-untyped-call]


def rows(path: Path) -> list[Row]:
    found: list[Row] = json.loads(path.read_text())["rows"]
    return found


def bytes_of(row: Row) -> float:
    """In percent."""
    return float(100 * row["with kept"])


def kind(row: Row) -> str:
    name: str = row["case"]
    ending = "-".join(name.split("-")[2:])
    assert ending in KINDS, f"there is no marker for {name}"
    return ending


if __name__ == "__main__":
    main()
