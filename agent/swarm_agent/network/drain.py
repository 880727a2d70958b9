"""Endpoints that have left the tables stay reachable for a while, so that their connections can end (pure).

A row that is withdrawn, or no longer active, takes no new connections at once. But its task answers on until it stops:
the ways to it (forwarding entries, routes, connection tracking) must outlive an active row. A row that was inactive
before it was withdrawn, as the worker does it, and one whose owner is gone (dead host) have nothing to wait for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import msgspec

from swarm_agent.model.dualstack import DualStack
from swarm_agent.model.rows import EndpointRow

from .conntrack import Answers, Selection, SentTo

LINGER = 30.0
"""Seconds. Covers the default stop grace (10 s) with room; a longer one ends late connections early on other hosts."""

NO_DUALS: Mapping[str, DualStack] = MappingProxyType({})

OwnedRow = tuple[str, EndpointRow]


@dataclass(frozen=True, slots=True)
class Draining:
    """Rows seen last time, and withdrawn rows with the time when they are dropped."""

    rows: Mapping[str, OwnedRow] = field(default_factory=dict)  # task id → row, as in the tables
    leaving: Mapping[str, tuple[float, OwnedRow]] = field(default_factory=dict)

    def next_wake(self) -> float | None:
        """When the first leaving row is to be dropped."""
        return min((deadline for deadline, _ in self.leaving.values()), default=None)


def advance(
    before: Draining, endpoints: Sequence[OwnedRow], hosts: Mapping[str, str], now: float
) -> tuple[Draining, list[OwnedRow]]:
    """The next state, and the rows to plan with: those of the tables, and those that are leaving, made inactive."""
    rows = {row.task_id: (owner, row) for owner, row in endpoints}
    withdrawn = {
        task_id: (now + LINGER, (owner, row))
        for task_id, (owner, row) in before.rows.items()
        if task_id not in rows and row.active
    }
    leaving = withdrawn | {task_id: entry for task_id, entry in before.leaving.items() if task_id not in rows}
    # Only wanted when something leaves, and a walk over all rows.
    used = {address.ip for _, row in endpoints for address in row.addresses} if leaving else set()
    leaving = {
        task_id: (deadline, (owner, row))
        for task_id, (deadline, (owner, row)) in leaving.items()
        # An address that serves another task already is that task's.
        if deadline > now and owner in hosts and not any(address.ip in used for address in row.addresses)
    }
    inactive = [(owner, msgspec.structs.replace(row, active=False)) for _, (owner, row) in leaving.values()]
    return Draining(rows, leaving), [*endpoints, *inactive]


def stale_connections(
    before: Sequence[OwnedRow], after: Sequence[OwnedRow], duals: Mapping[str, DualStack] = NO_DUALS
) -> list[Selection]:
    """Connection tracking entries to drop when the rows that were planned with change.

    An address that serves no more loses its UDP entries; one that is gone altogether, or has gone over to another task,
    loses all. A UDP port or VIP that gets its first task loses what was tracked while nobody answered. The same goes
    for the IPv6 addresses beside them, on the networks in `duals`.
    """
    if before is after:
        return []
    few = _differing(before, after)
    selections = stale_of(*few)
    beside = _beside([*few[0], *few[1]], duals) if duals else {}
    return [*selections, *(replace(one, ip=beside[one.ip]) for one in selections if beside.get(one.ip))]


def stale_of(before: Sequence[OwnedRow], after: Sequence[OwnedRow]) -> list[Selection]:
    """The same for IPv4, from all rows."""
    old_active, new_active = _addresses(before, True), _addresses(after, True)
    old, new = _holders(before), _holders(after)
    gone = {ip for ip, tasks in old.items() if ip not in new or new[ip] - tasks}
    selections: list[Selection] = [Answers(ip) for ip in sorted(gone)]
    selections += [Answers(ip, "udp") for ip in sorted(old_active - new_active - gone)]
    selections += [SentTo("udp", port) for port in sorted(_udp_ports(after) - _udp_ports(before))]
    selections += [SentTo("udp", ip=vip) for vip in sorted(_vips(after) - _vips(before))]
    return selections


def _differing(before: Sequence[OwnedRow], after: Sequence[OwnedRow]) -> tuple[list[OwnedRow], list[OwnedRow]]:
    """The rows that are in one alone, and all that have something in common with them: an address, a VIP, a port. What
    is left out says nothing: it is on both sides.
    """
    old, new = ({row.task_id: row for _, row in rows} for rows in (before, after))
    tasks = {task for task, row in old.items() if new.get(task) != row} | {
        task for task, row in new.items() if old.get(task) != row
    }
    if not tasks:
        return [], []
    ips: set[str] = set()
    ports: set[int] = set()
    for _, row in (*before, *after):
        if row.task_id in tasks:
            ips.update(ip for address in row.addresses for ip in (address.ip, address.vip) if ip)
            ports.update(port.published for port in row.ports if port.published)

    def related(row: EndpointRow) -> bool:
        for address in row.addresses:
            if address.ip in ips or address.vip in ips:
                return True
        return any(port.published in ports for port in row.ports)

    return [item for item in before if related(item[1])], [item for item in after if related(item[1])]


def _beside(rows: Sequence[OwnedRow], duals: Mapping[str, DualStack]) -> dict[str, str]:
    """IPv4 address of a row → the IPv6 address beside it."""
    return {
        ip: duals[address.network_id].beside(ip)
        for _, row in rows
        for address in row.addresses
        if address.network_id in duals
        for ip in (address.ip, address.vip)
        if ip
    }


def _addresses(rows: Sequence[OwnedRow], active: bool) -> set[str]:
    return {address.ip for _, row in rows if row.active is active for address in row.addresses}


def _holders(rows: Sequence[OwnedRow]) -> dict[str, set[str]]:
    """Address → the tasks that have it."""
    found: dict[str, set[str]] = {}
    for _, row in rows:
        for address in row.addresses:
            found.setdefault(address.ip, set()).add(row.task_id)
    return found


def _udp_ports(rows: Sequence[OwnedRow]) -> set[int]:
    return {
        port.published
        for _, row in rows
        if row.active
        for port in row.ports
        if port.protocol == "udp" and port.published and port.mode != "host"
    }


def _vips(rows: Sequence[OwnedRow]) -> set[str]:
    return {address.vip for _, row in rows if row.active for address in row.addresses if address.vip}
