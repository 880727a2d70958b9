"""The gossip node that the agent runs: sockets and clock around `core.Core`.

UDP is read with add_reader and recvfrom until the socket is dry: five times cheaper than asyncio's transport, and
before any timer runs, all that had arrived is read (a paused process must see the acks that wait for it before it
accuses anybody). TCP on the same port carries anti-entropy, large rows and fallback pings.

    g = GossipNode("id", ("0.0.0.0", 7946), ("10.0.0.1", 7946), label=b"cluster id", keys=[key])
    await g.start()
    await g.join([("10.0.0.2", 7946)])
    version = g.publish("endpoints", "task id", b"...")
    late = await g.wait_applied(version, 2.0)

All methods belong to the event loop that ran start(). Callbacks run there too, after the changes, many changes at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import time
from collections.abc import Callable, Iterable, Sequence

from . import inspect
from .config import Config
from .core import Core
from .messages import Malformed
from .seal import SESSION_SIZE, Keyring, Refused
from .streams import StreamServer, exchange
from .types import (
    AckChanged,
    Address,
    GossipError,
    Member,
    MemberChanged,
    Notice,
    OpenStream,
    Row,
    RowsChanged,
    SendPacket,
    State,
    StreamKind,
    Version,
)

log = logging.getLogger("swarm.gossip")

DATAGRAM = 65_536  # recvfrom above 128 KiB makes CPython map and unmap memory each time
DRAIN = 256  # datagrams per wake-up, so that a flood cannot keep the loop
RECEIVE_BUFFER = 4 * 1024 * 1024  # the socket's, so that a pause of a second loses nothing
STREAM_TIMEOUT = 10.0
PORT = 7946

MemberCallback = Callable[[Member, State | None], None]
Token = dict[str, Version]


class GossipNode:
    """See the module. `bind` port 0 picks a free one (tests); `advertise` port 0 stands for the bound one."""

    def __init__(
        self,
        node_id: str,
        bind: Address,
        advertise: Address,
        label: bytes | str,
        keys: Sequence[bytes],
        *,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        meta: bytes = b"",
        config: Config | None = None,
        incarnation: int | None = None,
    ) -> None:
        self._id = node_id
        self._bind = bind
        self._advertise = advertise
        self._label = label.encode() if isinstance(label, str) else bytes(label)
        self._ring = Keyring(keys)
        self._rng = rng or random.Random()
        self._clock = clock
        self._meta = meta
        self._config = config or Config()
        self._incarnation = incarnation
        self._core: Core | None = None
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._streams = StreamServer(self._label, self._ring, self._serve, self._count)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._row_callbacks: list[Callable[[], None]] = []
        self._member_callbacks: list[MemberCallback] = []
        self._rows_dirty = False
        self._member_events: list[MemberChanged] = []
        self._notify_planned = False
        self._ack_waiters: set[asyncio.Event] = set()
        self._joins: dict[Address, list[asyncio.Future[bool]]] = {}
        self._farewell = asyncio.Event()

    # -- life

    async def start(self) -> None:
        """Bind UDP and TCP. Raises OSError that names the address when it is taken."""
        self._loop = asyncio.get_running_loop()
        self._socket, listener = _bind(self._bind)
        self._bind = self._socket.getsockname()[:2]
        host, port = self._advertise
        self._advertise = (host, port or self._bind[1])
        now = self._clock()
        self._core = Core(
            self._id,
            *self._advertise,
            label=self._label,
            ring=self._ring,
            rng=self._rng,
            now=now,
            incarnation=self._incarnation if self._incarnation is not None else int(time.time() * 1000),
            session=os.urandom(SESSION_SIZE),
            meta=self._meta,
            config=self._config,
        )
        self._core.sync.on_done = self._sync_done
        self._server = await asyncio.start_server(self._streams.handle, sock=listener)
        self._loop.add_reader(self._socket, self._readable)
        self._core.start(now)
        self._pump()

    async def join(self, addresses: Iterable[Address], timeout: float = 5.0) -> int:
        """Exchange all with the nodes there; how many answered. The addresses are kept as seeds and called again
        whenever no live member is there, so a cluster that was split or fully restarted finds together.
        """
        loop, core = self._running()
        found: list[Address] = []
        for host, port in addresses:
            infos = await loop.getaddrinfo(host, port, family=self._family, type=socket.SOCK_DGRAM)
            found += [(str(info[4][0]), int(info[4][1])) for info in infos[:1]]
        targets = [address for address in dict.fromkeys(found) if address != self._advertise]
        core.seeds = tuple(targets)
        futures: list[asyncio.Future[bool]] = []
        for address in targets:
            future: asyncio.Future[bool] = loop.create_future()
            self._joins.setdefault(address, []).append(future)
            futures.append(future)
            core.join(self._clock(), address)
        self._pump()
        if not futures:
            return 0
        done, _ = await asyncio.wait(futures, timeout=timeout)
        return sum(future.result() for future in done)

    async def leave(self, timeout: float = 3.0) -> None:
        """Say farewell to the others, so that they do not take it for a death. Call stop() after it."""
        _, core = self._running()
        core.leave(self._clock())
        self._pump()
        self._farewell = asyncio.Event()
        try:
            async with asyncio.timeout(timeout):
                while not core.left:
                    self._farewell.clear()
                    await self._farewell.wait()
        except TimeoutError:
            pass  # others will find out by probing

    async def stop(self) -> None:
        """Close everything at once. Without leave() before it, others see a death."""
        if self._loop is None or self._socket is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._socket = None
        if self._server is not None:
            self._server.close()
        await self._streams.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for event in self._ack_waiters:
            event.set()

    def set_keys(self, keys: Sequence[bytes]) -> None:
        """Replace the keyring; the first key encrypts. To lose no packet: add a key last everywhere, then move it
        first, then drop the old one.
        """
        self._ring.replace(keys)

    def set_seeds(self, addresses: Iterable[Address]) -> None:
        """Addresses to call while no live member is there (the managers')."""
        self._running()[1].seeds = tuple(addresses)

    def set_meta(self, meta: bytes) -> None:
        """Change what members() shows of this node everywhere; at most Config.meta_limit bytes."""
        if len(meta) > self._config.meta_limit:
            raise GossipError(f"meta has {len(meta)} bytes, the limit is {self._config.meta_limit}")
        self._meta = meta
        self._running()[1].membership.set_meta(meta)
        self._pump()

    # -- members

    @property
    def address(self) -> Address:
        """What others use to reach this node."""
        return self._advertise

    def members(self) -> list[Member]:
        return self._running()[1].members()

    def member(self, id: str) -> Member | None:
        """One of members(), without a walk over all; None when it is not known."""
        return self._running()[1].member(id)

    def on_members(self, callback: MemberCallback) -> None:
        """callback(member, old state or None for a new one), per change."""
        self._member_callbacks.append(callback)

    # -- rows

    def publish(self, table: str, key: str, value: bytes) -> Version:
        """Create or replace an own row. Raises RowTooLarge."""
        version = self._running()[1].rows.publish(table, key, bytes(value))
        self._pump()
        return version

    def withdraw(self, table: str, key: str) -> Version:
        """Remove an own row; withdrawing what is not there changes nothing."""
        version = self._running()[1].rows.publish(table, key, None)
        self._pump()
        return version

    def baseline(self) -> Version:
        """Say that this process has published what it had to from the start. Rows left by its predecessor, shown until
        now so that a restart does not make endpoints blink, then go (without this: after Config.takeover_grace)."""
        version = self._running()[1].rows.baseline()
        self._pump()
        return version

    def rows(self, table: str) -> list[Row]:
        """Rows of all live owners, by owner and key; rows of dead ones are hidden until they return."""
        return self._running()[1].rows.rows(table)

    def on_rows(self, callback: Callable[[], None]) -> None:
        """Called after rows changed; read them with rows(), then snapshot() and mark_applied()."""
        self._row_callbacks.append(callback)

    def snapshot(self) -> Token:
        """What this node has seen so far, to be handed to mark_applied once the host is in that state."""
        return self._running()[1].rows.snapshot()

    def mark_applied(self, token: Token | None = None) -> None:
        """The host (kernel, DNS) now is as rows() was at the snapshot; owners are told. Without a token: as it is
        now.
        """
        rows = self._running()[1].rows
        rows.acks.mark(rows.snapshot() if token is None else token)
        self._pump()

    async def wait_applied(self, version: Version, timeout: float) -> set[str]:
        """Wait until all live members have applied this own version; ids of those that have not in time (empty: all
        have). Members that die or leave meanwhile do not count.
        """
        _, core = self._running()
        acks = core.rows.acks
        changed = asyncio.Event()
        self._ack_waiters.add(changed)
        handle = acks.wait(version.sequence)
        self._pump()
        try:
            async with asyncio.timeout(timeout):
                while acks.missing(version.sequence) and self._socket is not None:
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            pass
        finally:
            acks.end_wait(handle)
            self._ack_waiters.discard(changed)
        return acks.missing(version.sequence)

    # -- diagnosis

    def stats(self) -> dict[str, int]:
        """Counters (only growing) and gauges by name, for metrics and for people."""
        return self._running()[1].stats()

    def explain(self, table: str, key: str, owner: str) -> str:
        """Why this row is, or is not, in rows(table) here: a sentence for people."""
        return self._running()[1].rows.explain(table, key, owner)

    def view(self) -> inspect.GossipView:
        """Members, queues and counters as this node sees them, for people."""
        return inspect.view(self._running()[1])

    def explain_member(self, id: str) -> list[str]:
        """Why that member is in its state here, in sentences; empty when it is not known."""
        return inspect.explain_member(self._running()[1], id)

    def explain_key(self, table: str, key: str) -> list[str]:
        """Who has a row of that key, and what has become of it; empty when nobody ever had it as far as known here."""
        return inspect.explain_key(self._running()[1], table, key)

    def keys_like(self, table: str, prefix: str) -> list[str]:
        """Keys of a table that begin so, hidden and withdrawn ones too."""
        return inspect.keys_like(self._running()[1], table, prefix)

    # -- inner: loop and sockets

    def _running(self) -> tuple[asyncio.AbstractEventLoop, Core]:
        if self._loop is None or self._core is None:
            raise GossipError("this gossip node is not started: await start() first")
        return self._loop, self._core

    @property
    def _family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self._bind[0] else socket.AF_INET

    def _readable(self) -> None:
        self._drain()
        self._pump()

    def _drain(self) -> None:
        sock, core = self._socket, self._core
        if sock is None or core is None:
            return
        for _ in range(DRAIN):
            try:
                data, address = sock.recvfrom(DATAGRAM)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                core.kernel.counters["receive_errors"] += 1  # an ICMP error of an earlier send; the next read goes on
                continue
            core.receive(self._clock(), address[:2], data)

    def _on_timer(self) -> None:
        self._timer = None
        self._drain()
        if self._core is not None:
            self._core.tick(self._clock())
            self._farewell.set()
        self._pump()

    def _pump(self) -> None:
        """Do what the core asks for, and set the timer anew."""
        core, loop = self._core, self._loop
        if core is None or loop is None or self._socket is None:
            return
        for effect in core.take():
            match effect:
                case SendPacket(to, data):
                    self._send(to, data)
                case OpenStream():
                    task = loop.create_task(self._stream(effect))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                case RowsChanged():
                    self._rows_dirty = True
                case MemberChanged():
                    self._member_events.append(effect)
                case AckChanged():
                    for event in self._ack_waiters:
                        event.set()
                case Notice(text):
                    log.warning("gossip: %s", text)
        if (self._rows_dirty or self._member_events) and not self._notify_planned:
            self._notify_planned = True
            loop.call_soon(self._notify)
        deadline = core.next_deadline()
        if self._timer is not None:
            if deadline == self._timer_at:
                return
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            self._timer_at = deadline
            self._timer = loop.call_later(max(0.0, deadline - self._clock()), self._on_timer)

    def _send(self, to: Address, data: bytes) -> None:
        assert self._socket is not None
        try:
            self._socket.sendto(data, to)
        except OSError:
            self._count("send_errors")  # no route, full buffer: as good as lost on the way

    def _notify(self) -> None:
        self._notify_planned = False
        events, self._member_events = self._member_events, []
        dirty, self._rows_dirty = self._rows_dirty, False
        for event in events:
            for on_member in self._member_callbacks:
                self._call(on_member, event.member, event.old)
        if dirty:
            for on_rows in self._row_callbacks:
                self._call(on_rows)

    @staticmethod
    def _call(callback: Callable[..., None], *args: object) -> None:
        try:
            callback(*args)
        except Exception:
            log.exception("gossip: a callback failed")

    # -- inner: streams

    async def _stream(self, request: OpenStream) -> None:
        _, core = self._running()
        timeout = STREAM_TIMEOUT
        if request.kind is StreamKind.PING:
            timeout = self._config.probe_interval * self._config.awareness_max
        answered = False

        def on_connected() -> None:
            if request.kind is StreamKind.PING:
                self._drain()
                core.stream_connected(self._clock(), request)
                self._pump()

        def on_reply(payload: bytes) -> bytes:
            nonlocal answered
            self._drain()
            final = core.stream_reply(self._clock(), request, payload)
            answered = True
            self._pump()
            return final

        try:
            await exchange(request.to, self._label, self._ring, request.request, on_connected, on_reply, timeout)
        except (OSError, EOFError, TimeoutError, Refused, Malformed) as error:
            log.debug("gossip: %s with %s:%d failed: %r", request.kind.value, *request.to, error)
            if isinstance(error, ConnectionRefusedError) and request.kind is StreamKind.PING:
                self._drain()
                core.stream_refused(self._clock(), request)
            if not answered:
                core.stream_failed(self._clock(), request)
                self._pump()

    def _serve(self, payload: bytes) -> bytes:
        _, core = self._running()
        self._drain()
        answer = core.serve(self._clock(), payload)
        self._pump()
        return answer

    def _count(self, name: str) -> None:
        if self._core is not None:
            self._core.kernel.counters[name] += 1

    def _sync_done(self, to: Address, ok: bool) -> None:
        for future in self._joins.pop(to, []):
            if not future.done():
                future.set_result(ok)


def _bind(address: Address) -> tuple[socket.socket, socket.socket]:
    """A UDP and a listening TCP socket on the same port."""
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(32 if port == 0 else 1):
        datagram = socket.socket(family, socket.SOCK_DGRAM)
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            datagram.setblocking(False)
            datagram.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            datagram.bind((host, port))
            chosen = datagram.getsockname()[1]
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, chosen))
            return datagram, listener
        except OSError as error:
            datagram.close()
            listener.close()
            last = OSError(error.errno, f"gossip cannot bind {host}:{port}, UDP and TCP: {error.strerror}")
    raise last
