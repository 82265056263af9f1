"""The routes of datasets (images that predictors are distilled from and evaluated on)."""

import re
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

# Limits for means and standard deviations. The values of pixels that are scaled to 0..1 are far inside of these limits.
MIN_STD, MAX_MAGNITUDE = 1e-6, 1e6


class DatasetOut(BaseModel):
    """Uploaded images, with or without labels. The input of a network is (image / 255 - mean) / std."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str
    size: int = Field(description="Size of the file in bytes")
    sha256: str = Field(description="SHA-256 hash of the file, in hexadecimal digits")
    images: int = Field(description="Number of images")
    height: int = Field(description="Height of an image in pixels")
    width: int = Field(description="Width of an image in pixels")
    channels: int = Field(description="Channels of an image: 3 for RGB")
    classes: int | None = Field(description="Number of classes: the largest label plus 1. Null without labels")
    mean: list[float] = Field(description="For each channel, the mean that is subtracted from pixels scaled to 0..1")
    std: list[float] = Field(description="For each channel, the standard deviation that the difference is divided by")
    created_at: datetime


NUMBERS = re.compile(r"^-?[0-9]*\.?[0-9]+(,-?[0-9]*\.?[0-9]+)*$")

Numbers = Annotated[
    str | None,
    Query(
        pattern=NUMBERS.pattern,
        description="One number for each channel, separated by commas. `mean` and `std` must be given together. Default: those "
        "of ImageNet for three channels, else those of the images themselves",
    ),
]


@router.post("", status_code=201, openapi_extra=UPLOAD, responses={200: {"model": DatasetOut}})
@policy("write", body="streamed")
async def upload_dataset(
    request: Request,
    response: Response,
    context: Ctx,
    name: Annotated[str, Query(max_length=200, description="Name of the dataset. Default: the name of the file")] = "",
    mean: Numbers = None,
    std: Numbers = None,
    filename: Filename = "",
    content_digest: ContentDigest = None,
) -> DatasetOut:
    """Uploads a dataset: an .npz file with an array `images` and, if wanted, an array `labels`.

    `images` are uint8 of shape N x H x W x C, with 1 to 4 channels. `labels` are N integers, the class numbers from 0.

    The body is a multipart form with a part `file`, or the file itself. The answer is 201 with the new dataset, or 200 with the
    dataset that exists if the same bytes have been uploaded with the same normalisation before.
    """
    given = normalisation(mean, std)
    async with staged(request, context.settings, filename) as file:
        dataset, created = await context.intake.dataset(file, printable(name), given)
    response.status_code = 201 if created else 200
    response.headers["Location"] = f"{router.prefix}/{dataset.id}"
    return DatasetOut.model_validate(dataset)


@router.get("")
@policy("read")
def list_datasets(session: Reading, limit: Limit = 50, cursor: Cursor = None) -> ListOf[DatasetOut]:
    """Lists datasets, newest first."""
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
    """Deletes a dataset and its images. Predictors that were distilled from the dataset stay.

    The answer is 409 while a job that is not over needs the dataset.
    """
    await run_in_threadpool(_delete, context, id)
    await context.blobs.delete(blobs.dataset_tensors(id))


def find(session: Session, id: str, *, lock: bool = False) -> Dataset:
    """The dataset of this id. Raises NotFound."""
    if (row := datasets.get(session, id, lock=lock)) is None:
        raise problems.NotFound(f"there is no dataset {id}")
    return row


def normalisation(mean: str | None, std: str | None, *, pointer: str = "query:std") -> Normalisation | None:
    """The normalisation that a client gives in this place of a request, or None. Raises Invalid."""
    if mean is None and std is None:
        return None
    if mean is None or std is None:
        detail = "give both mean and std, or neither of them"
        raise problems.Invalid(detail, errors=[{"pointer": pointer, "detail": detail}])
    given = Normalisation(tuple(map(float, mean.split(","))), tuple(map(float, std.split(","))))
    if not all(MIN_STD <= value <= MAX_MAGNITUDE for value in given.std) or not all(
        abs(value) <= MAX_MAGNITUDE for value in given.mean
    ):
        detail = f"mean must be from {-MAX_MAGNITUDE:g} to {MAX_MAGNITUDE:g}, and std from {MIN_STD:g} to {MAX_MAGNITUDE:g}"
        raise problems.Invalid(detail, errors=[{"pointer": pointer, "detail": detail}])
    return given


def _delete(context: Context, id: str) -> None:
    with context.database.write() as session:
        row = find(session, id, lock=True)
        if jobs.uses(session, dataset_id=id):
            raise problems.InUse(f"a job that is not over needs dataset {id}; cancel the job first")
        datasets.delete(session, row, context.clock())
