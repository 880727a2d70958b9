"""Which names exist on each network: a pure function of the cluster's networks and the gossiped endpoint rows.

A zone is one network. It knows, all in lower case:
    SERVICE, ALIAS            the service's VIP while it has a task; in dnsrr mode the addresses of its active tasks
    tasks.SERVICE, tasks.ALIAS the addresses of the active tasks
    TASK, ID, HOSTNAME        one task's address: its container's name, the container's short id, its hostname
    _PORT._PROTO.(any of the first two)   SRV of a named port
    PTR                       of VIPs and task addresses
Each of them also with ".NETWORK" behind it. The ingress network has no names, as in Swarm (swarm.md §4.3).

On a network with IPv6 each of these addresses has the IPv6 address beside it (model.dualstack).

A VIP is there from when the first task is about to start: it refuses until one is active, which programs try again,
while many end over a name that does not exist. Where a name needs an active task and has none (tasks.SERVICE, dnsrr),
it is *known without addresses*: denied here instead of being asked of resolvers outside. A task's own names hold as
long as its row.

`build` changes only what changed: zones without changes are kept, and with them the answers packed from them; in a
changed zone only the names of changed services are made anew.
"""

from __future__ import annotations

import ipaddress
import socket
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from swarm_agent.model.dualstack import DualStack, dual_stack
from swarm_agent.model.objects import Network
from swarm_agent.model.rows import AddressRow, EndpointRow

SHORT_ID = 12  # characters of a container id that name it
Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network
Key = str | bytes
"""What is looked up: a name in lower case, or a packed address."""
Place = tuple[str, EndpointRow, AddressRow]
"""A task on a network: the id of its node, its row, and the row's address there."""


@dataclass(frozen=True, slots=True, order=True)
class Service:
    """What an SRV record says: where one named port is. `target` is a name of the same zone, with the network."""

    target: str
    port: int


