"""What has to be balanced on this host: addresses and ports that stand for tasks (pure).

A `Frontend` is one such address with its targets; a balancer (iptables now, IPVS where the kernel has it) turns
frontends into kernel state. Only active rows are targets.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from swarm_agent.model.rows import AddressRow, EndpointRow

from .state import Chain, ChainKey


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """A task that answers: its address, and its port for published ports (0 for VIPs: any port)."""

    ip: str
    port: int = 0


@dataclass(frozen=True, slots=True)
class Published:
    """A port of every address of this host."""

    protocol: str
    port: int
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class VirtualAddress:
    """A service's VIP on one network. Without targets it refuses connections."""

    network_id: str
    vip: str
    targets: tuple[Target, ...]


class Balancer(Protocol):
    """Makes the chains that spread new connections over targets.

    The chains SWARM-PUBLISH and SWARM-VIP (nat) are entered for packets to addresses of this host and to all others;
    a balancer marks what it takes (names.PUBLISHED_BIT, VIP_BIT, in packet and connection) and leaves the rest alone.
    SWARM-REFUSE (filter) answers for VIPs that have no target. `subnets`: network id → subnet.
    """

    name: str

    def published(self, frontends: Iterable[Published]) -> Mapping[ChainKey, Chain]: ...

    def virtual(self, frontends: Iterable[VirtualAddress], subnets: Mapping[str, str]) -> Mapping[ChainKey, Chain]: ...


def ingress_address(row: EndpointRow, ingress_id: str) -> AddressRow | None:
    """The address through which a task's published ports are reached: the one that it answers from, else that on the
    ingress network, else its first."""
    by_preference = (
        *(address for address in row.addresses if address.ip == row.answers_from),
        *(address for address in row.addresses if address.network_id == ingress_id),
        *row.addresses,
    )
    return next(iter(by_preference), None)


def published_frontends(rows: Iterable[EndpointRow], ingress_id: str) -> list[Published]:
    """Ports published in ingress mode with the tasks behind them, in a fixed order.

    Two services meet on one port only for moments (a port moves between them); then both answer.
    """
    found: dict[tuple[str, int], set[Target]] = defaultdict(set)
    for row in rows:
        address = ingress_address(row, ingress_id)
        if address is None or not row.active:
            continue
        for port in row.ports:
            if port.mode != "host" and port.published:
                found[port.protocol or "tcp", port.published].add(Target(address.ip, port.target))
    return [Published(protocol, port, tuple(sorted(found[protocol, port]))) for protocol, port in sorted(found)]


def virtual_frontends(rows: Iterable[EndpointRow], network_ids: Iterable[str]) -> list[VirtualAddress]:
    """VIPs on the given networks. A VIP known from an inactive row alone is there, without targets."""
    wanted = set(network_ids)
    found: dict[tuple[str, str], set[Target]] = defaultdict(set)
    for row in rows:
        for address in row.addresses:
            if address.vip and address.network_id in wanted:
                targets = found[address.network_id, address.vip]
                if row.active:
                    targets.add(Target(address.ip))
    return [VirtualAddress(network, vip, tuple(sorted(found[network, vip]))) for network, vip in sorted(found)]
