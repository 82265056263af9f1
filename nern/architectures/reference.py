"""The list of all architectures, in Markdown. `python -m nern.architectures.reference FILE` updates the list in FILE."""

import sys
import textwrap
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from nern.architectures.table import read
from nern.documents import with_part

BEGIN = "<!-- architectures: python -m nern.architectures.reference docs/architectures.md -->"
END = "<!-- end of architectures -->"

LIBRARIES = {"cifar": "CIFAR", "torchvision": "torchvision", "timm": "timm"}


def updated(text: str) -> str:
    """The text with the present list between BEGIN and END. Raises ValueError if these are missing."""
    return with_part(text, BEGIN, END, reference())


def reference() -> str:
    """One list for each library and each kind of outputs."""
    table = read()
    members: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, entries in table.entries.items():
        ends = entries[0].ends
        outputs = ", ".join(f"`{output}` ({kind})" for output, kind in ends.outputs.items())
        videos = " of videos" if ends.frames else ""
        library, _, model = name.partition("/")
        members[library, f"{outputs}{videos}"].append(model)
    return "\n".join(line for key, models in members.items() for line in _list(*key, models))


def _list(library: str, outputs: str, models: list[str]) -> Iterator[str]:
    yield f"**{LIBRARIES[library]}, with the outputs {outputs}:** {len(models)}\n"
    yield from textwrap.wrap(", ".join(f"`{library}/{model}`" for model in models), 120, break_on_hyphens=False)
    yield ""


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(updated(file.read_text()))
