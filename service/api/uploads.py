"""The routes of resumable uploads: tus 1.0 (https://tus.io/protocols/resumable-upload), and the outcome as JSON."""

from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect

from service import problems
from service.api.context import Context, Ctx
from service.api.datasets import NUMBERS, SIZE, extents, normalisation
from service.http import tus
from service.http.openapi import raises
from service.http.policy import policy
from service.problems import Problem
from service.store.blobs import Unreachable
from service.store.tables import Json, Upload
from service.store.uploads import State
from service.uploads.resumable import Kind, NewUpload, outcome
from service.uploads.staging import clean_filename, printable

PREFIX = "/v1/uploads"

router = APIRouter(prefix=PREFIX, tags=["uploads"])

VERSION = Depends(tus.require_version)

Length = Annotated[str | None, Header(description="Size of the file in bytes")]
Sum = Annotated[str | None, Header(description="`sha1` or `sha256`, a space, and the hash of the body in base64")]

# The endpoints read the body as a stream, so the framework can't derive the schema of the body from the signature.
BYTES: dict[str, Any] = {"requestBody": {"content": {tus.MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}}


class ProblemOut(BaseModel):
    """Why a file was refused (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str


class UploadOut(BaseModel):
    """A resumable upload."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    kind: Kind
    filename: str
    state: State = Field(
        description="`receiving`: bytes are missing. `received`: all bytes are stored, and the file is inspected or waits for "
        "that. `done`: `resource` is what the file has become. `refused`: `problem` says why"
    )
    offset: int = Field(description="Number of bytes that are stored")
    length: int | None = Field(description="Size of the file in bytes; null if the client has not told it yet")
    created_at: datetime
    expires_at: datetime = Field(description="When the upload is removed, if no byte arrives before. What it has become stays")
    resource: str | None = Field(description="Path of the checkpoint or the dataset that the file has become")
    problem: ProblemOut | None


@router.options("", status_code=204, response_class=Response)
@policy("open")
@raises(problems.Invalid)
def upload_options(context: Ctx) -> Response:
    """Says in headers what the service offers of the protocol tus."""
    return Response(
        status_code=204,
        headers={
            "Tus-Version": tus.VERSION,
            "Tus-Extension": tus.EXTENSIONS,
            "Tus-Max-Size": str(context.settings.max_upload_bytes),
            "Tus-Checksum-Algorithm": ",".join(tus.CHECKSUMS),
        },
    )


@router.post("", status_code=201, response_class=Response, dependencies=[VERSION], openapi_extra=BYTES)
@policy("write", body="streamed")
@raises(
    problems.UnsupportedVersion,
    problems.OffsetConflict,
    problems.Locked,
    problems.Gone,
    problems.QuotaExceeded,
    problems.ChecksumMismatch,
)
async def create_upload(
    request: Request,
    context: Ctx,
    upload_length: Length = None,
    upload_metadata: Annotated[
        str,
        Header(
            description="Pairs of a key and a value in base64, separated by commas. `kind` is `checkpoint` or `dataset`. "
            "`filename`, and for a dataset `name`, `mean` and `std`, are those of the other routes. Other keys are ignored"
        ),
    ] = "",
    upload_checksum: Sum = None,
) -> Response:
    """Creates an upload. The header `Location` of the answer is its address. The body may have the first bytes of the file."""
    length = tus.number(request, "Upload-Length")
    defer = request.headers.get("upload-defer-length")
    if "upload-concat" in request.headers:
        raise problems.BadRequest("uploads can't be concatenated here; send the file in one upload (parallelUploads: 1)")
    if (length is None) == (defer is None) or defer not in (None, "1"):
        raise problems.BadRequest("send the size of the file in the header Upload-Length, or Upload-Defer-Length: 1")
    nbytes, checksum = tus.number(request, "Content-Length"), tus.checksum(request.headers)
    has_body = bool(nbytes) or "transfer-encoding" in request.headers
    if has_body:
        tus.require_media_type(request)
    upload = await context.uploads.create(_described(upload_metadata, length))
    if has_body:
        try:
            upload = await _append(request, context, upload.id, 0, nbytes=nbytes, checksum=checksum)
        except (problems.Unavailable, Unreachable):
            # The client goes on where the bytes end. If none are missing, the sweep or the next request inspects the file.
            upload = await context.uploads.find(upload.id)
        except Problem:
            # The client does not learn the address of this upload.
            await context.uploads.abandon(upload.id)
            raise
    location = {"Location": f"{PREFIX}/{upload.id}"}
    return Response(status_code=201, headers=location | _progress(outcome(upload)))


@router.head("/{id}", response_class=Response, dependencies=[VERSION])
@policy("write")
@raises(problems.UnsupportedVersion, problems.Locked, problems.Gone, problems.QuotaExceeded, problems.StorageFull)
async def upload_offset(id: str, context: Ctx) -> Response:
    """Says in headers how many bytes of the file have arrived. A request for this upload that is under way is ended.

    If all have arrived but the file has not been inspected, because the service was overloaded or was stopped, this request
    inspects it. A file that is refused is answered with the problem.
    """
    upload = outcome(await context.uploads.settle(id))
    length = {"Upload-Defer-Length": "1"} if upload.length is None else {"Upload-Length": str(upload.length)}
    metadata = {"Upload-Metadata": upload.header} if upload.header else {}
    return Response(headers=length | metadata | _progress(upload))


@router.patch("/{id}", status_code=204, response_class=Response, dependencies=[VERSION], openapi_extra=BYTES)
@policy("write", body="streamed")
@raises(
    problems.UnsupportedVersion,
    problems.OffsetConflict,
    problems.Locked,
    problems.Gone,
    problems.QuotaExceeded,
    problems.ChecksumMismatch,
)
async def append_to_upload(
    id: str,
    request: Request,
    context: Ctx,
    upload_offset: Annotated[str | None, Header(description="Where the body belongs in the file: what `HEAD` tells")] = None,
    upload_length: Length = None,
    upload_checksum: Sum = None,
) -> Response:
    """Adds bytes to an upload. What has arrived is kept when the connection is cut off, unless the request has a checksum.

    With the last byte, the file is inspected and becomes a checkpoint or a dataset. The header `Nern-Resource` of the answer is
    its path. A file that is refused is answered with the problem.
    """
    tus.require_media_type(request)
    offset, nbytes = tus.number(request, "Upload-Offset"), tus.number(request, "Content-Length")
    if offset is None:
        raise problems.BadRequest("the header Upload-Offset is missing; send the offset that HEAD tells")
    length, checksum = tus.number(request, "Upload-Length"), tus.checksum(request.headers)
    upload = await _append(request, context, id, offset, nbytes=nbytes, length=length, checksum=checksum)
    return Response(status_code=204, headers=_progress(outcome(upload)))


@router.delete("/{id}", status_code=204, response_class=Response, dependencies=[VERSION])
@policy("write")
@raises(problems.UnsupportedVersion, problems.Locked, problems.Gone)
async def end_upload(id: str, context: Ctx) -> Response:
    """Ends an upload and deletes its bytes. A checkpoint or a dataset that it has become stays."""
    await context.uploads.abandon(id)
    return Response(status_code=204)


@router.get("/{id}")
@policy("read")
@raises(problems.Gone)
async def show_upload(id: str, context: Ctx) -> UploadOut:
    """Shows an upload: how much has arrived, and what the file has become or why it was refused."""
    upload = await context.uploads.find(id)
    problem = None
    try:
        outcome(upload)
    except Problem as refusal:
        problem = ProblemOut(
            type=f"/problems/{refusal.slug}", title=refusal.title, status=refusal.status, detail=refusal.detail
        )
    return UploadOut(**{name: getattr(upload, name) for name in UploadOut.model_fields if name != "problem"}, problem=problem)


async def _append(request: Request, context: Context, id: str, offset: int, **given: Any) -> Upload:
    """Adds the body of a request to an upload, and takes the file in if it is complete."""
    await context.uploads.append(id, offset, _body(request), **given)
    return await context.uploads.finish(id)


async def _body(request: Request) -> AsyncIterator[bytes]:
    """The body of a request, up to where the connection is cut off."""
    with suppress(ClientDisconnect):
        async for piece in request.stream():
            yield piece


def _progress(upload: Upload) -> dict[str, str]:
    """The headers that tell how far an upload is."""
    headers = {"Upload-Offset": str(upload.offset)}
    if upload.resource:
        return headers | {"Nern-Resource": upload.resource}
    return headers | {"Upload-Expires": tus.date(upload.expires_at)}


def _described(header: str, length: int | None) -> NewUpload:
    """The upload that a client describes in the header `Upload-Metadata`. Raises BadRequest and Invalid."""
    given = tus.metadata(header)
    kind = next((kind for kind in get_args(Kind) if kind == given.get("kind")), None)
    if kind is None:
        raise _invalid("Upload-Metadata must have the key kind with the value checkpoint or dataset")
    parameters: Json = {}
    if kind == "checkpoint":
        parameters["key"] = given.get("key", "")
    else:
        parameters["name"] = printable(given.get("name", ""))
        if "size" in given and not SIZE.fullmatch(given["size"]):
            raise _invalid("size must be a number of pixels, as 224, or HEIGHTxWIDTH")
        parameters["size"] = extents(given.get("size"))
        for name in ("mean", "std"):
            if name in given and not NUMBERS.fullmatch(given[name]):
                raise _invalid(f"{name} must be one number for each channel, separated by commas")
        if found := normalisation(given.get("mean"), given.get("std"), pointer=POINTER):
            parameters |= {"mean": list(found.mean), "std": list(found.std)}
    return NewUpload(kind, clean_filename(given.get("filename", "")), length, parameters, header)


POINTER: Literal["header:Upload-Metadata"] = "header:Upload-Metadata"


def _invalid(detail: str) -> problems.Invalid:
    return problems.Invalid(detail, errors=[{"pointer": POINTER, "detail": detail}])
