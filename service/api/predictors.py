"""The routes of predictors (the results of jobs) and of the weights that are rendered from them."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from service import problems
from service.api.context import Ctx, Reading, Writing
from service.api.coordinates import BODY, Listing
from service.api.reports import Report
from service.http.lists import Cursor, Limit, ListOf, Shared, opaque, page_arguments
from service.http.negotiation import choose
from service.http.openapi import raises
from service.http.policy import policy
from service.http.sources import SourceResponse
from service.serving.artefact import ArtefactFile
from service.serving.formats import FORMATS
from service.serving.formats.format import Format, Selection
from service.serving.network import NetworkFile
from service.serving.onnx import OnnxFile
from service.serving.predictors import Served
from service.serving.selection import Listed, Slices
from service.serving.tensors import Tensors
from service.store import predictors
from service.store.tables import Predictor

router = APIRouter(prefix="/v1/predictors", tags=["predictors"])


class RepresentedLayer(BaseModel):
    """A layer whose weights the predictor represents."""

    index: int = Field(description="Index of the layer: the first number of the coordinates of its kernels")
    name: str = Field(description="Name of the tensor in the state_dict")
    shape: list[int] = Field(description="Filters, channels of each filter, and the kernel size")
    kernel_size: list[int] = Field(description="Extents of a kernel: height and width for a 2D convolution")


class PredictorOut(BaseModel):
    """A trained predictor, with the report that compares the rebuilt network with the original network."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    owner: str = Field(description="Whose it is. Empty for a thing of the service itself")
    job_id: str
    checkpoint_id: str
    architecture: str | None = Field(description="The architecture of the network; null if it is unknown")
    config: dict[str, Any] = Field(description="Every option of the recipe, with its value for this predictor")
    report: Report
    size: int = Field(description="Size of the artefact in bytes")
    sha256: str = Field(description="SHA-256 hash of the artefact, in hexadecimal digits")
    created_at: datetime


FormatName = Annotated[
    str | None, Query(description=f"Format of the answer: {', '.join(FORMATS)}. Takes precedence over the header `Accept`")
]


def _axis(what: str) -> Any:
    return Query(
        description=f"{what}, numbered from 0: an integer, a half-open slice a:b, or several of these, separated by commas. "
        "Default: all"
    )


