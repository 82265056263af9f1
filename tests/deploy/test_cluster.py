"""The manifests are carried out: rendered objects, real processes in namespaces of their own, a real network between them.

`tests/support/cluster` does what Kubernetes would do. The settings differ from those of the overlay `dev` in what makes tests
quick, and in NERN_SNAPSHOT_SECONDS: no snapshot is stored but that of SIGTERM.
"""

import base64
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
import safetensors.torch
import yaml

from tests.deploy.test_manifests import ARROWS
from tests.deploy.traffic import Traffic
from tests.e2e.flow import follow, ok
from tests.support.cluster import Cluster, running
from tests.support.cluster.controllers import NODES
from tests.support.cluster.images import make
from tests.support.kubernetes import KUBERNETES, Object, of, rendered
from tests.support.networks import resnet8, saved
from tests.support.releases import ROOT, next_release
from tests.support.waiting import until

IMAGE = "ghcr.io/example/nern"
NOW, NEXT = "0.1.0", "9.9.9"

LEASE_SECONDS = 6
SETTINGS = {
    "NERN_LEASE_SECONDS": LEASE_SECONDS,
    "NERN_SWEEP_SECONDS": 1,
    "NERN_SNAPSHOT_SECONDS": 3600,
    "NERN_INSPECTORS": 0,
}

# How long each link is cut: longer than a lease. A longer time is for a trial by hand.
CUT_SECONDS = float(os.environ.get("NERN_TEST_CUT_SECONDS", LEASE_SECONDS + 2))

# Some seconds of work, and one.
LONG = {"steps": 1000, "hidden": 8, "kernel_batch": 256}
SHORT = {"steps": 100, "hidden": 8, "kernel_batch": 256}

# The stores keep what they have in their pods, so their node stays.
*DRAINED, STORES_NODE = NODES
STORES = ("nern-postgres", "nern-redis", "nern-s3")

# Each link, and what goes on while it is cut: jobs are done, or at least taken, or nothing that a client may rely on.
LINKS = {
    ("nern-api", "nern-postgres"): "nothing",
    ("nern-api", "nern-redis"): "done",
    ("nern-api", "nern-s3"): "nothing",
    ("nern-worker", "nern-postgres"): "taken",
    ("nern-worker", "nern-redis"): "done",
    ("nern-worker", "nern-s3"): "taken",
    ("clients", "nern-api"): "nothing",
}


