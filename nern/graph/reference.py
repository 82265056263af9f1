"""The list of all operators, in Markdown. `python -m nern.graph.reference docs/graphs.md` updates the list in the file."""

import sys
from pathlib import Path

from nern.documents import with_part
from nern.graph.operators import OPERATORS

BEGIN, END = "<!-- operators: python -m nern.graph.reference docs/graphs.md -->", "<!-- end of operators -->"

FAMILIES = {"aten": "Tensors, of torch.export", "onnx": "Tensors, of ONNX", "": "Numbers, of torch.export"}


def updated(text: str) -> str:
    """The text with the present list between BEGIN and END. Raises ValueError if these are missing."""
    return with_part(text, BEGIN, END, reference())


def reference() -> str:
    """One paragraph for each family of operators. Overloads of one operator stand together."""
    lines = []
    for family, title in FAMILIES.items():
        names: dict[str, list[str]] = {}
        for name in sorted(OPERATORS):
            first, _, rest = name.partition(".")
            if first == family or (not family and first not in FAMILIES):
                operator, _, overload = rest.partition(".") if family else (name, "", "")
                names.setdefault(operator, []).append(overload)
        if names:
            text = ", ".join(f"`{operator}{_overloads(found)}`" for operator, found in names.items())
            lines += [f"{title} ({f'`{family}.…`, ' if family else ''}{sum(map(len, names.values()))}): {text}.", ""]
    return "\n".join(lines)


def _overloads(found: list[str]) -> str:
    return "" if found == [""] else f".{found[0]}" if len(found) == 1 else f".{{{','.join(found)}}}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(updated(path.read_text()))
