"""Raft messages between managers: one WebSocket to each peer, on the management plane.

`send` never waits: messages queue up per peer, and what does not fit is dropped, since raft sends again what matters. A
connection is made when there is something to send, and made anew with a back-off when it breaks.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable

import aiohttp

from swarm_agent.model.errors import InvalidArgument
from swarm_agent.pki.authority import identity_of_der

log = logging.getLogger(__name__)

MAX_QUEUED = 16 * 1024 * 1024  # bytes waiting for one peer: a few entries of the largest size
FIRST_BACKOFF, LAST_BACKOFF = 0.05, 1.0  # seconds; a returning peer must be heard within an election timeout
CONNECT_TIMEOUT = 2.0
# A peer that died without closing its connection: pings every 2 s, so that a new connection is tried soon.
PING_INTERVAL = 2.0
MAX_MESSAGE = 8 * 1024 * 1024  # bytes of one raft message: entries of one append, or a snapshot's chunk, with room


class PeerTransport:
    """Carries messages to the other managers. `address_of(member)` is the peer's host:port, "" when unknown.

    Who connects says its own id and address: a joining member has no log yet to know its peers from, and the log of
    others does not know where a member is that has moved.
    """

    def __init__(
        self, own_id: int, own_address: str, address_of: Callable[[int], str], context: Callable[[], ssl.SSLContext]
    ) -> None:
        self._introduction = {"member": f"{own_id:x}", "address": own_address}
        # member → (what it said of itself, what the log had of it then)
        self._heard: dict[int, tuple[str, str]] = {}
        self._address_of = address_of
        self._context = context
        self._peers: dict[int, _Peer] = {}
        self._http: aiohttp.ClientSession | None = None

    def send(self, member: int, data: bytes) -> None:
        """Queue a message; drops it when the peer is unknown or too much is waiting for it."""
        peer = self._peers.get(member)
        if peer is None:
            peer = self._peers[member] = _Peer(self, member)
        peer.push(data)

    def keep(self, members: set[int]) -> None:
        """Close the connections to those who are no members any more."""
        for member in self._peers.keys() - members:
            self._peers.pop(member).stop()

    async def stop(self) -> None:
        peers = list(self._peers.values())
        self._peers.clear()
        for peer in peers:
            peer.stop()
        await asyncio.gather(*(peer.task for peer in peers), return_exceptions=True)
        if self._http is not None:
            await self._http.close()

    def introduced(self, member: int, address: str) -> None:
        """A peer connected and said where it can be reached: the newest word of a member that joins or that moved, and
        good until the log has another address of it. Without this one that moved could not help to elect the leader
        who writes its new address into the log.
        """
        if address:
            self._heard[member] = (address, self._address_of(member))

    def address_of(self, member: int) -> str:
        """host:port of a member, "" when it is not known."""
        told = self._address_of(member)
        address, before = self._heard.get(member, ("", ""))
        return address if address and told == before else told

    async def connect(self, address: str) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket to the manager at that address. Raises aiohttp.ClientError, OSError, TimeoutError."""
        if self._http is None:
            self._http = aiohttp.ClientSession()
        async with asyncio.timeout(CONNECT_TIMEOUT):
            socket = await self._http.ws_connect(
                f"wss://{address}/v1/raft",
                params=self._introduction,
                ssl=self._context(),
                heartbeat=PING_INTERVAL,
                max_msg_size=MAX_MESSAGE,
                compress=0,
            )
        der = socket.get_extra_info("ssl_object").getpeercert(binary_form=True)
        if identity_of_der(der).role != "manager":
            await socket.close()
            raise InvalidArgument(f"{address} is no manager by its certificate")
        return socket


class _Peer:
    """One peer's queue and the task that empties it."""

    def __init__(self, transport: PeerTransport, member: int) -> None:
        self._transport = transport
        self._member = member
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._wake = asyncio.Event()
        self._problem = ""
        self.task = asyncio.create_task(self._run(), name=f"raft-peer-{member:x}")

    def push(self, data: bytes) -> None:
        if self._queued + len(data) > MAX_QUEUED:
            return
        self._queue.append(data)
        self._queued += len(data)
        self._wake.set()

    def stop(self) -> None:
        self.task.cancel()

    async def _run(self) -> None:
        backoff = FIRST_BACKOFF
        while True:
            await self._wake.wait()
            address = self._transport.address_of(self._member)
            try:
                if not address:
                    raise OSError("its address is not known")
                socket = await self._transport.connect(address)
                backoff = FIRST_BACKOFF
                if self._problem:
                    log.info("raft peer %x at %s is reachable again", self._member, address)
                    self._problem = ""
                await self._pump(socket)
            except (aiohttp.ClientError, OSError, TimeoutError, InvalidArgument) as error:
                problem = f"{address}: {error or type(error).__name__}"
                if problem != self._problem:
                    log.info("no connection to raft peer %x: %s", self._member, problem)
                self._problem = problem
            # What waited for a dead peer is stale by the time that it is back.
            self._clear()
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, LAST_BACKOFF)

    async def _pump(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Send until the connection breaks. Reading is what notices that."""
        sender = asyncio.create_task(self._send_all(socket))
        try:
            async for _ in socket:
                pass
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            await socket.close()

    async def _send_all(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            while self._queue:
                data = self._queue.popleft()
                self._queued -= len(data)
                await socket.send_bytes(data)
            self._wake.clear()
            await self._wake.wait()

    def _clear(self) -> None:
        self._queue.clear()
        self._queued = 0
        self._wake.clear()
