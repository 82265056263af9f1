"""What a worker counts."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from unittest.mock import patch

import obstore
import pytest
from obstore.exceptions import GenericError
from sqlalchemy import update

from nern.errors import NernError
from service.store.blobs import Unreachable
from service.store.database import Away, now
from service.store.jobs import LeaseLost
from service.store.tables import JobEvent
from tests.support.metrics import Scrape, scraping
from tests.support.networks import resnet8
from tests.support.place import Place
from worker.attempt import Attempt
from worker.lease import Cancelled, Paused, Stopped
from worker.run import Unsound, Worker

OUTCOMES = ("succeeded", "failed", "cancelled", "given_back", "lost")


@pytest.fixture
def scrape(place: Place) -> Iterator[Callable[[], Scrape]]:
    with scraping(place.settings) as scrape:
        yield scrape


def ends(after: Scrape, before: Scrape) -> dict[str, float]:
    """How many attempts have ended between two scrapes, by outcome."""
    grown = {outcome: after.grown(before, "nern_attempts_total", outcome=outcome) for outcome in OUTCOMES}
    return {outcome: count for outcome, count in grown.items() if count}


def test_a_job_counts_the_wait_for_its_first_claim_and_each_attempt(place: Place, scrape: Callable[[], Scrape]) -> None:
    place.add(resnet8(), architecture=None)
    with place.database.write() as session:
        session.execute(update(JobEvent).values(created_at=now(session) - timedelta(seconds=100)))
    before = scrape()
    with patch.object(Attempt, "run", side_effect=Stopped):
        place.worker.work()
    middle = scrape()
    assert middle.grown(before, "nern_job_queue_seconds_count") == 1
    assert 100 <= middle.grown(before, "nern_job_queue_seconds_sum") < 700
    assert ends(middle, before) == {"given_back": 1}
    place.worker.work()
    after = scrape()
    assert ends(after, middle) == {"succeeded": 1}
    assert after.grown(middle, "nern_job_queue_seconds_count") == 0


ENDS: list[tuple[Exception, str]] = [
    (Cancelled(), "cancelled"),
    (Paused(), "given_back"),
    (NernError("impossible"), "failed"),
    (Unreachable("no route to host"), "given_back"),
    (RuntimeError("unforeseen"), "given_back"),
    (LeaseLost("another worker has it"), "lost"),
    (Away("no answer"), "lost"),
]


@pytest.mark.parametrize(("error", "outcome"), ENDS, ids=[type(error).__name__ for error, _ in ENDS])
def test_an_attempt_counts_by_its_outcome(place: Place, scrape: Callable[[], Scrape], error: Exception, outcome: str) -> None:
    place.add(resnet8(), architecture=None)
    before = scrape()
    with patch.object(Attempt, "run", side_effect=error), suppress(Unsound):
        place.worker.work()
    assert ends(scrape(), before) == {outcome: 1}


@pytest.mark.parametrize("outcome", ["stored", "failed"])
def test_snapshots_count_by_their_outcome(place: Place, scrape: Callable[[], Scrape], outcome: str) -> None:
    place.add(resnet8(), architecture=None)
    before = scrape()
    error = GenericError("no route to host") if outcome == "failed" else None
    with patch("obstore.put", side_effect=error, wraps=None if error else obstore.put):
        assert Worker(place.settings.model_copy(update={"snapshot_seconds": 0}), place.stopping).work()
    after = scrape()
    grown = {each: after.grown(before, "nern_snapshots_total", outcome=each) for each in ("stored", "failed")}
    assert grown[outcome] > 0
    assert sum(grown.values()) == grown[outcome]
    assert (after.grown(before, "nern_blob_errors_total", error="unreachable") > 0) == (outcome == "failed")
