"""The routes of checkpoints (uploaded networks)."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from service import problems
from service.api.context import Context, Ctx, Reading
from service.http.lists import Cursor, Limit, ListOf, Shared, opaque, page_arguments
from service.http.openapi import raises
from service.http.policy import policy
from service.http.sources import SourceResponse
from service.serving.uploaded import UploadedFile
from service.store import blobs, checkpoints, graphs, jobs
from service.store.database import now
from service.store.tables import Checkpoint, Graph
from service.uploads.intake import with_graph
from service.uploads.staging import staged

router = APIRouter(prefix="/v1/checkpoints", tags=["checkpoints"])


class LayerOut(BaseModel):
    """The weight tensor of a convolution."""

    index: int = Field(description="Index of the layer among the convolutions of the checkpoint")
    name: str = Field(description="Name of the tensor in the state_dict")
    shape: list[int] = Field(description="Filters, channels of each filter, and the kernel size")
    kernels: int = Field(description="Number of kernels: filters times channels")
    groups: int | None = Field(
        description="Groups of the convolution. Null if the architecture is unknown, because the weights do not tell the groups"
    )


class TensorOut(BaseModel):
    """A tensor of a checkpoint that is not the weight of a convolution."""

    name: str = Field(description="Name of the tensor in the state_dict")
    shape: list[int]
    dtype: str = Field(description="Data type in the notation of safetensors, as F32")


class PortOut(BaseModel):
    """An input or an output of a graph."""

    name: str
    dtype: str = Field(description="Data type in the notation of safetensors, as F32")
    shape: list[int | None] | None = Field(description="Extents. Null stands for any extent, or for a shape that is unknown")


class CheckpointOut(BaseModel):
    """An uploaded network, and the facts that were found in its file."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    owner: str = Field(description="Whose it is. Empty for a thing of the service itself")
    filename: str = Field(description="Name of the file, as the client gave it")
    size: int = Field(description="Size of the file in bytes")
    sha256: str = Field(description="SHA-256 hash of the file, in hexadecimal digits")
    format: str = Field(
        description="Format of the file: safetensors, safetensors-shards, torch-zip, torch-legacy, torchscript, torch-export, "
        "onnx, pickle, npz, npy, hdf5 or keras"
    )
    created_at: datetime
    architecture: str | None = Field(
        description="The architecture that matches the names and shapes of the tensors. Null if none matches, or several do"
    )
    candidates: list[str] = Field(description="All architectures that match the names and shapes of the tensors")
    key: str = Field(
        description="Where the state_dict is in the file, as `checkpoint.model`; `.` if it is the whole content of the file. "
        "Empty for a checkpoint that was uploaded to release 0.1.0"
    )
    keys: list[str] = Field(description="Where other state_dicts are in the file. The parameter `key` of an upload takes one")
    notes: list[str] = Field(description="What was chosen in the file and what was left out, in sentences")
    inputs: list[PortOut] | None = Field(description="What a graph takes. Null for a network without a graph")
    outputs: list[PortOut] | None = Field(description="What a graph gives. Null for a network without a graph")
    sequential: list[str] | None = Field(
        description="A description of a plain sequential network that fits the shapes of the weights, for a job's `network`; "
        "null if there is none or the architecture is known. Activations, pools and paddings are guesses: correct them"
    )
    layers: list[LayerOut] = Field(description="The convolutions")
    kept: list[TensorOut] = Field(description="All other tensors")
    aliases: dict[str, str] = Field(
        description="Tensors that are the same as another tensor (tied weights): their names, each with the name of the other"
    )
    weights: int = Field(description="Number of weights of all convolutions")
    parameters: int = Field(description="Number of elements of all tensors")


# The endpoint reads the body as a stream, so the framework can't derive the schema of the body from the signature.
UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}

Filename = Annotated[str, Query(description="Name of the file, if the file is the whole body")]
Key = Annotated[
    str, Query(max_length=500, description="Which state_dict of the file to take: one of `keys` in the answer to an upload")
]
ContentDigest = Annotated[
    str | None,
    Header(description="SHA-256 hash of the file in base64, as `sha-256=:BASE64:` (RFC 9530). The service verifies it"),
]


