"""Where this host is: the addresses it is known by, and what becomes of them when they change.

A host may come up with another address, or get one while it runs (DHCP, a move to another rack). Its node goes on
under the new one, without leaving and joining:

- it notices that the address it advertises is none of its own any more, and takes the one that its packets to the
  other managers leave from (as a joining host does); a manager without others takes the host's only address;
- its parts start again with it, containers run on;
- it calls the others: a manager introduces itself to its raft peers, which believe it until the log has the address
  too (peers.py); gossip carries the new address under a higher incarnation, and with it the tunnels between hosts;
- a manager asks the leader to write the address into raft's membership; node objects and the list of managers that
  every node keeps follow from that.

A majority of the managers must still find each other: when all of them move at once, nobody knows where anybody is.

An address that was not the host's own when the user chose it (of a NAT in front) is never changed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import secrets
import socket

from msgspec.structs import replace

from swarm_agent.model.errors import BadRequest
from swarm_agent.model.session import ManagerPeer
from swarm_agent.worker.engine import Engine, EngineError

from . import addresses
from .addresses import Resolved, Subnet
from .state import SavedState

log = logging.getLogger(__name__)

LOOK = 2.0  # seconds between looks at the host's addresses
SURE = 3  # looks in a row that must agree: an interface that is set up anew has no address for a moment


async def resolve(listen: str, advertise: str, data_path: str, engine: Engine, default_port: int) -> Resolved:
    """Choose addresses by Swarm's rules from what this host has. Raises BadRequest with Swarm's texts."""
    interfaces = await asyncio.to_thread(addresses.interfaces)
    return addresses.resolve(listen, advertise, data_path, interfaces, await _engine_subnets(engine), default_port)


async def resolve_joining(
    listen: str, advertise: str, data_path: str, remote: str, engine: Engine, default_port: int
) -> Resolved:
    """As Swarm does: a joining host without an address to advertise uses the one that it reaches the manager from."""
    advertise = advertise or await asyncio.to_thread(source_address, remote)
    return await resolve(listen, advertise, data_path, engine, default_port)


def state_at(
    where: Resolved, *, node_id: str, cluster_id: str, role: str, raft_id: int, managers: list[ManagerPeer]
) -> SavedState:
    """What a new member of a cluster remembers of itself."""
    return SavedState(
        node_id=node_id,
        cluster_id=cluster_id,
        role=role,
        listen=where.listen,
        listen_port=where.listen_port,
        advertise=where.advertise,
        advertise_port=where.advertise_port,
        data_path=where.data_path,
        managers=managers,
        raft_id=raft_id,
        advertise_own=is_here(where.advertise),
    )


def first_manager(where: Resolved, node_id: str, cluster_id: str) -> SavedState:
    """What the only manager of a cluster remembers."""
    return state_at(
        where,
        node_id=node_id,
        cluster_id=cluster_id,
        role="manager",
        managers=[ManagerPeer(node_id, where.advertise_addr)],
        raft_id=secrets.randbits(63) | 1,
    )


def moved(state: SavedState, address: str) -> SavedState:
    """The same member at another address. What was at the old one moves along: data path, listener. Pure."""
    old = state.advertise
    fresh = replace(
        state,
        advertise=address,
        data_path=address if state.data_path == old else state.data_path,
        listen=address if state.listen == old else state.listen,
    )
    peers = [
        ManagerPeer(peer.node_id, fresh.advertise_addr) if peer.node_id == state.node_id else peer
        for peer in state.managers
    ]
    return replace(fresh, managers=peers)


async def new_address(state: SavedState, engine: Engine) -> str:
    """The address that this member should have instead of its own, which is gone; "" when it should keep what it has,
    or when there is no other."""
    if not state.advertise_own or await asyncio.to_thread(is_here, state.advertise):
        return ""
    others = [peer.addr for peer in state.managers if peer.node_id != state.node_id and peer.addr]
    for other in others:
        if address := await asyncio.to_thread(source_address, other):
            return address
    if others:
        return ""
    try:
        found = addresses.system_address(await asyncio.to_thread(addresses.interfaces), await _engine_subnets(engine))
    except (BadRequest, EngineError) as error:
        log.warning("%s is no address of this host any more, and there is no other one: %s", state.advertise, error)
        return ""
    return str(found)


def is_here(address: str) -> bool:
    """Whether an address is one of this host's, as the kernel sees it: it lets a socket have it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def source_address(remote: str) -> str:
    """The address of ours that packets to the remote (host:port) leave from, "" when there is no way there."""
    host, port = addresses.split_host_port(remote)
    try:
        family, kind, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except OSError:
        return ""


async def _engine_subnets(engine: Engine) -> list[Subnet]:
    """The subnets of the engine's own networks: no candidates for anything."""
    return [ipaddress.ip_network(text, strict=False) for text in await engine.network_subnets()]
