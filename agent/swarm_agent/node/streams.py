"""Byte streams from any manager to the engine of any node.

A node has one connection to the managers, its session with the leader, and nobody connects *to* a node. So a stream is
opened backwards: the leader sends `OpenStream(id)` in the session, the node opens a WebSocket GET /v1/stream/ID to the
leader and joins it to its engine's socket. A manager that follows opens GET /v1/engine/NODE to the leader, which joins
the two. Whoever asked gets a plain connected socket (`EngineStreams.connect`) and speaks the Engine API on it, upgrades
included; what is carried is not looked at.

Who may: /v1/engine is for managers, who can run anything on any node anyway; /v1/stream only takes the node that was
asked, for the id that it was sent, once.

Traps:
* A WebSocket has no half-close: an empty message stands for the end of one direction. The close ends both.
* An engine may answer and close before it has read everything. What is refused on one side is dropped while the other
  direction goes on, or the answer would be lost.
* A stream may be silent for days (`logs --follow`), so a host that dies without a word is noticed by TCP, not by pings:
  those would stand in line behind data that the other end is slow to take.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import select
import socket
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Protocol

import aiohttp
from aiohttp import WSMsgType, web

from swarm_agent.model.errors import ClusterError, Forbidden, NotFound, Unavailable
from swarm_agent.model.session import OpenStream, ToNode
from swarm_agent.pki.authority import Identity, identity_of_der

log = logging.getLogger(__name__)

CHUNK = 64 * 1024
MAX_CHUNK = 1024 * 1024  # of what the other end may send in one message
OPEN_TIMEOUT = 5.0  # seconds until the node's end must be there
SESSION_RETRY = 0.1  # seconds between looks for a session that is about to come, after a change of leader
CONNECT_TIMEOUT = 3.0
DEAD_AFTER = 10  # seconds without an answer from the other host's kernel

WebSocket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


class Teller(Protocol):
    """The dispatcher, as far as streams need it."""

    def tell(self, node_id: str, message: ToNode) -> bool:
        """Send a message in the node's session; False when there is none."""


def unavailable(node_id: str) -> Unavailable:
    """Swarm's words for a node whose logs cannot be had."""
    return Unavailable(f"node {node_id} is not available")


class StreamBroker:
    """The leader's end: asks nodes for streams, and takes the connections that they open for it."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[str, asyncio.Future[socket.socket]]] = {}
        self.sockets: set[web.WebSocketResponse] = set()

    async def open(self, node_id: str, teller: Callable[[], Teller | None]) -> socket.socket:
        """A connection to the node's engine. Raises Unavailable when the node does not answer."""
        stream_id = secrets.token_hex(16)
        future: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
        self._waiting[stream_id] = node_id, future
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                while not _tell(teller(), node_id, OpenStream(id=stream_id)):  # noqa: ASYNC110 (rare, and short)
                    await asyncio.sleep(SESSION_RETRY)
                return await asyncio.shield(future)
        except BaseException as error:
            if future.done():
                future.result().close()  # it came when nobody waited any longer
            if isinstance(error, TimeoutError):
                raise unavailable(node_id) from None
            raise
        finally:
            del self._waiting[stream_id]

    async def accept(self, request: web.Request, identity: Identity) -> web.WebSocketResponse:
        """GET /v1/stream/{id}: a node opens the stream that it was asked for."""
        stream_id = request.match_info["id"]
        node_id, future = self._waiting.get(stream_id, ("", None))
        if future is None or future.done():
            raise NotFound("nobody waits for this stream")
        if node_id != identity.node_id:
            raise Forbidden(f"node {identity.node_id} was not asked for this stream")
        near, far = _pair()
        future.set_result(near)
        return await self._serve(request, far)

    async def relay(self, request: web.Request, teller: Callable[[], Teller | None]) -> web.WebSocketResponse:
        """GET /v1/engine/{node}: another manager wants a connection to the node's engine."""
        return await self._serve(request, await self.open(request.match_info["node"], teller))

    async def _serve(self, request: web.Request, sock: socket.socket) -> web.WebSocketResponse:
        response = web.WebSocketResponse(max_msg_size=MAX_CHUNK, compress=False)
        try:
            await response.prepare(request)
        except BaseException:
            sock.close()
            raise
        self.sockets.add(response)
        try:
            await pump(response, sock)
        finally:
            self.sockets.discard(response)
        return response


