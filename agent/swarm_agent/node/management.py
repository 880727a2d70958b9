"""The management plane of a manager: 2377/tcp, TLS with the cluster's root both ways, aiohttp.

| route | who may | what |
|---|---|---|
| GET /v1/root | anyone | the root certificate; the joining node checks it against its token |
| POST /v1/certificate | anyone with a join token | signs a new node's request and makes its node object |
| POST /v1/renew | members | a new certificate for the same node, with the role it shall have now |
| GET /v1/session | members | WebSocket: the node's session with the dispatcher |
| GET /v1/stream/ID | members | WebSocket: the byte stream that the node was asked for in its session |
| POST /v1/attach… | members | places on networks for plain containers (attachment_routes.py) |
| /v1/raft…, /v1/engine…, /v1/api | managers | manager_routes.py |

Who a peer is stands in its certificate (node id, role) and is checked per route: a worker's certificate opens its own
session and nothing else. A manager that does not lead answers 421 with the leader's address.
"""

from __future__ import annotations

import asyncio
import datetime
import hmac
import logging
import random
import ssl
from collections.abc import Callable
from typing import Protocol

import msgspec
from aiohttp import WSMsgType, web

from swarm_agent.model.base import discreet
from swarm_agent.model.errors import ClusterError, Forbidden, InvalidArgument, NoLeader
from swarm_agent.model.ids import new_id
from swarm_agent.model.objects import Cluster, Node, NodeDescription, NodeStatus
from swarm_agent.model.specs import NodeSpec
from swarm_agent.pki.authority import Identity, identity_of_der
from swarm_agent.pki.tokens import parse_token
from swarm_agent.store.tx import Tx

from .attachment_routes import AttachmentRoutes
from .manager_routes import MAX_API_REQUEST, Consensus, ManagerRoutes
from .signing import sign
from .streams import StreamBroker, Teller

log = logging.getLogger(__name__)

MAX_MESSAGE = 64 * 1024 * 1024  # a complete assignment of a busy node, with room
MAX_REQUEST = 64 * 1024  # a signing request is under 1 KiB


class CertificateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Body of POST /v1/certificate."""

    token: str
    csr: str  # PEM
    availability: str = "active"
    hostname: str = ""

    def __repr__(self) -> str:
        return discreet(self)


class CertificateAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a new member gets: who it is, and its certificate (PEM)."""

    node_id: str
    cluster_id: str
    role: str
    certificate: str


class RenewalRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Body of POST /v1/renew."""

    csr: str  # PEM


class Channel(Protocol):
    """One node's connection, as the dispatcher sees it."""

    async def send(self, data: bytes) -> None: ...

    async def receive(self) -> bytes | None: ...


class Sessions(Teller, Protocol):
    """The dispatcher's door for sessions."""

    async def session(self, node_id: str, channel: Channel) -> None: ...


class Leadership(Consensus, Protocol):
    """What the management plane must know of this manager."""

    @property
    def cluster_id(self) -> str: ...

    def external_context(self, root: str) -> ssl.SSLContext:
        """For talking to an external authority, see signing.py."""
        ...

    @property
    def dispatcher(self) -> Sessions | None:
        """The running dispatcher, on the leader only."""
        ...

    @property
    def leader_addr(self) -> str:
        """host:port of the leader's management plane, empty when none is known."""
        ...