def overlay(folder: Path, version: str) -> list[Object]:
    """The overlay `dev` for a release, with SETTINGS and one processor for a worker. The stores stay on one node."""
    folder.mkdir()
    pinned = [{"op": "add", "path": "/spec/template/spec/nodeSelector", "value": {"kubernetes.io/hostname": STORES_NODE}}]
    small = [{"op": "replace", "path": "/spec/template/spec/containers/0/resources/limits/cpu", "value": "1"}]
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "nern",
        "resources": [os.path.relpath(KUBERNETES / "overlays" / "dev", folder)],
        "images": [{"name": IMAGE, "newTag": version}],
        "configMapGenerator": [
            {"name": "nern-settings", "behavior": "merge", "literals": [f"{name}={value}" for name, value in SETTINGS.items()]}
        ],
        "patches": [
            *({"target": {"kind": "Deployment", "name": name}, "patch": yaml.safe_dump(pinned)} for name in STORES),
            {"target": {"kind": "Deployment", "name": "nern-worker"}, "patch": yaml.safe_dump(small)},
        ],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return rendered(folder)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    # The paths of sockets are short, and those of tmp_path may be long. The last processes may end a moment after the cluster.
    with TemporaryDirectory(prefix="nern-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def releases(folder: Path) -> dict[str, list[Object]]:
    """The objects of each release."""
    return {version: overlay(folder / f"overlay-{version}", version) for version in (NOW, NEXT)}


@pytest.fixture(scope="module")
def cluster(folder: Path, releases: dict[str, list[Object]]) -> Iterator[Cluster]:
    """A cluster in which the service is installed. Each test leaves it well."""
    images = {
        f"{IMAGE}:{NOW}": make(ROOT, folder / "now"),
        f"{IMAGE}:{NEXT}": make(next_release(folder / "tree", NEXT), folder / "next"),
    }
    (folder / "cluster").mkdir()
    with running(folder / "cluster", images) as cluster:
        cluster.apply(releases[NOW])
        until(lambda: cluster.settled(releases[NOW]), what="the installation")
        yield cluster


@pytest.fixture(scope="module")
def connect(cluster: Cluster, releases: dict[str, list[Object]]) -> Callable[[], httpx.Client]:
    """Makes clients of the API that have its key."""
    key = base64.b64decode(of(releases[NOW], "Secret", "nern")["data"]["queue-key"]).decode()
    return partial(cluster.client, "nern-api", headers={"authorization": f"Bearer {key}"})


@pytest.fixture(scope="module")
def client(connect: Callable[[], httpx.Client]) -> Iterator[httpx.Client]:
    with connect() as client:
        yield client


@pytest.fixture(scope="module")
def checkpoint(client: httpx.Client) -> str:
    return str(ok(client.post("/v1/checkpoints", files={"file": ("net.pt", saved(resnet8()))}))["id"])


@pytest.fixture(scope="module")
def undisturbed(client: httpx.Client, checkpoint: str) -> Callable[[dict[str, int]], bytes]:
    """The artefact of a job that nothing disturbs."""
    made: dict[int, bytes] = {}

    def artefact(body: dict[str, int]) -> bytes:
        if body["steps"] not in made:
            made[body["steps"]] = finished(client, create(client, checkpoint, body))
        return made[body["steps"]]

    return artefact


def create(client: httpx.Client, checkpoint: str, body: dict[str, int]) -> str:
    return str(ok(client.post("/v1/jobs", json={"checkpoint_id": checkpoint, **body}))["id"])


def finished(client: httpx.Client, id: str) -> bytes:
    """Waits until a job has succeeded. Returns its artefact."""

    def predictor() -> str | None:
        job = ok(client.get(f"/v1/jobs/{id}"))
        assert job["state"] in ("queued", "running", "succeeded"), job
        return job["predictor_id"] and str(job["predictor_id"])

    return client.get(f"/v1/predictors/{until(predictor, what='the job')}/file").content


def until_it_trains(client: httpx.Client, id: str) -> None:
    until(lambda: (ok(client.get(f"/v1/jobs/{id}"))["progress"] or {}).get("step"), what="the training")


def test_nothing_starts_without_the_secret(tmp_path: Path, folder: Path, releases: dict[str, list[Object]]) -> None:
    (folder / "bare").mkdir()
    image = make(ROOT, folder / "image")
    names = ("nern-api", "nern-worker", "nern-migrate")
    parts = [found for found in releases[NOW] if found["metadata"]["name"] in names or found["kind"] == "ConfigMap"]
    with running(folder / "bare", {f"{IMAGE}:{NOW}": image}) as bare:
        bare.apply(parts)
        until(lambda: len(bare.state().happened("Failed")) >= 4, what="four pods that can't start")
        state = bare.state()
        assert {event.message.partition(": ")[2] for event in state.happened("Failed")} == {"secret 'nern' not found"}
        assert {pod.owner for pod in state.pods} == set(names)
        assert not state.happened("Started")


def test_an_installation_becomes_ready_as_soon_as_the_database_is_migrated(cluster: Cluster) -> None:
    state = cluster.state()
    # An attempt of the Job fails while PostgreSQL starts. The last one succeeds.
    migration = state.happened("Started", "nern-migrate")[-1]
    first, second = state.happened("Ready", "nern-api")[:2]
    assert state.happened("Ready", "nern-postgres")[0].at < migration.at < first.at < second.at
    assert state.jobs == {"nern-migrate": "Complete"}
    assert state.happened("Ready", "nern-worker")


def test_a_job_is_done_over_the_service(client: httpx.Client, checkpoint: str) -> None:
    """An upload, a job, its events as a stream, its state, and the weights. Any replica answers any request."""
    events = follow(client, create(client, checkpoint, SHORT))
    predictor = events[-1]["data"]["predictor_id"]
    rebuilt = safetensors.torch.load(client.get(f"/v1/predictors/{predictor}/weights").content)
    assert {name: tensor.shape for name, tensor in rebuilt.items()} == {name: w.shape for name, w in resnet8().items()}


def test_an_upgrade_fails_no_request_and_loses_no_step(
    cluster: Cluster,
    releases: dict[str, list[Object]],
    client: httpx.Client,
    connect: Callable[[], httpx.Client],
    checkpoint: str,
    undisturbed: Callable[[dict[str, int]], bytes],
) -> None:
    expected = undisturbed(LONG)
    id = create(client, checkpoint, LONG)
    traffic = Traffic(connect, id)
    with traffic.running():
        until_it_trains(client, id)
        cluster.delete_job("nern-migrate")
        cluster.apply(releases[NEXT])
        until(lambda: cluster.settled(releases[NEXT]), what="the upgrade")
        artefact = finished(client, id)
    assert traffic.failures == []
    assert artefact == expected
    assert_no_step_was_lost(traffic.events)
    assert_all_ended_in_time(cluster)
    assert {worker["release"] for worker in ok(client.get("/v1/workers"))} == {NEXT}


def test_a_drain_of_all_nodes_but_one_fails_no_request_and_loses_no_step(
    cluster: Cluster,
    client: httpx.Client,
    connect: Callable[[], httpx.Client],
    checkpoint: str,
    undisturbed: Callable[[dict[str, int]], bytes],
) -> None:
    expected = undisturbed(LONG)
    moving = [pod.name for owner in ("nern-api", "nern-worker") for pod in cluster.state().of(owner)]
    id = create(client, checkpoint, LONG)
    traffic = Traffic(connect, id)
    with traffic.running():
        until_it_trains(client, id)
        for node in DRAINED:
            cluster.drain(node)
        until(lambda: all(pod.node == STORES_NODE for pod in cluster.state().pods if pod.phase == "Running"), what="the drain")
        artefact = finished(client, id)
        until(lambda: [pod.ready for pod in cluster.state().of("nern-api")] == [True, True], what="the new replicas")
        for node in DRAINED:
            cluster.uncordon(node)
    assert traffic.failures == []
    assert artefact == expected
    assert_no_step_was_lost(traffic.events)
    assert_all_ended_in_time(cluster)
    # The disruption budget has kept one replica until the successor of the other one was ready.
    evicted = {event.name for event in cluster.state().happened("Evicted")}
    assert evicted == set(moving)
    assert cluster.state().happened("TooManyRequests", "nern-api")


def assert_no_step_was_lost(events: Sequence[dict[str, Any]]) -> None:
    """A job that a worker gave back once went on from its last step, and no event of it was missed."""
    assert [event["number"] for event in events] == list(range(1, len(events) + 1))
    [resumed] = [number for number, event in enumerate(events) if event["kind"] == "resumed"]
    before = max(event["data"]["step"] for event in events[:resumed] if event["kind"] == "progress")
    assert events[resumed]["data"]["refused"] == []
    assert events[resumed]["data"]["step"] >= before > 0


def assert_all_ended_in_time(cluster: Cluster) -> None:
    assert cluster.state().happened("ExceededGracePeriod") == []
    assert cluster.state().happened("Unhealthy") == []


@pytest.mark.parametrize(("one", "other"), LINKS)
def test_a_link_that_is_cut_costs_no_job(
    cluster: Cluster,
    client: httpx.Client,
    checkpoint: str,
    undisturbed: Callable[[dict[str, int]], bytes],
    one: str,
    other: str,
) -> None:
    expected = undisturbed(SHORT)
    jobs = [create(client, checkpoint, SHORT)]
    with cluster.cut(one, other):
        end = time.monotonic() + CUT_SECONDS
        assert (one, other) not in {arrow[:2] for arrow in cluster.connections([port for _, _, port in ARROWS])}
        if LINKS[one, other] != "nothing":
            jobs.append(create(client, checkpoint, SHORT))
        if LINKS[one, other] == "done":
            assert finished(client, jobs[-1]) == expected
        time.sleep(max(0, end - time.monotonic()))
    mended = time.monotonic()
    until(lambda: (state := cluster.state()).known and sum(pod.ready for pod in state.pods) == 6, what="all pods ready")
    if LINKS[one, other] == "nothing":
        jobs.append(create(client, checkpoint, SHORT))
    assert [finished(client, id) for id in jobs] == [expected] * len(jobs)
    print(f"{one} - {other}: well after {time.monotonic() - mended:.1f} s")


def test_what_the_policies_do_not_allow_does_not_connect(cluster: Cluster) -> None:
    ports = {port for _, _, port in ARROWS} | {22}
    # The migration is over.
    assert cluster.connections(sorted(ports)) == {arrow for arrow in ARROWS if arrow[0] != "nern-migrate"}
