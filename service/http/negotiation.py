"""Content negotiation: chooses one of the formats that a route offers (RFC 9110, section 12.5.1)."""

from collections.abc import Mapping

from fastapi import Request

from service import problems


def choose(request: Request, offered: Mapping[str, str], format: str | None) -> str:
    """The name of the format that a client wants: `format` if it is given, else by the header `Accept`.

    `offered` maps names to media types, in the order of preference for clients that accept several. Raises NotAcceptable.
    """
    if format is not None:
        if format not in offered:
            raise problems.NotAcceptable(f"this route has no format {format!r}; ask for one of {', '.join(offered)}")
        return format
    accept = request.headers.get("accept") or "*/*"
    preferences = [_parse(item) for item in accept.split(",") if item.strip()]
    ranked = [(_quality(media_type, preferences), -rank, name) for rank, (name, media_type) in enumerate(offered.items())]
    quality, _, name = max(ranked)
    if quality <= 0:
        raise problems.NotAcceptable(f"this route can't answer as {accept!r}; accept one of {', '.join(offered.values())}")
    return name


def _parse(item: str) -> tuple[str, float]:
    """The media range and the quality of one item of `Accept`."""
    media_range, *parameters = (part.strip().lower() for part in item.split(";"))
    quality = next((parameter[2:] for parameter in parameters if parameter.startswith("q=")), "1")
    try:
        return media_range, float(quality)
    except ValueError:
        return media_range, 0.0


def _quality(media_type: str, preferences: list[tuple[str, float]]) -> float:
    """The quality that a client gives a media type, by the most specific media range that matches it. 0: not acceptable."""
    for media_range in (media_type, media_type.partition("/")[0] + "/*", "*/*"):
        for given, quality in preferences:
            if given == media_range:
                return quality
    return 0.0
