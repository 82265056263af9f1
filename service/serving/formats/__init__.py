"""The formats in which kernels are answered. A new one is a module of its own and an entry here."""

from service.serving.formats.format import Format
from service.serving.formats.json_lines import JSONL, NDJSON
from service.serving.formats.json_object import JSON
from service.serving.formats.raw import RAW

# In order of preference, for clients that would take several.
FORMATS: dict[str, Format] = {format.name: format for format in (JSON, JSONL, NDJSON, RAW)}
