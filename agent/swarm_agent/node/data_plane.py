"""Ties gossip, network and worker together on one host.

Gossip carries every node's rows (running tasks, places on networks); the network part turns all rows into kernel state;
the worker starts and stops tasks. This part assembles the tables, acknowledges rows only when the kernel has them, and
holds a task's start or stop back until the other hosts know: `activate` before a task counts as running, `deactivate`
before it is told to stop. A host that does not answer delays nobody for longer than ACK_TIMEOUT; one that gossip hears,
but whose kernel is behind (a busy machine), gets up to LATE_TIMEOUT, since packets go where it sends them.

Keys and the VXLAN port come with the first Welcome, so the parts below exist only from then on.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import random
from collections import deque
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import msgspec

from swarm_agent.dns.service import DnsService
from swarm_agent.gossip import GossipNode, State, Version
from swarm_agent.manager.constraints import node_satisfies
from swarm_agent.model.addresses import ip_of
from swarm_agent.model.errors import Unavailable
from swarm_agent.model.objects import Network, Node, Task
from swarm_agent.model.rows import ENDPOINTS, PEERS, EndpointRow, PeerRow, decode_endpoint, decode_peer, encode_row
from swarm_agent.model.session import Welcome
from swarm_agent.network.manager import NetworkManager
from swarm_agent.network.report import MeshReport
from swarm_agent.network.tables import NetworkTables, own_peer_rows

from .addresses import split_host_port
from .gossip_keys import decode_meta, encode_meta, have_all
from .settings import Settings
from .state import SavedState

R = TypeVar("R")

log = logging.getLogger(__name__)

ACK_TIMEOUT = 1.0  # seconds to wait for the other hosts to apply a change of ours
LATE_TIMEOUT = 4.0  # seconds to wait in all for hosts that are plainly alive, and for our own kernel
LATE_LOOK = 0.25  # seconds between looks at whether those that are late are alive
MOST_RESOLVERS = 3  # the engine asks no more than three
START_TIMEOUT = 20.0  # seconds that a task waits for the data plane itself
START_RETRY = 1.0  # seconds between tries to start it


@dataclass(frozen=True, slots=True)
class _Parts:
    gossip: GossipNode
    network: NetworkManager
    dns: DnsService


class DataPlane:
    """The worker's `Endpoints` and `TaskNetworks`, and the manager's liveness oracle."""

    def __init__(self, state: SavedState, settings: Settings) -> None:
        self._state = state
        self._settings = settings
        self._parts: _Parts | None = None
        self._started = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None
        self._keys: list[bytes] = []
        self._meta = b""
        self._networks: list[Network] = []
        self._own: dict[str, str] = {}
        self._node = Node()
        self._published: dict[str, PeerRow] = {}
        self._rows: dict[str, EndpointRow] = {}
        # (generation, gossip's token): what may be acknowledged once the kernel has that generation.
        self._in_flight: deque[tuple[int, object]] = deque()

    @property
    def networks(self) -> Sequence[Network]:
        """The cluster networks that this host has, as the leader last told of them."""
        return self._networks

    async def stop(self, *, leave: bool) -> None:
        """Stop; with `leave` the cluster is told, and this host's kernel is cleaned of everything of ours."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        parts, self._parts = self._parts, None
        self._started.clear()
        if parts is None:
            return
        if leave:
            await parts.gossip.leave()
        await parts.dns.close()
        await parts.gossip.stop()
        if leave:
            await parts.network.remove_all()
        await parts.network.stop()

    def welcome(self, message: Welcome) -> None:
        """What the leader says about networks, keys and where to find others. The first one starts everything."""
        self._networks = list(message.networks)
        self._own = dict(message.node.attachments)
        self._node = message.node
        self._keys = [base64.b64decode(key) for key in message.gossip_keys]
        seeds = [split_host_port(seed) for seed in message.gossip_seeds]
        if self._parts is not None:
            self._use_keys(self._parts.gossip)
            self._parts.gossip.set_seeds(seeds)
            self._refresh()
        elif self._starting is None or self._starting.done():
            self._starting = asyncio.create_task(self._start(seeds, message.data_path_port), name="data-plane-start")

    def _network_part(self, port: int) -> NetworkManager:
        return NetworkManager(
            node_id=self._state.node_id,
            underlay=self._state.data_path,
            data_path_port=port,
            engine_socket=str(self._settings.engine_socket),
            balancer=self._settings.balancer,
            on_applied=self._applied,
            memory=self._settings.run_dir / "network.tables",
        )

    async def remove_leftovers(self) -> None:
        """Clean this host's kernel of what an earlier process left, without having started. Best effort."""
        network = self._network_part(4789)
        try:
            await network.start()
            await network.remove_all()
        except (OSError, LookupError) as error:
            log.warning("network state may be left on this host: %s", error)
        finally:
            await network.stop()

    def _use_keys(self, gossip: GossipNode) -> None:
        """Hold the keys that the leader said last, and tell it."""
        gossip.set_keys(self._keys)
        meta = encode_meta(self._state.data_path, self._keys)
        if meta != self._meta:
            self._meta = meta
            gossip.set_meta(meta)

    def all_hold(self, keys: Sequence[bytes], nodes: Container[str]) -> bool:
        """Whether every live host of these nodes, this one among them, has said that it holds exactly these keys.

        A host that was removed from the cluster may still speak under the old key: it is not waited for, else it would
        keep itself in.
        """
        if self._parts is None:
            return False
        members = self._parts.gossip.members()
        return have_all((member.meta for member in members if member.state.live and member.id in nodes), keys)

    @property
    def gossip(self) -> GossipNode | None:
        """None before the first Welcome."""
        return self._parts.gossip if self._parts is not None else None

    @property
    def network(self) -> NetworkManager | None:
        return self._parts.network if self._parts is not None else None

    async def _start(self, seeds: list[tuple[str, int]], port: int) -> None:
        gossip, network = await self._bring_up(port)
        dns = DnsService(loopback_port=self._settings.dns_port)
        self._parts = _Parts(gossip, network, dns)
        self._use_keys(gossip)  # they may have changed meanwhile
        gossip.on_rows(self._refresh)
        gossip.on_members(lambda member, old: self._refresh())
        for row in self._rows.values():
            gossip.publish(ENDPOINTS, row.task_id, encode_row(row))
        gossip.baseline()
        self._refresh()
        self._started.set()
        if seeds:
            gossip.set_seeds(seeds)
            await gossip.join(seeds)
        await dns.open()  # now that the others' rows are here: until then a name that exists would be denied

    async def _bring_up(self, port: int) -> tuple[GossipNode, NetworkManager]:
        """Start gossip and network. What is in the way (a taken port, an address that is not there yet) may go, and no
        other Welcome need come: so it is tried until it works.
        """
        while True:
            gossip = GossipNode(
                self._state.node_id,
                (self._state.listen, self._settings.gossip_port),
                (self._state.advertise, self._settings.gossip_port),
                self._state.cluster_id,
                self._keys,
                rng=random.Random(random.SystemRandom().getrandbits(64)),
                # Data may go over another link than gossip: the others learn this address with the member.
                meta=encode_meta(self._state.data_path, self._keys),
            )
            network = self._network_part(port)
            try:
                await gossip.start()
                await network.start()
            except (OSError, LookupError) as error:
                log.error("the data plane cannot start, trying again: %s", error)
                await gossip.stop()
                await network.stop()
                await asyncio.sleep(START_RETRY)
            else:
                return gossip, network

    async def mesh_report(self) -> MeshReport:
        """What this host balances. Raises Unavailable before the data plane has started."""
        if self._parts is None:
            raise Unavailable("the data plane of this host has not started yet; see the agent's log")
        return await self._parts.network.report()

    # --- for the worker ----------------------------------------------------------------------------------------------

    async def attach(self, network_id: str) -> str:
        """The engine network to connect a task to. Raises NetworkUnavailable, or TimeoutError before all started."""
        async with asyncio.timeout(START_TIMEOUT):
            await self._started.wait()
        assert self._parts is not None
        return await self._parts.network.attach(network_id)

    def resolvers(self, task: Task) -> list[str]:
        """The DNS servers of a task: this host's own addresses on the task's networks, first network first; then other
        hosts' on the first network, which answer the same and are asked while this host's agent is away."""
        ids = [one.network.id for one in task.networks_attachments if not one.network.spec.ingress]
        ids = [network_id for network_id in ids if network_id in self._own]
        if self._parts is None or not ids:
            return [ip_of(self._own[network_id]) for network_id in ids]
        rows = ((row.owner, _decoded(decode_peer, row.value)) for row in self._parts.gossip.rows(PEERS))
        places = {owner: peer.gateway for owner, peer in rows if peer is not None and peer.network_id == ids[0]}
        return resolvers([ip_of(self._own[network_id]) for network_id in ids], places, self._state.node_id)

    async def activate(self, row: EndpointRow) -> None:
        """Every live host knows the row when this returns (or its time is over): its task may receive traffic."""
        self._rows[row.task_id] = row
        if self._parts is not None:
            await self._publish(self._parts, row)

    async def deactivate(self, task_id: str) -> None:
        """No live host chooses the task for new traffic when this returns (or its time is over)."""
        row = self._rows.get(task_id)
        if row is None or not row.active:
            return
        self._rows[task_id] = row = msgspec.structs.replace(row, active=False)
        if self._parts is not None:
            await self._publish(self._parts, row)

    async def withdraw(self, task_id: str) -> None:
        """The container is gone, and its addresses with it: forget the row."""
        if self._rows.pop(task_id, None) is not None and self._parts is not None:
            self._parts.gossip.withdraw(ENDPOINTS, task_id)
            self._refresh()

    async def _publish(self, parts: _Parts, row: EndpointRow) -> None:
        await self._settled(parts, parts.gossip.publish(ENDPOINTS, row.task_id, encode_row(row)))

    async def _settled(self, parts: _Parts, version: Version) -> None:
        self._refresh()
        generation = self._in_flight[-1][0] if self._in_flight else 0
        own, behind = await asyncio.gather(
            parts.network.wait_applied(generation, LATE_TIMEOUT), self._behind(parts.gossip, version)
        )
        if behind or not own:
            late = [*sorted(behind), *([] if own else ["this host's kernel"])]
            log.warning("a change of this host's tasks is not confirmed in time by: %s", ", ".join(late))

    async def _behind(self, gossip: GossipNode, version: Version) -> set[str]:
        """Wait until the live hosts have applied our change, as long as each of them may take; those that have not."""
        behind = await gossip.wait_applied(version, ACK_TIMEOUT)
        deadline = asyncio.get_running_loop().time() + LATE_TIMEOUT - ACK_TIMEOUT
        while behind and asyncio.get_running_loop().time() < deadline:
            heard = {member.id for member in gossip.members() if member.state is State.ALIVE}
            if not behind & heard:
                break
            behind = await gossip.wait_applied(version, LATE_LOOK)
        return behind

    # --- for the manager ---------------------------------------------------------------------------------------------

    def liveness(self, node_id: str) -> bool | None:
        """Gossip's verdict on a node: alive, dead, or not known."""
        if node_id == self._state.node_id:
            return True
        member = self._parts.gossip.member(node_id) if self._parts is not None else None
        return None if member is None else member.state.live

    def address_of(self, node_id: str) -> str:
        """Where gossip last heard of a node, "" when it has not."""
        member = self._parts.gossip.member(node_id) if self._parts is not None else None
        return "" if member is None else member.host

    # --- tables ------------------------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Compute the tables from what is known now and hand them to the network part."""
        if self._parts is None:
            return
        gossip, network = self._parts.gossip, self._parts.network
        token = gossip.snapshot()
        tables = NetworkTables(
            networks=self._networks,
            own=self._own,
            hosts={
                member.id: decode_meta(member.meta)[0] or member.host
                for member in gossip.members()
                if member.state.live
            },
            endpoints=[
                (row.owner, published_here(endpoint, self._node))
                for row in gossip.rows(ENDPOINTS)
                if (endpoint := _decoded(decode_endpoint, row.value))
            ],
            peers=[(row.owner, peer) for row in gossip.rows(PEERS) if (peer := _decoded(decode_peer, row.value))],
        )
        self._in_flight.append((network.update(tables), token))
        self._parts.dns.update(tables.networks, tables.own, tables.endpoints, vips6=network.has_ipv6_vips)
        self._publish_places(gossip, network.public_key)

    def _applied(self, generation: int) -> None:
        token = None
        while self._in_flight and self._in_flight[0][0] <= generation:
            token = self._in_flight.popleft()[1]
        if token is not None and self._parts is not None:
            self._parts.gossip.mark_applied(token)  # type: ignore[arg-type]

    def _publish_places(self, gossip: GossipNode, key: str) -> None:
        """Tell the others where this host is on each network, and with which WireGuard key."""
        wanted = {row.network_id: row for row in own_peer_rows(self._own, key)}
        for network_id in self._published.keys() - wanted.keys():
            gossip.withdraw(PEERS, network_id)
        for network_id, row in wanted.items():
            if self._published.get(network_id) != row:
                gossip.publish(PEERS, network_id, encode_row(row))
        self._published = wanted


