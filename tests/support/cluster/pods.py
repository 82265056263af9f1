"""Pods, as kubelet runs them: from the first init container to the end of the last process."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from tests.support.cluster import PodState, probes
from tests.support.cluster.containers import ConfigError, Objects, Place, start
from tests.support.cluster.images import Images
from tests.support.cluster.network import address_of
from tests.support.kubernetes import Object

# The fields of pods that are carried out, and those that have no meaning here: no process asks the Kubernetes API, and no
# system calls are filtered.
KNOWN = {
    "initContainers", "containers", "restartPolicy", "terminationGracePeriodSeconds", "securityContext", "volumes",
    "topologySpreadConstraints", "nodeSelector",
    "serviceAccountName", "automountServiceAccountToken", "enableServiceLinks",
}  # fmt: skip

# A container that has ended again is started again after so long, then after twice as long, and so on.
BACKOFF_SECONDS = 10.0
LONGEST_BACKOFF_SECONDS = 300.0

# How often kubelet looks whether something that was not there has come.
CONFIG_SECONDS = 1.0

Record = Callable[[str, str, str], None]


class Pod:
    """A pod. `phase` is that of Kubernetes; `ready` whether all containers are ready; `stopping` is set by `stop`."""

    def __init__(self, name: str, owner: str, release: str, template: Object, node: str, number: int) -> None:
        assert template["spec"].keys() <= KNOWN, template["spec"].keys() - KNOWN
        self.name, self.owner, self.release, self.node, self.number = name, owner, release, node, number
        self.spec: Object = template["spec"]
        self.labels: dict[str, str] = template["metadata"]["labels"]
        self.address = address_of(number)
        self.phase = "Pending"
        self.restarts = 0
        self.stopping = asyncio.Event()
        self.deadline = 0.0
        self._unready = {container["name"] for container in self.spec["containers"]}

    @property
    def ready(self) -> bool:
        return self.phase == "Running" and not self._unready and not self.stopping.is_set()

    @property
    def ended(self) -> bool:
        return self.phase in ("Succeeded", "Failed")

    @property
    def ports(self) -> dict[str, int]:
        """The ports by their names."""
        found = [port for container in self.spec["containers"] for port in container.get("ports", [])]
        return {port.get("name", str(port["containerPort"])): port["containerPort"] for port in found}

    def state(self) -> PodState:
        image = self.spec["containers"][0]["image"]
        return PodState(self.name, self.owner, self.node, self.phase, self.ready, self.stopping.is_set(), image)

    def stop(self) -> None:
        """Begins to end the pod. It has its grace period from now on, with the hook before SIGTERM."""
        if not self.stopping.is_set():
            self.deadline = time.monotonic() + self.spec.get("terminationGracePeriodSeconds", 30)
            self.stopping.set()

    async def run(self, place: Place, images: Images, objects: Objects, record: Record) -> None:
        """Runs the pod to its end."""
        life = _Life(self, place, images, objects, record)
        for container in self.spec.get("initContainers", []):
            await life.keep(container, "OnFailure")
        self.phase = "Running"
        policy = self.spec.get("restartPolicy", "Always")
        codes = await asyncio.gather(*(life.keep(container, policy) for container in self.spec["containers"]))
        self.phase = "Failed" if any(codes) else "Succeeded"
        record(self.name, self.phase, f"exit codes {list(codes)}")

    def report(self, container: str, *, ready: bool) -> bool:
        """Notes whether a container is ready. Returns whether this is a change. An init container never counts."""
        before = set(self._unready)
        if ready:
            self._unready.discard(container)
        elif container in [one["name"] for one in self.spec["containers"]]:
            self._unready.add(container)
        return self._unready != before


class _Life:
    """The containers of a pod."""

    def __init__(self, pod: Pod, place: Place, images: Images, objects: Objects, record: Record) -> None:
        self._pod, self._place, self._images, self._objects, self._record = pod, place, images, objects, record

    async def keep(self, container: Object, policy: str) -> int:
        """Runs a container, and starts it again as the policy says. Returns the last exit code."""
        pause = 0.0
        while True:
            code = await self._once(container)
            if self._pod.stopping.is_set() or policy == "Never" or (policy == "OnFailure" and code == 0):
                return code
            self._pod.restarts += 1
            self._tell("BackOff", f"{container['name']} ended with exit code {code}; it starts again in {pause:g} s")
            await self._unless_stopping(pause)
            pause = min(2 * pause or BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS)

    async def _once(self, container: Object) -> int:
        process = await self._started(container)
        if process is None:
            return 0
        end = asyncio.create_task(process.wait())
        failing = asyncio.Event()
        watching = asyncio.create_task(self._watch(container, failing))
        reasons = [asyncio.create_task(event.wait()) for event in (self._pod.stopping, failing)]
        await asyncio.wait([end, *reasons], return_when=asyncio.FIRST_COMPLETED)
        if not end.done():
            await self._end(container, process, end)
        for task in (watching, *reasons):
            task.cancel()
        self._pod.report(container["name"], ready=False)
        return await end

    async def _started(self, container: Object) -> asyncio.subprocess.Process | None:
        """The process of a container, as soon as all is there that it refers to. None if the pod is stopped before."""
        told = ""
        while not self._pod.stopping.is_set():
            try:
                if (image := self._images.find(container["image"])) is None:
                    raise ConfigError(f"image {container['image']!r} not found")
                process = await start(container, self._pod.spec, image, self._place, self._objects)
            except ConfigError as error:
                if str(error) != told:
                    self._tell("Failed", f"{container['name']}: {error}")
                told = str(error)
                await self._unless_stopping(CONFIG_SECONDS)
            else:
                self._tell("Started", container["name"])
                return process
        return None

    async def _end(self, container: Object, process: asyncio.subprocess.Process, end: "asyncio.Task[int]") -> None:
        """Ends a process: the hook, SIGTERM, and SIGKILL when the time is up."""
        grace = self._pod.spec.get("terminationGracePeriodSeconds", 30)
        deadline = self._pod.deadline if self._pod.stopping.is_set() else time.monotonic() + grace
        self._tell("Killing", container["name"])
        hook = container.get("lifecycle", {})
        assert hook in ({}, {"preStop": {"sleep": hook.get("preStop", {}).get("sleep")}}), hook
        if hook:
            await asyncio.wait([end], timeout=min(hook["preStop"]["sleep"]["seconds"], deadline - time.monotonic()))
        if not end.done():
            process.terminate()
            await asyncio.wait([end], timeout=max(0, deadline - time.monotonic()))
        if not end.done():
            self._tell("ExceededGracePeriod", f"{container['name']} still ran after {grace} s")
            process.kill()

    async def _watch(self, container: Object, failing: asyncio.Event) -> None:
        """Carries out the probes of a container."""
        ports, address = self._pod.ports, self._pod.address

        def live(succeeded: bool) -> None:
            # kubelet does not ask whether a pod lives that is to end.
            if not succeeded and not self._pod.stopping.is_set():
                self._tell("Unhealthy", f"{container['name']} fails its probe")
                failing.set()

        def ready(succeeded: bool) -> None:
            if self._pod.report(container["name"], ready=succeeded):
                self._tell("Ready" if succeeded else "Unready", container["name"])

        if "startupProbe" in container:
            started = asyncio.Event()
            probing = asyncio.create_task(
                probes.follow(container["startupProbe"], address, ports, lambda ok: started.set() if ok else live(ok))
            )
            try:
                await started.wait()
            finally:
                probing.cancel()
        following = [
            probes.follow(container[name], address, ports, report)
            for name, report in (("livenessProbe", live), ("readinessProbe", ready))
            if name in container
        ]
        if "readinessProbe" not in container:
            ready(True)
        await asyncio.gather(*following)

    async def _unless_stopping(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._pod.stopping.wait(), seconds)

    def _tell(self, reason: str, message: str) -> None:
        self._record(self._pod.name, reason, message)