@router.get("")
@policy("read")
def list_predictors(
    session: Reading,
    checkpoint_id: str | None = None,
    shared: Shared = False,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> ListOf[PredictorOut]:
    """Lists predictors, newest first. The parameter `checkpoint_id` restricts the list to one checkpoint."""
    page = predictors.page(session, checkpoint_id=checkpoint_id, shared=shared, **page_arguments(limit, cursor))
    return ListOf(items=[PredictorOut.model_validate(row) for row in page.items], next_cursor=opaque(page.next_cursor))


@router.get("/{id}")
@policy("read")
def show_predictor(id: str, session: Reading) -> PredictorOut:
    """Shows one predictor with its report."""
    return PredictorOut.model_validate(find(session, id, shared=True))


@router.delete("/{id}", status_code=204, response_class=Response)
@policy("admin")
def delete_predictor(id: str, session: Writing) -> None:
    """Deletes a predictor and its bytes. Its job stays, without a predictor."""
    predictors.remove(session, find(session, id))


@router.get("/{id}/layers")
@policy("read")
def predictor_layers(id: str, session: Reading) -> list[RepresentedLayer]:
    """Lists the represented layers: the layers whose kernels can be fetched by coordinate."""
    return [RepresentedLayer.model_validate(layer) for layer in find(session, id, shared=True).layers]


@router.get("/{id}/figures/{name}.svg", response_class=Response, responses={200: {"content": {"image/svg+xml": {}}}})
@policy("read")
def predictor_figure(
    id: str, name: Annotated[str, Path(description="layers, bytes, or importance if the job has measured it")], session: Reading
) -> Response:
    """Draws a figure of the report.

    `layers` shows the relative error of each layer, `bytes` the parts of the artefact, and `importance` the accuracy after
    pruning.
    """
    # Not before it is needed: with matplotlib, the API starts half a second later.
    from service.serving import figures

    return Response(figures.draw(name, find(session, id, shared=True).report), media_type="image/svg+xml")


@router.get("/{id}/file", response_class=Response, responses={200: {"content": {"application/vnd.safetensors": {}}}})
@policy("read")
def predictor_file(id: str, context: Ctx, session: Reading) -> SourceResponse:
    """Downloads the artefact: one safetensors file from which the weights can be rebuilt without the service.

    The ETag is the SHA-256 hash of the artefact.
    """
    row = find(session, id, shared=True)
    return SourceResponse(ArtefactFile(context.database, id, row.size, etag=row.sha256))


KERNELS: dict[int | str, dict[str, Any]] = {200: {"content": {format.media_type: {} for format in FORMATS.values()}}}


@router.get("/{id}/kernels", response_class=Response, responses=KERNELS)
@policy("read")
@raises(problems.NotAcceptable, problems.OutsideNetwork)
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
    """Renders all kernels of the given layers, filters and channels.

    The answer is ordered by layer, then by filter, then by channel, each in the order of its parameter. A kernel has the same
    bits in every request and in every format.
    """
    find(session, id, shared=True)
    chosen = _chosen(request, format)
    served = context.predictors.load(id)
    return _answer(served, Slices(served.layers, layer, filter, channel), chosen)


@router.post("/{id}/kernels", response_class=Response, responses=KERNELS, openapi_extra=BODY)
@policy("read", body="long")
@raises(problems.NotAcceptable, problems.OutsideNetwork)
def kernels_of(
    id: str, coordinates: Listing, request: Request, context: Ctx, session: Reading, format: FormatName = None
) -> StreamingResponse:
    """Renders the kernels at a list of coordinates, in the order of the list."""
    find(session, id, shared=True)
    chosen = _chosen(request, format)
    served = context.predictors.load(id)
    return _answer(served, Listed(served.layers, coordinates), chosen)


@router.get("/{id}/weights", response_class=Response, responses={200: {"content": {"application/vnd.safetensors": {}}}})
@policy("read")
def weights(id: str, context: Ctx, session: Reading) -> SourceResponse:
    """Downloads the whole network: one safetensors file with the full state_dict.

    The file has the names, shapes and dtypes of the checkpoint. Represented layers are rendered while the file is sent. All
    other tensors are those of the checkpoint. The strong ETag names everything that decides the bits: the artefact, the
    release, the version of torch and the kind of processor.
    """
    row = find(session, id, shared=True)
    file = NetworkFile(Tensors(context.predictors.load(id)), etag=context.renderer.etag(row.sha256))
    return SourceResponse(file, disposition='attachment; filename="model.safetensors"')


@router.get("/{id}/model.onnx", response_class=Response, responses={200: {"content": {"application/octet-stream": {}}}})
@policy("read")
def onnx(id: str, context: Ctx, session: Reading) -> SourceResponse:
    """Downloads the whole network as an ONNX file, if the checkpoint is a graph.

    The initialisers have the names of the checkpoint. Represented layers are rendered while the file is sent. The answer is 404
    for a network that is not a graph. The ETag is as strong as that of the weights.
    """
    row = find(session, id, shared=True)
    served = context.predictors.load(id)
    if (skeleton := served.artefact.onnx()) is None:
        raise problems.NotFound(
            f"predictor {id} has no ONNX file: its checkpoint is not a graph, or torch can't write it as ONNX"
        )
    file = OnnxFile(Tensors(served), skeleton, etag=context.renderer.etag(row.sha256))
    return SourceResponse(file, disposition='attachment; filename="model.onnx"')


def find(session: Session, id: str, *, shared: bool = False) -> Predictor:
    """The predictor of this id. `shared`: it may be one that another owner shares. Raises NotFound."""
    if (row := predictors.get(session, id, shared=shared)) is None:
        raise problems.NotFound(f"there is no predictor {id}")
    return row


def _answer(served: Served, selection: Selection, format: Format) -> StreamingResponse:
    headers = format.headers(selection)
    return StreamingResponse(format.write(served, selection), media_type=format.media_type, headers=headers)


def _chosen(request: Request, name: str | None) -> Format:
    """The format that a client wants. Raises NotAcceptable."""
    return FORMATS[choose(request, {format.name: format.media_type for format in FORMATS.values()}, name)]
