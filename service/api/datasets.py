"""Datasets: images to distil from and to evaluate with."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from service import problems
from service.api.checkpoints import UPLOAD, ContentDigest, Filename
from service.api.context import Context, Ctx, Reading
from service.http.lists import Cursor, Limit, ListOf, opaque, page_arguments
from service.http.policy import policy
from service.store import blobs, datasets, jobs
from service.store.tables import Dataset
from service.uploads.intake import Normalisation
from service.uploads.staging import printable, staged

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

# Of means, and of standard deviations: those of pixels between 0 and 1 are far from both.
MIN_STD, MAX_MAGNITUDE = 1e-6, 1e6


class DatasetOut(BaseModel):
    """Uploaded images. A network's input is (image / 255 - mean) / std."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str
    size: int = Field(description="Bytes of the file")
    sha256: str
    images: int
    height: int
    width: int
    channels: int
    classes: int | None = Field(description="Largest label + 1; null without labels")
    mean: list[float] = Field(description="Subtracted, for each channel")
    std: list[float] = Field(description="Divided by, for each channel")
    created_at: datetime


Numbers = Annotated[
    str | None,
    Query(
        pattern=r"^-?[0-9]*\.?[0-9]+(,-?[0-9]*\.?[0-9]+)*$",
        description="A number a channel, separated by commas. Default: ImageNet's for RGB, else those of the images",
    ),
]


@router.post("", status_code=201, openapi_extra=UPLOAD, responses={200: {"model": DatasetOut}})
@policy("write", body="streamed")
async def upload(
    request: Request,
    response: Response,
    context: Ctx,
    name: Annotated[str, Query(max_length=200, description="What to call it; default: the file's name")] = "",
    mean: Numbers = None,
    std: Numbers = None,
    filename: Filename = "",
    content_digest: ContentDigest = None,
) -> DatasetOut:
    """Uploads an .npz with `images` (uint8, N x H x W x C) and perhaps `labels` (integers, N).

    The same bytes with the same normalisation are answered with 200 and the dataset that they are.
    """
    normalisation = _normalisation(mean, std)
    async with staged(request, context.settings, filename) as file:
        dataset, created = await context.intake.dataset(file, printable(name), normalisation)
    response.status_code = 201 if created else 200
    response.headers["Location"] = f"{router.prefix}/{dataset.id}"
    return DatasetOut.model_validate(dataset)


@router.get("")
@policy("read")
def list_datasets(session: Reading, limit: Limit = 50, cursor: Cursor = None) -> ListOf[DatasetOut]:
    """Lists datasets."""
    page = datasets.page(session, **page_arguments(limit, cursor))
    return ListOf(items=[DatasetOut.model_validate(row) for row in page.items], next_cursor=opaque(page.next_cursor))


@router.get("/{id}")
@policy("read")
def show_dataset(id: str, session: Reading) -> DatasetOut:
    """Shows one dataset."""
    return DatasetOut.model_validate(find(session, id))


@router.delete("/{id}", status_code=204)
@policy("admin")
async def delete_dataset(id: str, context: Ctx) -> None:
    """Deletes a dataset and its bytes."""
    await run_in_threadpool(_delete, context, id)
    await context.blobs.delete(blobs.dataset_tensors(id))


def find(session: Session, id: str, *, lock: bool = False) -> Dataset:
    """The dataset of this id. Raises NotFound."""
    if (row := datasets.get(session, id, lock=lock)) is None:
        raise problems.NotFound(f"there is no dataset {id}")
    return row


def _normalisation(mean: str | None, std: str | None) -> Normalisation | None:
    if mean is None and std is None:
        return None
    if mean is None or std is None:
        raise problems.Invalid("give both mean and std, or neither", errors=[{"pointer": "query:std", "detail": "missing"}])
    given = Normalisation(tuple(map(float, mean.split(","))), tuple(map(float, std.split(","))))
    if not all(MIN_STD <= value <= MAX_MAGNITUDE for value in given.std) or not all(
        abs(value) <= MAX_MAGNITUDE for value in given.mean
    ):
        detail = f"must be numbers of at most {MAX_MAGNITUDE:g}, and std at least {MIN_STD:g}"
        raise problems.Invalid(f"mean and std {detail}", errors=[{"pointer": "query:std", "detail": detail}])
    return given


def _delete(context: Context, id: str) -> None:
    with context.database.write() as session:
        row = find(session, id, lock=True)
        if jobs.uses(session, dataset_id=id):
            raise problems.InUse(f"a job that is not over needs dataset {id}; cancel it first")
        datasets.delete(session, row, context.clock())
