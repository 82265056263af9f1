"""The parts `file` of a multipart form (RFC 7578), as a stream.

The form parser of the web framework would write every part to the disk before the route could read it.
"""

from collections.abc import AsyncIterator
from urllib.parse import unquote

from fastapi import Request
from python_multipart import MultipartParser
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import parse_options_header

from service import problems

# The most bytes of a form that are not in its parts `file`: boundaries, headers, other parts, and what stands before the first
# boundary and behind the last one. Clients send some hundred bytes for each file.
FORM_BYTES = 2**20

MAX_OTHER_PARTS = 16


class _Parts:
    """The callbacks of the parser. They collect the names and the bytes of the parts `file`, and skip all other parts."""

    def __init__(self) -> None:
        self.content: list[str | bytes] = []
        self.files = self.file_bytes = 0
        self.ended = False
        self._in_file = False
        self._name, self._value = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._others = 0
        self.other = ""

    def on_part_begin(self) -> None:
        self._headers = {}

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name, self._value = b"", b""

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._in_file = options.get(b"name") == b"file"
        if self._in_file:
            self.files += 1
            # Browsers write some characters of the name as %XX in this header.
            self.content.append(unquote(options.get(b"filename", b"").decode(errors="replace")))
        else:
            self._others += 1
            self.other = options.get(b"name", b"").decode(errors="replace")[:100]
            if self._others > MAX_OTHER_PARTS:
                raise problems.BadRequest(f"the form has more than {MAX_OTHER_PARTS} other parts; send the part `file` alone")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self.content.append(data[start:end])
            self.file_bytes += end - start

    def on_end(self) -> None:
        self.ended = True


async def file_parts(request: Request) -> AsyncIterator[str | bytes]:
    """The files in the parts `file`, one after the other: the name of a file, then its content in pieces.

    Raises BadRequest if the form is malformed or has no such part.
    """
    _, options = parse_options_header(request.headers["content-type"])
    boundary = options.get(b"boundary", b"")
    if not boundary or len(boundary) > 256:
        raise problems.BadRequest("the Content-Type of the form has no boundary of at most 256 characters")
    parts = _Parts()
    names = (
        "on_part_begin",
        "on_header_field",
        "on_header_value",
        "on_header_end",
        "on_headers_finished",
        "on_part_data",
        "on_end",
    )
    parser = MultipartParser(boundary, {name: getattr(parts, name) for name in names})  # type: ignore[arg-type]
    received = 0
    async for data in request.stream():
        _feed(parser, data)
        received += len(data)
        if received - parts.file_bytes > FORM_BYTES:
            others = f", and there is a part `{parts.other}`" if parts.other else ""
            raise problems.BadRequest(
                f"the form has more than {FORM_BYTES} bytes beside its files; a part with a file must be called `file`{others}"
            )
        for parsed in parts.content:
            yield parsed
        parts.content.clear()
    if not parts.files:
        others = f", but a part `{parts.other}`" if parts.other else ""
        raise problems.BadRequest(f"the form has no part `file`{others}")
    if not parts.ended:
        raise problems.BadRequest("the form ends before its last boundary; send the form again")


def _feed(parser: MultipartParser, data: bytes) -> None:
    try:
        parser.write(data)
    except MultipartParseError as error:
        raise problems.BadRequest(f"the form is malformed: {error}") from error