class _SocketChannel:
    """A WebSocket as the dispatcher's channel."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def send(self, data: bytes) -> None:
        await self._socket.send_bytes(data)

    async def receive(self) -> bytes | None:
        message = await self._socket.receive()
        return message.data if message.type is WSMsgType.BINARY else None

    async def close(self) -> None:
        await self._socket.close()


class ManagementServer:
    """Serves the management plane until `stop`."""

    def __init__(self, manager: Leadership) -> None:
        self._manager = manager
        self._rng = random.SystemRandom()
        self._runner: web.AppRunner | None = None
        self._sockets: set[web.WebSocketResponse] = set()
        self.streams = StreamBroker()
        self._managers = ManagerRoutes(manager, self._member, self._leader_only, self.streams)

    async def start(self, host: str, port: int, context: ssl.SSLContext) -> None:
        """Listen. Raises OSError when the address is taken."""
        app = web.Application(client_max_size=MAX_API_REQUEST, middlewares=[_errors_as_json])
        app.router.add_get("/v1/root", self._root)
        app.router.add_post("/v1/certificate", self._certificate)
        app.router.add_post("/v1/renew", self._renew)
        app.router.add_get("/v1/session", self._session)
        app.router.add_get("/v1/stream/{id}", self._stream)
        AttachmentRoutes(lambda: self._manager.store, self._member, self._leader_only).add_to(app.router)
        self._managers.add_to(app.router)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, ssl_context=context, reuse_address=True).start()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        assert self._runner is not None, "the server is not started"
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Close all sessions and stop listening."""
        sockets = [*self._sockets, *self._managers.sockets, *self.streams.sockets]
        await asyncio.gather(*(socket.close() for socket in sockets), return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _cluster(self) -> Cluster:
        clusters = self._manager.store.view().all(Cluster)
        if not clusters:
            raise NoLeader
        return clusters[0]

    def _leader_only(self) -> Sessions:
        """The dispatcher, or the answer that sends the caller to the leader."""
        dispatcher = self._manager.dispatcher
        if dispatcher is None:
            if self._manager.leader_addr:
                raise Elsewhere(self._manager.leader_addr)
            raise NoLeader
        return dispatcher

    async def _root(self, request: web.Request) -> web.Response:
        return web.Response(text=self._cluster().ca_cert, content_type="application/x-pem-file")

    async def _certificate(self, request: web.Request) -> web.Response:
        self._leader_only()
        try:
            asked = msgspec.json.decode(await _small_body(request), type=CertificateRequest)
        except msgspec.MsgspecError as error:
            raise InvalidArgument(f"the certificate request cannot be read: {error}") from None
        cluster = self._cluster()
        role = role_of_token(cluster, asked.token)
        identity = Identity(new_id(self._rng), role, cluster.id)
        certificate = await self._issue(cluster, asked.csr, identity)
        node = Node(
            id=identity.node_id,
            spec=NodeSpec(role=role, availability=asked.availability or "active"),
            description=NodeDescription(hostname=asked.hostname),
            status=NodeStatus(state="unknown", addr=request.remote or ""),
        )

        def create(tx: Tx) -> None:
            tx.create(node)

        await self._manager.store.update(create)
        log.info("node %s (%s) admitted as %s from %s", node.id, asked.hostname, role, request.remote)
        return web.json_response(
            body=msgspec.json.encode(
                CertificateAnswer(node_id=node.id, cluster_id=cluster.id, role=role, certificate=certificate)
            )
        )

    async def _issue(self, cluster: Cluster, csr: str, identity: Identity) -> str:
        return await sign(cluster, csr, identity, datetime.datetime.now(datetime.UTC), self._manager.external_context)

    async def _renew(self, request: web.Request) -> web.Response:
        identity = self._member(request)
        self._leader_only()
        try:
            asked = msgspec.json.decode(await _small_body(request), type=RenewalRequest)
        except msgspec.MsgspecError as error:
            raise InvalidArgument(f"the renewal request cannot be read: {error}") from None
        node = self._manager.store.view().get(Node, identity.node_id)
        if node is None:
            raise Forbidden(f"node {identity.node_id} was removed from the cluster")
        # A demoted manager stays one by its certificate until raft is rid of it.
        role = "manager" if node.raft_id else node.spec.role
        cluster = self._cluster()
        certificate = await self._issue(cluster, asked.csr, Identity(node.id, role, cluster.id))
        answer = CertificateAnswer(node_id=node.id, cluster_id=cluster.id, role=role, certificate=certificate)
        return web.json_response(body=msgspec.json.encode(answer))

    async def _session(self, request: web.Request) -> web.WebSocketResponse:
        identity = self._member(request)
        dispatcher = self._leader_only()
        socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE, compress=False, autoping=True)
        await socket.prepare(request)
        self._sockets.add(socket)
        try:
            await dispatcher.session(identity.node_id, _SocketChannel(socket))
        except ConnectionError as error:
            log.info("session of node %s broke: %s", identity.node_id, error)
        finally:
            self._sockets.discard(socket)
            await socket.close()
        return socket

    async def _stream(self, request: web.Request) -> web.WebSocketResponse:
        return await self.streams.accept(request, self._member(request))

    def _member(self, request: web.Request) -> Identity:
        """Who asks. Raises Forbidden for strangers and for nodes that were removed."""
        identity = peer_identity(request)
        if identity.cluster_id != self._manager.cluster_id:
            raise Forbidden(f"node {identity.node_id} belongs to another cluster")
        # A manager that is joining has no state yet, and nobody to refuse.
        if any(identity.node_id in cluster.blacklisted for cluster in self._manager.store.view().all(Cluster)):
            raise Forbidden(f"node {identity.node_id} was removed from the cluster")
        return identity


class Elsewhere(ClusterError):
    """This manager does not lead; the text is the leader's address."""

    status = 421


async def _small_body(request: web.Request) -> bytes:
    """The body of a request that anyone may send. Raises InvalidArgument over MAX_REQUEST bytes."""
    if (request.content_length or 0) > MAX_REQUEST:
        raise InvalidArgument(f"the request is larger than {MAX_REQUEST} bytes")
    body = await request.content.read(MAX_REQUEST + 1)
    while len(body) <= MAX_REQUEST and (more := await request.content.read(MAX_REQUEST)):
        body += more
    if len(body) > MAX_REQUEST:
        raise InvalidArgument(f"the request is larger than {MAX_REQUEST} bytes")
    return body


def peer_identity(request: web.Request) -> Identity:
    """Whom the peer's certificate names. Raises Forbidden when it showed none."""
    transport = request.transport
    connection = transport.get_extra_info("ssl_object") if transport is not None else None
    der = connection.getpeercert(binary_form=True) if connection is not None else None
    if not der:
        raise Forbidden("a node certificate of this cluster is needed here")
    return identity_of_der(der)


def role_of_token(cluster: Cluster, text: str) -> str:
    """Which role a join token admits to. Raises InvalidArgument with Swarm's text when it admits to none."""
    parse_token(text)
    tokens = cluster.join_tokens
    if tokens is not None:
        for role, token in (("worker", tokens.worker), ("manager", tokens.manager)):
            if hmac.compare_digest(token.encode(), text.strip().encode()):
                return role
    raise InvalidArgument("A valid join token is necessary to join this cluster")


@web.middleware
async def _errors_as_json(request: web.Request, handler: Callable[[web.Request], object]) -> web.StreamResponse:
    try:
        return await handler(request)  # type: ignore[misc,no-any-return]
    except web.HTTPException as error:
        return web.json_response({"message": error.text or error.reason}, status=error.status)
    except ClusterError as error:
        if error.status >= 500:
            log.warning("%s %s from %s: %s", request.method, request.path, request.remote, error)
        return web.json_response({"message": str(error)}, status=error.status)
    except ConnectionError as error:
        # Whoever asked is gone: nothing to answer, and nothing that an operator has to know.
        log.debug("%s %s: %s went away: %s", request.method, request.path, request.remote, error)
        return web.Response(status=400)
