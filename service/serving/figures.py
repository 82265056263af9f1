"""Draws the figures of a report as SVG."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from service import problems

# Without a fixed salt, the ids in an SVG file are random.
rcParams["svg.hashsalt"] = "nern"

Report = dict[str, Any]

# The names of more layers than this are left out, because drawing them takes too long.
MAX_NAMED_LAYERS = 300

STYLES = {"relative error": "C0-", "absolute error": "C0--", "magnitude": "C1-", "random": "C7:"}


def draw(name: str, report: Report) -> bytes:
    """One figure of a report, as an SVG file. Raises NotFound if there is no such figure or the report lacks its numbers."""
    if name not in FIGURES:
        raise problems.NotFound(f"there is no figure {name!r}; the figures are {', '.join(FIGURES)}")
    figure = Figure(layout="constrained")
    FIGURES[name](figure, report)
    content = BytesIO()
    # Without a date, the same report gives the same bytes.
    FigureCanvasSVG(figure).print_svg(content, metadata={"Date": None})  # type: ignore[no-untyped-call]
    return content.getvalue()


def _layers(figure: Figure, report: Report) -> None:
    """Draws the relative error of every layer."""
    error = report["relative_error"]
    # A relative error that is not finite is null in the report, and drawn as 0.
    errors = [layer["relative_error"] or 0.0 for layer in error["layers"]]
    axes: Axes
    if len(errors) > MAX_NAMED_LAYERS:
        figure.set_size_inches(9, 5)
        axes = figure.subplots()
        axes.stairs(errors, fill=True, color="C0")
        axes.set_xlabel("layer")
        axes.set_ylabel("norm of the error / norm of the weights")
        line: Callable[..., Any] = axes.axhline
    else:
        figure.set_size_inches(7, 1.5 + 0.2 * len(errors))
        axes = figure.subplots()
        axes.barh(range(len(errors)), errors, color="C0")
        axes.set_yticks(range(len(errors)), [_label(layer["name"]) for layer in error["layers"]], parse_math=False)
        axes.invert_yaxis()
        axes.set_xlabel("norm of the error / norm of the weights")
        line = axes.axvline
    if error["overall"] is not None:
        line(error["overall"], color="C1", label=f"overall: {error['overall']:.3f}")
        axes.legend()
    axes.set_title("Reconstruction error by layer")


def _label(name: str) -> str:
    """The name of a layer without `.weight`; the last characters of a long name."""
    name = name.removesuffix(".weight")
    return name if len(name) <= 60 else f"…{name[-59:]}"


def _bytes(figure: Figure, report: Report) -> None:
    """Draws the bytes of the artefact's parts beside the bytes of the original network."""
    parts = report["bytes"]
    figure.set_size_inches(7, 2.5)
    axes: Axes = figure.subplots()
    left = 0.0
    for part in ("predictor", "permutation", "kept"):
        axes.barh("artefact", parts[part] / 1e6, left=left, label=part)
        left += parts[part] / 1e6
    axes.barh("original", parts["original"] / 1e6, color="C7")
    axes.invert_yaxis()
    axes.set_xlabel("megabytes")
    axes.set_title(f"{100 * parts['total'] / parts['original']:.1f}% of the bytes of the original network")
    axes.legend()


def _importance(figure: Figure, report: Report) -> None:
    """Draws the accuracy after pruning, for weights, kernels and filters that were chosen by each score."""
    if (importance := report.get("importance")) is None:
        raise problems.NotFound('the report has no importance, because the job did not ask for it with "importance": true')
    figure.set_size_inches(12, 4)
    panels = figure.subplots(1, len(importance["curves"]), sharey=True)
    for axes, (part, curves) in zip(panels, importance["curves"].items(), strict=True):
        for by, values in curves.items():
            axes.plot(importance["fractions"], values, STYLES[by], label=by)
        axes.set_title(f"{part}s")
        axes.set_xlabel("fraction of the weights set to zero")
    panels[0].set_ylabel(importance["metric"])
    panels[0].legend()


FIGURES: dict[str, Callable[[Figure, Report], None]] = {"layers": _layers, "bytes": _bytes, "importance": _importance}
