"""Every pair of a state and an action, on every database: the queries do what the table says, and nothing else."""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from sqlalchemy.orm import Session

from service.store import job_states, jobs
from service.store.database import Database
from service.store.job_states import FINAL, INITIAL, TRANSITIONS, Action, State
from service.store.jobs import Lease, LeaseLost
from service.store.tables import Job
from tests.support import rows
from tests.support.rows import NOW

LEASE = timedelta(seconds=30)
LATER = NOW + timedelta(seconds=31)
ERROR = {"type": "internal", "detail": "d"}


def happens(write: Callable[[], object]) -> bool:
    try:
        write()
    except LeaseLost:
        return False
    return True


def sweeps(session: Session, job: Job, *, max_attempts: int) -> bool:
    jobs.sweep(session, now=LATER, max_attempts=max_attempts)
    return bool(jobs.events(session, job.id, after=0, limit=1))


def suspends(session: Session, job: Job) -> bool:
    job.pause_requested = True
    session.flush()
    return happens(lambda: jobs.give_back(session, held(job), now=LATER))


def held(job: Job) -> Lease:
    assert job.lease_owner is not None
    return Lease(job.id, job.lease_owner, job.fence)


# How each action is asked for; whether it happened.
ASK: Mapping[Action, Callable[[Session, Job], bool]] = {
    "claim": lambda session, job: jobs.claim(session, holder="new", now=LATER, lease=LEASE) is not None,
    "extend": lambda session, job: happens(lambda: jobs.heartbeat(session, held(job), now=LATER, extend=LEASE)),
    "report": lambda session, job: happens(
        lambda: jobs.report_progress(session, held(job), now=LATER, progress={}, metrics={}, estimated_finish_at=None, kinds=[])
    ),
    "succeed": lambda session, job: happens(lambda: jobs.finish(session, held(job), "succeeded", now=LATER)),
    "fail": lambda session, job: happens(lambda: jobs.finish(session, held(job), "failed", now=LATER, error=ERROR)),
    "cancel": lambda session, job: jobs.request_cancel(session, job.id, LATER),
    "acknowledge": lambda session, job: happens(lambda: jobs.finish(session, held(job), "cancelled", now=LATER)),
    "pause": lambda session, job: jobs.request_pause(session, job.id, LATER),
    "suspend": lambda session, job: suspends(session, job),
    "resume": lambda session, job: jobs.resume(session, job.id, LATER),
    "retry": lambda session, job: jobs.retry(session, job.id, LATER),
    "give_back": lambda session, job: happens(lambda: jobs.give_back(session, held(job), now=LATER)),
    "take_back": lambda session, job: sweeps(session, job, max_attempts=3),
    "give_up": lambda session, job: sweeps(session, job, max_attempts=1),
}


class Undone(Exception):
    pass


def tried(database: Database, state: State, action: Action) -> tuple[State | None, Job, list[Any]]:
    """What becomes of a job in a state when an action is asked for: None if nothing; its row; the states it announced.

    The job has a lease that has expired, whatever its state, so that its state alone decides. Nothing of it is kept.
    """
    checkpoint = rows.checkpoint()
    job = rows.job(checkpoint.id, state=state, lease_owner="worker", lease_expires_at=NOW, attempt=1, fruitless=1, fence=1)
    with suppress(Undone), database.write() as session:
        session.add(checkpoint)
        session.flush()
        session.add(job)
        session.flush()
        happened = ASK[action](session, job)
        session.refresh(job)
        session.expunge(job)
        events = [event.data for event in jobs.events(session, job.id, after=0, limit=9) if event.kind == "state"]
        raise Undone
    assert happened or (job.state == state and not events), (state, action)
    return (job.state if happened else None), job, events  # type: ignore[return-value]


def observed(database: Database) -> dict[tuple[State, Action], State]:
    pairs: list[tuple[State, Action]] = [(state, action) for state in get_args(State) for action in get_args(Action)]
    return {pair: new for pair in pairs if (new := tried(database, *pair)[0]) is not None}


def test_the_queries_make_every_arrow_of_the_table_and_no_other(database: Database) -> None:
    assert set(ASK) == set(get_args(Action))
    assert observed(database) == TRANSITIONS


def test_an_arrow_that_is_not_in_the_table_is_not_made(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for arrow in list(TRANSITIONS):
        with monkeypatch.context() as without:
            without.delitem(TRANSITIONS, arrow)
            assert tried(database, *arrow)[0] is None, arrow


def test_each_change_of_state_is_announced_and_leaves_no_lease_behind(database: Database) -> None:
    for (state, action), new in TRANSITIONS.items():
        _, job, events = tried(database, state, action)
        assert [event["state"] for event in events] == ([new] if new != state else []), (state, action)
        if new != state and new != "running":
            assert (job.lease_owner, job.lease_expires_at, job.estimated_finish_at) == (None, None, None)
            assert job.finished_at == (LATER if new in FINAL else None)


def test_a_new_job_waits(database: Database) -> None:
    checkpoint = rows.checkpoint()
    job = rows.job(checkpoint.id, state="succeeded")
    with database.write() as session:
        session.add(checkpoint)
        session.flush()
        jobs.add(session, job)
        assert job.state == INITIAL == "queued"


def test_final_states_are_those_that_no_job_leaves() -> None:
    assert FINAL == ("succeeded", "failed", "cancelled")


def test_the_document_draws_the_table() -> None:
    document = (Path(__file__).parents[3] / "docs/jobs.md").read_text()
    diagram = document.partition("```mermaid\nstateDiagram-v2\n")[2].partition("```")[0]
    lines = {line.strip() for line in diagram.splitlines()}
    arrows = {f"{old} --> {new}: {action}" for (old, action), new in TRANSITIONS.items()}
    assert lines == arrows | {f"[*] --> {INITIAL}"} | {f"{state} --> [*]" for state in FINAL}
    explained = re.findall(r"^\| `(\w+)` \|", document.partition("| action |")[2].partition("\n\n")[0], re.MULTILINE)
    assert explained == list(get_args(job_states.Action))
