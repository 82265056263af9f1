"""Queries about the messages of webhooks. A message is added in the transaction that ends its job."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from service.store.ids import new_id
from service.store.tables import Delivery, Job, Json

# After so many seconds each, a message is sent again: about a day in all.
PAUSES = (5, 30, 120, 600, 1800, 3600, 7200, 14_400, 28_800, 28_800)


def add(session: Session, job_id: str, state: str, now: datetime, details: Json) -> None:
    """Adds the message that a job has ended, if the job has a webhook."""
    webhook = session.scalar(select(Job.webhook).where(Job.id == job_id))
    if not webhook:
        return
    data = {"job_id": job_id, "state": state, **details}
    payload = {"type": f"job.{state}", "timestamp": now.isoformat(), "data": data}
    session.add(Delivery(id=new_id(), job_id=job_id, payload=payload, state="pending", attempts=[], due_at=now, created_at=now))
    session.flush()


def any_due(session: Session, *, now: datetime) -> bool:
    """Whether a message is due."""
    return session.scalar(select(Delivery.id).where(*_due(now)).limit(1)) is not None


def claim(session: Session, *, now: datetime, lease: timedelta, limit: int) -> Sequence[tuple[Delivery, Json]]:
    """Takes messages that are due, each with the webhook of its job. No other process takes them until the lease is over."""
    due = select(Delivery).where(*_due(now)).order_by(Delivery.due_at).limit(limit)
    taken = session.scalars(due.with_for_update(skip_locked=True)).all()
    for delivery in taken:
        delivery.due_at = now + lease
    session.flush()
    webhooks: dict[str, Json | None] = {
        row[0]: row[1] for row in session.execute(select(Job.id, Job.webhook).where(Job.id.in_(each.job_id for each in taken)))
    }
    return [(delivery, webhook) for delivery in taken if (webhook := webhooks.get(delivery.job_id))]


def record(session: Session, delivery: Delivery, attempt: Json, *, delivered: bool, final: bool, now: datetime) -> str:
    """Writes down an attempt to send a message. If it failed and is not final, the message is sent again later.

    Returns the state of the message after the attempt.
    """
    attempts = [*delivery.attempts, attempt]
    values: dict[str, Any] = {"attempts": attempts, "state": "pending"}
    if delivered:
        values["state"] = "delivered"
    elif final or len(attempts) > len(PAUSES):
        values["state"] = "failed"
    else:
        values["due_at"] = now + timedelta(seconds=PAUSES[len(attempts) - 1])
    session.execute(update(Delivery).where(Delivery.id == delivery.id).values(**values))
    return str(values["state"])


def of_job(session: Session, job_id: str) -> Sequence[Delivery]:
    """The messages about a job, oldest first."""
    return session.scalars(select(Delivery).where(Delivery.job_id == job_id).order_by(Delivery.id)).all()


def _due(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return Delivery.state == "pending", Delivery.due_at <= now
