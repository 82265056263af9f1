"""The faults. Each is over when its function returns."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import psycopg
import redis
from celery import Celery

from bench.campaign.clients import key_of
from bench.campaign.deployment import Deployment
from service.jobs.wakeups import QUEUE, TASK
from service.store.blobs import MARK
from tests.support.waiting import until

Fault = Callable[[Deployment, random.Random], None]


def kill_training(place: Deployment, chance: random.Random) -> None:
    """kill -9 of the process that trains."""
    for child in chance.choice(place.workers).children():
        _kill(child.pid)


def kill_worker(place: Deployment, chance: random.Random) -> None:
    """kill -9 of a Celery worker."""
    _kill(chance.choice(place.workers).pid())


def kill_both(place: Deployment, chance: random.Random) -> None:
    """kill -9 of a Celery worker and of the process that trains, as when a machine fails."""
    worker = chance.choice(place.workers)
    for pid in [child.pid for child in worker.children()] + [worker.pid()]:
        _kill(pid)


def stop_worker(place: Deployment, chance: random.Random) -> None:
    """SIGTERM to a Celery worker, as in a rollout."""
    _signal(chance.choice(place.workers).pid(), signal.SIGTERM)


def freeze_training(place: Deployment, chance: random.Random) -> None:
    """The process that trains is stopped for longer than a lease, and goes on then."""
    children = chance.choice(place.workers).children()
    for child in children:
        _signal(child.pid, signal.SIGSTOP)
    time.sleep(1.5 * float(place.settings["NERN_LEASE_SECONDS"]))
    for child in children:
        _signal(child.pid, signal.SIGCONT)


def kill_api(place: Deployment, chance: random.Random) -> None:
    """kill -9 of an API replica."""
    _kill(chance.choice(place.apis).pid())


def stop_api(place: Deployment, chance: random.Random) -> None:
    """SIGTERM to an API replica."""
    _signal(chance.choice(place.apis).pid(), signal.SIGTERM)


def crash_database(place: Deployment, chance: random.Random) -> None:
    """kill -9 of a server process of PostgreSQL: it ends all connections and recovers."""
    with suppress(psycopg.Error), psycopg.connect(place.database_url, autocommit=True, connect_timeout=5) as connection:
        query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        if pids := [row[0] for row in connection.execute(query)]:
            _kill(chance.choice(pids))


def cut_connections(place: Deployment, chance: random.Random) -> None:
    """All connections to PostgreSQL break, some in the middle of a transaction."""
    with suppress(psycopg.Error), psycopg.connect(place.database_url, autocommit=True, connect_timeout=5) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")


def read_only_database(place: Deployment, chance: random.Random) -> None:
    """PostgreSQL takes no writes for a moment, as in a failover."""
    with suppress(psycopg.Error), psycopg.connect(place.database_url, autocommit=True, connect_timeout=5) as connection:
        connection.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE")
        connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        connection.execute("SELECT pg_reload_conf()")
        time.sleep(1.5)
        connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
        connection.execute("SELECT pg_reload_conf()")


def fail_over(place: Deployment, chance: random.Random) -> None:
    """The primary server of PostgreSQL is killed, and a standby takes over behind the proxy."""
    place.postgres.fail_over()


def forget_messages(place: Deployment, chance: random.Random) -> None:
    """The broker loses all messages."""
    with redis.Redis.from_url(place.redis_url) as broker:
        broker.flushall()


def repeat_messages(place: Deployment, chance: random.Random) -> None:
    """Messages arrive again and again."""
    app = Celery("nern", broker=place.redis_url)
    for _ in range(20):
        app.send_task(TASK, queue=QUEUE)
    app.close()


def freeze_broker(place: Deployment, chance: random.Random) -> None:
    """The broker accepts and does not answer, for some seconds."""
    pid = place.broker.pid()
    _signal(pid, signal.SIGSTOP)
    time.sleep(3)
    _signal(pid, signal.SIGCONT)


def kill_broker(place: Deployment, chance: random.Random) -> None:
    """kill -9 of the broker, which starts again without its messages."""
    _kill(place.broker.pid())
    with redis.Redis.from_url(place.redis_url) as broker:
        until(lambda: _answers(broker), what="the broker")


def demote_broker(place: Deployment, chance: random.Random) -> None:
    """The broker is a replica of nothing for some seconds, so that it takes no messages."""
    with redis.Redis.from_url(place.redis_url) as broker:
        broker.replicaof("127.0.0.1", "1")
        time.sleep(2)
        broker.replicaof("NO", "ONE")


def lose_blobs(place: Deployment, chance: random.Random) -> None:
    """The blob store fails for some seconds: there is a file in place of the folder."""
    with away(place.blobs):
        place.blobs.write_bytes(b"")


def unmount_blobs(place: Deployment, chance: random.Random) -> None:
    """The blob folder is empty for some seconds, as when nothing is mounted there."""
    with away(place.blobs):
        place.blobs.mkdir()


def hang_blobs(place: Deployment, chance: random.Random) -> None:
    """The blob store hangs for some seconds: whoever asks whether it is the right one gets no answer."""
    mark = place.blobs / MARK
    kept = mark.with_name("kept")
    mark.rename(kept)
    os.mkfifo(mark)
    time.sleep(3)
    # The readers that wait get an empty file.
    os.close(os.open(mark, os.O_RDWR | os.O_NONBLOCK))
    kept.rename(mark)


def fill_disk(place: Deployment, chance: random.Random) -> None:
    """No process can write more than a few bytes to a file for some seconds, as when the disk is full."""
    limited: list[psutil.Process] = []
    for part in (*place.apis, *place.workers):
        with suppress(psutil.NoSuchProcess):
            limited += [*part.children(), *([psutil.Process(pid)] if (pid := part.pid()) else [])]
    for process in limited:
        with suppress(psutil.NoSuchProcess):
            process.rlimit(psutil.RLIMIT_FSIZE, (64, psutil.RLIM_INFINITY))
    time.sleep(2)
    for process in limited:
        with suppress(psutil.NoSuchProcess):
            process.rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))


def lose_temporary_folder(place: Deployment, chance: random.Random) -> None:
    """The workers can't write temporary files for some seconds: there is a file in place of the folder."""
    with away(place.temporary):
        place.temporary.write_bytes(b"")


