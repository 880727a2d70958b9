"""Which names exist on each network: a pure function of the cluster's networks and the gossiped endpoint rows.

A zone is one network. It knows, all in lower case:
    SERVICE, ALIAS            the service's VIP, or in dnsrr mode the addresses of its active tasks
    tasks.SERVICE, tasks.ALIAS the addresses of the active tasks
    TASK, ID, HOSTNAME        one task's address: its container's name, the container's short id, its hostname
    _PORT._PROTO.(any of the first two)   SRV of a named port
    PTR                       of VIPs and task addresses
Each of them also with ".NETWORK" behind it. The ingress network has no names, as in Swarm (swarm.md §4.3).

Names of services need an active task; a service whose tasks all start, or are ill, is *known without addresses*: its
name is denied here instead of being asked of resolvers outside. A task's own names hold as long as its row.

`build` keeps the zones of networks whose rows did not change, and with them the answers that were packed from them.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from swarm_agent.model.objects import Network
from swarm_agent.model.rows import AddressRow, EndpointRow

SHORT_ID = 12  # characters of a container id that name it
Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network
Place = tuple[str, EndpointRow, AddressRow]
"""A task on a network: the id of its node, its row, and the row's address there."""


@dataclass(frozen=True, slots=True, order=True)
class Service:
    """What an SRV record says: where one named port is. `target` is a name of the same zone, with the network."""

    target: str
    port: int


@dataclass(frozen=True, slots=True, eq=False)
class Zone:
    """The names of one network. Addresses are packed: 4 bytes for IPv4, 16 for IPv6."""

    network_id: str
    name: str
    subnets: tuple[Subnet, ...] = ()
    hosts: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)
    services: Mapping[str, tuple[Service, ...]] = field(default_factory=dict)
    pointers: Mapping[bytes, tuple[str, ...]] = field(default_factory=dict)
    made_from: tuple[object, ...] = ()

    def contains(self, packed: bytes) -> bool:
        """Whether an address belongs to the network."""
        address = ipaddress.ip_address(packed)
        return any(address in subnet for subnet in self.subnets)


@dataclass(frozen=True, slots=True, eq=False)
class Directory:
    """All zones of this host, and who may ask in more than one of them.

    others   network id → a task's address there → ids of the further networks that the task is on
    """

    zones: Mapping[str, Zone] = field(default_factory=dict)
    others: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)

    def visible(self, network_id: str, source: str) -> tuple[Zone, ...]:
        """The zones that an asker on a network sees: its network's first, then those of its other networks."""
        ids = (network_id, *self.others.get(network_id, {}).get(source, ()))
        return tuple(zone for one in ids if (zone := self.zones.get(one)) is not None)


def build(networks: Iterable[Network], endpoints: Iterable[tuple[str, EndpointRow]], previous: Directory) -> Directory:
    """The directory for these tables; `previous` lends the zones that are still true."""
    named = {network.id: network for network in networks if not network.spec.ingress}
    places: dict[str, list[Place]] = {network_id: [] for network_id in named}
    others: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for owner, row in endpoints:
        here = [address for address in row.addresses if address.network_id in named]
        for address in here:
            places[address.network_id].append((owner, row, address))
            if len(here) > 1:
                others[address.network_id][address.ip] = tuple(
                    dict.fromkeys(other.network_id for other in here if other.network_id != address.network_id)
                )
    zones = {}
    for network_id, network in named.items():
        made_from = (network.spec.name, _subnets(network), sorted(places[network_id], key=_order))
        old = previous.zones.get(network_id)
        if old is not None and old.made_from == made_from:
            zones[network_id] = old
        else:
            zones[network_id] = zone_of(network, made_from[2], made_from)
    return Directory(zones, others)


def zone_of(network: Network, places: Sequence[Place], made_from: tuple[object, ...] = ()) -> Zone:
    """The names of one network from the tasks that are on it."""
    suffix = network.spec.name.lower()
    hosts: dict[str, set[bytes]] = defaultdict(set)
    pointers: dict[bytes, set[str]] = defaultdict(set)
    services: dict[str, set[Service]] = defaultdict(set)
    for owner, row, place in places:
        address = _packed(place.ip)
        if address is None:
            continue
        task = task_name(owner, row)
        for name in (task, row.container_id[:SHORT_ID], row.hostname):
            if name:
                hosts[name.lower()].add(address)
        pointers[address].add(f"{task}.{suffix}".lower())
        shared = tuple(name.lower() for name in (row.service_name, *place.aliases) if name)
        virtual = _packed(place.vip) if place.vip else None
        for name in shared:
            # Mentioned here even when nothing is added below: then the name is known, without addresses.
            balanced, tasks = hosts[name], hosts[f"tasks.{name}"]
            if row.active:
                balanced.add(virtual or address)
                tasks.add(address)
        if not row.active:
            continue
        if virtual is not None:
            pointers[virtual].add(f"{row.service_name}.{suffix}".lower())
        direct = f"{task}.{suffix}".lower()
        for port in row.ports:
            for name in shared if port.name else ():
                label = f"_{port.name}._{port.protocol}.".lower()
                through = f"{row.service_name}.{suffix}".lower() if virtual is not None else direct
                services[label + name].add(Service(through, port.target))
                services[f"{label}tasks.{name}"].add(Service(direct, port.target))
    return Zone(
        network.id,
        suffix,
        _subnets(network),
        {name: tuple(sorted(found)) for name, found in hosts.items()},
        {name: tuple(sorted(found)) for name, found in services.items()},
        {address: tuple(sorted(found)) for address, found in pointers.items()},
        made_from,
    )


def task_name(owner: str, row: EndpointRow) -> str:
    """The task's name, which is its container's: SERVICE.SLOT.ID, and the node's id as slot of a global service."""
    if not row.service_name:
        return row.hostname
    return f"{row.service_name}.{row.slot or owner}.{row.task_id}"


def _order(place: Place) -> tuple[str, str, str]:
    owner, row, address = place
    return row.task_id, owner, address.ip


def _packed(ip: str) -> bytes | None:
    """None for what another version of the agent may have written and this one cannot read."""
    try:
        return ipaddress.ip_address(ip).packed
    except ValueError:
        return None


def _subnets(network: Network) -> tuple[Subnet, ...]:
    configs = network.ipam_options.configs if network.ipam_options is not None else []
    found = []
    for config in configs or []:
        try:
            found.append(ipaddress.ip_network(config.subnet, strict=False))
        except ValueError:
            continue
    return tuple(found)
