"""The refusal of a file by the inspecting process."""


class Refusal(Exception):
    """The file is refused. The service answers with the problem of this slug and this detail."""

    def __init__(self, slug: str, detail: str) -> None:
        super().__init__(detail)
        self.slug = slug
        self.detail = detail
