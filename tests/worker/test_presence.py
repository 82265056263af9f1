"""A worker is listed as long as it is alive."""

import os
from typing import Any
from unittest.mock import patch

from service.store import workers
from service.store.database import now
from tests.support.networks import resnet8
from tests.support.place import Place
from tests.support.waiting import until


def listed(place: Place) -> list[Any]:
    with place.database.read() as session:
        return [(worker.id, worker.about, worker.fault, job and job.id) for worker, job in workers.alive(session, now(session))]


def test_a_worker_is_listed_until_it_ends(place: Place) -> None:
    id = place.add(resnet8(), architecture=None)
    with patch.object(workers, "WRITTEN_SECONDS", 0.02), place.worker.announced():
        [(_, about, fault, job)] = until(lambda: listed(place), what="the worker")
        assert (about["process"], about["device"], fault, job) == (os.getpid(), "cpu", None, None)
        place.worker.work()
        place.worker._fitness.fault = "the disk is full"
        until(lambda: listed(place)[0][2] == "the disk is full", what="the fault")
    assert listed(place) == []
    assert (place.job(id).worker or {})["process"] == os.getpid()
