"""What is lost at how many bytes, as a picture: predictors, other codecs of the same network, and what was published.

python -m bench.figure FIDELITY.json [FIDELITY.json ...] --rivals QUANTISATION.json --to FILE.svg

The JSON files are the output of bench.fidelity and bench.quantisation with --json. Only the rows of ResNet-20 are drawn. Bytes
are those of whole files, except for the published points, whose kept tensors and header are not known. This command draws the
picture in the documents again:

python -m bench.figure bench/results/fidelity.json --rivals bench/results/quantisation.json --to docs/fidelity.svg
"""

import argparse
import json
from itertools import groupby
from pathlib import Path

from matplotlib import rcParams
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from bench.tables import Row

# arXiv 2212.13554, ResNet-20 with option B (91.69%), cross-filter: hidden units, accuracy. The bytes follow from the
# predictor's parameters (3 h^2 + 253 h + 9), four bytes each, 45.5 kB of permutation, and 270,256 represented weights.
PUBLISHED = {140: 90.39, 160: 91.16, 180: 91.50}
PUBLISHED_ORIGINAL = 91.69

# Colour, marker and label by the end of a case's name; the empty end: half precision, training images.
KINDS = {
    "float": ("C0", "s", "predictor, float32"),
    "data-free": ("C2", "^", "predictor, half precision, from the checkpoint alone"),
    "regularised": ("C4", "v", "predictor, half precision, regularised, not permuted"),
    "int8": ("C3", "o", "predictor, 8 bits, entropy coded"),
    "7-bits": ("C3", "D", "predictor, 7 bits, entropy coded"),
    "int4": ("C3", "s", "predictor, 4 bits, entropy coded"),
    "paper": ("C1", "P", "predictor, the published recipe as measured here, float32"),
    "": ("C0", "o", "predictor, half precision"),
}

# Line style and label by method. Distillations are drawn as one line for each number of steps.
RIVALS = {
    "rounding": ("C7.--", "quantised weights: rounding, Huffman coded"),
    "NNCodec": ("C5.-", "quantised weights: NNCodec (ISO/IEC 15938-17)"),
    "100 steps": ("C6x:", "quantised weights: distillation, 100 steps"),
    "2000 steps": ("C6*-", "quantised weights: distillation, 2,000 steps"),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("fidelity", type=Path, nargs="+")
    arguments.add_argument("--rivals", type=Path, required=True)
    arguments.add_argument("--to", type=Path, required=True, metavar="FILE.svg")
    options = arguments.parse_args()
    rcParams["svg.hashsalt"] = "nern"
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    axes = figure.subplots()
    ours = [row for file in options.fidelity for row in rows(file) if row["case"].startswith("resnet20")]
    for ending, (colour, marker, label) in KINDS.items():
        some = [row for row in ours if kind(row) == ending]
        if some:
            axes.scatter(
                [percent(row) for row in some], [-row["drop"] for row in some], color=colour, marker=marker, label=label
            )
    rivals = sorted((row for row in rows(options.rivals) if row["network"] == "cifar/resnet20"), key=rival)
    for name, group in groupby(rivals, key=rival):
        line = sorted(group, key=percent)
        style, label = RIVALS[name]
        axes.plot([percent(row) for row in line], [-row["drop"] for row in line], style, label=label)
    axes.plot(
        [100 * (4 * (3 * h**2 + 253 * h + 9) + 45_500) / (4 * 270_256) for h in PUBLISHED],
        [accuracy - PUBLISHED_ORIGINAL for accuracy in PUBLISHED.values()],
        "kx--",
        label="published, without kept tensors and header",
    )
    axes.axhline(0, color="C7", linewidth=0.5)
    axes.set_ylim(-2, 0.3)
    axes.set_xlim(0, 60)
    axes.set_xlabel("bytes of the whole file, in percent of the float32 bytes of the represented weights")
    axes.set_ylabel("points of accuracy, CIFAR-10 test images")
    axes.set_title("ResNet-20: accuracy that is lost, by bytes of the whole file")
    figure.legend(loc="outside right upper")
    with options.to.open("wb") as file:
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})  # type: ignore[no-untyped-call]


def rows(path: Path) -> list[Row]:
    found: list[Row] = json.loads(path.read_text())["rows"]
    return found


def percent(row: Row) -> float:
    """The bytes of the whole file in percent."""
    return float(100 * row["file"])


def rival(row: Row) -> str:
    """The key of RIVALS that the row is drawn with."""
    method: str = row["method"]
    name = row["setting"].rpartition(", ")[2] if method == "distillation" else method
    assert name in RIVALS, f"there is no line style for {name}"
    return name


def kind(row: Row) -> str:
    name: str = row["case"]
    ending = "-".join(name.split("-")[2:])
    assert ending in KINDS, f"there is no marker for {name}"
    return ending


if __name__ == "__main__":
    main()
