"""Checkpoints: uploaded networks."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from service import problems
from service.api.context import Context, Ctx, Reading
from service.http.lists import Cursor, Limit, ListOf, opaque, page_arguments
from service.http.policy import policy
from service.http.sources import SourceResponse
from service.serving.uploaded import UploadedFile
from service.store import blobs, checkpoints, jobs
from service.store.tables import Checkpoint
from service.uploads.staging import staged

router = APIRouter(prefix="/v1/checkpoints", tags=["checkpoints"])


class LayerOut(BaseModel):
    """A convolution. `groups` is null if the architecture is unknown: it can't be read off the weights."""

    index: int
    name: str
    shape: list[int]
    kernels: int
    groups: int | None


class TensorOut(BaseModel):
    name: str
    shape: list[int]
    dtype: str


class CheckpointOut(BaseModel):
    """An uploaded network and what was found in it."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    filename: str
    size: int = Field(description="Bytes of the file")
    sha256: str
    format: str = Field(description="safetensors, torch-zip or torch-legacy")
    created_at: datetime
    architecture: str | None = Field(description="Recognised from names and shapes; null: unknown, or several candidates")
    candidates: list[str] = Field(description="All architectures that the names and shapes fit")
    layers: list[LayerOut] = Field(description="The convolutions")
    kept: list[TensorOut] = Field(description="All other tensors")
    weights: int = Field(description="Weights of the convolutions")
    parameters: int = Field(description="Elements of all tensors")


# The body is read as a stream, so the schema can't be derived from the signature.
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

Filename = Annotated[str, Query(description="Name of the file, if it is the whole body")]
ContentDigest = Annotated[str | None, Header(description="`sha-256=:…:` of the file, which is verified (RFC 9530)")]


@router.post("", status_code=201, openapi_extra=UPLOAD, responses={200: {"model": CheckpointOut}})
@policy("write", body="streamed")
async def upload(
    request: Request, response: Response, context: Ctx, filename: Filename = "", content_digest: ContentDigest = None
) -> CheckpointOut:
    """Uploads a network: a file of torch.save (a state_dict or a training checkpoint) or of safetensors.

    Bytes that are known already are answered with 200 and the checkpoint that they are.
    """
    async with staged(request, context.settings, filename) as file:
        checkpoint, created = await context.intake.checkpoint(file)
    response.status_code = 201 if created else 200
    response.headers["Location"] = f"{router.prefix}/{checkpoint.id}"
    return CheckpointOut.model_validate(checkpoint)


@router.get("")
@policy("read")
def list_checkpoints(session: Reading, limit: Limit = 50, cursor: Cursor = None) -> ListOf[CheckpointOut]:
    """Lists checkpoints."""
    page = checkpoints.page(session, **page_arguments(limit, cursor))
    items = [CheckpointOut.model_validate(row) for row in page.items]
    return ListOf(items=items, next_cursor=opaque(page.next_cursor))


@router.get("/{id}")
@policy("read")
def show_checkpoint(id: str, session: Reading) -> CheckpointOut:
    """Shows one checkpoint."""
    return CheckpointOut.model_validate(find(session, id))


@router.get("/{id}/file", response_class=Response, responses={200: {"content": {"application/octet-stream": {}}}})
@policy("read")
def checkpoint_file(id: str, context: Ctx, session: Reading) -> SourceResponse:
    """The file as it was uploaded."""
    row = find(session, id)
    return SourceResponse(UploadedFile(context.blobs, blobs.checkpoint_file(id), row.size, etag=row.sha256))


@router.delete("/{id}", status_code=204)
@policy("admin")
async def delete_checkpoint(id: str, context: Ctx) -> None:
    """Deletes a checkpoint and its bytes. Predictors that were trained from it stay."""
    await run_in_threadpool(_delete, context, id)
    for key in (blobs.checkpoint_file(id), blobs.checkpoint_tensors(id)):
        await context.blobs.delete(key)


def find(session: Session, id: str, *, lock: bool = False) -> Checkpoint:
    """The checkpoint of this id. Raises NotFound."""
    if (row := checkpoints.get(session, id, lock=lock)) is None:
        raise problems.NotFound(f"there is no checkpoint {id}")
    return row


def _delete(context: Context, id: str) -> None:
    with context.database.write() as session:
        row = find(session, id, lock=True)
        if jobs.uses(session, checkpoint_id=id):
            raise problems.InUse(f"a job that is not over needs checkpoint {id}; cancel it first")
        checkpoints.delete(session, row, context.clock())
