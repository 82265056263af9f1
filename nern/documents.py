"""Documents with a part that is made from the code, between two lines that mark the part."""


def with_part(text: str, begin: str, end: str, part: str) -> str:
    """The text with another part between the lines `begin` and `end`. Raises ValueError if these are missing."""
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"the file has no line {begin} with a line {end} after it")
    return f"{before}{begin}\n\n{part}\n{end}{after}"
