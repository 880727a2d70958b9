"""The driver's work on snapshots: make them, send them to members that need one, receive them. Tasks beside the
node's main path.

Making one holds the loop only for as long as the state machine takes to hand out its (immutable) content; encoding,
encryption and disk are in threads. Receiving ends with the loaded state ready in memory, so installing it is a mere
exchange.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any, Protocol

from .core import Core
from .errors import InvariantBroken
from .messages import Message, SnapshotChunk, SnapshotMeta, SnapshotReply
from .snapshots import SnapshotReader, SnapshotWriter
from .storage import Storage
from .transfer import WINDOW, Incoming, Outgoing, Verdict

log = logging.getLogger(__name__)

MAX_PARTS = 4 * WINDOW
"""Parts that wait to be written: a leader has WINDOW under way, and those of one that was followed by another count."""

IDLE = 30.0
"""Seconds without a part after which a half-received snapshot is thrown away."""


class StateMachine(Protocol):
    """What the log is for. `swarm_agent.store.store.Store` is one."""

    def apply(self, index: int, data: bytes) -> None:
        """Apply a committed entry. In order, each once."""

    def snapshot(self) -> Iterator[bytes]:
        """The present state in parts; the iterator is consumed in a thread."""

    def load(self, chunks: Iterable[bytes]) -> Any:
        """Read parts into a new state without using it yet; called in a thread."""

    def install(self, state: Any) -> None:
        """Use what `load` returned."""


class Node(Protocol):
    """What this needs of the driver."""

    def send(self, message: Message) -> None:
        """Give a message to the transport."""

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a task; its failure stops the node."""

    def on_disk(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        """Run in the thread that writes the log, in order with its writes."""

    def on_files(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        """Run in the thread for snapshots: one after the other, so a file is never closed while something is still at
        work on it, not even when the task that waits is cancelled."""

    def input(self, call: Callable[..., object], *arguments: Any) -> None:
        """Call the core and carry out what it then asks for."""


class SnapshotWork:
    """All snapshot work of one node. `index`: what the newest snapshot on disk stands for."""

    def __init__(self, node: Node, core: Core, storage: Storage, machine: StateMachine, index: int) -> None:
        self.index = index
        self._node = node
        self._core = core
        self._storage = storage
        self._machine = machine
        self._making: asyncio.Task[None] | None = None
        self._outgoing: dict[int, tuple[Outgoing, asyncio.Event]] = {}
        self._incoming = Incoming()
        self._parts: deque[SnapshotChunk] = deque()
        self._part_came = asyncio.Event()
        self._receiver: asyncio.Task[None] | None = None
        self._received: tuple[SnapshotMeta, Any] | None = None

    # --- making ------------------------------------------------------------------------------------------------------

    @property
    def making(self) -> bool:
        """One is being made."""
        return self._making is not None

    def make(self, keep_entries: int, keep_snapshots: int) -> None:
        """Begin to write the state as of now; afterwards drop what it stands for, but for some entries and
        snapshots.
        """
        if self._making is None and self._core.log.applied > self.index:
            self._making = self._node.spawn(self._make(keep_entries, keep_snapshots), "raft-snapshot")

    async def rotate(self, keys: Sequence[bytes]) -> None:
        """Write everything anew under the first of these keys, and remove what is under others."""
        while running := [task for task in (self._making, self._receiver) if task is not None]:
            await asyncio.wait(running)
        self._making = self._node.spawn(self._rotate(keys), "raft-key-rotation")
        await asyncio.wait([self._making])

    async def _rotate(self, keys: Sequence[bytes]) -> None:
        try:
            await self._node.on_disk(lambda: self._storage.snapshots.set_keys(keys))
            index = await self._write()
            log_ = self._core.log
            # Those handed out for writing too: they may lie under the old key, in segments that now go.
            rest = log_.slice(index + 1, log_.handed, 1 << 62) if log_.handed > index else []
            await self._node.on_disk(lambda: self._storage.rotate(keys, rest))
            log.info("raft data is now under a new key, from the snapshot at index %d", index)
        finally:
            self._making = None

    async def _make(self, keep_entries: int, keep_snapshots: int) -> None:
        try:
            index = await self._write()
            self._core.compact(index - keep_entries)
            await self._node.on_disk(lambda: self._storage.compacted(index - keep_entries, keep_snapshots))
        finally:
            self._making = None

    async def _write(self) -> int:
        log_ = self._core.log
        index = log_.applied
        meta = SnapshotMeta(index, log_.term(index) or 0, log_.membership_at(index))
        stream = self._machine.snapshot()
        writer = await self._node.on_files(lambda: self._storage.snapshots.writer(meta, "own"))
        await self._node.on_files(lambda: _write_all(writer, stream))
        self.index = max(self.index, index)
        log.info("raft snapshot at index %d written in %d parts", index, writer.chunks)
        return index

    # --- sending -----------------------------------------------------------------------------------------------------

    def send_to(self, member: int) -> None:
        """Send the newest snapshot to a member; the core is told when that has ended."""
        if member not in self._outgoing:
            self._node.spawn(self._send_to(member), f"raft-snapshot-to-{member:x}")

    def on_reply(self, reply: SnapshotReply) -> None:
        """A member answered a part."""
        if reply.sender in self._outgoing:
            outgoing, wake = self._outgoing[reply.sender]
            outgoing.on_reply(reply)
            wake.set()

    def tick(self) -> None:
        """A tick of the clock."""
        for outgoing, wake in self._outgoing.values():
            outgoing.tick()
            wake.set()

    async def _send_to(self, member: int) -> None:
        reader: SnapshotReader | None = await self._node.on_disk(self._storage.snapshots.newest)
        if reader is None or member in self._outgoing:
            return
        wake = asyncio.Event()
        outgoing = Outgoing(reader.meta)
        self._outgoing[member] = outgoing, wake
        log.info("sending the snapshot at index %d to raft member %x", reader.meta.index, member)
        try:
            await self._send_parts(member, reader, outgoing, wake)
        finally:
            self._node.on_files(reader.close)
            del self._outgoing[member]
            self._node.input(self._core.snapshot_ended, member, reader.meta.index if outgoing.delivered else 0)

    async def _send_parts(self, member: int, reader: SnapshotReader, outgoing: Outgoing, wake: asyncio.Event) -> None:
        core, term = self._core, self._core.term
        ahead: dict[int, bytes | None] = {}
        while not outgoing.ended and core.leadership is not None and core.term == term:
            number = outgoing.next_part()
            if number is None:
                wake.clear()
                await wake.wait()
                continue
            for wanted in (number, number + 1):  # one ahead, to know whether this one is the last
                if wanted not in ahead:
                    ahead[wanted] = await self._node.on_files(functools.partial(reader.chunk, wanted))
            data, after = ahead[number], ahead[number + 1]
            if data is None:
                outgoing.found_end(number)
                continue
            if after is None:
                outgoing.found_end(number + 1)
            self._node.send(SnapshotChunk(core.id, member, term, reader.meta, number, data, after is None))
            ahead = {number + 1: after}

    # --- receiving ---------------------------------------------------------------------------------------------------

    def on_chunks(self, chunks: Sequence[SnapshotChunk]) -> None:
        """Parts came from the leader. What does not fit is dropped: what is not acknowledged comes again."""
        self._parts.extend(chunks[: MAX_PARTS - len(self._parts)])
        self._part_came.set()
        if self._receiver is None and self._parts:
            self._receiver = self._node.spawn(self._receive(), "raft-snapshot-receiver")

    def install(self, meta: SnapshotMeta) -> None:
        """The core accepted the snapshot that was received: use its state."""
        if self._received is None or self._received[0] != meta:
            raise InvariantBroken(f"raft: the core installs a snapshot at index {meta.index} that was not received")
        self._machine.install(self._received[1])
        self.index = meta.index
        log.info("raft member %x installed a snapshot at index %d", self._core.id, meta.index)

    async def _receive(self) -> None:
        writer: SnapshotWriter | None = None
        try:
            while True:
                while self._parts:
                    writer = await self._receive_part(self._parts.popleft(), writer)
                if writer is None:
                    return
                self._part_came.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(IDLE):
                        await self._part_came.wait()
                if not self._parts:
                    return
        finally:
            self._incoming.reset()
            self._receiver = None
            if writer is not None:
                self._node.on_files(writer.abort)

    async def _receive_part(self, chunk: SnapshotChunk, writer: SnapshotWriter | None) -> SnapshotWriter | None:
        verdict = self._incoming.judge(chunk)
        done = False
        if verdict is Verdict.BEGIN:
            if writer is not None:
                await self._node.on_files(writer.abort)
            writer = await self._node.on_files(lambda: self._storage.snapshots.writer(chunk.meta, "received"))
        if verdict is not Verdict.SKIP and writer is not None:
            await self._node.on_files(functools.partial(writer.add, chunk.data))
            if chunk.last:
                complete, writer, done = writer, None, True
                await self._finish(complete)
        wanted = self._incoming.wanted(chunk)
        if done:
            self._incoming.reset()
        self._node.send(SnapshotReply(self._core.id, chunk.sender, chunk.term, chunk.meta.index, wanted, done))
        return writer

    async def _finish(self, writer: SnapshotWriter) -> None:
        name = await self._node.on_files(writer.finish)
        reader: SnapshotReader | None = await self._node.on_disk(lambda: self._storage.snapshots.open(name))
        if reader is None:
            return  # a newer one has taken its place already
        try:
            state = await self._node.on_files(lambda: self._machine.load(reader.chunks()))
        finally:
            self._node.on_files(reader.close)
        self._received = (writer.meta, state)
        try:
            self._node.input(self._core.install, writer.meta)
        finally:
            self._received = None


def _write_all(writer: SnapshotWriter, stream: Iterator[bytes]) -> None:
    for chunk in stream:
        writer.add(chunk)
    writer.finish()
