"""What the NetworkPolicies of a cluster allow."""

from collections.abc import Iterator, Mapping, Sequence

from tests.support.kubernetes import Object, selects

Labels = Mapping[str, str]


def may(
    policies: Sequence[Object], direction: str, pod: Labels | None, peer: Labels | None, port: int, ports: Mapping[str, int]
) -> bool:
    """Whether the policies (their specs) let a pod connect to, or be reached from, a peer at a port.

    direction: egress or ingress. A pod or a peer of None is no pod of this namespace. ports: the names of the ports of the pod
    that is reached.
    """
    if pod is None:
        return True
    chosen = [p for p in policies if selects(p["podSelector"], pod) and direction.capitalize() in p["policyTypes"]]
    if not chosen:
        return True
    for rule in rules(chosen, direction):
        if "ports" in rule and port not in [ports.get(allowed["port"], allowed["port"]) for allowed in rule["ports"]]:
            continue
        peers = rule.get("to" if direction == "egress" else "from")
        if peers is None or any(
            peer is not None and "namespaceSelector" not in one and selects(one["podSelector"], peer) for one in peers
        ):
            return True
    return False


def rules(policies: Sequence[Object], direction: str) -> Iterator[Object]:
    """All rules of the policies for a direction."""
    for chosen in policies:
        yield from chosen.get(direction, [])
