"""What has to be balanced on this host: addresses and ports that stand for tasks (pure).

A `Frontend` is one such address with its targets; a balancer (iptables now, IPVS where the kernel has it) turns
frontends into kernel state. Only active rows are targets.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from swarm_agent.model.rows import AddressRow, EndpointRow

from .names import CHAIN_PREFIX, chain_name
from .state import Chain, ChainKey, Destination, Jump, Rule, Timeouts


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """A task that answers: its address, and its port for published ports (0 for VIPs: any port)."""

    ip: str
    port: int = 0


@dataclass(frozen=True, slots=True)
class Published:
    """A port of every address of this host, or of those in the networks `addresses`. `draining`: tasks whose
    connections go on, but that get no new ones.
    """

    protocol: str
    port: int
    targets: tuple[Target, ...]
    draining: tuple[Target, ...] = ()
    addresses: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What tells it from all others."""
        return "/".join((self.protocol, str(self.port), *self.addresses))

    def chain(self, kind: str) -> str:
        """The name of its chain."""
        if self.addresses:
            return chain_name(kind, self.name)
        return f"{CHAIN_PREFIX}{kind}-{self.protocol}-{self.port}"

    @property
    def matches(self) -> list[str]:
        """What a packet to it is known by, in iptables' words: one rule for each."""
        port = f"-p {self.protocol} -m {self.protocol} --dport {self.port}"
        return [f"-d {address} {port}" for address in self.addresses] or [port]

    @property
    def on_loopback(self) -> bool:
        """Whether it answers on 127.0.0.1."""
        return not self.addresses or any(address.startswith("127.") for address in self.addresses)


@dataclass(frozen=True, slots=True)
class VirtualAddress:
    """A service's VIP on one network. Without targets it refuses connections."""

    network_id: str
    vip: str
    targets: tuple[Target, ...]
    draining: tuple[Target, ...] = ()


@dataclass(frozen=True, slots=True)
class Balanced:
    """The part of the plan (state.KernelState) that a balancer makes, and frontends that it had to leave out."""

    chains: Mapping[ChainKey, Chain]
    jumps: frozenset[Jump] = frozenset()
    services: Mapping[int, str] = field(default_factory=dict)
    destinations: Mapping[Destination, int] = field(default_factory=dict)
    timeouts: Timeouts | None = None
    routes: Mapping[tuple[int, str], tuple[str, str]] = field(default_factory=dict)
    rules: frozenset[Rule] = frozenset()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


class Balancer(Protocol):
    """Spreads new connections over targets.

    These chains are entered, and so must be there: SWARM-FRONT and SWARM-FRONT-OUT (mangle) for packets that come in
    and that this host sends, SWARM-PRE (nat) for the first of a connection, SWARM-REFUSE (filter), which answers for
    VIPs that have no target. A balancer marks what it takes (names.PUBLISHED_BIT, VIP_BIT, in packet and connection)
    and leaves the rest alone. `subnets`: network id → subnet.
    """

    name: str

    def balance(
        self, published: Iterable[Published], virtual: Iterable[VirtualAddress], subnets: Mapping[str, str]
    ) -> Balanced: ...


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
    """Ports published in ingress mode with the tasks behind them, in a fixed order; of one port, those bound to
    addresses come first.

    Two services meet on one port only for moments (a port moves between them); then both answer.
    """
    found: dict[tuple[str, int, tuple[str, ...]], dict[Target, bool]] = defaultdict(dict)
    for row in rows:
        address = ingress_address(row, ingress_id)
        if address is None:
            continue
        for port in row.ports:
            if port.mode != "host" and port.published:
                targets = found[port.protocol or "tcp", port.published, port.addresses]
                target = Target(address.ip, port.target)
                targets[target] = targets.get(target, False) or row.active
    ordered = sorted(found, key=lambda key: (key[0], key[1], not key[2], key[2]))
    return [Published(*key[:2], *_split(found[key]), key[2]) for key in ordered]


def virtual_frontends(rows: Iterable[EndpointRow], network_ids: Iterable[str]) -> list[VirtualAddress]:
    """VIPs on the given networks. A VIP known from an inactive row alone is there, without targets."""
    wanted = set(network_ids)
    found: dict[tuple[str, str], dict[Target, bool]] = defaultdict(dict)
    for row in rows:
        for address in row.addresses:
            if address.vip and address.network_id in wanted:
                targets = found[address.network_id, address.vip]
                target = Target(address.ip)
                targets[target] = targets.get(target, False) or row.active
    return [VirtualAddress(*key, *_split(found[key])) for key in sorted(found)]


def _split(targets: Mapping[Target, bool]) -> tuple[tuple[Target, ...], tuple[Target, ...]]:
    """(active, draining)."""
    ordered = sorted(targets)
    return tuple(item for item in ordered if targets[item]), tuple(item for item in ordered if not targets[item])
