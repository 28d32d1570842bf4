"""Who may talk to whom, by the rendered NetworkPolicies (https://kubernetes.io/docs/concepts/services-networking/).

A connection between two pods needs the egress of one and the ingress of the other; a pod that no policy selects for a
direction is open in it. `ipBlock` means the outside here, never a pod: private ranges are excepted, or it is one
address.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.deploy.k8s.rendering import Object, of_kind


@dataclass(frozen=True)
class Peer:
    """A pod by its namespace and labels."""

    namespace: str
    labels: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, namespace: str, **labels: str) -> Peer:
        """With the label app.kubernetes.io/name as `name`, and labels of qrelay.dev by their last part."""
        full = {"app.kubernetes.io/name" if key == "name" else f"qrelay.dev/{key}": v for key, v in labels.items()}
        return cls(namespace, frozenset(full.items()))


def selects(selector: Object, labels: frozenset[tuple[str, str]]) -> bool:
    """Whether a label selector means these labels."""
    have = dict(labels)
    for key, value in selector.get("matchLabels", {}).items():
        if have.get(key) != value:
            return False
    for rule in selector.get("matchExpressions", []):
        if rule["operator"] != "In":
            raise ValueError(f"selector {rule}: only In is read here; add this operator to `selects`")
        if have.get(rule["key"]) not in rule["values"]:
            return False
    return True


def _peer_meant(rule_peer: Object, policy_namespace: str, pod: Peer) -> bool:
    if "ipBlock" in rule_peer:
        return False
    namespace = frozenset({("kubernetes.io/metadata.name", pod.namespace)})
    if "namespaceSelector" in rule_peer:
        if not selects(rule_peer["namespaceSelector"], namespace):
            return False
    elif pod.namespace != policy_namespace:
        return False
    return selects(rule_peer.get("podSelector", {}), pod.labels)


def _port_meant(rule: Object, port: int) -> bool:
    ports = rule.get("ports")
    return ports is None or any(each["port"] <= port <= each.get("endPort", each["port"]) for each in ports)


def _open(policies: Sequence[Object], pod: Peer, direction: str, other: Peer, port: int) -> bool:
    key, peers = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
    mine = [
        each
        for each in policies
        if each["metadata"]["namespace"] == pod.namespace
        and direction in each["spec"]["policyTypes"]
        and selects(each["spec"]["podSelector"], pod.labels)
    ]
    return not mine or any(
        _port_meant(rule, port)
        and (peers not in rule or any(_peer_meant(each, pod.namespace, other) for each in rule[peers]))
        for policy in mine
        for rule in policy["spec"].get(key, [])
    )


def reaches(objects: Sequence[Object], source: Peer, target: Peer, port: int) -> bool:
    """Whether the policies let `source` connect to `target` at the TCP port."""
    policies = of_kind(objects, "NetworkPolicy")
    return _open(policies, source, "Egress", target, port) and _open(policies, target, "Ingress", source, port)


def admits(objects: Sequence[Object], source: Peer, target: Peer, port: int) -> bool:
    """Whether `target` would take the connection, whatever `source` may do."""
    return _open(of_kind(objects, "NetworkPolicy"), target, "Ingress", source, port)


def outside_ports(objects: Sequence[Object], pod: Peer) -> set[int]:
    """TCP ports at which the pod may reach addresses outside the cluster."""
    found: set[int] = set()
    for policy in of_kind(objects, "NetworkPolicy"):
        spec = policy["spec"]
        if policy["metadata"]["namespace"] == pod.namespace and selects(spec["podSelector"], pod.labels):
            for rule in spec.get("egress", []):
                if any("ipBlock" in each for each in rule["to"]):
                    found |= {each["port"] for each in rule["ports"]}
    return found
