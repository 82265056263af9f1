"""The formats of kernels in answers. A new format is a module in this package and an entry in FORMATS."""

from service.serving.formats.format import Format
from service.serving.formats.json_lines import JSONL, NDJSON
from service.serving.formats.json_object import JSON
from service.serving.formats.raw import RAW

# By name, in the order of preference for clients that accept several.
FORMATS: dict[str, Format] = {format.name: format for format in (JSON, JSONL, NDJSON, RAW)}
