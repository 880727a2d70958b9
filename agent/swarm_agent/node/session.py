"""A node's session with the leader: keeps one alive as long as the node is a member.

Connects to the managers it knows, follows to the leader, says Hello, then passes on what comes (Welcome, Assignments)
and sends beats and task states. Anything that breaks leads to another try, with a back-off from 100 ms to 2 s that a
successful session resets. The latest state of each task is kept and sent again in a new session, so none is lost.

A leader whose host lost its power says nothing, and a connection takes long to show it. So with each beat the node
asks gossip, and its own raft member if it is a manager, and gives its session up when they know better.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
from collections.abc import Callable

import aiohttp
import msgspec

from swarm_agent.model.errors import InvalidArgument
from swarm_agent.model.objects import NodeDescription, TaskStatus
from swarm_agent.model.session import (
    Assignments,
    Describe,
    FromNode,
    Heartbeat,
    Hello,
    ManagerPeer,
    OpenStream,
    Statuses,
    TaskStatusUpdate,
    Welcome,
    decode_to_node,
    encode_message,
)
from swarm_agent.pki.authority import identity_of_der

from .addresses import join_host_port, split_host_port
from .management import MAX_MESSAGE

log = logging.getLogger(__name__)

FIRST_BACKOFF = 0.1  # seconds
LAST_BACKOFF = 2.0  # a manager that comes back gives its nodes a few seconds before it takes them for dead
CONNECT_TIMEOUT = 5.0
# A manager that froze with its connections open is noticed by WebSocket pings: silent for 3 s + 1.5 s.
PING_INTERVAL = 3.0
CLOSE_TIMEOUT = 0.5  # seconds that a manager, which may be dead, has to answer a good-bye


class SessionClient:
    """Runs the session. Callbacks are called in the loop: `on_welcome`, `on_assignments`, `on_state(connected)`,
    `on_stream(message, host:port of the leader)`. `address_of(node)`: where gossip knows a node to be, or "";
    `alive(node)`: gossip's verdict on it, None when it has none; `leader()`: host:port of the leader as this node's own
    raft member knows it, or ""."""

    def __init__(
        self,
        *,
        advertise: str,
        managers: list[ManagerPeer],
        context: Callable[[], ssl.SSLContext],
        describe: Callable[[], NodeDescription],
        on_welcome: Callable[[Welcome], None],
        on_assignments: Callable[[Assignments], None],
        on_state: Callable[[bool], None],
        on_stream: Callable[[OpenStream, str], None],
        address_of: Callable[[str], str],
        alive: Callable[[str], bool | None],
        leader: Callable[[], str],
        rng: random.Random,
    ) -> None:
        self._advertise = advertise
        self._managers = list(managers)
        self._context = context
        self._describe = describe
        self._on_welcome = on_welcome
        self._on_assignments = on_assignments
        self._on_state = on_state
        self._on_stream = on_stream
        self._address_of = address_of
        self._alive = alive
        self._leader = leader
        self._rng = rng
        self._latest: dict[str, TaskStatus] = {}
        self._unsent: set[str] = set()
        self._new_description = False
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._preferred = ""
        self._interval = 1.0
        self._welcomed = asyncio.Event()
        self.connected = asyncio.Event()
        self.last_error = ""

    @property
    def managers(self) -> list[ManagerPeer]:
        """The managers as last told."""
        return list(self._managers)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="session")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def report(self, updates: list[TaskStatusUpdate]) -> None:
        """Observed states to tell the leader, now or as soon as there is one."""
        for update in updates:
            self._latest[update.task_id] = update.status
            self._unsent.add(update.task_id)
        self._wake.set()

    def description_changed(self) -> None:
        """The node's description is a new one; `describe` will be asked for it."""
        self._new_description = True
        self._wake.set()

    async def _run(self) -> None:
        backoff = FIRST_BACKOFF
        while True:
            for address in self._candidates():
                try:
                    if await self._attempt(address):
                        backoff = FIRST_BACKOFF
                        break
                except (aiohttp.ClientError, OSError, TimeoutError, msgspec.MsgspecError, InvalidArgument) as error:
                    if self.last_error != f"{address}: {error}":
                        log.info("no session with %s: %s", address, error)
                    self.last_error = f"{address}: {error}"
                finally:
                    if self.connected.is_set():
                        self.connected.clear()
                        self._on_state(False)
            await asyncio.sleep(backoff * self._rng.uniform(0.7, 1.3))
            backoff = min(backoff * 2, LAST_BACKOFF)

    def _candidates(self) -> list[str]:
        told = [peer.addr for peer in self._managers]
        self._rng.shuffle(told)
        others = sorted([*told, *self._known()], key=self._is_dead)  # last: they take long to not answer
        first = [address for address in (self._preferred, self._leader()) if address]
        self._preferred = ""
        return list(dict.fromkeys([*first, *others]))

    def _known(self) -> dict[str, str]:
        """The managers' node ids by address: where the leader told them to be, and where gossip knows them to be
        instead."""
        known = {peer.addr: peer.node_id for peer in self._managers}
        for peer in self._managers:
            host, port = split_host_port(peer.addr)
            now = self._address_of(peer.node_id)
            if now and now != host:
                known.setdefault(join_host_port(now, port), peer.node_id)
        return known

    def _is_dead(self, address: str) -> bool:
        """Gossip says that the manager at this address is dead."""
        node_id = self._known().get(address)
        return node_id is not None and self._alive(node_id) is False

    def _watch(self, address: str) -> Callable[[], str]:
        """What tells why a session that begins now with this manager is to be given up, "" as long as it is not. Only
        news count: this manager may know better than what gossip and raft say at the beginning."""
        was_dead, led = self._is_dead(address), self._leader()

        def doubt() -> str:
            if not was_dead and self._is_dead(address):
                return "it is dead, as gossip has heard"
            now = self._leader()
            return f"{now} leads now" if now not in ("", led, address) else ""

        return doubt

    async def _attempt(self, address: str) -> bool:
        """One session; True when it was established and has ended."""
        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT)
        async with aiohttp.ClientSession(timeout=timeout) as http:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    socket = await http.ws_connect(
                        f"wss://{address}/v1/session",
                        ssl=self._context(),
                        max_msg_size=MAX_MESSAGE,
                        heartbeat=PING_INTERVAL,
                        timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT),
                    )
            except aiohttp.WSServerHandshakeError as refusal:
                if refusal.status == 421:
                    await self._ask_for_leader(http, address)
                raise
            async with socket:
                der = socket.get_extra_info("ssl_object").getpeercert(binary_form=True)
                if identity_of_der(der).role != "manager":
                    raise InvalidArgument(f"{address} is no manager by its certificate")
                await self._talk(socket, address)
        return True

    async def _ask_for_leader(self, http: aiohttp.ClientSession, address: str) -> None:
        async with http.get(f"https://{address}/v1/session", ssl=self._context()) as response:
            if response.status == 421:
                self._preferred = str((await response.json())["message"])

    async def _talk(self, socket: aiohttp.ClientWebSocketResponse, address: str) -> None:
        hello = Hello(description=self._describe(), advertise=self._advertise)
        await socket.send_bytes(encode_message(hello))
        self._unsent = set(self._latest)
        self._wake.set()
        self._welcomed.clear()
        self._preferred = ""  # found, by whatever way
        work = [asyncio.create_task(self._read(socket, address)), asyncio.create_task(self._send(socket, address))]
        try:
            await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in work:
                task.cancel()
            read, sent = await asyncio.gather(*work, return_exceptions=True)
            if isinstance(sent, Exception):
                log.info("session broke while sending: %s", sent)
        if isinstance(read, Exception):
            raise read

    async def _read(self, socket: aiohttp.ClientWebSocketResponse, address: str) -> None:
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.BINARY:
                break
            received = decode_to_node(message.data)
            if isinstance(received, OpenStream):
                self._on_stream(received, address)
            else:
                self._receive(received)

    def _receive(self, message: Welcome | Assignments) -> None:
        if isinstance(message, Welcome):
            self._managers = list(message.managers) or self._managers
            self._interval = message.heartbeat
            self._welcomed.set()
            self.last_error = ""
            self._on_welcome(message)
            if not self.connected.is_set():
                self.connected.set()
                self._on_state(True)
            return
        if message.complete:
            known = {task.id for task in message.tasks}
            for task_id in [task_id for task_id in self._latest if task_id not in known]:
                self._drop(task_id)
        for task_id in message.gone_tasks:
            self._drop(task_id)
        self._on_assignments(message)

    def _drop(self, task_id: str) -> None:
        self._latest.pop(task_id, None)
        self._unsent.discard(task_id)

    async def _send(self, socket: aiohttp.ClientWebSocketResponse, address: str) -> None:
        doubt = self._watch(address)
        await self._welcomed.wait()
        loop = asyncio.get_running_loop()
        next_beat = loop.time() + self._interval
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(next_beat):
                    await self._wake.wait()
            self._wake.clear()
            if reason := doubt():
                log.info("the session with %s is given up: %s", address, reason)
                return
            if self._new_description:
                self._new_description = False
                await self._post(socket, Describe(description=self._describe()))
            if self._unsent:
                updates = [TaskStatusUpdate(task_id, self._latest[task_id]) for task_id in sorted(self._unsent)]
                self._unsent.clear()
                await self._post(socket, Statuses(updates=updates))
            if loop.time() >= next_beat:
                await self._post(socket, Heartbeat())
                next_beat = loop.time() + self._interval

    async def _post(self, socket: aiohttp.ClientWebSocketResponse, message: FromNode) -> None:
        await socket.send_bytes(encode_message(message))
