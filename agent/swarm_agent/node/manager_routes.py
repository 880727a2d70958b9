"""The part of the management plane that is for managers only, among themselves.

| route | what |
|---|---|
| GET /v1/raft | WebSocket: raft messages to this member |
| POST /v1/raft/join | leader: make the caller a raft member, first as learner, then with a vote |
| POST /v1/raft/move | leader: the caller, a member, can be reached at another address from now on |
| POST /v1/raft/leave | leader: take the caller out of raft before it leaves the cluster |
| GET /v1/engine/NODE | leader: WebSocket: a byte stream to the engine of a node (streams.py) |
| POST /v1/api | leader: a request to the cluster's API that came in at a follower |
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
from aiohttp import WSMsgType, web
from msgspec.structs import replace

from swarm_agent.model.errors import ClusterError, FailedPrecondition, Forbidden, InvalidArgument, NotFound
from swarm_agent.model.objects import Node
from swarm_agent.model.specs import NodeSpec
from swarm_agent.pki.authority import Identity
from swarm_agent.raft.driver import RaftNode
from swarm_agent.store.store import Store
from swarm_agent.store.tx import Tx

from .addresses import split_host_port
from .peers import MAX_MESSAGE, PeerTransport
from .streams import StreamBroker, Teller

log = logging.getLogger(__name__)

MAX_API_REQUEST = 32 * 1024 * 1024
CATCH_UP_TIMEOUT = 15.0  # seconds for a new member to get the log before it may vote

ApiHandler = Callable[[bytes], Awaitable[bytes]]
"""Carries out an encoded request to the cluster's API on this manager's store."""


class RaftJoin(msgspec.Struct, frozen=True, kw_only=True):
    """Body of POST /v1/raft/join and /v1/raft/move."""

    raft_id: int
    address: str  # host:port of the caller's management plane


class Consensus(Protocol):
    """What these routes need of this manager."""

    @property
    def raft(self) -> RaftNode: ...

    @property
    def store(self) -> Store: ...

    @property
    def transport(self) -> PeerTransport: ...

    @property
    def dispatcher(self) -> Teller | None: ...

    @property
    def api(self) -> ApiHandler | None: ...


class ManagerRoutes:
    """Handlers. `member_of(request)` names the peer or refuses it; `lead()` refuses when this manager does not lead."""

    def __init__(
        self,
        manager: Consensus,
        member_of: Callable[[web.Request], Identity],
        lead: Callable[[], object],
        streams: StreamBroker,
    ) -> None:
        self._manager = manager
        self._streams = streams
        self._member_of = member_of
        self._lead = lead
        self.sockets: set[web.WebSocketResponse] = set()

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_get("/v1/raft", self._raft)
        router.add_post("/v1/raft/join", self._join)
        router.add_post("/v1/raft/move", self._move)
        router.add_post("/v1/raft/leave", self._leave)
        router.add_get("/v1/engine/{node}", self._engine)
        router.add_post("/v1/api", self._api)

    def _manager_only(self, request: web.Request) -> Identity:
        identity = self._member_of(request)
        if identity.role != "manager":
            raise Forbidden(f"node {identity.node_id} is a worker; this is for managers")
        return identity

    def _managers_leader(self, request: web.Request) -> Identity:
        """Who asks the leader. Its state is current, so a certificate from before a demotion opens nothing here. (Not
        so for raft's own messages: a follower that lags might shut out the one that its vote is needed for.)
        """
        identity = self._manager_only(request)
        self._lead()
        node = self._manager.store.view().get(Node, identity.node_id)
        if node is None or (node.spec.role != "manager" and not node.raft_id):
            raise Forbidden(f"node {identity.node_id} is no manager any more; this is for managers")
        return identity

    async def _raft(self, request: web.Request) -> web.WebSocketResponse:
        self._manager_only(request)
        member, address = request.query.get("member", ""), request.query.get("address", "")
        try:
            self._manager.transport.introduced(int(member, 16), address)
        except ValueError:
            raise InvalidArgument(f"member={member!r} is no raft id") from None
        socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE, compress=False)
        await socket.prepare(request)
        self.sockets.add(socket)
        try:
            async for message in socket:
                if message.type is WSMsgType.BINARY:
                    self._manager.raft.deliver(message.data)
        except ConnectionError:
            log.info("raft member %s at %s hung up", member, address)
        finally:
            self.sockets.discard(socket)
        return socket

    async def _join(self, request: web.Request) -> web.Response:
        identity = self._managers_leader(request)
        asked = _decode_join(await request.read())
        raft = self._manager.raft
        member = raft.membership.get(asked.raft_id)
        if member is None:
            await raft.members.add_learner(asked.raft_id, asked.address)
        elif member.address != asked.address:
            await raft.members.set_address(asked.raft_id, asked.address)
        # The node must be known as this member before it can vote, or the role keeper would take it for a stranger.
        await self._manager.store.update(lambda tx: _set_raft_id(tx, identity.node_id, asked.raft_id))
        member = raft.membership.get(asked.raft_id)
        if member is not None and not member.voter:
            await raft.members.promote(asked.raft_id, CATCH_UP_TIMEOUT)
        log.info("node %s is raft member %x at %s", identity.node_id, asked.raft_id, asked.address)
        return web.json_response({})

    async def _move(self, request: web.Request) -> web.Response:
        identity = self._managers_leader(request)
        asked = _decode_join(await request.read())
        raft, node = self._manager.raft, self._manager.store.view().get(Node, identity.node_id)
        member = raft.membership.get(asked.raft_id)
        if node is None or member is None or node.raft_id != asked.raft_id:
            raise FailedPrecondition(f"node {identity.node_id} is not raft member {asked.raft_id:x}")
        if member.address != asked.address:
            await raft.members.set_address(asked.raft_id, asked.address)
            log.info("node %s moved from %s to %s", node.id, member.address, asked.address)
        return web.json_response({})

    async def _leave(self, request: web.Request) -> web.Response:
        identity = self._managers_leader(request)
        await self._manager.store.update(lambda tx: _demote(tx, identity.node_id))
        return web.json_response({})

    async def _engine(self, request: web.Request) -> web.WebSocketResponse:
        self._managers_leader(request)
        return await self._streams.relay(request, lambda: self._manager.dispatcher)

    async def _api(self, request: web.Request) -> web.Response:
        self._managers_leader(request)
        if self._manager.api is None:
            raise ClusterError("this manager does not serve the cluster's API yet")
        return web.Response(body=await self._manager.api(await request.read()), content_type="application/octet-stream")


def _decode_join(body: bytes) -> RaftJoin:
    try:
        asked = msgspec.json.decode(body, type=RaftJoin)
        split_host_port(asked.address)
    except ValueError as error:  # msgspec's errors are ValueErrors
        raise InvalidArgument(f"the request of a raft member cannot be read: {error}") from None
    return asked


def _set_raft_id(tx: Tx, node_id: str, raft_id: int) -> None:
    node = tx.get(Node, node_id)
    if node is None:
        raise NotFound(f"node {node_id} not found")
    if node.spec.role != "manager":
        raise FailedPrecondition(f"node {node_id} is not to be a manager")
    if node.raft_id != raft_id:
        tx.update(replace(node, raft_id=raft_id))


def _demote(tx: Tx, node_id: str) -> None:
    node = tx.get(Node, node_id)
    if node is None or node.spec.role != "manager":
        return
    if len(tx.find(Node, role="manager")) == 1:
        raise FailedPrecondition("attempting to demote the last manager of the swarm")
    spec: NodeSpec = replace(node.spec, role="worker")
    tx.update(replace(node, spec=spec))
