"""The table of settings, in Markdown. `python -m service.reference FILE` updates the table in FILE."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from nern.documents import with_part
from service.settings import GIB, MIB, PREFIX, LogSettings, Settings

BEGIN, END = "<!-- settings: python -m service.reference docs/settings.md -->", "<!-- end of settings -->"


def updated(text: str) -> str:
    """The text with the present table between BEGIN and END. Raises ValueError if these are missing."""
    return with_part(text, BEGIN, END, "\n".join(_table()) + "\n")


def _table() -> Iterator[str]:
    yield "| variable | default | meaning |"
    yield "|---|---|---|"
    # The settings of the log come last, although they are known before the others.
    for name, field in sorted(Settings.model_fields.items(), key=lambda item: item[0] in LogSettings.model_fields):
        yield f"| `{PREFIX}{name.upper()}` | {_default(name, field.get_default())} | {field.description} |"


def _default(name: str, value: Any) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None or value == "":
        return "none"
    if isinstance(value, Path):
        return f"`./{value}`"
    if name.endswith("_bytes") and value:
        return f"{value // GIB} GiB" if value >= GIB else f"{value // MIB} MiB"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(updated(path.read_text()))
