"""The routes of datasets (images or other inputs that predictors are distilled from and evaluated on)."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from service import problems
from service.api.checkpoints import UPLOAD, ContentDigest, Filename
from service.api.context import Context, Ctx, Reading
from service.http.lists import Cursor, Limit, ListOf, Shared, opaque, page_arguments
from service.http.openapi import raises
from service.http.policy import policy
from service.store import blobs, datasets, jobs
from service.store.database import now
from service.store.tables import Dataset
from service.uploads.intake import Normalisation
from service.uploads.staging import printable, staged

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

# Limits for means and standard deviations. The values of pixels that are scaled to 0..1 are far inside of these limits.
MIN_STD, MAX_MAGNITUDE = 1e-6, 1e6


class ArrayOut(BaseModel):
    """An array of a dataset. Its first axis counts the rows."""

    name: str = Field(description="Name of the input; `images` for images")
    dtype: str = Field(description="Dtype in the notation of safetensors: U8, F32, I64, …")
    shape: list[int]


class LabelsOut(BaseModel):
    """The labels of a dataset."""

    kind: Literal["classes", "dense classes", "values"] = Field(
        description="classes: a class number for each row. dense classes: class numbers at the places of each row, -1 where "
        "there is none. values: numbers that are no classes"
    )
    dtype: str = Field(description="Dtype in the notation of safetensors")
    shape: list[int]


class DatasetOut(BaseModel):
    """Uploaded images or other inputs, with or without labels.

    For images, the input of a network is (image / 255 - mean) / std; images of floats are not divided. Other inputs are given
    to the network as they are.
    """

    model_config = ConfigDict(from_attributes=True)

    id: str
    owner: str = Field(description="Whose it is. Empty for a thing of the service itself")
    name: str
    size: int = Field(description="Size of the file in bytes")
    sha256: str = Field(description="SHA-256 hash of the file, in hexadecimal digits")
    kind: Literal["images", "inputs"]
    inputs: list[ArrayOut] = Field(description="The images or the inputs, as they are stored")
    labels: LabelsOut | None = Field(description="Null if there are none")
    images: int | None = Field(description="Number of images. Null for inputs")
    height: int | None = Field(description="Height of an image in pixels. Null for inputs")
    width: int | None = Field(description="Width of an image in pixels. Null for inputs")
    channels: int | None = Field(description="Channels of an image: 3 for RGB. Null for inputs")
    classes: int | None = Field(description="Number of classes: the largest class number plus 1. Null without classes")
    class_names: list[str] | None = Field(description="Names of the classes in order, if the file tells them")
    mean: list[float] | None = Field(
        description="For each channel, the mean that is subtracted from pixels scaled to 0..1. Null for inputs"
    )
    std: list[float] | None = Field(
        description="For each channel, the standard deviation that the difference is divided by. Null for inputs"
    )
    notes: list[str] = Field(description="Sentences about what was chosen, changed or left out")
    created_at: datetime

    @field_validator("inputs", "notes", mode="before")
    @classmethod
    def _without_null(cls, value: list[Any] | None) -> list[Any]:
        # An older release that still runs beside this one writes rows without these columns.
        return value or []


SIZE = re.compile(r"^[1-9][0-9]{0,3}(x[1-9][0-9]{0,3})?$")
NUMBERS = re.compile(r"^-?[0-9]*\.?[0-9]+(,-?[0-9]*\.?[0-9]+)*$")

Numbers = Annotated[
    str | None,
    Query(
        pattern=NUMBERS.pattern,
        description="One number for each channel, separated by commas, for pixels scaled to 0..1. `mean` and `std` must be "
        "given together. Default: those of ImageNet for three channels, else those of the images themselves",
    ),
]

Size = Annotated[
    str | None,
    Query(
        pattern=SIZE.pattern,
        description="Size that the images of a zip archive are brought to, as 224 or HEIGHTxWIDTH. Default: the most frequent "
        "size",
    ),
]


@router.post("", status_code=201, openapi_extra=UPLOAD, responses={200: {"model": DatasetOut}})
@policy("write", body="streamed")
@raises(problems.QuotaExceeded)
async def upload_dataset(
    request: Request,
    response: Response,
    context: Ctx,
    name: Annotated[str, Query(max_length=200, description="Name of the dataset. Default: the name of the file")] = "",
    mean: Numbers = None,
    std: Numbers = None,
    size: Size = None,
    filename: Filename = "",
    content_digest: ContentDigest = None,
) -> DatasetOut:
    """Uploads a dataset: an .npz, .npy or .safetensors file of arrays, or a zip archive of images in class folders.

    `images` are uint8 of shape N x H x W x C with 1 to 4 channels, or floats from 0 to 1. `labels` are N integers, the class
    numbers from 0. In place of images, `inputs` (N x anything) may be sent, or several arrays `inputs.NAME`, and `targets`
    (class numbers at each place, or values). Other layouts and names are understood too; `notes` in the answer says what was
    made of them.

    The body is a multipart form with a part `file`, or the file itself. The answer is 201 with the new dataset, or 200 with the
    dataset that exists if the same bytes have been uploaded with the same normalisation and size before.
    """
    given = normalisation(mean, std)
    async with staged(request, context.settings, filename) as file:
        dataset, created = await context.intake.dataset(file, printable(name), given, extents(size))
    response.status_code = 201 if created else 200
    response.headers["Location"] = f"{router.prefix}/{dataset.id}"
    return DatasetOut.model_validate(dataset)


@router.get("")
@policy("read")
def list_datasets(session: Reading, shared: Shared = False, limit: Limit = 50, cursor: Cursor = None) -> ListOf[DatasetOut]:
    """Lists datasets, newest first."""
    page = datasets.page(session, shared=shared, **page_arguments(limit, cursor))
    return ListOf(items=[DatasetOut.model_validate(row) for row in page.items], next_cursor=opaque(page.next_cursor))


@router.get("/{id}")
@policy("read")
def show_dataset(id: str, session: Reading) -> DatasetOut:
    """Shows one dataset."""
    return DatasetOut.model_validate(find(session, id, shared=True))


@router.delete("/{id}", status_code=204, response_class=Response)
@policy("admin")
@raises(problems.InUse)
async def delete_dataset(id: str, context: Ctx) -> None:
    """Deletes a dataset and its content. Predictors that were distilled from the dataset stay.

    The answer is 409 while a job that is not over needs the dataset.
    """
    await run_in_threadpool(_delete, context, id)
    await context.blobs.delete(blobs.dataset_tensors(id))


def find(session: Session, id: str, *, lock: bool = False, shared: bool = False) -> Dataset:
    """The dataset of this id. `shared`: it may be one that another owner shares. Raises NotFound."""
    if (row := datasets.get(session, id, lock=lock, shared=shared)) is None:
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
    if (largest := max(given.mean)) > 1:
        divided = "&".join(
            f"{name}={','.join(f'{value / 255:.4g}' for value in values)}"
            for name, values in (("mean", given.mean), ("std", given.std))
        )
        detail = (
            f"a mean of {largest:g} is impossible: mean and std are for pixels scaled to 0..1. If yours are for pixels from 0 "
            f"to 255, send ?{divided}"
        )
        raise problems.Invalid(
            detail, errors=[{"pointer": "query:mean" if pointer == "query:std" else pointer, "detail": detail}]
        )
    return given


def extents(size: str | None) -> tuple[int, int] | None:
    """The height and width that a client gives as 224 or HEIGHTxWIDTH."""
    if size is None:
        return None
    height, _, width = size.partition("x")
    return int(height), int(width or height)


def _delete(context: Context, id: str) -> None:
    with context.database.write() as session:
        row = find(session, id, lock=True)
        if jobs.uses(session, dataset_id=id):
            raise problems.InUse(f"a job that is not over needs dataset {id}; cancel the job first")
        datasets.delete(session, row, now(session))
