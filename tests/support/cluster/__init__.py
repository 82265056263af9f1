"""A small cluster that carries out rendered Kubernetes objects with processes on this machine.

A test makes a `Cluster`, which starts a process (`__main__`). In this process,

- `machine` holds the parts together, and passes connections of clients on to pods,
- `controllers` makes and ends pods: Deployments, Jobs, drains, and which pods a Service has,
- `pods` runs a pod as kubelet does, `probes` its probes, `containers` finds what a container refers to,
- `sandbox` is the program that runs a container, apart from the machine and from other containers,
- `images` says which files and variables an image has,
- `network` has a namespace for each pod, and lets through what the NetworkPolicies allow.

Every field of a pod that none of these knows is an error. It needs Linux 5.12 or later, and root or user namespaces.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.cluster.images import Image
from tests.support.kubernetes import Object
from tests.support.waiting import DEADLINE_SECONDS, until

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Event:
    """Something that has happened to a pod or a Job, `at` seconds by the clock of `time.time`."""

    at: float
    name: str
    reason: str
    message: str


@dataclass(frozen=True)
class PodState:
    """A pod. owner: the name of its Deployment or Job. phase: that of Kubernetes."""

    name: str
    owner: str
    node: str
    phase: str
    ready: bool
    stopping: bool
    image: str


@dataclass(frozen=True)
class State:
    """What there is.

    jobs: how each Job that is over has ended. events: all since the start. known: whether all Services know who is ready.
    """

    pods: Sequence[PodState]
    jobs: Mapping[str, str]
    events: Sequence[Event]
    known: bool

    def of(self, owner: str) -> list[PodState]:
        """The pods of a Deployment or a Job that are not ending."""
        return [pod for pod in self.pods if pod.owner == owner and not pod.stopping]

    def happened(self, reason: str, owner: str = "") -> list[Event]:
        """The events of a reason, to pods whose names begin with that of their owner."""
        return [event for event in self.events if event.reason == reason and event.name.startswith(owner)]


class Cluster:
    """A cluster. The methods are those of `machine.Machine`."""

    def __init__(self, folder: Path, process: "subprocess.Popen[str]") -> None:
        self._folder, self._process = folder, process

    def apply(self, objects: Sequence[Object]) -> None:
        """Like `kubectl apply`."""
        self._ask("apply", objects)

    def delete_job(self, name: str) -> None:
        """Like `kubectl delete job`, for a Job that is over."""
        self._ask("delete_job", name)

    def drain(self, node: str) -> None:
        """Begins what `kubectl drain` does: no pod comes to the node any more, and those that are there are evicted."""
        self._ask("drain", node)

    def uncordon(self, node: str) -> None:
        """Lets pods come to a node again."""
        self._ask("uncordon", node)

    @contextmanager
    def cut(self, one: str, other: str) -> Iterator[None]:
        """A block in which all packets between the pods of two owners are lost. One may be `clients`."""
        self._ask("cut", one, other)
        try:
            yield
        finally:
            self._ask("mend")

    def connections(self, ports: Sequence[int]) -> set[tuple[str, str, int]]:
        """Which owners' pods can connect to which owners' pods, at which of these ports."""
        return {(source, target, port) for source, target, port in self._ask("connections", ports)}

    def state(self) -> State:
        found = self._ask("state")
        pods = [PodState(**pod) for pod in found["pods"]]
        return State(pods, found["jobs"], [Event(**event) for event in found["events"]], found["known"])

    def settled(self, objects: Sequence[Object]) -> bool:
        """Whether the pods are those that these objects ask for, ready and known to be, and all Jobs are over."""
        state = self.state()
        if not state.known or any(pod.stopping for pod in state.pods):
            return False
        for found in objects:
            name, spec = found["metadata"]["name"], found.get("spec", {})
            if found["kind"] == "Job" and name not in state.jobs:
                return False
            if found["kind"] == "Deployment":
                image = spec["template"]["spec"]["containers"][0]["image"]
                if [(pod.ready, pod.image) for pod in state.of(name)] != [(True, image)] * spec.get("replicas", 1):
                    return False
        return True

    def client(self, service: str, **arguments: Any) -> httpx.Client:
        """An HTTP client outside of the cluster that asks a Service. Each request has a connection of its own."""
        limits = httpx.Limits(max_keepalive_connections=0)
        transport = httpx.HTTPTransport(uds=str(self._folder / f"{service}.sock"), limits=limits)
        return httpx.Client(transport=transport, base_url=f"http://{service}", timeout=DEADLINE_SECONDS, **arguments)

    def log(self) -> str:
        """What all containers have written, for messages of tests that fail."""
        return "\n".join(f"--- {path.parent.name}\n{path.read_text()}" for path in sorted(self._folder.glob("*/*.log")))

    def _ask(self, method: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([method, arguments]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the process of the cluster has ended; its standard error says why"
        return json.loads(answer)


@contextmanager
def running(folder: Path, images: Mapping[str, Image]) -> Iterator[Cluster]:
    """A block in which a cluster runs. images: those of releases. The path of the folder must be short: it holds sockets."""
    described = json.dumps({name: asdict(image) for name, image in images.items()})
    command = [sys.executable, "-m", "tests.support.cluster", str(folder), described]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=inherited
    ) as process:
        try:
            yield Cluster(folder, process)
        finally:
            process.kill()


__all__ = ["Cluster", "Event", "PodState", "State", "running", "until"]
