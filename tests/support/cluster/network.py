"""The network of a cluster: each pod has a network namespace, and a router between them passes on what rules allow.

The router is the namespace of this process. Its routing policy (`ip rule`) is the packet filter: a packet that no rule allows
is dropped without an answer, as most network plugins do. A filter of nftables would do the same, but needs a program that a
machine may not have. The rules know no connections: an answer is allowed by its source port.

A Service has an address of its own. Packets to it go to one pod that is ready. The pod has this address too and answers from
it, so no proxy stands in between, and a client sees what happens to its connection.
"""

import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from tests.support.cluster.sandbox import NEW_NETWORK, call

PODS = IPv4Network("10.1.0.0/16")
SERVICES = IPv4Network("10.2.0.0/24")

# The order of the rules. The first rule that fits decides.
CUT, PROBE, ALLOW, REFUSE = 100, 200, 300, 400
MAIN_TABLE = 254
TCP = 6


def address_of(pod: int) -> str:
    """The address of the pod of a number (1 to 254)."""
    return str(PODS[256 * pod + 2])


def service_address(number: int) -> str:
    return str(SERVICES[number])


@dataclass(frozen=True)
class Flow:
    """Connections from one address to a port of another one."""

    source: str
    target: str
    port: int


class Network:
    """Namespaces, routes and rules. Only one thread may use an instance."""

    def __init__(self) -> None:
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self._router = IPRoute()
        self._rules: set[tuple[tuple[str, Any], ...]] = set()
        settings = Path("/proc/sys/net/ipv4")
        (settings / "ip_forward").write_text("1")
        for name in ("all", "default"):
            (settings / "conf" / name / "rp_filter").write_text("0")
        self._router.link("set", index=1, state="up")
        # kubelet probes pods whatever the policies say.
        self._rule("add", _rule(PROBE, iifname="lo", table=MAIN_TABLE))
        for ends in (PODS, SERVICES):
            for direction in ("src", "dst"):
                block = {direction: str(ends.network_address), f"{direction}_len": ends.prefixlen}
                self._rule("add", _rule(REFUSE, action="blackhole", **block))

    def attach(self, pod: int, services: Sequence[str]) -> int:
        """Makes the namespace of a pod, which also has the addresses of its Services. Returns a descriptor of the namespace."""
        call("unshare", NEW_NETWORK)
        namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        with IPRoute() as inside:
            call("setns", self._home, NEW_NETWORK)
            name, gateway = f"pod{pod}", str(PODS[256 * pod + 1])
            self._router.link("add", ifname=name, kind="veth", peer={"ifname": "eth0", "net_ns_fd": namespace})
            [outer], [inner] = self._router.link_lookup(ifname=name), inside.link_lookup(ifname="eth0")
            self._router.addr("add", index=outer, address=gateway, prefixlen=24)
            self._router.link("set", index=outer, state="up")
            inside.addr("add", index=inner, address=address_of(pod), prefixlen=24)
            for address in services:
                inside.addr("add", index=1, address=address, prefixlen=32)
            for index in (1, inner):
                inside.link("set", index=index, state="up")
            inside.route("add", dst="default", gateway=gateway)
        return namespace

    def detach(self, namespace: int) -> None:
        """Ends the namespace of a pod, and its link with it, as soon as no process is in it."""
        os.close(namespace)

    def direct(self, service: str, pod: int | None) -> None:
        """Directs the packets to a Service to a pod. None: they are refused, as without a pod that is ready."""
        where: dict[str, Any] = {"gateway": address_of(pod)} if pod else {"type": "unreachable"}
        self._router.route("replace", dst=f"{IPv4Address(service)}/32", **where)

    def socket(self, namespace: int) -> socket.socket:
        """A TCP socket in the namespace of a pod."""
        call("setns", namespace, NEW_NETWORK)
        try:
            return socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        finally:
            call("setns", self._home, NEW_NETWORK)

    def filter(self, allowed: Iterable[Flow], cut: Iterable[tuple[str, str]]) -> None:
        """Allows these flows, and no others. What two addresses that are cut send to each other is lost all the same."""
        wanted = {_rule(CUT, src=one, dst=other, action="blackhole") for pair in cut for one, other in (pair, pair[::-1])}
        for flow in allowed:
            port = f"{flow.port}:{flow.port}"
            wanted.add(_rule(ALLOW, src=flow.source, dst=flow.target, ip_proto=TCP, dport_range=port, table=MAIN_TABLE))
            wanted.add(_rule(ALLOW, src=flow.target, dst=flow.source, ip_proto=TCP, sport_range=port, table=MAIN_TABLE))
        for rule in self._rules - wanted:
            self._rule("del", rule)
        for rule in wanted - self._rules:
            self._rule("add", rule)
        self._rules = wanted

    def _rule(self, command: str, rule: tuple[tuple[str, Any], ...]) -> None:
        self._router.rule(command, **dict(rule))


def _rule(priority: int, **rest: Any) -> tuple[tuple[str, Any], ...]:
    return (("priority", priority), *sorted(rest.items()))
