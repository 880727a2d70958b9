"""Ties gossip, network and worker together on one host.

Gossip carries every node's rows (running tasks, places on networks); the network part turns all rows into kernel state;
the worker starts and stops tasks. This part assembles the tables, acknowledges rows only when the kernel has them, and
holds a task's start or stop back until the other hosts know: `activate` before a task counts as running, `deactivate`
before it is told to stop, each bounded by ACK_TIMEOUT so that a host that does not answer delays nobody for long.
"""

from __future__ import annotations

import asyncio
import base64
import logging

import msgspec

from swarm_agent.gossip.driver import GossipNode
from swarm_agent.gossip.types import MemberState, Version
from swarm_agent.model.objects import Network
from swarm_agent.model.rows import (
    ENDPOINTS,
    PEERS,
    EndpointRow,
    PeerRow,
    decode_endpoint,
    decode_peer,
    encode_row,
)
from swarm_agent.model.session import Welcome
from swarm_agent.network.manager import NetworkManager
from swarm_agent.network.tables import NetworkTables

from .addresses import split_host_port

log = logging.getLogger(__name__)

ACK_TIMEOUT = 1.0  # seconds to wait for the other hosts to apply a change of ours


class DataPlane:
    """The worker's `Endpoints`, and the node's liveness oracle."""

    def __init__(self, node_id: str, gossip: GossipNode, network: NetworkManager) -> None:
        self._node_id = node_id
        self._gossip = gossip
        self._network = network
        self._networks: list[Network] = []
        self._own: dict[str, str] = {}
        self._seeds: list[tuple[str, int]] = []
        self._peer_rows: dict[str, PeerRow] = {}
        self._joining: asyncio.Task[None] | None = None
        gossip.on_rows(self._refresh)
        gossip.on_members(lambda member, old: self._refresh())

    async def start(self) -> None:
        await self._gossip.start()
        await self._network.start()

    async def stop(self, *, leave: bool) -> None:
        """Stop; with `leave` the cluster is told, and this host's kernel is cleaned of everything of ours."""
        if self._joining is not None:
            self._joining.cancel()
            await asyncio.gather(self._joining, return_exceptions=True)
        if leave:
            await self._gossip.leave()
        await self._gossip.stop()
        await self._network.stop()
        if leave:
            await self._network.remove_all()

    def welcome(self, message: Welcome) -> None:
        """What the leader says about networks, keys and where to find others."""
        self._gossip.set_keys([base64.b64decode(key) for key in message.gossip_keys])
        self._networks = list(message.networks)
        self._own = dict(message.node.attachments)
        self._seeds = [split_host_port(seed) for seed in message.gossip_seeds]
        if self._joining is None or self._joining.done():
            self._joining = asyncio.create_task(self._join(), name="gossip-join")
        self._refresh()

    def liveness(self, node_id: str) -> bool | None:
        """Gossip's verdict on a node: alive, dead, or not known."""
        if node_id == self._node_id:
            return True
        for member in self._gossip.members():
            if member.id == node_id:
                return member.state in (MemberState.ALIVE, MemberState.SUSPECT)
        return None

    async def activate(self, row: EndpointRow) -> None:
        """The task may receive traffic: every live host balances to it when this returns (or after ACK_TIMEOUT)."""
        await self._settled(self._gossip.publish(ENDPOINTS, row.task_id, encode_row(row)))

    async def deactivate(self, task_id: str) -> None:
        """The task must not receive new traffic: no live host sends it any when this returns (or after ACK_TIMEOUT)."""
        if any(row.key == task_id and row.owner == self._node_id for row in self._gossip.rows(ENDPOINTS)):
            await self._settled(self._gossip.withdraw(ENDPOINTS, task_id))

    async def _settled(self, version: Version) -> None:
        self._refresh()
        behind = await self._gossip.wait_applied(version, ACK_TIMEOUT)
        if behind:
            log.warning("hosts %s did not confirm a change of endpoints within %.1f s", sorted(behind), ACK_TIMEOUT)

    async def _join(self) -> None:
        """Reach the other members; gossip itself keeps what it has once joined."""
        while self._seeds and not any(member.id != self._node_id for member in self._gossip.members()):
            if await self._gossip.join(self._seeds):
                return
            await asyncio.sleep(1)

    def _refresh(self) -> None:
        """Compute the tables from what is known now and hand them to the network part."""
        token = self._gossip.snapshot()
        hosts = {
            member.id: member.host
            for member in self._gossip.members()
            if member.state in (MemberState.ALIVE, MemberState.SUSPECT)
        }
        tables = NetworkTables(
            networks=self._networks,
            own=self._own,
            hosts=hosts,
            endpoints=[
                (row.owner, endpoint) for row in self._gossip.rows(ENDPOINTS) if (endpoint := _endpoint(row.value))
            ],
            peers=[(row.owner, peer) for row in self._gossip.rows(PEERS) if (peer := _peer(row.value))],
        )
        self._network.update(tables, lambda: self._applied(token))

    def _applied(self, token: object) -> None:
        self._gossip.mark_applied(token)
        self._publish_own_places()

    def _publish_own_places(self) -> None:
        """Tell the others where this host is on each network, once the network exists here."""
        wanted = {row.network_id: row for row in self._network.own_peers()}
        for network_id in self._peer_rows.keys() - wanted.keys():
            self._gossip.withdraw(PEERS, network_id)
        for network_id, row in wanted.items():
            if self._peer_rows.get(network_id) != row:
                self._gossip.publish(PEERS, network_id, encode_row(row))
        self._peer_rows = wanted


def _endpoint(value: bytes) -> EndpointRow | None:
    try:
        return decode_endpoint(value)
    except msgspec.MsgspecError as error:
        log.warning("an endpoint row cannot be read: %s", error)
        return None


def _peer(value: bytes) -> PeerRow | None:
    try:
        return decode_peer(value)
    except msgspec.MsgspecError as error:
        log.warning("a peer row cannot be read: %s", error)
        return None