class EngineStreams:
    """A member's end: opens streams to other nodes' engines (managers), and its own engine's when asked (all)."""

    def __init__(self, node_id: str, engine_socket: Path, context: Callable[[], ssl.SSLContext]) -> None:
        self._node_id = node_id
        self._engine_socket = str(engine_socket)
        self._context = context
        self._running: set[asyncio.Task[None]] = set()
        self._http: aiohttp.ClientSession | None = None

    async def stop(self) -> None:
        """End all streams."""
        for task in tuple(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        if self._http is not None:
            await self._http.close()
            self._http = None

    def wanted(self, message: OpenStream, leader: str) -> None:
        """The leader (host:port) asks for a stream to this node's engine."""
        self._spawn(self._answer(message.id, leader))

    async def own(self) -> socket.socket:
        """A connection to this node's engine. Raises OSError."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await asyncio.get_running_loop().sock_connect(sock, self._engine_socket)
        except BaseException:
            sock.close()
            raise
        return sock

    async def through(self, leader: str, node_id: str) -> socket.socket:
        """A connection to a node's engine by way of the leader (host:port). Raises Unavailable."""
        if not leader:
            raise unavailable(node_id)
        try:
            remote = await self._dial(leader, f"/v1/engine/{node_id}")
        except (aiohttp.ClientError, OSError, TimeoutError, ClusterError) as error:
            log.info("no stream to node %s through %s: %s", node_id, leader, error or type(error).__name__)
            raise unavailable(node_id) from error
        near, far = _pair()
        self._spawn(pump(remote, far))
        return near

    async def _answer(self, stream_id: str, leader: str) -> None:
        try:
            sock = await self.own()
        except OSError as error:
            log.info("a stream was asked for, but the engine does not answer: %s", error)
            return
        try:
            remote = await self._dial(leader, f"/v1/stream/{stream_id}")
        except (aiohttp.ClientError, OSError, TimeoutError, ClusterError) as error:
            sock.close()
            log.info("no stream to %s: %s", leader, error or type(error).__name__)
            return
        await pump(remote, sock)

    async def _dial(self, address: str, path: str) -> aiohttp.ClientWebSocketResponse:
        if self._http is None:
            self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        async with asyncio.timeout(CONNECT_TIMEOUT + OPEN_TIMEOUT):
            remote = await self._http.ws_connect(
                f"wss://{address}{path}", ssl=self._context(), max_msg_size=MAX_CHUNK, compress=0
            )
        connection = remote.get_extra_info("ssl_object")
        if connection is None or identity_of_der(connection.getpeercert(binary_form=True)).role != "manager":
            await remote.close()
            raise Forbidden(f"{address} is no manager by its certificate")
        return remote

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work, name="stream")
        self._running.add(task)
        task.add_done_callback(self._running.discard)


def _tell(leader: Teller | None, node_id: str, message: ToNode) -> bool:
    return leader is not None and leader.tell(node_id, message)


def _pair() -> tuple[socket.socket, socket.socket]:
    near, far = socket.socketpair()
    near.setblocking(False)
    return near, far


async def pump(remote: WebSocket, sock: socket.socket) -> None:
    """Carry bytes both ways until both directions have ended or either side is gone; then close both."""
    sock.setblocking(False)
    _watch_the_other_host(remote)
    ends = _Ends()
    tasks = [asyncio.ensure_future(_out(remote, sock, ends)), asyncio.ensure_future(_in(remote, sock, ends))]
    try:
        await ends.over.wait()
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        sock.close()
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):
            await remote.close()
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, ConnectionError | aiohttp.ClientError):
            raise result


class _Ends:
    """Which directions have ended."""

    def __init__(self) -> None:
        self.said = False  # the socket's side has ended, and the remote was told
        self.heard = False  # the remote has ended, or the socket takes no more
        self.over = asyncio.Event()

    def ended(self) -> None:
        if self.said and self.heard:
            self.over.set()


async def _out(remote: WebSocket, sock: socket.socket, ends: _Ends) -> None:
    """From the socket to the remote."""
    loop = asyncio.get_running_loop()
    try:
        while data := await _receive(loop, sock):
            await remote.send_bytes(data)
        await remote.send_bytes(b"")
        ends.said = True
        ends.heard |= _gone(sock)
        ends.ended()
    except BaseException:
        ends.over.set()
        raise


async def _in(remote: WebSocket, sock: socket.socket, ends: _Ends) -> None:
    """From the remote to the socket."""
    loop = asyncio.get_running_loop()
    try:
        while (message := await remote.receive()).type is WSMsgType.BINARY:
            if ends.heard:
                continue
            try:
                if message.data:
                    await loop.sock_sendall(sock, message.data)
                    continue
                sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it takes no more; what it said may still be on its way to the remote
            ends.heard = True
            ends.ended()
    finally:
        ends.over.set()


async def _receive(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> bytes:
    try:
        return await loop.sock_recv(sock, CHUNK)
    except ConnectionError:
        return b""  # closed with something unread; all that it had sent was received before


def _gone(sock: socket.socket) -> bool:
    """The peer has closed its end altogether, not only ended its own direction."""
    poller = select.poll()
    poller.register(sock.fileno(), 0)
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in poller.poll(0))


def _watch_the_other_host(remote: WebSocket) -> None:
    sock = remote.get_extra_info("socket")
    if sock is None:
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, DEAD_AFTER // 2)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, DEAD_AFTER // 2)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_AFTER * 1000)
