"""Every error that a client can get: one class a kind, each with a stable `type` (RFC 9457).

The docstring of a class is what `GET /problems/{slug}` answers; `detail` says what to do about this very case.
"""

from typing import Any, ClassVar


class Problem(Exception):
    """Base of all problems. `extra` becomes members of the answer, `headers` headers."""

    slug: ClassVar[str]
    status: ClassVar[int]
    title: ClassVar[str]

    def __init__(self, detail: str, *, headers: dict[str, str] | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = headers or {}
        self.extra = extra


class Unauthorized(Problem):
    """The request has no API key, or one that is not known here."""

    slug, status, title = "unauthorized", 401, "Unauthorized"


class Forbidden(Problem):
    """The API key's scope does not include this."""

    slug, status, title = "forbidden", 403, "Forbidden"


class NotFound(Problem):
    """There is nothing at this address: no such route, or no such id, or it was deleted."""

    slug, status, title = "not-found", 404, "Not found"


class MethodNotAllowed(Problem):
    """The address exists, but not with this method; `Allow` lists those that it has."""

    slug, status, title = "method-not-allowed", 405, "Method not allowed"


class NotAcceptable(Problem):
    """None of the media types in `Accept` (or the `format` asked for) can be had here."""

    slug, status, title = "not-acceptable", 406, "Not acceptable"


class InUse(Problem):
    """It can't be deleted while a job that is not over needs it: cancel the job first."""

    slug, status, title = "in-use", 409, "In use"


class Impossible(Problem):
    """The job's state does not allow it: a job that is over stays as it is."""

    slug, status, title = "impossible-in-this-state", 409, "Impossible in this state"


class TooLarge(Problem):
    """The body is larger than this service accepts."""

    slug, status, title = "too-large", 413, "Too large"


class UnsupportedMediaType(Problem):
    """The body's `Content-Type` is none that this route reads."""

    slug, status, title = "unsupported-media-type", 415, "Unsupported media type"


class BadRequest(Problem):
    """The request is not what HTTP or the body's media type says it should be."""

    slug, status, title = "bad-request", 400, "Bad request"


class Invalid(Problem):
    """Fields or parameters are missing, unknown or out of range; `errors` points at each of them."""

    slug, status, title = "invalid", 422, "Invalid request"


class KeyReused(Problem):
    """The `Idempotency-Key` was used before, with another request."""

    slug, status, title = "idempotency-key-reused", 422, "Idempotency key reused"


class OutsideNetwork(Problem):
    """A coordinate is outside the represented network; `coordinate` names it."""

    slug, status, title = "coordinate-outside-network", 422, "Coordinate outside the network"


class DigestMismatch(Problem):
    """The body's bytes are not those that `Content-Digest` describes: send it again."""

    slug, status, title = "digest-mismatch", 422, "Digest mismatch"


class EmptyFile(Problem):
    """The file has no bytes."""

    slug, status, title = "empty-file", 422, "Empty file"


class TruncatedFile(Problem):
    """The file ends too early: it was cut off on its way, or when it was written."""

    slug, status, title = "truncated-file", 422, "Truncated file"


class NotACheckpoint(Problem):
    """The file is none that torch.save or safetensors writes, or holds no state_dict."""

    slug, status, title = "not-a-checkpoint", 422, "Not a checkpoint"


class ForbiddenPickle(Problem):
    """Reading the file would run code that it brings along. Save the state_dict alone."""

    slug, status, title = "forbidden-pickle", 422, "Forbidden pickle"


class UnsupportedArchive(Problem):
    """TorchScript and torch.export archives hold programs. Save the state_dict of the module instead."""

    slug, status, title = "unsupported-archive", 422, "Unsupported archive"


class UnsupportedTensor(Problem):
    """A tensor has a dtype or a layout that can't be stored."""

    slug, status, title = "unsupported-tensor", 422, "Unsupported tensor"


class NonFiniteWeights(Problem):
    """A tensor holds NaN or infinity."""

    slug, status, title = "non-finite-weights", 422, "Non-finite weights"


class NoConvolutions(Problem):
    """The checkpoint has no convolution, so there is nothing to represent."""

    slug, status, title = "no-convolutions", 422, "No convolutions"


class BadDataset(Problem):
    """The file is not an .npz with `images` (uint8, N x H x W x C) and perhaps `labels` (integers, N)."""

    slug, status, title = "bad-dataset", 422, "Bad dataset"


class TooDemanding(Problem):
    """Reading the file took more memory or time than its size justifies."""

    slug, status, title = "too-demanding", 422, "Too demanding"


class NotRepresentable(Problem):
    """The job does not fit the checkpoint: no such architecture, or no such layers."""

    slug, status, title = "not-representable", 422, "Not representable"


class Unavailable(Problem):
    """Something that the service depends on does not answer: try again later."""

    slug, status, title = "unavailable", 503, "Unavailable"


class Broken(Problem):
    """A fault of the service. It has been logged; nothing that was accepted is lost."""

    slug, status, title = "internal", 500, "Internal error"


KINDS: dict[str, type[Problem]] = {kind.slug: kind for kind in Problem.__subclasses__()}
