"""What each service adds to a host's plan, kept from plan to plan while its rows stay the same.

Most plans follow a change of one task. The rows of all other services are the same objects as before, so what was made
from them is taken again; what is left to do for everything is to put the parts together. A memory never changes a
plan: it holds results by the values that they were made from, and a property test compares with plans made from
scratch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from swarm_agent.model.addresses import mac_of
from swarm_agent.model.dualstack import DualStack
from swarm_agent.model.rows import EndpointRow

from .frontends import (
    Kept,
    Published,
    PublishedKey,
    Targets,
    VirtualAddress,
    VirtualKey,
    ingress_address,
    published_targets,
    split,
    virtual_targets,
)
from .names import MESH_LINK, PUBLISH_TABLE, vxlan_name

OwnedRow = tuple[str, EndpointRow]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """All that a service's part depends on besides its rows. Another one makes all parts anew.

    hosts: node id → underlay address; networks: ids of those that are on this host; duals: those with IPv6.
    """

    node_id: str
    ingress_id: str
    hosts: Mapping[str, str]
    networks: frozenset[str]
    duals: Mapping[str, DualStack]


@dataclass(frozen=True, slots=True)
class Ways:
    """How remote tasks are reached; fields as in state.KernelState."""

    fdb: dict[tuple[str, str], str] = field(default_factory=dict)
    neighbours: dict[tuple[str, str], str] = field(default_factory=dict)
    routes: dict[tuple[int, str], tuple[str, str]] = field(default_factory=dict)

    def remote(self, around: Surroundings, network_id: str, ip: str, mac: str, underlay: str) -> None:
        """The address is on that host."""
        link = vxlan_name(network_id)
        self.fdb[link, mac] = underlay
        self.neighbours[link, ip] = mac
        dual = around.duals.get(network_id)
        if dual is not None and (ip6 := dual.beside(ip)):
            self.neighbours[link, ip6] = mac

    def update(self, other: Ways) -> None:
        self.fdb.update(other.fdb)
        self.neighbours.update(other.neighbours)
        self.routes.update(other.routes)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What a service adds. Ways of inactive rows are apart: an active row wins an address that both have."""

    problems: tuple[str, ...]
    inactive: Ways
    active: Ways
    published: Mapping[PublishedKey, Targets]
    virtual: Mapping[VirtualKey, Targets]
    made_published: Mapping[PublishedKey, Published]
    made_virtual: Mapping[VirtualKey, VirtualAddress]


class Memory:
    """What the last plans were made of. Not for two plans at a time."""

    def __init__(self) -> None:
        self._around: Surroundings | None = None
        self._rows: dict[str, list[OwnedRow]] = {}
        self._parts: dict[str, Part] = {}
        self.kept = Kept()

    def parts(
        self, endpoints: Iterable[OwnedRow], around: Surroundings, fault: Callable[[EndpointRow], str]
    ) -> list[Part]:
        """The parts of all services, ordered by the services' ids. `fault`: what is wrong with a row, or ""."""
        rows: dict[str, list[OwnedRow]] = defaultdict(list)
        for item in endpoints:
            rows[item[1].service_id].append(item)
        known = self._parts if around == self._around else {}
        parts = {}
        for service_id in sorted(rows):
            part = known.get(service_id)
            if part is None or self._rows[service_id] != rows[service_id]:
                part = _part(rows[service_id], around, fault)
            parts[service_id] = part
        self._around, self._rows, self._parts = around, rows, parts
        return list(parts.values())


def _part(owned: Sequence[OwnedRow], around: Surroundings, fault: Callable[[EndpointRow], str]) -> Part:
    usable, problems = [], []
    for owner, row in sorted(owned, key=lambda item: (item[1].active, item[1].task_id, item[0])):
        if owner not in around.hosts:
            continue
        reason = fault(row)
        if reason:
            problems.append(f"endpoint row of task {row.task_id} from node {owner}: {reason}")
        else:
            usable.append((owner, row))
    ways = {True: Ways(), False: Ways()}
    for owner, row in usable:
        if owner != around.node_id:
            _add_remote(ways[row.active], around, around.hosts[owner], row)
    rows = [row for _, row in usable]
    published, virtual = published_targets(rows, around.ingress_id), virtual_targets(rows, around.networks)
    return Part(
        tuple(problems),
        ways[False],
        ways[True],
        published,
        virtual,
        {key: Published(*key[:2], *split(targets), key[2]) for key, targets in published.items()},
        {key: VirtualAddress(*key, *split(targets)) for key, targets in virtual.items()},
    )


def _add_remote(ways: Ways, around: Surroundings, underlay: str, row: EndpointRow) -> None:
    for address in row.addresses:
        if address.network_id in around.networks:
            ways.remote(around, address.network_id, address.ip, address.mac or mac_of(address.ip), underlay)
    target = ingress_address(row, around.ingress_id)
    if target and any(port.published and port.mode != "host" for port in row.ports):
        ways.routes[PUBLISH_TABLE, f"{target.ip}/32"] = (underlay, MESH_LINK)


def all_published(parts: Iterable[Part]) -> list[Published]:
    """All ports with the tasks behind them, in a fixed order; of one port, those bound to addresses come first.

    Two services meet on one port only for moments (a port moves between them); then both answer.
    """
    found: dict[PublishedKey, Published] = {}
    shared: dict[PublishedKey, list[Targets]] = {}
    for part in parts:
        for key, frontend in part.made_published.items():
            if key in found:
                shared.setdefault(key, []).append(part.published[key])
            found.setdefault(key, frontend)
    for key, others in shared.items():
        targets = dict.fromkeys(found[key].targets, True) | dict.fromkeys(found[key].draining, False)
        found[key] = Published(*key[:2], *split(_merged([targets, *others])), key[2])
    return [found[key] for key in sorted(found, key=lambda key: (key[0], key[1], not key[2], key[2]))]


def all_virtual(parts: Iterable[Part]) -> list[VirtualAddress]:
    """All VIPs, in a fixed order."""
    found: dict[VirtualKey, VirtualAddress] = {}
    shared: dict[VirtualKey, list[Targets]] = {}
    for part in parts:
        for key, frontend in part.made_virtual.items():
            if key in found:
                shared.setdefault(key, []).append(part.virtual[key])
            found.setdefault(key, frontend)
    for key, others in shared.items():
        targets = dict.fromkeys(found[key].targets, True) | dict.fromkeys(found[key].draining, False)
        found[key] = VirtualAddress(*key, *split(_merged([targets, *others])))
    return [found[key] for key in sorted(found)]


def _merged(several: Iterable[Targets]) -> Targets:
    """A target is active if any of them says so."""
    merged: dict[Any, bool] = {}
    for targets in several:
        for target, active in targets.items():
            merged[target] = merged.get(target, False) or active
    return merged
