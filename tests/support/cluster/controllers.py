"""The controllers: they make and end pods until these are what the objects say."""

import asyncio
import hashlib
import json
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tests.support.cluster.pods import Pod
from tests.support.kubernetes import Object, selects

NODES = ("node-a", "node-b", "node-c")
HOST_NAME = "kubernetes.io/hostname"

# Proxies of Services learn so late which pods are ready.
PROPAGATION_SECONDS = 2.0

# `kubectl drain` tries again after so long to evict a pod that must stay for now.
EVICTION_SECONDS = 5.0

# A pod of a Job that has failed is followed by another one after so long, then after twice as long, and so on.
JOB_BACKOFF_SECONDS = 10.0

# Kinds of objects that have no meaning here, and those that are carried out.
IGNORED = {"Namespace", "ServiceAccount"}
KNOWN = {"Deployment", "Job", "Service", "PodDisruptionBudget", "NetworkPolicy", "ConfigMap", "Secret"}


class Controllers:
    """The objects and the pods of a cluster.

    launch: starts the life of a pod. publish: is told which pods of a Service are ready.
    """

    def __init__(
        self,
        launch: Callable[[Pod], Awaitable[None]],
        publish: Callable[[str, Sequence[Pod]], Awaitable[None]],
        record: Callable[[str, str, str], None],
    ) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.pods: dict[str, Pod] = {}
        self.jobs: dict[str, str] = {}
        self.cordoned: set[str] = set()
        self._launch, self._publish, self._record = launch, publish, record
        self._ready: dict[str, list[Pod]] = {}
        self._numbers = iter(range(2, 255))
        self._lives: set[asyncio.Future[None]] = set()
        self._failures: dict[str, list[float]] = {}
        self._evictions = 0.0

    def of(self, kind: str) -> list[Object]:
        return [found for (one, _), found in self.objects.items() if one == kind]

    def apply(self, objects: Sequence[Object]) -> None:
        """Like `kubectl apply`. Raises ValueError for a Job that is there and differs."""
        for found in objects:
            key = found["kind"], found["metadata"]["name"]
            assert key[0] in KNOWN | IGNORED, key
            if key[0] == "Job" and key in self.objects and self.objects[key]["spec"] != found["spec"]:
                raise ValueError(f"job {key[1]}: field is immutable")
            self.objects[key] = found

    def delete_job(self, name: str) -> None:
        """Like `kubectl delete job`, for a Job that is over."""
        del self.objects["Job", name], self.jobs[name]
        self.pods = {key: pod for key, pod in self.pods.items() if pod.owner != name}
        self._failures.pop(name, None)

    def drain(self, node: str) -> None:
        """Like `kubectl drain`: no pod comes to the node any more, and those that are there are evicted."""
        self.cordoned.add(node)

    async def step(self) -> None:
        """Does what is to be done now. Raises what the life of a pod has raised."""
        for life in [life for life in self._lives if life.done()]:
            self._lives.remove(life)
            life.result()
        for deployment in self.of("Deployment"):
            self._roll(deployment)
        for job in self.of("Job"):
            self._complete(job)
        if time.monotonic() >= self._evictions:
            self._evict()
        for service in self.of("Service"):
            self._serve(service)

    def ready(self, service: Object) -> list[Pod]:
        """The pods of a Service that are ready now."""
        selector = {"matchLabels": service["spec"]["selector"]}
        return [pod for pod in self.pods.values() if pod.ready and selects(selector, pod.labels)]

    def _pods_of(self, owner: str) -> list[Pod]:
        return [pod for pod in self.pods.values() if pod.owner == owner and not pod.stopping.is_set()]

    def _roll(self, deployment: Object) -> None:
        """A step of a rollout: as many new pods as there may be, and as many old ones ended as may be missing."""
        name, spec = deployment["metadata"]["name"], deployment["spec"]
        replicas = spec.get("replicas", 1)
        release = hashlib.sha256(json.dumps(spec["template"], sort_keys=True).encode()).hexdigest()[:8]
        there = self._pods_of(name)
        new, old = ([pod for pod in there if (pod.release == release) == wanted] for wanted in (True, False))
        if spec.get("strategy", {}).get("type") == "Recreate":
            surge, missing = 0, replicas
            if old or any(pod.owner == name and pod.release != release for pod in self.pods.values()):
                for pod in old:
                    pod.stop()
                return
        else:
            limits = spec.get("strategy", {}).get("rollingUpdate", {})
            surge = _share(limits.get("maxSurge", "25%"), replicas, math.ceil)
            missing = _share(limits.get("maxUnavailable", "25%"), replicas, math.floor)
        for _ in range(min(replicas - len(new), replicas + surge - len(there))):
            self._create(name, release, spec["template"])
        spare = sum(pod.ready for pod in there) - (replicas - missing)
        for pod in sorted(old, key=lambda pod: pod.ready) + new[replicas:]:
            if pod.ready:
                spare -= 1
                if spare < 0:
                    return
            pod.stop()

    def _create(self, owner: str, release: str, template: Object) -> None:
        labels = {**template["metadata"]["labels"], "pod-template-hash": release}
        template = {**template, "metadata": {**template["metadata"], "labels": labels}}
        if (node := self._node(template)) is None:
            return
        number = next(self._numbers)
        pod = Pod(f"{owner}-{release}-{number}", owner, release, template, node, number)
        self.pods[pod.name] = pod
        self._record(pod.name, "Scheduled", node)
        life = asyncio.ensure_future(self._launch(pod))
        self._lives.add(life)
        life.add_done_callback(lambda _: self._gone(pod))

    def _gone(self, pod: Pod) -> None:
        if pod.stopping.is_set():
            self.pods.pop(pod.name, None)

    def _node(self, template: Object) -> str | None:
        """The node with the fewest pods of the kind that the pod is to be spread over, and then with the fewest pods."""
        labels = template["metadata"]["labels"]
        wanted = template["spec"].get("nodeSelector", {}).get(HOST_NAME)
        spreads = [one for one in template["spec"].get("topologySpreadConstraints", []) if one["topologyKey"] == HOST_NAME]

        def load(node: str) -> tuple[int, int]:
            there = [pod for pod in self.pods.values() if pod.node == node and not pod.ended]
            alike = [
                pod
                for spread in spreads
                for pod in there
                if selects(spread["labelSelector"], pod.labels)
                and all(pod.labels.get(key) == labels.get(key) for key in spread.get("matchLabelKeys", []))
            ]
            return len(alike), len(there)

        return min((node for node in NODES if node not in self.cordoned and wanted in (None, node)), key=load, default=None)

    def _complete(self, job: Object) -> None:
        """A step of a Job: a pod unless one runs, one has succeeded, or too many have failed."""
        name, limit = job["metadata"]["name"], job["spec"].get("backoffLimit", 6)
        pods, failures = self._pods_of(name), self._failures.setdefault(name, [])
        ended = [pod for pod in pods if pod.phase == "Failed"]
        failures += [time.monotonic()] * (len(ended) - len(failures))
        if name in self.jobs:
            return
        if any(pod.phase == "Succeeded" for pod in pods):
            self.jobs[name] = "Complete"
        elif len(failures) + sum(pod.restarts for pod in pods) > limit:
            self.jobs[name] = "Failed"
            for pod in pods:
                pod.stop()
        elif len(ended) == len(pods):
            if not failures or time.monotonic() > failures[-1] + JOB_BACKOFF_SECONDS * 2 ** (len(failures) - 1):
                self._create(name, "job", job["spec"]["template"])
            return
        else:
            return
        self._record(name, self.jobs[name], "")

    def _evict(self) -> None:
        """Evicts the pods of drained nodes, as far as disruption budgets allow it."""
        for pod in [pod for pod in self.pods.values() if pod.node in self.cordoned and not pod.ended]:
            if pod.stopping.is_set():
                continue
            if all(self._allows(budget["spec"], pod) for budget in self.of("PodDisruptionBudget")):
                self._record(pod.name, "Evicted", pod.node)
                pod.stop()
            else:
                self._record(pod.name, "TooManyRequests", "cannot evict pod as it would violate the pod's disruption budget")
                self._evictions = time.monotonic() + EVICTION_SECONDS

    def _allows(self, budget: Object, evicted: Pod) -> bool:
        if not selects(budget["selector"], evicted.labels):
            return True
        if not evicted.ready and budget.get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
            return True
        pods = [pod for pod in self.pods.values() if selects(budget["selector"], pod.labels)]
        expected: int = sum(self.objects["Deployment", name]["spec"].get("replicas", 1) for name in {pod.owner for pod in pods})
        return sum(pod.ready for pod in pods) - 1 >= expected - int(budget["maxUnavailable"])

    def _serve(self, service: Object) -> None:
        """Tells after a while which pods of a Service are ready."""
        name, ready = service["metadata"]["name"], self.ready(service)
        if ready != self._ready.get(name):
            self._ready[name] = ready
            self._lives.add(asyncio.ensure_future(self._later(name, ready)))

    async def _later(self, name: str, ready: Sequence[Pod]) -> None:
        await asyncio.sleep(PROPAGATION_SECONDS)
        await self._publish(name, ready)


def _share(value: int | str, whole: int, rounded: Callable[[float], int]) -> int:
    """A number, or so many per cent of a whole."""
    return rounded(whole * int(value[:-1]) / 100) if isinstance(value, str) else value


def port_of(service: Object, pod: Pod) -> int:
    """The port of a pod that connections to a Service go to."""
    [port] = service["spec"]["ports"]
    target: Any = port.get("targetPort", port["port"])
    return pod.ports[target] if isinstance(target, str) else target
