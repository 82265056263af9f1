"""Every kind of error that the API answers with: one class for each kind, with a stable `type` (RFC 9457).

`GET /problems/{slug}` answers with the docstring of a class, which describes the kind. The `detail` of a problem describes one
case.
"""

from typing import Any, ClassVar

# A text of a problem has at most about so many characters. It may quote a request or a file, which may be long.
MAX_CHARACTERS = 1000


class Problem(Exception):
    """Base class of all problems. The answer has `headers`, and each item of `extra` is a member of its JSON object.

    Long texts are cut. After `retry_seconds`, if the kind of problem has such a time, the client may send the request again.
    """

    slug: ClassVar[str]
    status: ClassVar[int]
    title: ClassVar[str]
    retry_seconds: ClassVar[int | None] = None

    def __init__(self, detail: str, *, headers: dict[str, str] | None = None, **extra: Any) -> None:
        self.detail = shortened(detail)
        super().__init__(self.detail)
        retry = {"Retry-After": str(self.retry_seconds)} if self.retry_seconds else {}
        self.headers = {**retry, **(headers or {})}
        self.extra = shortened(extra)


def shortened(value: Any) -> Any:
    """A value of JSON in which the middle of each long text is left out: the end often says what to do."""
    if isinstance(value, str) and len(value) > MAX_CHARACTERS:
        return f"{value[: MAX_CHARACTERS // 2]} … {value[-MAX_CHARACTERS // 2 :]}"
    if isinstance(value, dict):
        return {name: shortened(item) for name, item in value.items()}
    return [shortened(item) for item in value] if isinstance(value, list) else value


class Unauthorized(Problem):
    """The request has no API key, or this service does not know the key. Send a valid key in the header
    `Authorization: Bearer KEY`."""

    slug, status, title = "unauthorized", 401, "Unauthorized"


class Forbidden(Problem):
    """The scope of the API key does not allow this request. Use a key of the scope that `detail` names."""

    slug, status, title = "forbidden", 403, "Forbidden"


class NotFound(Problem):
    """There is nothing at this address. The route does not exist, or no object has this id, or the object has been deleted."""

    slug, status, title = "not-found", 404, "Not found"


class MethodNotAllowed(Problem):
    """The route exists, but not for this method. The header `Allow` lists the methods that the route has."""

    slug, status, title = "method-not-allowed", 405, "Method not allowed"


class NotAcceptable(Problem):
    """The route can't answer in any media type of the header `Accept`, or in the format that the parameter `format` names.
    `detail` says which media types or formats are possible."""

    slug, status, title = "not-acceptable", 406, "Not acceptable"


class InUse(Problem):
    """The checkpoint or dataset can't be deleted, because a job that is not over needs it. Cancel the job first, or wait until
    the job is over."""

    slug, status, title = "in-use", 409, "In use"


class Impossible(Problem):
    """The state of the job or of the API key does not allow this action. For example, a job that has succeeded can't be
    cancelled."""

    slug, status, title = "impossible-in-this-state", 409, "Impossible in this state"


class OffsetConflict(Problem):
    """The header `Upload-Offset` differs from the number of bytes that the service has of this upload. Ask for the offset with
    `HEAD`, and go on from there."""

    slug, status, title = "offset-conflict", 409, "Offset conflict"


class Gone(Problem):
    """The resumable upload has expired, or a client has ended it. Create a new upload."""

    slug, status, title = "gone", 410, "Gone"


class Lost(Problem):
    """The bytes of this checkpoint or dataset are not in the blob store any more. Upload the same file again: its bytes take
    their old place, and everything that refers to them works again."""

    slug, status, title = "lost", 410, "Lost"


class UnsupportedVersion(Problem):
    """The header `Tus-Resumable` is missing, or names a version of the protocol tus that this service does not speak. The
    header `Tus-Version` of the answer names the version that it speaks."""

    slug, status, title = "unsupported-version", 412, "Unsupported version"


class TooLarge(Problem):
    """The body of the request has more bytes, or more values, than this service accepts. `detail` names the limit."""

    slug, status, title = "too-large", 413, "Too large"


class QuotaExceeded(Problem):
    """The owner of the API key would have more bytes stored than it may have. Nothing was stored. Delete what is no longer
    needed. `GET /v1/usage` tells what is stored."""

    slug, status, title = "quota-exceeded", 413, "Quota exceeded"


class LongURL(Problem):
    """The URL of the request is too long. `detail` names the limit in bytes. Long lists of coordinates are sent with `POST`."""

    slug, status, title = "long-url", 414, "Long URL"


class LongHeaders(Problem):
    """The headers of the request are too long. `detail` names the limit in bytes."""

    slug, status, title = "long-headers", 431, "Long headers"


class TooManyRequests(Problem):
    """The owner of the API key has sent too many requests lately. Wait for the seconds that `Retry-After` tells."""

    slug, status, title = "too-many-requests", 429, "Too many requests"


class TooManyJobs(Problem):
    """As many jobs of the owner wait as may wait. Cancel one, or try again later."""

    slug, status, title = "too-many-jobs", 429, "Too many jobs"
    retry_seconds = 60


class Locked(Problem):
    """Another request goes on with this resumable upload, or its file is being inspected. Ask for the offset with `HEAD`, and
    go on from there."""

    slug, status, title = "locked", 423, "Locked"


class UnsupportedMediaType(Problem):
    """The route does not read bodies of this `Content-Type`. `detail` names a media type that the route reads."""

    slug, status, title = "unsupported-media-type", 415, "Unsupported media type"