@dataclass(frozen=True, slots=True)
class Found:
    """What there is under a key, sorted: packed addresses (4 bytes for IPv4, 16 for IPv6), names of an address,
    services. Nothing at all in it means that the name is known and denied.
    """

    addresses: tuple[bytes, ...] = ()
    names: tuple[str, ...] = ()
    services: tuple[Service, ...] = ()

    @property
    def empty(self) -> bool:
        return not (self.addresses or self.names or self.services)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What one service adds to a zone, and the places that it was made from."""

    places: Sequence[Place]
    found: Mapping[Key, Found]


@dataclass(frozen=True, slots=True, eq=False)
class Zone:
    """The names of one network. `index` has what each service says of a key, mostly one."""

    network_id: str
    name: str
    subnets: tuple[Subnet, ...] = ()
    dual: DualStack | None = None  # of a network with IPv6
    parts: Mapping[str, Part] = field(default_factory=dict)
    index: Mapping[Key, tuple[Found, ...]] = field(default_factory=dict)

    def get(self, key: Key) -> Found | None:
        """What there is under a name or address; None when nobody knows it."""
        found = self.index.get(key)
        if found is None or len(found) == 1:
            return found[0] if found else None
        return Found(
            tuple(sorted({one for item in found for one in item.addresses})),
            tuple(sorted({one for item in found for one in item.names})),
            tuple(sorted({one for item in found for one in item.services})),
        )

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


def build(
    networks: Iterable[Network],
    endpoints: Iterable[tuple[str, EndpointRow]],
    previous: Directory,
    *,
    vips6: bool = True,
) -> Directory:
    """The directory for these tables; `previous` lends all that is still true, and was built with the same `vips6`:
    whether VIPs of IPv6 are balanced on this host."""
    named = {network.id: network for network in networks if not network.spec.ingress}
    places: dict[str, dict[str, list[Place]]] = {network_id: defaultdict(list) for network_id in named}
    others: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for owner, row in endpoints:
        here = [address for address in row.addresses if address.network_id in named]
        for address in here:
            places[address.network_id][row.service_id].append((owner, row, address))
            if len(here) > 1:
                others[address.network_id][address.ip] = tuple(
                    dict.fromkeys(other.network_id for other in here if other.network_id != address.network_id)
                )
    zones = {}
    for network_id, network in named.items():
        empty = Zone(network_id, network.spec.name.lower(), _subnets(network), dual_stack(network))
        old = previous.zones.get(network_id, empty)
        if (old.name, old.subnets, old.dual) != (empty.name, empty.subnets, empty.dual):
            old = empty
        zones[network_id] = _changed(old, places[network_id], vips6)
    return Directory(zones, others)


def _changed(zone: Zone, places: Mapping[str, list[Place]], vips6: bool) -> Zone:
    """The zone with the tasks that are there now; the same one when nothing changed."""
    for group in places.values():
        group.sort(key=_order)
    gone = [key for key, part in zone.parts.items() if places.get(key) != part.places]
    new = [key for key in places if key not in zone.parts or places[key] != zone.parts[key].places]
    if not gone and not new:
        return zone
    parts, index = dict(zone.parts), dict(zone.index)
    for service_id in gone:
        for key, found in parts.pop(service_id).found.items():
            rest = tuple(one for one in index[key] if one is not found)
            if rest:
                index[key] = rest
            else:
                del index[key]
    for service_id in new:
        parts[service_id] = part = part_of(zone.name, places[service_id], zone.dual, vips6)
        for key, found in part.found.items():
            index[key] = (*index.get(key, ()), found)
    return replace(zone, parts=parts, index=index)


def part_of(network: str, places: Sequence[Place], dual: DualStack | None = None, vips6: bool = True) -> Part:
    """What the tasks of one service add to the zone of a network (by its name); `dual`: one with IPv6."""
    hosts: dict[str, set[bytes]] = defaultdict(set)
    pointers: dict[bytes, set[str]] = defaultdict(set)
    services: dict[str, set[Service]] = defaultdict(set)
    for owner, row, place in places:
        addresses = _both(place.ip, dual)
        if not addresses:
            continue
        task = task_name(owner, row)
        for name in (task, row.container_id[:SHORT_ID], row.hostname):
            if name:
                hosts[name.lower()].update(addresses)
        direct = f"{task}.{network}".lower()
        for address in addresses:
            pointers[address].add(direct)
        shared = tuple(name.lower() for name in (row.service_name, *place.aliases) if name)
        virtual = _both(place.vip, dual if vips6 else None) if place.vip else ()
        for name in shared:
            # Mentioned here even when nothing is added below: then the name is known, without addresses.
            balanced, tasks = hosts[name], hosts[f"tasks.{name}"]
            if virtual:
                balanced.update(virtual)
            elif row.active:
                balanced.update(addresses)
            if row.active:
                tasks.update(addresses)
        if not row.active:
            continue
        through = direct
        if virtual:
            through = f"{row.service_name}.{network}".lower()
            for address in virtual:
                pointers[address].add(through)
        for port in row.ports:
            for name in shared if port.name else ():
                label = f"_{port.name}._{port.protocol}.".lower()
                services[label + name].add(Service(through, port.target))
                services[f"{label}tasks.{name}"].add(Service(direct, port.target))
    found: dict[Key, Found] = {}
    found.update((name, Found(addresses=tuple(sorted(items)))) for name, items in hosts.items())
    found.update((name, Found(services=tuple(sorted(items)))) for name, items in services.items())
    found.update((address, Found(names=tuple(sorted(items)))) for address, items in pointers.items())
    return Part(places, found)


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
        return socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip)
    except OSError:
        return None


def _both(ip: str, dual: DualStack | None) -> tuple[bytes, ...]:
    """The address, and the IPv6 address beside it."""
    packed = _packed(ip)
    if packed is None:
        return ()
    beside = _packed(dual.beside(ip)) if dual is not None and len(packed) == 4 else None
    return (packed, beside) if beside is not None else (packed,)


def _subnets(network: Network) -> tuple[Subnet, ...]:
    configs = network.ipam_options.configs if network.ipam_options is not None else []
    found = []
    for config in configs or []:
        try:
            found.append(ipaddress.ip_network(config.subnet, strict=False))
        except ValueError:
            continue
    return tuple(found)
