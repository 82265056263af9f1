"""Whether each part that the service depends on is ready."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from threading import Thread

from service.store.marking import WrongBlobStore

log = logging.getLogger(__name__)

# How long a probe may take. A part whose probe takes longer is not ready.
PROBE_SECONDS = 3.0

# The states of a part. Any other state is the name of an error: the part is not ready.
OK = "ok"
DEGRADED = "degraded"
UNKNOWN = "unknown"

DATABASE = "database"

# Parts whose probes ask the database. While it does not answer, their state is UNKNOWN.
NEED_DATABASE = frozenset({"schema", "blobs"})

# Parts without which the service goes on, DEGRADED. Without the broker, workers find jobs when they look by themselves. Without
# the blob store, predictors are served. All replicas have the same blob store. So if a replica were not ready without it, no
# replica would be, and nobody would be served at all.
OPTIONAL = frozenset({"broker", "blobs"})


class Readiness:
    """The parts of the service by name, each with a probe: a function that raises an exception if the part is not ready.

    All probes run at the same time, each in a thread. A thread can't be ended from outside. So a probe that hangs goes on, and
    is not started again before it ends: it holds one thread, however often somebody asks. Requests at the same time share a
    run. The threads do not keep the process from ending.
    """

    def __init__(self, probes: Mapping[str, Callable[[], object]]) -> None:
        self._probes = dict(probes)
        self._runs: dict[str, _Run] = {}
        self._states = dict.fromkeys(self._probes, OK)

    async def states(self) -> dict[str, str]:
        """The state of each part, after at most PROBE_SECONDS. Every change of a state is logged."""
        found = await asyncio.gather(*(self._failure(name) for name in self._probes))
        failures = dict(zip(self._probes, found, strict=True))
        for name, failure in failures.items():
            state = _state(name, failure, database_answers=failures.get(DATABASE) is None)
            if state != self._states[name]:
                self._states[name] = state
                log.log(logging.INFO if state == OK else logging.WARNING, "readiness of %s: %s", name, _told(state, failure))
        return dict(self._states)

    async def _failure(self, name: str) -> Exception | None:
        """What the probe of a part has raised. TimeoutError if the probe has been running for PROBE_SECONDS."""
        run = self._runs.get(name)
        if run is None or run.failure.done():
            run = self._runs[name] = _Run(name, self._probes[name])
        left = run.started + PROBE_SECONDS - time.monotonic()
        try:
            return await asyncio.wait_for(asyncio.wrap_future(run.failure), max(left, 0))
        except TimeoutError:
            return TimeoutError(f"no answer within {PROBE_SECONDS:g} s")


class _Run:
    """A run of a probe in a thread. `failure` becomes what the probe raises, or None."""

    def __init__(self, name: str, probe: Callable[[], object]) -> None:
        self.started = time.monotonic()
        self.failure: Future[Exception | None] = Future()
        # Whoever stops waiting for a future cancels it. A future that is running can't be cancelled.
        self.failure.set_running_or_notify_cancel()
        Thread(target=self._run, args=(probe,), name=f"probe of {name}", daemon=True).start()

    def _run(self, probe: Callable[[], object]) -> None:
        try:
            probe()
        except Exception as error:  # whatever a part raises, it is not ready
            self.failure.set_result(error)
        else:
            self.failure.set_result(None)


def _state(name: str, failure: Exception | None, *, database_answers: bool) -> str:
    if failure is None:
        return OK
    if name in NEED_DATABASE and not database_answers:
        return UNKNOWN
    # A blob store that is not mounted is a fault of this process alone.
    if name in OPTIONAL and not isinstance(failure, WrongBlobStore):
        return DEGRADED
    return type(failure).__name__


def _told(state: str, failure: Exception | None) -> str:
    """A state with the whole error, for the log."""
    if failure is None:
        return state
    kind = type(failure).__name__
    return ": ".join(filter(None, (state if state == kind else f"{state}, {kind}", str(failure))))