class BadRequest(Problem):
    """The request breaks the rules of HTTP or of the media type of its body. For example, the body is not valid JSON, or a
    multipart form has no boundary."""

    slug, status, title = "bad-request", 400, "Bad request"


class Invalid(Problem):
    """A field of the body, a parameter of the URL or a header is missing, unknown or out of range. Each item of `errors` has a
    `pointer` to one such field, parameter or header, and a `detail` that says what is wrong. `errors` has at most twenty
    items."""

    slug, status, title = "invalid", 422, "Invalid request"


class KeyReused(Problem):
    """An earlier request had the same `Idempotency-Key` and another body. Use a new key for every new job."""

    slug, status, title = "idempotency-key-reused", 422, "Idempotency key reused"


class OutsideNetwork(Problem):
    """A coordinate is outside the represented network. The member `coordinate` names it. `GET /v1/predictors/{id}/layers` lists
    the layers and their shapes."""

    slug, status, title = "coordinate-outside-network", 422, "Coordinate outside the network"


class DigestMismatch(Problem):
    """The SHA-256 hash of the file differs from the one in the header `Content-Digest`, so the file was changed on its way.
    Send the file again."""

    slug, status, title = "digest-mismatch", 422, "Digest mismatch"


class ChecksumMismatch(Problem):
    """The hash of the bytes that were sent differs from the header `Upload-Checksum`, or not all of the bytes arrived. None of
    them are kept. Send them again."""

    slug, status, title = "checksum-mismatch", 460, "Checksum mismatch"


class EmptyFile(Problem):
    """The uploaded file has no bytes."""

    slug, status, title = "empty-file", 422, "Empty file"


class TruncatedFile(Problem):
    """The file ends too early. It was cut off when it was written or when it was sent."""

    slug, status, title = "truncated-file", 422, "Truncated file"


class NotACheckpoint(Problem):
    """The file holds no weights of a network that can be read: it is in another format, damaged, or something else. `detail`
    says what it is, as far as that is known, and what to do."""

    slug, status, title = "not-a-checkpoint", 422, "Not a checkpoint"


class LoneShard(Problem):
    """The file is one of several that belong together: a shard of a checkpoint, or the index of the shards. Send all shards and
    the index in one form with several parts `file`, or as one tar archive."""

    slug, status, title = "lone-shard", 422, "Lone shard"


class BadShards(Problem):
    """The files do not make up one checkpoint. A shard or a tensor that the index names is missing, or there is one that the
    index does not name, or a tensor is in two shards. `detail` names it."""

    slug, status, title = "bad-shards", 422, "Bad shards"


class ForbiddenPickle(Problem):
    """The file holds a pickle that can't be data: it calls a function that is only used to attack, the extension registry of
    Python, or objects outside of the file. Nothing of it was run. (Objects of unknown classes are no reason: nothing of them is
    run, and they are left out.) Save the state_dict alone: `torch.save(model.state_dict(), path)`."""

    slug, status, title = "forbidden-pickle", 422, "Forbidden pickle"


class UnsupportedGraph(Problem):
    """The file holds a network as a graph (ONNX, torch.export) that this service can't compute. `detail` names the operator and
    the place where it stands. The state_dict of the network can be uploaded in its place: its weights are then reconstructed,
    and nothing is distilled."""

    slug, status, title = "unsupported-graph", 422, "Unsupported graph"


class UnsupportedTensor(Problem):
    """A tensor can't be stored, because of its dtype or because it is quantised or sparse. `detail` names the tensor."""

    slug, status, title = "unsupported-tensor", 422, "Unsupported tensor"


class NonFiniteWeights(Problem):
    """The weight of a convolution holds NaN, infinity, or a value that is too large for float32. `detail` names the tensor."""

    slug, status, title = "non-finite-weights", 422, "Non-finite weights"


class NoConvolutions(Problem):
    """The checkpoint has no weight of a convolution, so there is nothing to represent."""

    slug, status, title = "no-convolutions", 422, "No convolutions"


class BadDataset(Problem):
    """The file is not a valid dataset. A dataset is an .npz, .npy or .safetensors file with the array `images` (uint8,
    N x H x W x C) and, if wanted, the array `labels` (integers, N); or one with `inputs`; or a zip archive of images in class
    folders. `detail` says what to send."""

    slug, status, title = "bad-dataset", 422, "Bad dataset"


class TooDemanding(Problem):
    """Reading the file needs more memory or time than this service grants for a file of its size, for example because its
    pickle has millions of values."""

    slug, status, title = "too-demanding", 422, "Too demanding"


class NotRepresentable(Problem):
    """The job does not fit the checkpoint: a layer does not exist, or a tensor can't be represented or stored."""

    slug, status, title = "not-representable", 422, "Not representable"


class Unavailable(Problem):
    """A part that the service depends on does not answer, for example the database. Try again later."""

    slug, status, title = "unavailable", 503, "Unavailable"
    retry_seconds = 5


class StorageFull(Problem):
    """The service has no room left for what was sent. Nothing of it was kept. Try again when its operator has made room."""

    slug, status, title = "storage-full", 507, "Storage full"
    retry_seconds = 60


class Broken(Problem):
    """The service has a fault, which has been logged. Objects that were created before are not affected."""

    slug, status, title = "internal", 500, "Internal error"


KINDS: dict[str, type[Problem]] = {kind.slug: kind for kind in Problem.__subclasses__()}
