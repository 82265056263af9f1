"""An owner who creates many jobs at once, and another owner who waits."""

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from bench.campaign.clients import TIMEOUT, insist, key_of
from bench.campaign.deployment import Deployment
from tests.support.networks import resnet8, saved
from tests.support.waiting import until


@dataclass(frozen=True)
class Wait:
    """How long the job of one owner waited behind the jobs of another, and how long the longest job before it took."""

    seconds: float
    job_seconds: float


def wait_behind(place: Deployment, count: int, body: dict[str, Any]) -> Wait:
    """One owner creates `count` jobs. When all workers are busy with them, another owner creates one.

    In the end, the first owner cancels its jobs.
    """
    theirs, ours = (_upload(place, owner) for owner in ("flood", "ours"))
    made = [_create(place, "flood", {**body, "checkpoint_id": theirs, "seed": seed}) for seed in range(count)]
    until(lambda: _running(place) >= len(place.workers), what="workers that are busy")
    started = time.monotonic()
    mine = _create(place, "ours", {**body, "checkpoint_id": ours})
    until(lambda: _job(place, "ours", mine)["started_at"], what="the job of the other owner")
    seconds = time.monotonic() - started
    # Jobs that ran before ours tell how long a job takes.
    until(lambda: _job(place, "ours", mine)["state"] == "succeeded", what="the job of the other owner")
    ended = [job for id in made[:30] if (job := _job(place, "flood", id))["finished_at"]]
    longest = max(_seconds(job) for job in [*ended, _job(place, "ours", mine)])
    for id in made:
        httpx.post(f"{place.urls[0]}/v1/jobs/{id}/cancel", headers=key_of("flood"), timeout=TIMEOUT)
    return Wait(seconds, longest)


def _upload(place: Deployment, owner: str) -> str:
    files = {"file": ("net.pt", saved(resnet8()))}
    return str(insist(place.urls, "POST", "/v1/checkpoints", owner=owner, files=files)["id"])


def _create(place: Deployment, owner: str, body: dict[str, Any]) -> str:
    return str(insist(place.urls, "POST", "/v1/jobs", owner=owner, json=body)["id"])


def _job(place: Deployment, owner: str, id: str) -> dict[str, Any]:
    return insist(place.urls, "GET", f"/v1/jobs/{id}", owner=owner)


def _running(place: Deployment) -> int:
    return int(insist(place.urls, "GET", "/v1/queue", owner="flood")["running"])


def _seconds(job: dict[str, Any]) -> float:
    begun, ended = (datetime.fromisoformat(job[name]) for name in ("started_at", "finished_at"))
    return (ended - begun).total_seconds()
