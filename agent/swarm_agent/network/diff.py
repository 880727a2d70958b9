"""The operations that lead from what is there to what is planned (pure).

Order is the whole point. New things come first, from the bottom up: networks, links, entries and routes, then the rules
that send packets over them. Old things go last, from the top down, so that no rule ever points at something missing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from .names import SEAL_TABLE
from .state import (
    IPV6,
    AddLink,
    AddRule,
    AddWireGuard,
    Chain,
    CreateNetwork,
    Jump,
    KernelState,
    Operation,
    RemoveDestination,
    RemoveFdb,
    RemoveLink,
    RemoveNeighbour,
    RemoveNetwork,
    RemovePortFdb,
    RemoveRoute,
    RemoveRule,
    RemoveSealed,
    RemoveService,
    Restore,
    SetBridge,
    SetDestination,
    SetFdb,
    SetNeighbour,
    SetPortFdb,
    SetRoute,
    SetSealed,
    SetService,
    SetSysctl,
    SetTimeouts,
)

K = TypeVar("K")
V = TypeVar("V")
TABLES = tuple(table + family for family in ("", IPV6) for table in ("raw", "mangle", "nat", "filter"))


CHOSEN_ONCE = ("name", "mtu", "ip_range", "ip_range6")  # of engine networks


def changed(there: Mapping[K, V], wanted: Mapping[K, V]) -> list[tuple[K, V]]:
    """What must be set: entries that are missing or different."""
    if there == wanted:  # told several times quicker than what differs
        return []
    get = there.get
    return [(key, value) for key, value in wanted.items() if get(key) != value]


def gone(there: Mapping[K, object] | frozenset[K], wanted: Mapping[K, object] | frozenset[K]) -> list[K]:
    """What must be removed, in the order in which it is there."""
    keys, kept = (item if isinstance(item, frozenset) else item.keys() for item in (there, wanted))
    return [] if keys <= kept else [key for key in there if key not in wanted]


def network_operations(there: KernelState, wanted: KernelState) -> tuple[list[Operation], list[Operation]]:
    """(creations, removals) of engine networks.

    Making a network anew cuts its containers off, so it is done only where they could not work anyway: wrong subnet,
    gateway, bridge or isolation. Name, MTU and range are chosen when a network is made and then left alone. Removing
    one waits for its containers to go, except when this host leaves its cluster.
    """
    creations: list[Operation] = []
    for network_id, network in wanted.networks.items():
        present = there.networks.get(network_id)
        if present is None:
            creations.append(CreateNetwork(network))
        elif replace(present, **{name: getattr(network, name) for name in CHOSEN_ONCE}) != network:
            creations += [RemoveNetwork(present, force=True), CreateNetwork(network)]
    leaves = not wanted.vxlans  # in a cluster there is always the mesh tunnel
    removals: list[Operation] = [
        RemoveNetwork(there.networks[network_id], force=leaves) for network_id in gone(there.networks, wanted.networks)
    ]
    return creations, removals


def kernel_operations(there: KernelState, wanted: KernelState) -> list[Operation]:
    """Everything but engine networks. A tunnel whose bridge neither exists nor belongs to a network of the engine
    (`there.networks`) is left for the next round; a bridge that is gone while the engine has its network is made anew.
    One that was made so outlives its network, since the engine does not know it: it is removed when no network has it,
    and something is known of networks or this host leaves.
    """
    ready = {network.bridge for network in there.networks.values()} | there.bridges.keys()
    vxlans = {link: vxlan for link, vxlan in wanted.vxlans.items() if not vxlan.bridge or vxlan.bridge in ready}
    anew = {link for link, vxlan in vxlans.items() if there.vxlans.get(link) != vxlan}
    lost = {link for link in there.vxlans if link not in vxlans}
    seals_anew = {link for link, seal in wanted.wireguards.items() if there.wireguards.get(link) != seal}
    seals_lost = set(gone(there.wireguards, wanted.wireguards))
    there = without_links(there, anew | lost | seals_anew | seals_lost)
    mtus = {network.bridge: network.mtu for network in wanted.networks.values()}

    operations: list[Operation] = []
    if there.networks or not wanted.vxlans:
        used = {network.bridge for network in there.networks.values()}
        operations += [RemoveLink(link) for link in gone(there.bridges, wanted.bridges) if link not in used]
    for link, bridge in changed(there.bridges, wanted.bridges):
        if link in ready:
            operations.append(SetBridge(link, bridge, mtus[link]))
    operations += [RemoveLink(link) for link in sorted(anew | lost) if link in there.vxlans]
    operations += [RemoveLink(link) for link in sorted(seals_anew | seals_lost) if link in there.wireguards]
    operations += [AddWireGuard(link, wanted.wireguards[link]) for link in sorted(seals_anew)]
    operations += [AddLink(link, vxlans[link]) for link in sorted(anew)]
    operations += [
        SetSysctl(path, value)
        for path, value in changed(there.sysctls, wanted.sysctls)
        if not (link := link_of_sysctl(path)) or link in vxlans or link in ready or link in wanted.wireguards
    ]
    operations += [
        SetSealed(link, key, underlay, wanted.wireguards[link].port)
        for (link, key), underlay in changed(there.sealed, wanted.sealed)
    ]
    # Before the entries: what encrypted networks send must find no other way, not even for a moment.
    routes = [SetRoute(*key, *value) for key, value in changed(there.routes, wanted.routes)]
    rules = [AddRule(rule) for rule in sorted(wanted.rules - there.rules, key=repr)]
    operations += [route for route in routes if route.table == SEAL_TABLE]
    operations += [one for one in rules if one.rule.port]
    operations += [SetPortFdb(*key) for key in sorted(wanted.port_fdb - there.port_fdb) if key[0] in vxlans]
    operations += [SetFdb(*key, value) for key, value in changed(there.fdb, wanted.fdb) if key[0] in vxlans]
    operations += [
        SetNeighbour(*key, value) for key, value in changed(there.neighbours, wanted.neighbours) if key[0] in vxlans
    ]
    operations += [route for route in routes if route.table != SEAL_TABLE]
    operations += [one for one in rules if not one.rule.port]
    new, old = ipvs_operations(there, wanted)
    operations += new
    operations += restores(there, wanted)
    operations += old
    operations += [RemoveRule(rule) for rule in sorted(there.rules - wanted.rules, key=repr)]
    operations += [RemoveRoute(*key) for key in gone(there.routes, wanted.routes)]
    operations += [RemoveNeighbour(*key) for key in gone(there.neighbours, wanted.neighbours)]
    operations += [RemoveFdb(*key) for key in gone(there.fdb, wanted.fdb)]
    operations += [RemovePortFdb(*key) for key in sorted(gone(there.port_fdb, wanted.port_fdb))]
    operations += [RemoveSealed(*key) for key in gone(there.sealed, wanted.sealed)]
    return operations


def ipvs_operations(there: KernelState, wanted: KernelState) -> tuple[list[Operation], list[Operation]]:
    """(what comes before the rules that send packets to IPVS, what goes after them)."""
    new: list[Operation] = []
    if wanted.timeouts is not None and wanted.timeouts != there.timeouts:
        new.append(SetTimeouts(wanted.timeouts))
    new += [SetService(*item) for item in changed(there.services, wanted.services)]
    new += [SetDestination(*key, weight) for key, weight in changed(there.destinations, wanted.destinations)]
    lost = set(gone(there.services, wanted.services))
    old: list[Operation] = [
        RemoveDestination(*key) for key in gone(there.destinations, wanted.destinations) if key[0] not in lost
    ]
    return new, [*old, *(RemoveService(mark) for mark in sorted(lost))]


def restores(there: KernelState, wanted: KernelState) -> list[Operation]:
    """One transaction for each iptables table that differs."""
    chains: dict[str, list[tuple[str, Chain]]] = defaultdict(list)
    removed: dict[str, list[str]] = defaultdict(list)
    jumps: dict[str, list[Jump]] = defaultdict(list)
    old_jumps: dict[str, list[Jump]] = defaultdict(list)
    for (table, chain), content in changed(there.chains, wanted.chains):
        chains[table].append((chain, content))
    for table, chain in gone(there.chains, wanted.chains):
        removed[table].append(chain)
    for jump in sorted(wanted.jumps - there.jumps, key=repr):
        jumps[jump.table].append(jump)
    for jump in sorted(there.jumps - wanted.jumps, key=repr):
        old_jumps[jump.table].append(jump)
    return [
        Restore(table, tuple(chains[table]), tuple(removed[table]), tuple(jumps[table]), tuple(old_jumps[table]))
        for table in TABLES
        if chains[table] or removed[table] or jumps[table] or old_jumps[table]
    ]


def without_links(state: KernelState, links: set[str]) -> KernelState:
    """The state after these links are gone: the kernel drops what hangs on them. The links themselves stay listed."""
    if not links:
        return state
    return replace(
        state,
        fdb={key: value for key, value in state.fdb.items() if key[0] not in links},
        port_fdb=frozenset(key for key in state.port_fdb if key[0] not in links),
        neighbours={key: value for key, value in state.neighbours.items() if key[0] not in links},
        routes={key: value for key, value in state.routes.items() if value[1] not in links},
        sealed={key: value for key, value in state.sealed.items() if key[0] not in links},
        sysctls={path: value for path, value in state.sysctls.items() if link_of_sysctl(path) not in links},
    )


def link_of_sysctl(path: str) -> str:
    """The link that a setting belongs to, or "" for a setting of the host."""
    parts = path.split("/")
    of_link = parts[0] == "net" and parts[1] in ("ipv4", "ipv6") and parts[2] == "conf"
    return parts[3] if of_link and parts[3] not in ("all", "default") else ""
