"""Messages of webhooks, to real servers, and checked with the library of the standard."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from unittest.mock import patch

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from service.metrics.counted import REGISTRY
from service.settings import Settings
from service.store import deliveries, jobs
from service.store.database import Database
from service.store.tables import Delivery, Json
from service.webhooks import sender, signing
from service.webhooks.addresses import parse_networks, resolve
from tests.support import rows
from tests.support.rows import NOW
from tests.support.waiting import DEADLINE_SECONDS

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 -- of the standard's examples


class Receiver:
    """A server that answers each message with the next status, and remembers what it was sent."""

    def __init__(self, *statuses: int, hangs: Event | None = None) -> None:
        self.messages: list[tuple[dict[str, str], bytes]] = []
        answers = iter(statuses)
        received = self.messages

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                received.append(({name.lower(): value for name, value in self.headers.items()}, body))
                if hangs:
                    hangs.wait(DEADLINE_SECONDS)
                with suppress(OSError):
                    self.send_response(next(answers, 204))
                    self.send_header("Location", "/elsewhere")
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://localhost:{self.server.server_port}/hook?a=b"


@contextmanager
def receiving(*statuses: int, hangs: Event | None = None) -> Iterator[Receiver]:
    receiver = Receiver(*statuses, hangs=hangs)
    thread = Thread(target=receiver.server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        thread.join()
        receiver.server.server_close()


def ended(database: Database, url: str, end: Any = "failed") -> str:
    """A job with a webhook that has ended."""
    checkpoint = rows.checkpoint()
    job = rows.job(checkpoint.id, webhook={"url": url, "secret": SECRET})
    with database.write() as session:
        session.add(checkpoint)
        session.flush()
        jobs.add(session, job)
        lease = jobs.claim(session, holder="worker", now=NOW, lease=NOW - NOW)
        assert lease is not None
        jobs.finish(session, lease, end, now=datetime.now(UTC), error={"type": "internal", "detail": "d"})
    return job.id


def message(database: Database, job_id: str) -> Delivery:
    with database.read() as session:
        [delivery] = deliveries.of_job(session, job_id)
    return delivery


def has_attempts(database: Database, job_id: str, count: int) -> bool:
    return len(message(database, job_id).attempts) == count


def make_due(database: Database, job_id: str) -> None:
    with database.write() as session:
        for delivery in deliveries.of_job(session, job_id):
            delivery.due_at = datetime.now(UTC) - timedelta(seconds=1)


def sending(database: Database, tmp_path: Path, condition: Callable[[], object], **values: Any) -> None:
    """Sends messages until a condition is true."""
    settings = Settings(data_dir=tmp_path, webhook_networks="127.0.0.0/8,::1", poll_seconds=0.01, sweep_seconds=0.01)

    async def run() -> None:
        task = asyncio.create_task(sender.send_forever(database, settings.model_copy(update=values)))
        try:
            await asyncio.wait_for(_true(condition), DEADLINE_SECONDS)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            # Connections that were cut close in the next turns of the loop.
            for _ in range(10):
                await asyncio.sleep(0)

    asyncio.run(run())


async def _true(condition: Callable[[], object]) -> None:
    while not await asyncio.to_thread(condition):
        await asyncio.sleep(0.01)


def test_a_message_is_signed_and_says_what_has_happened(database: Database, tmp_path: Path) -> None:
    with receiving() as receiver:
        id = ended(database, receiver.url)
        sending(database, tmp_path, lambda: message(database, id).state == "delivered")
    [(headers, body)] = receiver.messages
    assert headers["host"] == receiver.url.partition("//")[2].partition("/")[0]
    assert headers["content-type"] == "application/json"
    told = Webhook(SECRET).verify(body, headers)
    assert (told["type"], told["data"]["job_id"], told["data"]["state"]) == ("job.failed", id, "failed")
    assert told["data"]["error"] == {"type": "internal", "detail": "d"}
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body.replace(b"failed", b"passed"), headers)
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + "A" * 32).verify(body, headers)
    [attempt] = message(database, id).attempts
    assert (attempt["status"], attempt["error"]) == (204, None)


def test_a_message_that_was_not_taken_is_sent_again_later_for_a_day(database: Database, tmp_path: Path) -> None:
    tries = len(deliveries.PAUSES) + 1
    with receiving(*[500, 302, 404, 503] * tries) as receiver:
        id = ended(database, receiver.url)
        pauses = []
        for number in range(1, tries + 1):
            sending(database, tmp_path, partial(has_attempts, database, id, number))
            delivery = message(database, id)
            if number < tries:
                assert delivery.state == "pending"
                pauses.append((delivery.due_at - datetime.fromisoformat(delivery.attempts[-1]["at"])).total_seconds())
                make_due(database, id)
    assert pauses == pytest.approx(deliveries.PAUSES)
    assert 20 * 3600 < sum(pauses) < 28 * 3600
    assert message(database, id).state == "failed"
    assert [attempt["status"] for attempt in message(database, id).attempts][:4] == [500, 302, 404, 503]
    assert len({headers["webhook-id"] for headers, _ in receiver.messages}) == 1
    assert len(receiver.messages) == tries


def test_a_receiver_that_wants_no_more_gets_no_more(database: Database, tmp_path: Path) -> None:
    with receiving(410) as receiver:
        id = ended(database, receiver.url)
        sending(database, tmp_path, lambda: message(database, id).state == "failed")
    assert len(receiver.messages) == 1


def test_a_receiver_that_does_not_answer_holds_up_no_other(database: Database, tmp_path: Path) -> None:
    over = Event()
    with receiving(hangs=over) as dead, receiving() as other, patch.object(sender, "ATTEMPT_SECONDS", 0.2):
        first = [ended(database, dead.url) for _ in range(sender.CONCURRENT)]
        second = ended(database, other.url)
        sending(
            database,
            tmp_path,
            lambda: message(database, second).state == "delivered" and all(message(database, id).attempts for id in first),
        )
        over.set()
    for id in first:
        assert message(database, id).state == "pending"
        assert message(database, id).attempts[0]["error"] == "no answer within 0.2 s"


def test_what_can_not_be_reached_is_written_down(database: Database, tmp_path: Path) -> None:
    with receiving() as receiver:
        pass
    id = ended(database, receiver.url)
    sending(database, tmp_path, lambda: message(database, id).attempts)
    assert "ConnectError" in message(database, id).attempts[0]["error"]


def test_an_address_is_checked_again_when_a_message_is_sent(database: Database, tmp_path: Path) -> None:
    """The name of a host may lead somewhere else by then."""
    with receiving() as receiver:
        id = ended(database, receiver.url)
        sending(database, tmp_path, lambda: message(database, id).attempts, webhook_networks="10.0.0.0/8")
    assert "not public" in message(database, id).attempts[0]["error"]
    assert not receiver.messages


def test_the_request_goes_to_the_address_that_was_checked(database: Database, tmp_path: Path) -> None:
    with receiving() as receiver:
        address = resolve(receiver.url, parse_networks("127.0.0.0/8,::1"))
        elsewhere = receiver.url.replace("localhost", "name.invalid")
        id = ended(database, elsewhere)
        with patch.object(sender, "resolve", return_value=address):
            sending(database, tmp_path, lambda: message(database, id).state == "delivered")
    assert receiver.messages[0][0]["host"].startswith("name.invalid:")


def test_two_processes_send_a_message_once(database: Database) -> None:
    ended(database, "http://localhost/")

    def claim() -> list[tuple[Delivery, Json]]:
        with database.write() as session:
            return list(deliveries.claim(session, now=datetime.now(UTC), lease=timedelta(seconds=60), limit=5))

    assert [len(claim()), len(claim())] == [1, 0]


@pytest.mark.parametrize("end", ["succeeded", "cancelled"])
def test_every_end_is_told(database: Database, end: str) -> None:
    assert message(database, ended(database, "http://localhost/", end)).payload["type"] == f"job.{end}"


@pytest.mark.parametrize(
    "secret", ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_c2hvcnQ=", "whsec_%%%", "whsec_" + "A" * 92]
)
def test_secrets_that_are_none(secret: str) -> None:
    with pytest.raises(ValueError, match="24 to 64 bytes in base64"):
        signing.key_of(secret)


def test_attempts_count_by_the_state_of_the_message(database: Database, tmp_path: Path) -> None:
    def counted(state: str) -> float:
        return REGISTRY.get_sample_value("nern_webhook_attempts_total", {"state": state}) or 0.0

    before = {state: counted(state) for state in ("delivered", "pending", "failed")}
    with receiving(500, 204, 410) as receiver:
        first = ended(database, receiver.url)
        sending(database, tmp_path, lambda: has_attempts(database, first, 1))
        make_due(database, first)
        sending(database, tmp_path, lambda: message(database, first).state == "delivered")
        second = ended(database, receiver.url)
        sending(database, tmp_path, lambda: message(database, second).state == "failed")
    assert {state: counted(state) - count for state, count in before.items()} == {"delivered": 1, "pending": 1, "failed": 1}
