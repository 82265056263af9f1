"""Clients that use the service all the time, and note each request that fails."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Event, Thread
from typing import Any

import httpx

from tests.support import tus

# The pauses between two requests of a client that polls, and between two bytes of an upload.
POLL_SECONDS = 0.5
BYTE_SECONDS = 0.2

FINAL = ("succeeded", "failed", "cancelled")


class Traffic:
    """Clients that poll a job, follow its events, and upload a file in small and slow pieces.

    failures: what went wrong, as sentences. answers: how many requests were answered well. events: those of the job.
    """

    def __init__(self, connect: Callable[[], httpx.Client], job_id: str) -> None:
        self.failures: list[str] = []
        self.answers = 0
        self.events: list[dict[str, Any]] = []
        self._connect, self._job = connect, f"/v1/jobs/{job_id}"
        self._over = Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """A block during which the clients run. Waits for the end of the events."""
        threads = [Thread(target=self._run, args=(client,)) for client in (self._poll, self._follow, self._upload)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _run(self, client: Callable[[httpx.Client], None]) -> None:
        with self._connect() as connection:
            try:
                client(connection)
            except (httpx.HTTPError, AssertionError) as error:
                self.failures.append(f"{client.__name__}: {type(error).__name__}: {error}")

    def _poll(self, client: httpx.Client) -> None:
        while not self._over.wait(POLL_SECONDS):
            self._note(client.get(self._job))

    def _follow(self, client: httpx.Client) -> None:
        """Reads the stream of events, and connects again when a replica that stops has ended it."""
        while not (self.events and self.events[-1]["data"].get("state") in FINAL):
            headers = {"accept": "text/event-stream"}
            if self.events:
                headers["last-event-id"] = str(self.events[-1]["number"])
            with client.stream("GET", f"{self._job}/events", headers=headers) as answer:
                self._note(answer)
                event: dict[str, Any] = {}
                for line in answer.iter_lines():
                    name, _, value = line.partition(": ")
                    if name in ("event", "id", "data"):
                        event[name] = value
                    elif not line and event:
                        about = {"kind": event["event"], "number": int(event["id"]), "data": json.loads(event["data"])}
                        self.events.append(about)
                        event = {}

    def _upload(self, client: httpx.Client) -> None:
        """Sends an upload that is never complete: each request has some bytes, with pauses between them."""
        address, offset = tus.begin(client, 2**20), 0

        def slowly() -> Iterator[bytes]:
            for _ in range(5):
                time.sleep(BYTE_SECONDS)
                yield b"x"

        with ExitStack() as stack:
            stack.callback(lambda: client.delete(address, headers=tus.RESUMABLE))
            while not self._over.is_set():
                answer = tus.patch(client, address, offset, slowly())
                self._note(answer)
                offset = int(answer.headers["upload-offset"])

    def _note(self, answer: httpx.Response) -> None:
        assert answer.is_success, f"{answer.request.method} {answer.request.url.path}: {answer.status_code}"
        self.answers += 1
