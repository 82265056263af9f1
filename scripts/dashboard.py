"""Draws the dashboard of Grafana from the answers of a Prometheus server, for the documents. Grafana is not needed.

python -m scripts.dashboard --prometheus http://127.0.0.1:9090 --minutes 10 --to docs/dashboard.svg

Each panel of deploy/kubernetes/components/monitoring/dashboard.json is drawn with its title, its unit and its legend.
"""

import argparse
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullFormatter, PercentFormatter

DASHBOARD = Path(__file__).parents[1] / "deploy/kubernetes/components/monitoring/dashboard.json"

# Points of a line, and scrapes that a rate is taken of. Grafana takes at least four.
POINTS = 90
RATE_SCRAPES = 4

# Lines of a panel that are named.
NAMED = 6

# What is written after a number, by the unit as Grafana calls it.
UNITS = {"reqps": "/s", "s": "s", "Bps": "B/s", "bytes": "B"}

STYLE: dict[str, Any] = {
    "svg.hashsalt": "nern",
    "svg.fonttype": "none",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7,
    "axes.titlesize": 8,
}

Panel = dict[str, Any]

# What the legend says of a line, its minutes and its values.
Line = tuple[str, Sequence[float], Sequence[float]]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--prometheus", required=True, metavar="URL")
    arguments.add_argument("--minutes", type=float, default=60, help="how long before now the picture begins")
    arguments.add_argument("--scrape-seconds", type=float, default=30, help="how often Prometheus scrapes")
    arguments.add_argument("--to", type=Path, required=True, metavar="FILE.svg")
    options = arguments.parse_args()
    with httpx.Client(base_url=options.prometheus, timeout=60) as client:
        draw(client, time.time() - 60 * options.minutes, 60 * options.minutes, options.scrape_seconds, options.to)


def draw(client: httpx.Client, start: float, seconds: float, scrape_seconds: float, to: Path) -> None:
    """Draws what a Prometheus server has of some seconds from `start` on (seconds since 1970) into an SVG file."""
    panels: list[Panel] = json.loads(DASHBOARD.read_text())["panels"]
    titles = [panel["title"] for panel in panels if panel["type"] == "row"]
    rows = [list(row) for is_title, row in groupby(panels, lambda panel: panel["type"] == "row") if not is_title]
    drawn = StringIO()
    with rc_context(STYLE):  # type: ignore[arg-type]  # the names of its keys are settings of matplotlib
        figure = Figure(figsize=(15, 2.6 * len(rows)), layout="constrained")
        parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
        for part, title, row in zip(parts, titles, rows, strict=True):
            part.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
            for axes, panel in zip(part.subplots(1, len(row), squeeze=False)[0], row, strict=True):
                draw_panel(axes, panel, list(lines_of(client, panel, start, seconds, scrape_seconds)))
                axes.set_xlim(0, seconds / 60)
        for axes in parts[-1].axes:
            axes.set_xlabel("minutes")
        FigureCanvasSVG(figure).print_svg(drawn, metadata={"Date": None})  # type: ignore[no-untyped-call]
    # Nobody sees more than two decimals of a coordinate.
    to.write_text(re.sub(r"(\.\d\d)\d+", r"\1", drawn.getvalue()))


def lines_of(client: httpx.Client, panel: Panel, start: float, seconds: float, scrape_seconds: float) -> Iterator[Line]:
    """The lines of a panel."""
    for target in panel["targets"]:
        expression = (
            target["expr"].replace("$namespace", ".*").replace("$__rate_interval", f"{RATE_SCRAPES * scrape_seconds:g}s")
        )
        asked = {"query": expression, "start": start, "end": start + seconds, "step": seconds / POINTS}
        answer = client.get("/api/v1/query_range", params=asked)
        answer.raise_for_status()
        for found in answer.json()["data"]["result"]:
            minutes = [(at - start) / 60 for at, _ in found["values"]]
            yield legend_of(target["legendFormat"], found["metric"]), minutes, [float(value) for _, value in found["values"]]


def legend_of(text: str, labels: Mapping[str, str]) -> str:
    """A legend with the values of labels in the place of their names: {{state}}. Of ids, the end is shown."""
    shown = {name: value[-6:] if name == "job_id" else value for name, value in labels.items()}
    return re.sub(r"\{\{(\w+)\}\}", lambda name: shown.get(name[1], ""), text).strip()


def draw_panel(axes: Axes, panel: Panel, lines: Sequence[Line]) -> None:
    axes.set_title(panel["title"], loc="left")
    for number, (legend, minutes, values) in enumerate(lines):
        axes.plot(minutes, values, lw=1, label=legend if number < NAMED else None)
    defaults = panel["fieldConfig"]["defaults"]
    if "custom" in defaults:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=defaults["min"], top=1.05 * defaults["max"] if "max" in defaults else None)
    if (unit := defaults["unit"]) != "short":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0) if unit == "percentunit" else EngFormatter(UNITS[unit], sep=""))
    axes.grid(alpha=0.3)
    if any(legend for legend, *_ in lines):
        axes.legend(fontsize=6, framealpha=0.7, edgecolor="none", loc="upper left")


if __name__ == "__main__":
    main()
