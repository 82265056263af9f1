"""`nern serve` as it comes: SQLite, a folder, a local worker."""

import json
import os
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.flow import main_job, ok
from tests.support.metrics import Scrape
from tests.support.networks import resnet8, saved
from tests.support.processes import NERN_MODULE, environment, serving
from tests.support.servers import two_free_ports
from tests.support.waiting import DEADLINE_SECONDS, until


def test_the_main_job(tmp_path: Path) -> None:
    folder = tmp_path / "a folder with spaces"
    folder.mkdir()
    port = two_free_ports()
    with serving(folder, {"NERN_METRICS_PORT": str(port)}) as (url, _):
        main_job(url)
        assert_metrics(Scrape(port), Scrape(port + 1))


def assert_metrics(api: Scrape, worker: Scrape) -> None:
    """Each process tells what it has done for the main job, and the API what the database knows."""
    assert api.value("nern_database_up") == 1
    assert api.value("nern_workers", device="cpu", state="idle") == 1
    assert api.value("nern_http_request_duration_seconds_count", method="POST", route="/v1/jobs", status="2xx") > 0
    assert api.value("nern_ready", part="worker") == 1
    assert api.value("nern_render_bytes_total") > 0
    assert worker.value("nern_attempts_total", outcome="succeeded") == 1  # counted long ago: the predictor has been fetched
    assert worker.value("nern_job_queue_seconds_count") == 1
    assert "nern_database_up" not in worker.families


def children(process: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def long_job(client: httpx.Client) -> str:
    """A job that is being worked on, and would be for hours."""
    checkpoint = ok(client.post("/v1/checkpoints", files={"file": ("net.pt", saved(resnet8()))}))
    job = ok(client.post("/v1/jobs", json={"checkpoint_id": checkpoint["id"], "steps": 10_000_000}))
    until(lambda: ok(client.get(f"/v1/jobs/{job['id']}"))["progress"], what="progress")
    return str(job["id"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_cleanly_its_worker_with_it_and_goes_on_later(tmp_path: Path, number: signal.Signals) -> None:
    with serving(tmp_path, {}) as (url, process):
        with httpx.Client(base_url=url, timeout=DEADLINE_SECONDS) as client:
            job = long_job(client)
            stream = client.stream("GET", f"/v1/jobs/{job}/events", headers={"accept": "text/event-stream"})
            with stream as events:
                assert next(events.iter_lines())
                started = children(process)
                assert started
                process.send_signal(number)
                assert process.wait(DEADLINE_SECONDS) == 0
        assert not [child for child in started if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    with serving(tmp_path, {}) as (url, _), httpx.Client(base_url=url, timeout=DEADLINE_SECONDS) as client:
        until(lambda: ok(client.get(f"/v1/jobs/{job}"))["state"] == "running", what="the job going on")
        assert ok(client.get(f"/v1/jobs/{job}"))["attempt"] == 1
        ok(client.post(f"/v1/jobs/{job}/cancel"))
        until(lambda: ok(client.get(f"/v1/jobs/{job}"))["state"] == "cancelled", what="cancellation")


def test_a_job_outlives_its_worker_and_the_service(tmp_path: Path) -> None:
    """Killed again and again, and the artefact is that of a job that nothing has happened to."""
    settings = {"NERN_LEASE_SECONDS": "3", "NERN_SWEEP_SECONDS": "0.5", "NERN_SNAPSHOT_SECONDS": "0.2"}
    steps = 3000
    with ExitStack() as running:

        def serve() -> tuple[httpx.Client, subprocess.Popen[bytes]]:
            url, process = running.enter_context(serving(tmp_path, settings))
            return running.enter_context(httpx.Client(base_url=url, timeout=DEADLINE_SECONDS)), process

        client, process = serve()
        checkpoint = ok(client.post("/v1/checkpoints", files={"file": ("net.pt", saved(resnet8()))}))
        body = {"checkpoint_id": checkpoint["id"], "steps": steps, "hidden": 8, "kernel_batch": 256}
        undisturbed = finished(client, str(ok(client.post("/v1/jobs", json=body))["id"]))
        job = str(ok(client.post("/v1/jobs", json=body))["id"])
        for part in (0.2, 0.4, 0.6):
            assert reached(client, job, part * steps) < steps, "the job was too short to be killed"
            workers = children(process)
            if part == 0.4:
                process.kill()
                process.wait()
            for child in workers:
                child.kill()
            if part == 0.4:
                client, process = serve()
        ended = finished(client, job)
        reasons = [event["data"]["reason"] for event in events(client, job) if "reason" in event["data"]]
        assert len(reasons) == 3
        assert reasons[0].startswith("the worker was ended by signal 9 (Killed) at step ")
        # Nobody was left to see how the worker ended when the service was killed with it.
        assert reasons[1].startswith("the worker went silent at step ")
        resumed = [event["data"] for event in events(client, job) if event["kind"] == "resumed"]
        assert ended["attempt"] == len(resumed) + 1 == 4
        assert all(event["step"] > 0 and not event["refused"] for event in resumed)
        files = [client.get(f"/v1/predictors/{each['predictor_id']}/file").content for each in (ended, undisturbed)]
        assert files[0] == files[1]
        assert not list((tmp_path / "data" / "blobs" / "snapshots").iterdir())


def reached(client: httpx.Client, job: str, step: float) -> int:
    """Waits until a job has made so many steps. Returns how many it has made."""

    def made() -> int:
        return int((ok(client.get(f"/v1/jobs/{job}"))["progress"] or {}).get("step", 0))

    return until(lambda: (found := made()) >= step and found, what=f"step {step}")


def finished(client: httpx.Client, job: str) -> dict[str, Any]:
    until(lambda: ok(client.get(f"/v1/jobs/{job}"))["finished_at"], what="the end of the job")
    ended: dict[str, Any] = ok(client.get(f"/v1/jobs/{job}"))
    assert ended["state"] == "succeeded", ended["error"]
    return ended


def events(client: httpx.Client, job: str) -> list[dict[str, Any]]:
    """All events of a job."""
    found, page = [], {"items": [], "next_cursor": ""}
    while page["next_cursor"] is not None:
        page = ok(client.get(f"/v1/jobs/{job}/events", params={"limit": 100, "cursor": page["next_cursor"] or None}))
        found += page["items"]
    assert [event["number"] for event in found] == list(range(1, len(found) + 1))
    return found


def test_a_worker_ends_when_the_service_is_killed(tmp_path: Path) -> None:
    command = [*NERN_MODULE, "serve", "--json"]
    settings = environment({"NERN_PORT": "0", "NERN_DATA_DIR": str(tmp_path / "data")})
    with (tmp_path / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=settings)
    assert process.stdout is not None
    try:
        assert json.loads(process.stdout.readline())["url"]
        started = until(lambda: children(process), what="the worker")
        log_file = tmp_path / "data" / "logs" / "worker.log"
        until(lambda: "looks for jobs" in log_file.read_text(), what="the worker at work")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    until(lambda: not any(child.is_running() for child in started), what="the worker's end")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"NERN_PORT": "many"}, "NERN_PORT"),
        ({"NERN_HOST": "0.0.0.0"}, "NERN_API_KEYS"),
        ({"NERN_API_KEYS": "short"}, "NERN_API_KEYS"),
        ({"NERN_DATABASE_URL": "nonsense"}, "URL"),
    ],
)
def test_settings_that_make_no_sense_are_named(tmp_path: Path, settings: dict[str, str], named: str) -> None:
    command = [*NERN_MODULE, "serve"]
    wanted = environment({"NERN_PORT": "0", "NERN_DATA_DIR": str(tmp_path / "data"), **settings})
    ended = subprocess.run(command, env=wanted, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False)
    assert ended.returncode != 0
    assert named in ended.stderr
    assert "Traceback" not in ended.stderr


