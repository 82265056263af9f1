"""Why a file is refused, as it crosses from the inspecting process: the slug of a problem and a sentence."""


class Refusal(Exception):
    def __init__(self, slug: str, detail: str) -> None:
        super().__init__(detail)
        self.slug = slug
        self.detail = detail
