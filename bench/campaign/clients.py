"""Clients of a deployment: they create jobs, and follow the events of each job from replica to replica."""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from threading import Thread
from typing import Any

import httpx

from tests.support.waiting import until

# The clients of the campaign, and those of another owner who creates many jobs at once.
KEYS = {"ours": "o" * 16, "flood": "f" * 16}
API_KEYS = ",".join(f"admin@{owner}:{key}" for owner, key in KEYS.items())

TIMEOUT = httpx.Timeout(10, read=20)

FINAL = ("succeeded", "failed")


def key_of(owner: str = "ours") -> dict[str, str]:
    """The header that says who sends a request."""
    return {"authorization": f"Bearer {KEYS[owner]}"}


@dataclass
class Follower:
    """A client that follows the events of a job, and connects to another replica whenever its stream breaks.

    first: the number of the replica that it connects to first.
    numbers: the numbers of the events, in the order of their arrival.
    events: their data, and their kinds.
    connections: how often the client has connected.
    """

    urls: Sequence[str]
    job_id: str
    first: int = 0
    numbers: list[int] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    connections: int = 0

    def __post_init__(self) -> None:
        self.thread = Thread(target=self._follow, name=f"follower of {self.job_id}", daemon=True)
        self.thread.start()

    def _follow(self) -> None:
        for number in count(self.first):
            self.connections += 1
            with suppress(httpx.TransportError):
                if self._connect(self.urls[number % len(self.urls)]):
                    return
            time.sleep(0.1)

    def _connect(self, url: str) -> bool:
        """Reads a stream to its end. Returns whether the job has ended for good."""
        headers = {"accept": "text/event-stream", **key_of()}
        if self.numbers:
            headers["last-event-id"] = str(self.numbers[-1])
        kind = data = ""
        with httpx.stream("GET", f"{url}/v1/jobs/{self.job_id}/events", headers=headers, timeout=TIMEOUT) as answer:
            if answer.status_code == 204:
                return bool(self.events) and self.events[-1].get("state") in FINAL
            if answer.status_code != 200:
                return False
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "data":
                    data = value
                elif name == "id":
                    self.numbers.append(int(value))
                elif not line and data:
                    self.events.append({"kind": kind, **json.loads(data)})
                    data = ""
                    # A job that was cancelled is retried by the campaign.
                    if self.events[-1].get("state") in FINAL:
                        return True
        return False


def insist(urls: Sequence[str], method: str, path: str, *, owner: str = "ours", **arguments: Any) -> dict[str, Any]:
    """Sends a request to one replica after the other until it is answered with success."""
    headers = {**arguments.pop("headers", {}), **key_of(owner)}
    answers: list[httpx.Response] = []
    numbers = count()

    def ask() -> bool:
        with suppress(httpx.TransportError):
            url = urls[next(numbers) % len(urls)]
            answers.append(httpx.request(method, url + path, timeout=TIMEOUT, headers=headers, **arguments))
            return answers[-1].is_success
        return False

    until(ask, what=f"{method} {path}")
    body: dict[str, Any] = answers[-1].json()
    return body