def test_api_keys_open_what_their_scope_says(tmp_path: Path) -> None:
    keys = {scope: f"{scope}-0123456789abcdef" for scope in ("read", "write", "admin")}
    settings = {"NERN_HOST": "0.0.0.0", "NERN_API_KEYS": ",".join(f"{scope}:{key}" for scope, key in keys.items())}
    with serving(tmp_path, settings, "--no-worker") as (url, _):
        url = url.replace("0.0.0.0", "127.0.0.1")

        def status(method: str, path: str, scope: str | None) -> int:
            headers = {"Authorization": f"Bearer {keys.get(scope, scope)}"} if scope else {}
            return httpx.request(method, url + path, headers=headers, timeout=DEADLINE_SECONDS).status_code

        assert "worker" not in httpx.get(f"{url}/readyz", timeout=DEADLINE_SECONDS).json()
        assert status("GET", "/livez", None) == status("GET", "/docs", None) == 200
        assert status("GET", "/v1/jobs", None) == status("GET", "/v1/jobs", "wrong") == 401
        assert [status("GET", "/v1/jobs", scope) for scope in keys] == [200, 200, 200]
        assert [status("POST", "/v1/jobs/nope/cancel", scope) for scope in keys] == [403, 404, 404]
        assert [status("POST", "/v1/predictors/nope/kernels", scope) for scope in keys] == [415, 415, 415]
        assert [status("DELETE", "/v1/checkpoints/nope", scope) for scope in keys] == [403, 403, 404]


def test_a_large_upload_takes_little_memory_and_leaves_time_for_others(tmp_path: Path) -> None:
    size = 300 * 2**20
    file = tmp_path / "large.safetensors"
    header = json.dumps({"conv.weight": {"dtype": "F32", "shape": [size // 36, 1, 3, 3], "data_offsets": [0, size // 36 * 36]}})
    with file.open("wb") as written:
        written.write(len(header).to_bytes(8, "little") + header.encode())
        written.truncate(8 + len(header) + size // 36 * 36)
    with serving(tmp_path, {}, "--no-worker") as (url, process), httpx.Client(base_url=url, timeout=DEADLINE_SECONDS) as client:
        # The first upload loads what is loaded once.
        ok(client.post("/v1/checkpoints", files={"file": ("net.pt", saved(resnet8()))}))
        before = peak(process.pid)
        uploading = subprocess.Popen(
            ["curl", "--silent", "--fail", "-F", f"file=@{file}", f"{url}/v1/checkpoints"], stdout=subprocess.PIPE
        )
        answered = False
        while uploading.poll() is None:
            assert client.get("/livez").status_code == 200
            answered = True
        output, _ = uploading.communicate()
        assert uploading.returncode == 0
        assert json.loads(output)["size"] == file.stat().st_size
        assert answered, "nobody else was answered before the upload was"
        assert peak(process.pid) - before < 64 * 2**20


def peak(pid: int) -> int:
    """The most memory that a process has had resident so far, in bytes."""
    with open(f"/proc/{pid}/status") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def test_data_stays_below_the_data_directory(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with serving(tmp_path, {"NERN_DATA_DIR": str(tmp_path / "elsewhere" / "deep" / "data")}, "--no-worker") as (url, _):
        ok(httpx.post(f"{url}/v1/checkpoints", files={"file": ("net.pt", saved(resnet8()))}, timeout=DEADLINE_SECONDS))
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "serve.log"]
