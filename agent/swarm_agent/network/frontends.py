"""What has to be balanced on this host: addresses and ports that stand for tasks (pure).

A `Frontend` is one such address with its targets; a balancer (iptables now, IPVS where the kernel has it) turns
frontends into kernel state. Only active rows are targets.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from swarm_agent.model.rows import AddressRow, EndpointRow

from .names import CHAIN_PREFIX, chain_name
from .state import Chain, ChainKey, Destination, Jump, Rule, Timeouts

V = TypeVar("V")


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


PublishedKey = tuple[str, int, tuple[str, ...]]  # protocol, port, addresses to which it is bound
VirtualKey = tuple[str, str]  # network id, VIP
Targets = Mapping[Target, bool]  # whether they are active


class Kept:
    """Results by the objects that they were made from: frontends stay the same objects while nothing of theirs
    changes (parts.py), and what follows from one need not be made again.
    """

    LIMIT = 1 << 17

    def __init__(self) -> None:
        self._results: dict[tuple[str, object], tuple[object, Any]] = {}

    def keep(self, kind: str, name: object, source: object, make: Callable[[], V]) -> V:
        """What `make` gives, which must follow from `source`, kind and name alone."""
        found = self._results.get((kind, name))
        if found is not None and found[0] is source:
            result: V = found[1]
            return result
        if len(self._results) > self.LIMIT:
            self._results.clear()  # names come and go
        made = make()
        self._results[kind, name] = (source, made)
        return made


class Balancer(Protocol):
    """Spreads new connections over targets.

    These chains are entered, and so must be there: SWARM-FRONT and SWARM-FRONT-OUT (mangle) for packets that come in
    and that this host sends, SWARM-PRE (nat) for the first of a connection, SWARM-REFUSE (filter), which answers for
    VIPs that have no target. A balancer marks what it takes (names.PUBLISHED_BIT, VIP_BIT, in packet and connection)
    and leaves the rest alone. `subnets`: network id → subnet. `kept`: what it made before.
    """

    name: str

    def balance(
        self, published: Iterable[Published], virtual: Iterable[VirtualAddress], subnets: Mapping[str, str], kept: Kept
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


def published_targets(rows: Iterable[EndpointRow], ingress_id: str) -> dict[PublishedKey, Targets]:
    """Ports published in ingress mode with the tasks behind them."""
    found: dict[PublishedKey, dict[Target, bool]] = defaultdict(dict)
    for row in rows:
        address = ingress_address(row, ingress_id)
        if address is None:
            continue
        for port in row.ports:
            if port.mode != "host" and port.published:
                targets = found[port.protocol or "tcp", port.published, port.addresses]
                target = Target(address.ip, port.target)
                targets[target] = targets.get(target, False) or row.active
    return dict(found)


def virtual_targets(rows: Iterable[EndpointRow], network_ids: Container[str]) -> dict[VirtualKey, Targets]:
    """VIPs on the given networks. A VIP known from an inactive row alone is there, without active targets."""
    found: dict[VirtualKey, dict[Target, bool]] = defaultdict(dict)
    for row in rows:
        for address in row.addresses:
            if address.vip and address.network_id in network_ids:
                targets = found[address.network_id, address.vip]
                target = Target(address.ip)
                targets[target] = targets.get(target, False) or row.active
    return dict(found)


def split(targets: Targets) -> tuple[tuple[Target, ...], tuple[Target, ...]]:
    """(active, draining)."""
    ordered = sorted(targets)
    return tuple(item for item in ordered if targets[item]), tuple(item for item in ordered if not targets[item])
