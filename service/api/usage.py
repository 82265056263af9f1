"""The route that tells how much is stored."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from service.api.context import Reading
from service.http.policy import policy
from service.store import retention

router = APIRouter(prefix="/v1", tags=["operations"])


class Stored(BaseModel):
    """What is stored of one kind."""

    count: int
    bytes: int


class UsageOut(BaseModel):
    """What is stored. Deleted things do not count."""

    checkpoints: Stored = Field(description="Bytes as uploaded. Their tensors take about as much once more")
    datasets: Stored = Field(description="Bytes as uploaded. Their arrays are stored unpacked")
    predictors: Stored
    snapshots: Stored = Field(description="Snapshots of trainings")
    uploads: Stored = Field(description="Resumable uploads: the bytes that have arrived")
    jobs: Stored = Field(description="The bytes of rows are not counted")
    events: Stored = Field(description="The bytes of rows are not counted")


@router.get("/usage")
@policy("read")
def show_usage(session: Reading) -> UsageOut:
    """Tells how much is stored."""
    found = retention.usage(session)
    return UsageOut.model_validate({kind: {"count": count, "bytes": nbytes} for kind, (count, nbytes) in found.items()})