@router.post("", status_code=201, openapi_extra=UPLOAD, responses={200: {"model": CheckpointOut}})
@policy("write", body="streamed")
@raises(problems.QuotaExceeded)
async def upload_checkpoint(
    request: Request,
    response: Response,
    context: Ctx,
    filename: Filename = "",
    key: Key = "",
    content_digest: ContentDigest = None,
) -> CheckpointOut:
    """Uploads a checkpoint: a file that torch.save or safetensors wrote, with a state_dict of a convolutional network.

    The state_dict may be inside a dictionary that a training script saved, for example under `state_dict` or `model`. Its names
    stay what they are, with prefixes such as `module.`. If the file holds several state_dicts, averaged weights come before raw
    ones, and a generator before its discriminator. The answer names what was taken (`key`), what else there is (`keys`) and
    what was left out (`notes`). The parameter `key` takes another.

    The body is a multipart form with a part `file`, or the file itself. A checkpoint in several safetensors files is sent as
    several parts `file`, its shards and their index, or as one tar archive of them. So is an ONNX file with the file that has
    its tensors. The answer is 201 with the new checkpoint,
    or 200 with the checkpoint that exists if the same state_dict of a file with the same bytes has been uploaded before.
    """
    async with staged(request, context.settings, filename, several=True) as file:
        checkpoint, created = await context.intake.checkpoint(file, key)
    response.status_code = 201 if created else 200
    response.headers["Location"] = f"{router.prefix}/{checkpoint.id}"
    return CheckpointOut.model_validate(checkpoint)


@router.get("")
@policy("read")
def list_checkpoints(
    session: Reading, shared: Shared = False, limit: Limit = 50, cursor: Cursor = None
) -> ListOf[CheckpointOut]:
    """Lists checkpoints, newest first."""
    page = checkpoints.page(session, shared=shared, **page_arguments(limit, cursor))
    items = [CheckpointOut.model_validate(row) for row in page.items]
    return ListOf(items=items, next_cursor=opaque(page.next_cursor))


@router.get("/{id}")
@policy("read")
def show_checkpoint(id: str, session: Reading) -> CheckpointOut:
    """Shows one checkpoint."""
    return CheckpointOut.model_validate(find(session, id, shared=True))


@router.get("/{id}/file", response_class=Response, responses={200: {"content": {"application/octet-stream": {}}}})
@policy("read")
@raises(problems.Lost)
def checkpoint_file(id: str, context: Ctx, session: Reading) -> SourceResponse:
    """Downloads the file as it was uploaded. The ETag is the SHA-256 hash of the file."""
    row = find(session, id, shared=True)
    return SourceResponse(UploadedFile(context.blobs, blobs.checkpoint_file(id), row.size, etag=row.sha256))


@router.put("/{id}/graph", openapi_extra=UPLOAD)
@policy("write", body="streamed")
@raises(problems.InUse, problems.QuotaExceeded)
async def put_graph(
    id: str, request: Request, context: Ctx, filename: Filename = "", content_digest: ContentDigest = None
) -> CheckpointOut:
    """Gives a checkpoint its graph: an ONNX file, or a `.pt2` file of torch.export, of the same network.

    The graph takes the tensors of the checkpoint by their names; the tensors in the file are not used. With a graph, a job can
    distil a network whose code is not known. The answer is 409 while a job that is not over needs the checkpoint.
    """
    checkpoint = await run_in_threadpool(_find, context, id)
    async with staged(request, context.settings, filename, several=True) as file:
        graph = await context.intake.graph(file, checkpoint)
    return CheckpointOut.model_validate(await run_in_threadpool(_put_graph, context, graph))


@router.delete("/{id}", status_code=204, response_class=Response)
@policy("admin")
@raises(problems.InUse)
async def delete_checkpoint(id: str, context: Ctx) -> None:
    """Deletes a checkpoint and its file. Predictors of the checkpoint stay.

    The answer is 409 while a job that is not over needs the checkpoint.
    """
    await run_in_threadpool(_delete, context, id)
    for key in (blobs.checkpoint_file(id), blobs.checkpoint_tensors(id)):
        await context.blobs.delete(key)


def find(session: Session, id: str, *, lock: bool = False, shared: bool = False) -> Checkpoint:
    """The checkpoint of this id. `shared`: it may be one that another owner shares. Raises NotFound."""
    if (row := checkpoints.get(session, id, lock=lock, shared=shared)) is None:
        raise problems.NotFound(f"there is no checkpoint {id}")
    return row


def _find(context: Context, id: str) -> Checkpoint:
    with context.database.read() as session:
        return find(session, id)


def _put_graph(context: Context, graph: Graph) -> Checkpoint:
    with context.database.write() as session:
        row = find(session, graph.checkpoint_id, lock=True)
        if jobs.uses(session, checkpoint_id=row.id):
            raise problems.InUse(f"a job that is not over needs checkpoint {row.id}; cancel the job first")
        graphs.put(session, graph)
        with_graph(row, graph.program)
        return row


def _delete(context: Context, id: str) -> None:
    with context.database.write() as session:
        row = find(session, id, lock=True)
        if jobs.uses(session, checkpoint_id=id):
            raise problems.InUse(f"a job that is not over needs checkpoint {id}; cancel the job first")
        graphs.discard(session, id)
        checkpoints.delete(session, row, now(session))