@contextmanager
def away(folder: Path) -> Iterator[None]:
    """A folder is away for some seconds, and the block puts something in its place. What is written there stays behind."""
    kept, behind = (folder.with_name(f"{folder.name}-{what}") for what in ("kept", f"behind-{time.monotonic_ns()}"))
    folder.rename(kept)
    yield
    time.sleep(2)
    folder.rename(behind)
    kept.rename(folder)


def damage_snapshot(place: Deployment, chance: random.Random) -> None:
    """A bit of the newest snapshot of a job turns."""
    found = sorted(place.blobs.glob("snapshots/*/*.safetensors"), key=lambda path: path.name)
    if not found:
        return
    path = chance.choice(found)
    with suppress(FileNotFoundError), path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))


def pause_and_resume(place: Deployment, chance: random.Random) -> None:
    """A client pauses a job that runs, and resumes it."""
    if (id := _running_job(place, chance)) and _insist(place, chance, id, "pause"):
        time.sleep(chance.random())
        _insist(place, chance, id, "resume")


def cancel_and_retry(place: Deployment, chance: random.Random) -> None:
    """A client cancels a job that runs, waits for that, and retries it."""
    if (id := _running_job(place, chance)) and _insist(place, chance, id, "cancel"):
        while _state(place, chance, id) not in ("cancelled", "succeeded", "failed"):
            time.sleep(0.1)
        _insist(place, chance, id, "retry")


FAULTS: dict[str, Fault] = {
    fault.__name__.replace("_", " "): fault
    for fault in (
        kill_training,
        kill_worker,
        kill_both,
        stop_worker,
        freeze_training,
        kill_api,
        stop_api,
        crash_database,
        cut_connections,
        read_only_database,
        fail_over,
        forget_messages,
        repeat_messages,
        freeze_broker,
        kill_broker,
        demote_broker,
        lose_blobs,
        unmount_blobs,
        hang_blobs,
        fill_disk,
        lose_temporary_folder,
        damage_snapshot,
        pause_and_resume,
        cancel_and_retry,
    )
}

# While one of these lasts, and for a moment after it, a worker can't store a snapshot.
KEEPS_FROM_STORING = frozenset(
    (
        "crash database",
        "cut connections",
        "read only database",
        "fail over",
        "lose blobs",
        "unmount blobs",
        "hang blobs",
        "fill disk",
        "lose temporary folder",
    )
)


def _answers(broker: "redis.Redis") -> bool:
    try:
        return bool(broker.ping())
    except redis.ConnectionError:
        return False


def _running_job(place: Deployment, chance: random.Random) -> str | None:
    """The id of a job that runs."""
    with suppress(httpx.TransportError, KeyError):
        answer = httpx.get(
            f"{chance.choice(place.urls)}/v1/jobs", params={"state": "running"}, timeout=10, headers=key_of()
        ).json()
        return chance.choice(answer["items"])["id"] if answer["items"] else None
    return None


def _insist(place: Deployment, chance: random.Random, id: str, action: str) -> bool:
    """Asks for an action until it is accepted (True) or impossible (False)."""
    while True:
        with suppress(httpx.TransportError):
            status = httpx.post(f"{chance.choice(place.urls)}/v1/jobs/{id}/{action}", timeout=10, headers=key_of()).status_code
            if status in (202, 409):
                return status == 202
        time.sleep(0.1)


def _state(place: Deployment, chance: random.Random, id: str) -> str | None:
    with suppress(httpx.TransportError, KeyError):
        state: str = httpx.get(f"{chance.choice(place.urls)}/v1/jobs/{id}", timeout=10, headers=key_of()).json()["state"]
        return state
    return None


def _kill(pid: int | None) -> None:
    _signal(pid, signal.SIGKILL)


def _signal(pid: int | None, number: signal.Signals) -> None:
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
