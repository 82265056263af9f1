"""Which of the formats that a route offers a client wants (RFC 9110, section 12.5.1)."""

from collections.abc import Mapping

from fastapi import Request

from service import problems


def choose(request: Request, offered: Mapping[str, str], format: str | None) -> str:
    """The name of a format, out of names and media types, best first: by `format`, else by `Accept`.

    Raises NotAcceptable.
    """
    if format is not None:
        if format not in offered:
            raise problems.NotAcceptable(f"there is no format {format!r} here; there are {', '.join(offered)}")
        return format
    accept = request.headers.get("accept") or "*/*"
    preferences = [_parse(item) for item in accept.split(",") if item.strip()]
    ranked = [(_quality(media_type, preferences), -rank, name) for rank, (name, media_type) in enumerate(offered.items())]
    quality, _, name = max(ranked)
    if quality <= 0:
        raise problems.NotAcceptable(f"{accept!r} can't be had here; there are {', '.join(offered.values())}")
    return name


def _parse(item: str) -> tuple[str, float]:
    media_range, *parameters = (part.strip().lower() for part in item.split(";"))
    quality = next((parameter[2:] for parameter in parameters if parameter.startswith("q=")), "1")
    try:
        return media_range, float(quality)
    except ValueError:
        return media_range, 0.0


def _quality(media_type: str, preferences: list[tuple[str, float]]) -> float:
    """The most specific range that matches decides."""
    for media_range in (media_type, media_type.partition("/")[0] + "/*", "*/*"):
        for given, quality in preferences:
            if given == media_range:
                return quality
    return 0.0
