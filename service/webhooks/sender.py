"""Sends the messages of webhooks: in a task of its own, so that a receiver that does not answer holds nothing up."""

import asyncio
import json
import logging
import ssl
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import cache

import httpx

from service.metrics.counted import WEBHOOK_ATTEMPTS
from service.settings import Settings
from service.store import deliveries
from service.store.database import Database, now
from service.store.tables import Delivery, Json
from service.webhooks import signing
from service.webhooks.addresses import Address, Forbidden, Network, parse_networks, resolve

log = logging.getLogger(__name__)

# The deadline of one attempt, and how long a process that has gone silent keeps a message.
ATTEMPT_SECONDS = 10.0
LEASE = timedelta(seconds=60)

# Messages that a process sends at the same time.
CONCURRENT = 8

# A receiver that answers with this status wants no more messages.
GONE = 410


async def send_forever(database: Database, settings: Settings) -> None:
    """Sends messages that are due, every `settings.poll_seconds`, until the task is cancelled."""
    networks = parse_networks(settings.webhook_networks)
    while True:
        try:
            claimed = await asyncio.to_thread(_claim, database)
            await asyncio.gather(*(_deliver(database, networks, delivery, webhook) for delivery, webhook in claimed))
        except Exception:  # for example, the database does not answer; messages are sent when it does
            log.exception("webhooks could not be sent; the next try is in %g s", settings.sweep_seconds)
            claimed = []
            await asyncio.sleep(settings.sweep_seconds)
        if not claimed:
            await asyncio.sleep(settings.poll_seconds)


def _claim(database: Database) -> Sequence[tuple[Delivery, Json]]:
    # A transaction that writes would hold up others, and most of the time there is nothing to send.
    with database.read() as session:
        if not deliveries.any_due(session, now=now(session)):
            return []
    with database.write() as session:
        return deliveries.claim(session, now=now(session), lease=LEASE, limit=CONCURRENT)


async def _deliver(database: Database, networks: Sequence[Network], delivery: Delivery, webhook: Json) -> None:
    """Sends one message and writes down what happened."""
    started, status, error = time.monotonic(), None, None
    try:
        address = await asyncio.to_thread(resolve, webhook["url"], networks)
        status = await asyncio.wait_for(_send(delivery, webhook, address), ATTEMPT_SECONDS)
    except Forbidden as reason:
        error = str(reason)
    except TimeoutError:
        error = f"no answer within {ATTEMPT_SECONDS:g} s"
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as reason:
        error = f"{type(reason).__name__}: {reason}"[:300]
    seconds = time.monotonic() - started
    delivered = status is not None and 200 <= status < 300

    def record() -> None:
        with database.write() as session:
            moment = now(session)
            attempt = {"at": moment.isoformat(), "seconds": round(seconds, 3), "status": status, "error": error}
            state = deliveries.record(session, delivery, attempt, delivered=delivered, final=status == GONE, now=moment)
        WEBHOOK_ATTEMPTS.labels(state).inc()

    await asyncio.to_thread(record)


async def _send(delivery: Delivery, webhook: Json, address: Address) -> int:
    """Sends a message to an address that was checked, whatever the name of the host resolves to by now. Returns the status."""
    url = httpx.URL(webhook["url"])
    body = json.dumps(delivery.payload).encode()
    signed = signing.headers(webhook["secret"], id=delivery.id, timestamp=int(time.time()), body=body)
    headers = {**signed, "Host": url.netloc.decode(), "Content-Type": "application/json", "User-Agent": "nern"}
    transport = httpx.AsyncHTTPTransport(verify=_certificates())
    # No environment: a proxy would resolve the name anew. No redirects: they lead to addresses that were not checked.
    async with (
        httpx.AsyncClient(transport=transport, trust_env=False, follow_redirects=False, timeout=ATTEMPT_SECONDS) as client,
        client.stream(
            "POST",
            url.copy_with(host=str(address)),
            content=body,
            headers=headers,
            extensions={"sni_hostname": url.host},
        ) as answer,
    ):
        # The body of the answer is not read.
        return answer.status_code


@cache
def _certificates() -> ssl.SSLContext:
    return ssl.create_default_context()
