"""The route that tells how much is stored."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from service.api.context import Ctx, Reading
from service.http.policy import policy
from service.store import retention

router = APIRouter(prefix="/v1", tags=["operations"])


class Stored(BaseModel):
    """What is stored of one kind."""

    count: int
    bytes: int


class UsageOut(BaseModel):
    """What is stored of an owner. Deleted things do not count."""

    checkpoints: Stored = Field(description="Bytes as uploaded. Their tensors take about as much once more")
    datasets: Stored = Field(description="Bytes as uploaded. Their arrays are stored unpacked")
    predictors: Stored
    snapshots: Stored = Field(description="Snapshots of trainings")
    uploads: Stored = Field(description="Resumable uploads: the bytes that have arrived")
    jobs: Stored = Field(description="The bytes of rows are not counted")
    events: Stored = Field(description="The bytes of rows are not counted")
    owners: dict[str, int] | None = Field(
        description="For a key of the service itself: the bytes of each owner's checkpoints, datasets, predictors and uploads. "
        "Null for a key of an owner"
    )


@router.get("/usage")
@policy("read")
def show_usage(context: Ctx, session: Reading) -> UsageOut:
    """Tells how much is stored of the owner's things."""
    found = retention.usage(session)
    owners = None
    if not context.owner:
        with context.whole_database.read() as whole:
            owners = retention.by_owner(whole)
    stored = {kind: Stored(count=count, bytes=nbytes) for kind, (count, nbytes) in found.items()}
    return UsageOut(**stored, owners=owners)
