"""A cluster on this machine: controllers, network and pods."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

from tests.support.cluster import Event, images
from tests.support.cluster.containers import Place
from tests.support.cluster.controllers import Controllers, port_of
from tests.support.cluster.network import Flow, Network, address_of, service_address
from tests.support.cluster.pods import Pod
from tests.support.kubernetes import Object, selects
from tests.support.policies import may

Value = TypeVar("Value")

# Whoever is no pod, such as the clients of the tests. They have the namespace of this number.
CLIENTS, CLIENTS_NUMBER = "clients", 1

STEP_SECONDS = 0.1
CONNECT_SECONDS = 1.5
COPIED_BYTES = 2**16


class Machine:
    """A cluster on this machine: the controllers, the network, and the folders of the pods."""

    def __init__(self, folder: Path, found: images.Images, *, mapped: bool) -> None:
        self._folder, self._images, self._mapped = folder, found, mapped
        self._thread = ThreadPoolExecutor(1)
        self._network = self._thread.submit(Network).result()
        self._clients = self._thread.submit(self._network.attach, CLIENTS_NUMBER, ()).result()
        self._services: dict[str, str] = {}
        self._endpoints: dict[str, Sequence[Pod]] = {}
        self._cuts: set[tuple[str, str]] = set()
        self._namespaces = {CLIENTS: self._clients}
        self._servers: list[asyncio.Server] = []
        # The event loop keeps no task alive.
        self._connections: set[asyncio.Task[Any]] = set()
        self.events: list[Event] = []
        self.controllers = Controllers(self._live, self._publish, self._record)

    async def run(self) -> None:
        while True:
            await self.controllers.step()
            await asyncio.sleep(STEP_SECONDS)

    async def apply(self, objects: Sequence[Object]) -> None:
        self.controllers.apply(objects)
        new = {name: one for one in self.controllers.of("Service") if (name := one["metadata"]["name"]) not in self._services}
        for name in new:
            self._services[name] = service_address(len(self._services) + 1)
        for name, service in new.items():
            await self._publish(name, [])
            path = self._folder / f"{name}.sock"
            self._servers.append(await asyncio.start_unix_server(partial(self._pass, service), path))
        await self._filter()

    async def delete_job(self, name: str) -> None:
        self.controllers.delete_job(name)

    async def drain(self, node: str) -> None:
        self.controllers.drain(node)

    async def uncordon(self, node: str) -> None:
        self.controllers.cordoned.discard(node)

    async def cut(self, one: str, other: str) -> None:
        """Loses all packets between the pods of two Deployments, or between one's and the clients."""
        self._cuts.add((one, other))
        await self._filter()

    async def mend(self) -> None:
        """Ends all cuts."""
        self._cuts.clear()
        await self._filter()

    async def state(self) -> dict[str, Any]:
        pods = [pod.state() for pod in self.controllers.pods.values()]
        events = [asdict(event) for event in self.events]
        services = self.controllers.of("Service")
        known = all(self._endpoints[one["metadata"]["name"]] == self.controllers.ready(one) for one in services)
        return {"pods": [asdict(pod) for pod in pods], "jobs": self.controllers.jobs, "events": events, "known": known}

    async def connections(self, ports: Sequence[int]) -> list[tuple[str, str, int]]:
        """Tries to connect from each pod, and from the clients, to each pod at each port. Which owner reached which port.

        To reach a port means that an answer came, be it that nothing listens.
        """
        pods = [pod for pod in self.controllers.pods.values() if not pod.ended]
        sources = [(CLIENTS, self._clients), *((pod.owner, self._namespaces[pod.name]) for pod in pods)]
        tries = [(*source, pod, port) for source, pod, port in product(sources, pods, ports) if source[0] != pod.owner]

        async def reaches(namespace: int, pod: Pod, port: int) -> bool:
            with await self._on_network(self._network.socket, namespace) as connection:
                try:
                    async with asyncio.timeout(CONNECT_SECONDS):
                        await asyncio.get_running_loop().sock_connect(connection, (pod.address, port))
                except TimeoutError:
                    return False
                except ConnectionRefusedError:
                    pass
                return True

        found = await asyncio.gather(*(reaches(namespace, pod, port) for _, namespace, pod, port in tries))
        return [(owner, pod.owner, port) for (owner, _, pod, port), reached in zip(tries, found, strict=True) if reached]

    async def _live(self, pod: Pod) -> None:
        """The life of a pod."""
        folder = self._folder / pod.name
        folder.mkdir()
        addresses = [self._services[service["metadata"]["name"]] for service in self._services_of(pod)]
        namespace = await self._on_network(self._network.attach, pod.number, addresses)
        self._namespaces[pod.name] = namespace
        await self._filter()
        place = Place(pod.name, namespace, folder, self._services, self._mapped)
        await pod.run(place, self._images, self.controllers.objects, self._record)
        await self._on_network(self._network.detach, self._namespaces.pop(pod.name))

    def _services_of(self, pod: Pod) -> list[Object]:
        return [
            service
            for service in self.controllers.of("Service")
            if selects({"matchLabels": service["spec"]["selector"]}, pod.labels)
        ]

    async def _publish(self, service: str, ready: Sequence[Pod]) -> None:
        self._endpoints[service] = ready
        await self._on_network(self._network.direct, self._services[service], ready[0].number if ready else None)

    async def _pass(self, service: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Passes a connection of a client on to one pod that is ready, as kube-proxy does."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        with suppress(OSError):
            if ready := self._endpoints[service["metadata"]["name"]]:
                pod = random.choice(ready)  # noqa: S311
                connection = await self._on_network(self._network.socket, self._clients)
                await asyncio.get_running_loop().sock_connect(connection, (pod.address, port_of(service, pod)))
                inner_reader, inner_writer = await asyncio.open_connection(sock=connection)
                await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))
        writer.close()
        self._connections.discard(task)

    async def _filter(self) -> None:
        """Makes the filter what the policies allow among the pods that are there, and cuts what is cut."""
        pods = [pod for pod in self.controllers.pods.values() if not pod.ended]
        policies = [policy["spec"] for policy in self.controllers.of("NetworkPolicy")]
        ports = {number for pod in pods for number in pod.ports.values()}
        ends: list[tuple[str, str, Pod | None]] = [(CLIENTS, address_of(CLIENTS_NUMBER), None)]
        ends += [(pod.owner, pod.address, pod) for pod in pods]
        allowed: list[Flow] = []
        cut: list[tuple[str, str]] = []
        for (owner, address, source), target in product(ends, pods):
            addresses = [target.address, *(self._services[one["metadata"]["name"]] for one in self._services_of(target))]
            if {(owner, target.owner), (target.owner, owner)} & self._cuts:
                cut += product([address], addresses)
            labels = source.labels if source else None
            for port in ports:
                if (
                    source is not target
                    and may(policies, "egress", labels, target.labels, port, target.ports)
                    and may(policies, "ingress", target.labels, labels, port, target.ports)
                ):
                    allowed += [Flow(address, one, port) for one in addresses]
        await self._on_network(self._network.filter, allowed, cut)

    async def _on_network(self, do: Callable[..., Value], *arguments: Any) -> Value:
        return await asyncio.get_running_loop().run_in_executor(self._thread, do, *arguments)

    def _record(self, name: str, reason: str, message: str) -> None:
        self.events.append(Event(time.time(), name, reason, message))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(COPIED_BYTES):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
