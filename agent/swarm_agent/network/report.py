"""What is balanced on this host and why, for people: each published port and VIP with the tasks behind it (pure).

It is made from the rows that the last round planned with, so it says what the kernel was told, not what it should be
told next. `swarmctl mesh` shows it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from swarm_agent.model.rows import AddressRow, EndpointRow, PortRow

from .frontends import Published, ingress_address
from .iptables import virtual_chain
from .names import PUBLISHED_BIT, VIP_BIT
from .state import IPV6, ChainKey, Destination, KernelState
from .tables import NetworkTables, duals_of

OwnedRow = tuple[str, EndpointRow]


class Backend(msgspec.Struct, frozen=True):
    """A task behind a port or VIP, and the row that says so."""

    task_id: str
    service: str
    slot: int
    node_id: str
    host: str  # its underlay address; "" when it is not known (any more)
    address: str  # "10.0.0.5:80", or without a port behind a VIP
    state: str  # active: gets new connections; draining: keeps those that it has, or is not ready yet
    here: bool  # on this host: reached through its bridge, else through a tunnel
    connections: int | None = None  # with IPVS: those that it knows


class Frontend(msgspec.Struct, frozen=True):
    """An address and port of this host, or a VIP."""

    kind: str  # port or vip
    name: str  # "8080/tcp", "8080/tcp on 10.9.0.5/32" or "10.0.1.4"
    network: str  # of the VIP; of the ingress network for ports
    programmed: str  # where it is in the kernel: a chain of nat, or a packet mark of IPVS
    backends: list[Backend]


class MeshReport(msgspec.Struct, frozen=True):
    node_id: str
    underlay: str
    mtu: int
    balancer: str
    reason: str  # why this balancer
    rules: int  # of iptables, ours
    services: int  # of IPVS, ours
    destinations: int
    frontends: list[Frontend]
    hosts: dict[str, str]  # node id → underlay address, of all hosts that packets are sent to
    failures: list[str]  # what did not work in the last round
    problems: list[str]  # what could not be planned


def frontends(
    rows: Iterable[OwnedRow],
    tables: NetworkTables,
    node_id: str,
    state: KernelState,
    connections: Mapping[Destination, int],
) -> list[Frontend]:
    """Ports first, by number; then VIPs, by network."""
    names = {network.id: network.spec.name or network.id for network in tables.networks}
    duals = duals_of(tables.networks)
    ingress = next((network.id for network in tables.networks if network.spec.ingress), "")
    ports: dict[tuple[int, str, tuple[str, ...]], list[tuple[OwnedRow, AddressRow, PortRow]]] = defaultdict(list)
    vips: dict[tuple[str, str], list[tuple[OwnedRow, AddressRow]]] = defaultdict(list)
    for owner, row in rows:
        own = ingress_address(row, ingress)
        for port in row.ports:
            if own is not None and port.published and port.mode != "host":
                ports[port.published, port.protocol or "tcp", port.addresses].append(((owner, row), own, port))
        for address in row.addresses:
            if address.vip:
                vips[names.get(address.network_id, address.network_id), address.vip].append(((owner, row), address))

    def backend(owned: OwnedRow, address: AddressRow, port: int, marks: Sequence[int]) -> Backend:
        owner, row = owned
        known = [connections[key] for mark in marks if (key := (mark, address.ip, port)) in connections]
        return Backend(
            task_id=row.task_id,
            service=row.service_name,
            slot=row.slot,
            node_id=owner,
            host=tables.hosts.get(owner, ""),
            address=f"{address.ip}:{port}" if port else address.ip,
            state="active" if row.active else "draining",
            here=owner == node_id,
            connections=sum(known) if known else None,
        )

    found = []
    for (number, protocol, bound), entries in sorted(ports.items(), key=lambda item: item[0]):
        marks = _marks(state, PUBLISHED_BIT, {(address.ip, port.target) for _, address, port in entries})
        chain = Published(protocol, number, (), addresses=bound).chain("P")
        name = f"{number}/{protocol}" + (f" on {', '.join(bound)}" if bound else "")
        backends = [backend(owned, address, port.target, marks) for owned, address, port in entries]
        network = names.get(ingress, "")
        found.append(Frontend("port", name, network, _where(state, ("nat", chain), marks), _sorted(backends)))
    for (network, vip), places in sorted(vips.items()):
        marks = _marks(state, VIP_BIT, {(address.ip, 0) for _, address in places})
        backends = [backend(owned, address, 0, marks) for owned, address in places]
        where = _where(state, ("nat", virtual_chain(vip)), marks)
        found.append(Frontend("vip", vip, network, where, _sorted(backends)))
        dual = duals.get(places[0][1].network_id)
        if dual is not None and (vip6 := dual.beside(vip)):
            backends = [
                msgspec.structs.replace(one, address=dual.beside(one.address), connections=None) for one in backends
            ]
            where = _where(state, (f"nat{IPV6}", virtual_chain(vip6)), ())
            found.append(Frontend("vip", vip6, network, where, _sorted(backends)))
    return found


def _sorted(backends: list[Backend]) -> list[Backend]:
    return sorted(backends, key=lambda item: (item.service, item.slot, item.task_id))


def _marks(state: KernelState, bit: int, targets: set[tuple[str, int]]) -> list[int]:
    """The IPVS services that have one of these destinations."""
    return sorted({mark for mark, ip, port in state.destinations if mark & bit and (ip, port) in targets})


def _where(state: KernelState, key: ChainKey, marks: Sequence[int]) -> str:
    if marks:
        return "ipvs " + ", ".join(f"{mark:#x}" for mark in marks)
    if key in state.chains:
        return " ".join(key)
    return "nothing: no task is active"
