"""The output of all benchmarks: rows as a table or as JSON, with the command, seed and machine that made the numbers."""

import argparse
import json
import platform
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

Row = dict[str, Any]

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DEVICE_NAME = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"

# Results go to standard output, progress to standard error.
progress = Console(stderr=True)


def parser(description: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads that torch uses")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--quick", action="store_true", help="a smaller run of less than five minutes on two idle cores")
    made.add_argument("--json", action="store_true", help="print the rows as JSON")
    return made


def show(rows: list[Row], title: str, options: argparse.Namespace, *, device: str = "none") -> None:
    """Prints the result; `device` is the name of the GPU, if one was used."""
    made = made_by(options) | {"device": device}
    if options.json:
        print(json.dumps({"title": title, "made_by": made, "rows": rows}))
        return
    table = Table(*rows[0], title=title, caption=", ".join(f"{name} {value}" for name, value in made.items()))
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def made_by(options: argparse.Namespace) -> dict[str, Any]:
    """Command, seed and machine."""
    command = " ".join(["python", *(Path(word).name if "/" in word else word for word in sys.argv)])
    return {
        "command": command,
        "seed": options.seed,
        "processor": _processor(),
        "threads": options.threads,
        "torch": torch.__version__,
    }


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
