"""Predictors: what succeeded jobs leave behind, and the weights that come out of it."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, StrictInt
from sqlalchemy.orm import Session

from service import figures, problems
from service.api.bodies import require_json
from service.api.context import Ctx, Reading
from service.api.lists import Cursor, Limit, ListOf, opaque, page_arguments
from service.api.negotiation import choose
from service.serving import formats
from service.serving.network import NetworkFile
from service.serving.predictors import Served
from service.serving.selection import Listed, Slices
from service.store import predictors
from service.store.tables import Predictor

router = APIRouter(prefix="/v1/predictors", tags=["predictors"])

# Raw answers say their layout in a header, and clients and proxies limit those.
MAX_LAYOUT = 4096

MEDIA_TYPES = {
    "json": "application/json",
    "jsonl": "application/jsonl",
    "ndjson": "application/x-ndjson",
    "raw": "application/octet-stream",
}

WRITERS: dict[str, Callable[[Served, formats.Selection], Iterator[bytes]]] = {
    "json": formats.as_json,
    "jsonl": formats.as_jsonl,
    "ndjson": formats.as_jsonl,
    "raw": formats.as_raw,
}


class RepresentedLayer(BaseModel):
    """A layer that the predictor stands for; `index` is the first number of its kernels' coordinates."""

    index: int
    name: str
    shape: list[int]
    kernel_size: list[int] = Field(description="Extents of a kernel, usually height and width")


class PredictorOut(BaseModel):
    """A trained predictor and the report of what it keeps and loses; see docs/report.md."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    job_id: str
    checkpoint_id: str
    architecture: str | None
    config: dict[str, Any]
    report: dict[str, Any]
    size: int = Field(description="Bytes of the artefact")
    sha256: str = Field(description="Of the artefact")
    created_at: datetime


class Coordinates(BaseModel):
    """Kernels by (layer, filter, channel), in the order in which the answer has them."""

    model_config = ConfigDict(extra="forbid")

    coordinates: list[tuple[StrictInt, StrictInt, StrictInt]] = Field(fail_fast=True)


Format = Annotated[str | None, Query(description="json, jsonl, ndjson or raw; instead of Accept")]


def _axis(what: str) -> Any:
    return Query(description=f"{what}: an integer, a half-open slice a:b, a comma list of those, or absent for all")


@router.get("")
def list_predictors(
    session: Reading, checkpoint_id: str | None = None, limit: Limit = 50, cursor: Cursor = None
) -> ListOf[PredictorOut]:
    """Lists predictors, perhaps only those of one checkpoint."""
    page = predictors.page(session, checkpoint_id=checkpoint_id, **page_arguments(limit, cursor))
    return ListOf(items=[PredictorOut.model_validate(row) for row in page.items], next_cursor=opaque(page.next_cursor))


@router.get("/{id}")
def show_predictor(id: str, session: Reading) -> PredictorOut:
    """Shows one predictor with its report."""
    return PredictorOut.model_validate(find(session, id))


@router.get("/{id}/layers")
def predictor_layers(id: str, session: Reading) -> list[RepresentedLayer]:
    """The layers whose kernels can be asked for."""
    return [RepresentedLayer.model_validate(layer) for layer in find(session, id).layers]


@router.get("/{id}/figures/{name}.svg", response_class=Response, responses={200: {"content": {"image/svg+xml": {}}}})
def predictor_figure(
    id: str, name: Annotated[str, Path(description="layers, bytes, or importance if the job asked for it")], session: Reading
) -> Response:
    """The report, drawn."""
    return Response(figures.draw(name, find(session, id).report), media_type="image/svg+xml")


@router.get("/{id}/file", response_class=Response, responses={200: {"content": {"application/vnd.safetensors": {}}}})
def predictor_file(id: str, context: Ctx, session: Reading) -> StreamingResponse:
    """The artefact: one safetensors file from which the weights can be rebuilt offline."""
    row = find(session, id)

    def content() -> Iterator[bytes]:
        for start in range(0, row.size, predictors.CHUNK_BYTES):
            with context.database.read() as session:
                piece = predictors.read(session, id, start, min(start + predictors.CHUNK_BYTES, row.size))
            # Not before the connection is back: a client may take its time.
            yield piece

    headers = {"Content-Length": str(row.size), "ETag": f'"{row.sha256}"', "Content-Disposition": "attachment"}
    return StreamingResponse(content(), media_type="application/vnd.safetensors", headers=headers)


KERNELS: dict[int | str, dict[str, Any]] = {200: {"content": {media_type: {} for media_type in MEDIA_TYPES.values()}}}


@router.get("/{id}/kernels", response_class=Response, responses=KERNELS)
def kernels(
    id: str,
    request: Request,
    context: Ctx,
    session: Reading,
    layer: Annotated[str | None, _axis("Layers")] = None,
    filter: Annotated[str | None, _axis("Filters")] = None,
    channel: Annotated[str | None, _axis("Channels")] = None,
    format: Format = None,
) -> StreamingResponse:
    """Rebuilds the kernels of a grid of coordinates, layer by layer, filter by filter, channel by channel."""
    find(session, id)
    chosen = choose(request, MEDIA_TYPES, format)
    served = context.predictors.load(id)
    return _answer(served, Slices(served.layers, layer, filter, channel), chosen)


@router.post("/{id}/kernels", response_class=Response, responses=KERNELS, dependencies=[Depends(require_json)])
def kernels_of(
    id: str, body: Coordinates, request: Request, context: Ctx, session: Reading, format: Format = None
) -> StreamingResponse:
    """Rebuilds the kernels at any coordinates, in the order asked for."""
    find(session, id)
    chosen = choose(request, MEDIA_TYPES, format)
    served = context.predictors.load(id)
    return _answer(served, Listed(served.layers, body.coordinates), chosen)


@router.head("/{id}/weights", include_in_schema=False)
@router.get("/{id}/weights", response_class=Response, responses={200: {"content": {"application/vnd.safetensors": {}}}})
def weights(id: str, request: Request, context: Ctx, session: Reading) -> Response:
    """The whole network: a safetensors file of the full state_dict, rebuilt as it is read."""
    row = find(session, id)
    file = NetworkFile(context.predictors.load(id))
    headers = {
        "Content-Length": str(file.size),
        "ETag": f'"{row.sha256[:32]}-{context.release}"',
        "Content-Disposition": 'attachment; filename="model.safetensors"',
    }
    if request.method == "HEAD":
        return Response(headers=headers, media_type="application/vnd.safetensors")
    return StreamingResponse(file.content(), media_type="application/vnd.safetensors", headers=headers)


def find(session: Session, id: str) -> Predictor:
    """The predictor of this id. Raises NotFound."""
    if (row := predictors.get(session, id)) is None:
        raise problems.NotFound(f"there is no predictor {id}")
    return row


def _answer(served: Served, selection: formats.Selection, format: str) -> StreamingResponse:
    headers = {}
    if format == "raw":
        layout, size = formats.raw_layout(selection)
        if len(layout) > MAX_LAYOUT:
            raise problems.NotAcceptable("the kernels' sizes change too often for the raw format; ask for jsonl")
        headers = {"X-Kernel-Shapes": layout, "Content-Length": str(size)}
    return StreamingResponse(WRITERS[format](served, selection), media_type=MEDIA_TYPES[format], headers=headers)