def published_here(row: EndpointRow, node: Node) -> EndpointRow:
    """The row as it holds on this node: ports that are published only on others are not published."""
    here = tuple(not port.nodes or node_satisfies(port.nodes, node) for port in row.ports)
    return row if all(here) else _unpublished(row, here)


@lru_cache(maxsize=1 << 12)
def _unpublished(row: EndpointRow, here: tuple[bool, ...]) -> EndpointRow:
    ports = zip(row.ports, here, strict=True)
    kept = (port if answers else msgspec.structs.replace(port, published=0) for port, answers in ports)
    return msgspec.structs.replace(row, ports=tuple(kept))


def resolvers(own: Sequence[str], places: Mapping[str, str], node_id: str) -> list[str]:
    """This host's own addresses, filled up with those of the hosts that come after it (places: node id → address), so
    that not all hosts lean on one."""
    others = sorted(node for node in places if node != node_id)
    after = [node for node in others if node > node_id] + [node for node in others if node < node_id]
    return [*own, *(places[node] for node in after)][: max(len(own), MOST_RESOLVERS)]


@lru_cache(maxsize=1 << 16)  # all rows are looked at whenever one changes
def _decoded(decoder: Callable[[bytes], R], value: bytes) -> R | None:
    """The row, or None for one that another version of the agent wrote and this one cannot read."""
    try:
        return decoder(value)
    except msgspec.MsgspecError as error:
        log.warning("a gossiped row cannot be read: %s", error)
        return None
