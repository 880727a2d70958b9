"""Published ports: who has which, the choice of free ones, and conflicts in Swarm's words (reference/swarm.md §1.3,
§3.13).

A port in ingress mode is published on every host, so it belongs to one service in the cluster, by protocol, and
excludes any host-mode use. Services whose labels bind their ports to addresses of hosts (swarm.publish.addresses) may
share one, as long as no address is of both. Ports in host mode belong to the host where the task runs: services may
share them, the scheduler sees to it that tasks do not. A service has the ports that it declares and those that were
chosen for it, so an update that moves a port keeps the old one reserved until the allocator has seen it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from msgspec.structs import replace

from swarm_agent.model.extensions import publish_addresses
from swarm_agent.model.objects import Service
from swarm_agent.model.specs import EndpointSpec, PortConfig, ServiceSpec
from swarm_agent.store.view import Reader

FIRST_DYNAMIC, LAST_DYNAMIC = 30000, 32767
"""Where ports are chosen from when only the container's port is given."""

PortKey = tuple[str, int]
Addresses = tuple[str, ...]
"""Networks of hosts' addresses to which a service's ports are bound; none: all addresses."""


def protocol(port: PortConfig) -> str:
    """The port's protocol with the default filled in."""
    return port.protocol or "tcp"


def is_ingress(port: PortConfig) -> bool:
    """The port is published on every host (the default)."""
    return port.publish_mode != "host"


def complete(port: PortConfig) -> PortConfig:
    """The port with Swarm's defaults filled in."""
    return replace(port, protocol=protocol(port), publish_mode="ingress" if is_ingress(port) else "host")


def published(service: Service) -> dict[PortKey, PortConfig]:
    """The ports that a service has, declared or chosen for it; one in ingress mode wins over the same in host mode."""
    found: dict[PortKey, PortConfig] = {}
    spec = service.spec.endpoint_spec
    for port in (*(spec.ports if spec is not None else ()), *service.endpoint.ports):
        if port.published_port:
            key = protocol(port), port.published_port
            if key not in found or is_ingress(port):
                found[key] = port
    return found


def port_conflict(view: Reader, spec: ServiceSpec, service_id: str = "") -> str | None:
    """Why the ports of a spec cannot be published, as Swarm words it, or None. `service_id`: the service that is
    being updated."""
    wanted = [
        port for port in (spec.endpoint_spec.ports if spec.endpoint_spec is not None else ()) if port.published_port
    ]
    if not wanted:
        return None
    for service in view.all(Service):
        if service.id == service_id:
            continue
        text = conflict_with(wanted, publish_addresses(spec.labels), service)
        if text is not None:
            return text
    return None


def conflict_with(wanted: Iterable[PortConfig], addresses: Addresses, service: Service) -> str | None:
    """The conflict of these ports with those of another service, if any. `addresses`: to which these are bound."""
    theirs, bound = published(service), publish_addresses(service.spec.labels)
    for port in wanted:
        other = theirs.get((protocol(port), port.published_port))
        if other is not None and _exclude(is_ingress(port), addresses, is_ingress(other), bound):
            how = "an ingress port" if is_ingress(other) else "a host-published port"
            number, name = other.published_port, service.spec.name
            return f"port '{number}' is already in use by service '{name}' ({service.id}) as {how}"
    return None


def _exclude(ingress: bool, addresses: Addresses, other_ingress: bool, other_addresses: Addresses) -> bool:
    """Whether two services cannot both have a port."""
    if not (ingress and other_ingress):
        return ingress or other_ingress
    if not (addresses and other_addresses):
        return True
    return any(
        ipaddress.IPv4Network(one).overlaps(ipaddress.IPv4Network(other))
        for one in addresses
        for other in other_addresses
    )


Holder = tuple[str, bool]
"""A service's id, and whether it is to have the ports (decided, not stored yet) or has them."""


class PortTable:
    """Which services have which ports. Filled from services as they come and go."""

    __slots__ = ("_of", "_users")

    def __init__(self) -> None:
        self._users: dict[PortKey, dict[Holder, tuple[bool, Addresses]]] = {}
        self._of: dict[Holder, frozenset[PortKey]] = {}

    def put(self, service: Service, *, expected: bool = False) -> bool:
        """The service has these ports now (or is to have them); True if it gave some up, or some of their addresses."""
        ports, bound = published(service), publish_addresses(service.spec.labels)
        holder = service.id, expected
        before = {key: self._users[key][holder] for key in self._of.get(holder, ())}
        self.drop(service.id, expected=expected)
        if ports:
            self._of[holder] = frozenset(ports)
        for key, port in ports.items():
            self._users.setdefault(key, {})[holder] = is_ingress(port), bound
        return any(key not in ports or self._users[key][holder] != use for key, use in before.items())

    def drop(self, service_id: str, *, expected: bool = False) -> bool:
        """The service has (or is to have) no ports any more; True if it had some."""
        holder = service_id, expected
        ports = self._of.pop(holder, frozenset())
        for key in ports:
            users = self._users[key]
            del users[holder]
            if not users:
                del self._users[key]
        return bool(ports)

    def others(self, service_id: str, port: PortConfig, addresses: Addresses = ()) -> list[str]:
        """Ids of other services whose use of the port rules out that of this one, bound to these addresses."""
        users = self._users.get((protocol(port), port.published_port), {})
        ruling = (other for (other, _), use in users.items() if _exclude(is_ingress(port), addresses, *use))
        return [other for other in dict.fromkeys(ruling) if other != service_id]

    def choose(self, wanted: str, taken: Iterable[PortKey]) -> int | None:
        """The lowest free dynamic port of a protocol that is not in `taken` either."""
        taken = set(taken)
        for number in range(FIRST_DYNAMIC, LAST_DYNAMIC + 1):
            if (wanted, number) not in self._users and (wanted, number) not in taken:
                return number
        return None


def assign(service: Service, table: PortTable) -> list[PortConfig] | None:
    """The service's ports with published ones chosen where none is given; None when the dynamic range is used up.

    A port chosen before stays the same as long as protocol, container port and name do (swarm.md §3.13: ports survive
    updates).
    """
    spec = service.spec.endpoint_spec or EndpointSpec()
    ports = [complete(port) for port in spec.ports]
    taken = {(protocol(port), port.published_port) for port in ports}
    before = [complete(port) for port in service.endpoint.ports if port.published_port and is_ingress(port)]
    done: list[PortConfig] = []
    for port in ports:
        if port.published_port or not is_ingress(port):
            done.append(port)
            continue
        kept = next(
            (old for old in before if _same(port, old) and (protocol(old), old.published_port) not in taken), None
        )
        number = kept.published_port if kept is not None else table.choose(protocol(port), taken)
        if number is None:
            return None
        taken.add((protocol(port), number))
        done.append(replace(port, published_port=number))
    return done


def _same(port: PortConfig, old: PortConfig) -> bool:
    return (port.name, protocol(port), port.target_port) == (old.name, protocol(old), old.target_port)
