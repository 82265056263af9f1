"""Predictors: what succeeded jobs leave behind, and the weights that come out of it."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, StrictInt
from sqlalchemy.orm import Session

from service import problems
from service.api.context import Ctx, Reading
from service.api.reports import Report
from service.http.bodies import require_json
from service.http.lists import Cursor, Limit, ListOf, opaque, page_arguments
from service.http.negotiation import choose
from service.http.policy import policy
from service.http.sources import SourceResponse
from service.serving import figures
from service.serving.artefact import ArtefactFile
from service.serving.formats import FORMATS
from service.serving.formats.format import Format, Selection
from service.serving.network import NetworkFile
from service.serving.predictors import Served
from service.serving.selection import Listed, Slices
from service.store import predictors
from service.store.tables import Predictor

router = APIRouter(prefix="/v1/predictors", tags=["predictors"])


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
    report: Report
    size: int = Field(description="Bytes of the artefact")
    sha256: str = Field(description="Of the artefact")
    created_at: datetime


class Coordinates(BaseModel):
    """Kernels by (layer, filter, channel), in the order in which the answer has them."""

    model_config = ConfigDict(extra="forbid")

    coordinates: list[tuple[StrictInt, StrictInt, StrictInt]] = Field(fail_fast=True)


FormatName = Annotated[str | None, Query(description=f"{', '.join(FORMATS)}; instead of Accept")]


def _axis(what: str) -> Any:
    return Query(description=f"{what}: an integer, a half-open slice a:b, a comma list of those, or absent for all")


@router.get("")
@policy("read")
def list_predictors(
    session: Reading, checkpoint_id: str | None = None, limit: Limit = 50, cursor: Cursor = None
) -> ListOf[PredictorOut]:
    """Lists predictors, perhaps only those of one checkpoint."""
    page = predictors.page(session, checkpoint_id=checkpoint_id, **page_arguments(limit, cursor))
    return ListOf(items=[PredictorOut.model_validate(row) for row in page.items], next_cursor=opaque(page.next_cursor))


@router.get("/{id}")
@policy("read")
def show_predictor(id: str, session: Reading) -> PredictorOut:
    """Shows one predictor with its report."""
    return PredictorOut.model_validate(find(session, id))


@router.get("/{id}/layers")
@policy("read")
def predictor_layers(id: str, session: Reading) -> list[RepresentedLayer]:
    """The layers whose kernels can be asked for."""
    return [RepresentedLayer.model_validate(layer) for layer in find(session, id).layers]


@router.get("/{id}/figures/{name}.svg", response_class=Response, responses={200: {"content": {"image/svg+xml": {}}}})
@policy("read")
def predictor_figure(
    id: str, name: Annotated[str, Path(description="layers, bytes, or importance if the job asked for it")], session: Reading
) -> Response:
    """The report, drawn."""
    return Response(figures.draw(name, find(session, id).report), media_type="image/svg+xml")


@router.get("/{id}/file", response_class=Response, responses={200: {"content": {"application/vnd.safetensors": {}}}})
@policy("read")
def predictor_file(id: str, context: Ctx, session: Reading) -> SourceResponse:
    """The artefact: one safetensors file from which the weights can be rebuilt offline."""
    row = find(session, id)
    return SourceResponse(ArtefactFile(context.database, id, row.size, etag=row.sha256))


KERNELS: dict[int | str, dict[str, Any]] = {200: {"content": {format.media_type: {} for format in FORMATS.values()}}}


@router.get("/{id}/kernels", response_class=Response, responses=KERNELS)
@policy("read")
def kernels(
    id: str,
    request: Request,
    context: Ctx,
    session: Reading,
    layer: Annotated[str | None, _axis("Layers")] = None,
    filter: Annotated[str | None, _axis("Filters")] = None,
    channel: Annotated[str | None, _axis("Channels")] = None,
    format: FormatName = None,
) -> StreamingResponse:
    """Rebuilds the kernels of a grid of coordinates, layer by layer, filter by filter, channel by channel."""
    find(session, id)
    chosen = _chosen(request, format)
    served = context.predictors.load(id)
    return _answer(served, Slices(served.layers, layer, filter, channel), chosen)


@router.post("/{id}/kernels", response_class=Response, responses=KERNELS, dependencies=[Depends(require_json)])
@policy("read")
def kernels_of(
    id: str, body: Coordinates, request: Request, context: Ctx, session: Reading, format: FormatName = None
) -> StreamingResponse:
    """Rebuilds the kernels at any coordinates, in the order asked for."""
    find(session, id)
    chosen = _chosen(request, format)
    served = context.predictors.load(id)
    return _answer(served, Listed(served.layers, body.coordinates), chosen)


@router.head("/{id}/weights", include_in_schema=False)
@router.get("/{id}/weights", response_class=Response, responses={200: {"content": {"application/vnd.safetensors": {}}}})
@policy("read")
def weights(id: str, context: Ctx, session: Reading) -> SourceResponse:
    """The whole network: a safetensors file of the full state_dict, rebuilt as it is read."""
    row = find(session, id)
    file = NetworkFile(context.predictors.load(id), etag=context.renderer.etag(row.sha256))
    return SourceResponse(file, disposition='attachment; filename="model.safetensors"')


def find(session: Session, id: str) -> Predictor:
    """The predictor of this id. Raises NotFound."""
    if (row := predictors.get(session, id)) is None:
        raise problems.NotFound(f"there is no predictor {id}")
    return row


def _answer(served: Served, selection: Selection, format: Format) -> StreamingResponse:
    headers = format.headers(selection)
    return StreamingResponse(format.write(served, selection), media_type=format.media_type, headers=headers)


def _chosen(request: Request, name: str | None) -> Format:
    """The format that a client wants. Raises NotAcceptable."""
    return FORMATS[choose(request, {format.name: format.media_type for format in FORMATS.values()}, name)]
