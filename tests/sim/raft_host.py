"""One simulated machine: the real core, codec, log and snapshots, on a simulated disk and network.

It does what raft/driver.py does, in simulated time, and with a point before every effect at which it may crash.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from swarm_agent.raft.core import Core, Ready
from swarm_agent.raft.errors import FatalError, NotLeader, RaftError
from swarm_agent.raft.log import Log
from swarm_agent.raft.messages import (
    NOBODY,
    Entry,
    EntryKind,
    HardState,
    Membership,
    Message,
    SnapshotChunk,
    SnapshotMeta,
    SnapshotReply,
    decode_message,
    encode_membership,
    encode_message,
)
from swarm_agent.raft.snapshots import SnapshotReader, SnapshotWriter
from swarm_agent.raft.storage import Storage
from swarm_agent.raft.transfer import Incoming, Outgoing, Verdict
from swarm_agent.raft.wal import Batch

from .raft_disk import SimFiles
from .raft_oracle import DiskShadow, Violation, chain

if TYPE_CHECKING:
    from .raft_world import World

KEY = b"simulation" + bytes(22)
SNAPSHOT_INTERVAL = 25
KEEP_ENTRIES = 5
CHUNK = 200


class Crashed(Exception):
    """The machine loses power at this point."""


class Machine:
    """A state machine that remembers every write by its index, and a fingerprint of its history."""

    def __init__(self) -> None:
        self.index = 0
        self.chain = b""
        self.values: dict[int, str] = {}

    def apply(self, index: int, data: bytes) -> None:
        self.index = index
        self.chain = chain(self.chain, index, data)
        self.values[index] = data.decode()

    def snapshot(self) -> Iterator[bytes]:
        data = msgspec.msgpack.encode((self.index, self.chain, self.values))
        return iter([data[at : at + CHUNK] for at in range(0, len(data), CHUNK)])

    def load(self, chunks: Iterable[bytes]) -> Machine:
        other = Machine()
        other.index, other.chain, other.values = msgspec.msgpack.decode(
            b"".join(chunks), type=tuple[int, bytes, dict[int, str]]
        )
        return other


class Host:
    """A member's machine. `start` boots it, `crash` cuts its power."""

    def __init__(self, world: World, id_: int) -> None:
        self.world = world
        self.id = id_
        self.files = SimFiles(random.Random(world.rng.getrandbits(64)))
        self.shadow = DiskShadow()
        self.alive = False
        self.incarnation = 0
        self.crash_in: int | None = None
        self.paused_until = 0.0
        self.slow_until = 0.0
        self.skew = world.rng.uniform(0.8, 1.25)
        self.core: Core = None  # type: ignore[assignment]

    # --- life --------------------------------------------------------------------------------------------------------

    def install(self, membership: Membership) -> None:
        """Give the machine the first entry of a new cluster, before it is started for the first time."""
        storage = self._storage()
        storage.load()
        entry = Entry(1, 1, EntryKind.MEMBERSHIP, encode_membership(membership))
        storage.bootstrap([entry], HardState(1, NOBODY, 1))
        self.shadow.synced([Batch(HardState(1, NOBODY, 1), None, [entry])])

    def start(self) -> None:
        """Boot: everything but the disk is new."""
        self.files.effect = lambda: None
        self.incarnation += 1
        self.alive = True
        self.storage = self._storage()
        loaded = self.storage.load()
        self.machine = Machine()
        if loaded.reader is not None:
            self.machine = self.machine.load(loaded.reader.chunks())
        log = Log(loaded.snapshot, loaded.entries, loaded.hard_state.commit)
        self._check_recovered(loaded.hard_state, log)
        self.core = Core(
            self.id,
            log,
            loaded.hard_state,
            random.Random(self.world.rng.getrandbits(64)),
            max_append_bytes=self.world.max_append_bytes,
        )
        self.checked = 0
        self.queue: deque[Ready] = deque()
        self.writing = False
        self.proposals: dict[int, tuple[int, str]] = {}
        self.reads: dict[int, int] = {}
        self.waiting_reads: list[tuple[int, int]] = []
        self.read_id = self.world.rng.getrandbits(40)
        self.snapshot_index = loaded.snapshot.index
        self.outgoing: dict[int, tuple[Outgoing, SnapshotReader, int]] = {}
        self.incoming = Incoming()
        self.writer: SnapshotWriter | None = None
        self.received: tuple[SnapshotMeta, Machine] | None = None
        self.files.effect = self.effect
        self.world.after(self.world.rng.uniform(0, 100), self._tick, self)

    def crash(self) -> None:
        """Lose power."""
        self.alive = False
        self.crash_in = None
        self.incarnation += 1
        self.files.effect = lambda: None
        self.files.crash()

    def effect(self) -> None:
        """A point at which the machine may lose power."""
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in <= 0:
                raise Crashed

    def guarded(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Run something on this machine: it may crash or die of its disk; afterwards everything is checked."""
        if not self.alive:
            return
        try:
            call(*arguments)
        except Crashed:
            self.world.note(f"{self.id} crashes")
            self.crash()
        except FatalError as error:
            if not self.files.failing:
                raise Violation(f"member {self.id}: {error}") from error
            self.world.note(f"{self.id} dies of its disk")
            self.crash()
        else:
            self.checked = self.world.oracle.observe(self.id, self.core, self.checked)

    def _storage(self) -> Storage:
        return Storage(self.files, [KEY], self.id, segment_size=16 * 1024)

    def _check_recovered(self, hard_state: HardState, log: Log) -> None:
        shadow = self.shadow
        if (hard_state.term, hard_state.vote) != (shadow.hard_state.term, shadow.hard_state.vote) and (
            hard_state.term < shadow.hard_state.term
            or (hard_state.term == shadow.hard_state.term and shadow.hard_state.vote)
        ):
            raise Violation(f"member {self.id} had {shadow.hard_state} on disk and came back with {hard_state}")
        self.shadow = DiskShadow()
        self.shadow.hard_state = hard_state
        self.shadow.snapshot = SnapshotMeta(log.applied, 0)
        self.shadow.terms = {entry.index: entry.term for entry in log.slice(log.first, log.last, 1 << 40)}

    # --- inputs ------------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self.world.after(100 * self.skew, self._tick, self)
        for outgoing, _, _ in self.outgoing.values():
            outgoing.tick()
        self._drive_transfers()
        self.core.tick()
        self.pump()

    def deliver(self, data: bytes) -> None:
        self.core.step(decode_message(data))
        self.pump()

    def write(self, value: str) -> None:
        """A client's write."""
        try:
            index = self.core.propose(value.encode())
        except RaftError:
            return
        self.proposals[index] = (self.core.term, value)
        self.pump()

    def read(self) -> None:
        """A client's read."""
        self.read_id += 1
        try:
            self.reads[self.read_id] = self.world.oracle.read_begins()
            self.core.read(self.read_id)
        except NotLeader:
            del self.reads[self.read_id]
        self.pump()

    def change(self, edit: Callable[[Membership], Membership]) -> None:
        """An administrator's change of the members."""
        try:
            self.core.propose_membership(edit(self.core.log.membership))
        except RaftError:
            return
        self.pump()

    def transfer(self, to: int) -> None:
        """An administrator moves leadership."""
        try:
            self.core.transfer(to)
        except RaftError:
            return
        self.pump()

    # --- outputs, as in raft/driver.py -------------------------------------------------------------------------------

    def pump(self) -> None:
        while self.core.has_ready():
            ready = self.core.ready()
            self.world.oracle.wrote(self.core.log, ready.entries)
            for message in ready.messages:
                self.send(message)
            if ready.persists or self.queue or self.writing:
                self.queue.append(ready)
            else:
                self._written(ready)
            if ready.snapshot is not None:
                assert self.received is not None and self.received[0] == ready.snapshot
                self.machine = self.received[1]
                self.snapshot_index = ready.snapshot.index
                self.world.oracle.applied(self.id, self.machine.index, self.machine.chain)
            for entry in ready.committed:
                self._apply(entry)
            self._answer_reads(ready.reads)
            for member in ready.snapshots_wanted:
                self._begin_transfer(member)
            for reply in ready.snapshot_replies:
                if reply.sender in self.outgoing:
                    self.outgoing[reply.sender][0].on_reply(reply)
                    self._drive_transfers()
            for chunk in ready.chunks:
                self._receive(chunk)
        if self.queue and not self.writing:
            self._begin_write()

    def send(self, message: Message) -> None:
        self.effect()
        if message.to != self.id:
            self.world.oracle.sends(self.core, message, self.shadow)
            self.world.send(self.id, message.to, encode_message(message))

    def _begin_write(self) -> None:
        readys = tuple(self.queue)
        self.queue.clear()
        batches = [Batch(r.hard_state, r.snapshot, tuple(r.entries)) for r in readys if r.persists]
        self.writing = True
        if batches:
            self.storage.wal.append(batches)
        slow = self.world.now < self.slow_until
        delay = self.world.rng.uniform(200, 1500) if slow else self.world.rng.expovariate(0.5)
        self.world.after(delay if batches else 0.0, self._end_write, self, readys, batches)

    def _end_write(self, readys: tuple[Ready, ...], batches: list[Batch]) -> None:
        if batches:
            self.storage.wal.sync()
            self.shadow.synced(batches)
        self.writing = False
        for ready in readys:
            self._written(ready)
        self.pump()

    def _written(self, ready: Ready) -> None:
        for message in ready.after_persist:
            self.send(message)
        self.effect()
        self.core.advance(ready)

    def _apply(self, entry: Entry) -> None:
        self.effect()
        self.world.oracle.applies(self.id, entry, self.shadow)
        if entry.kind is EntryKind.DATA and entry.data:
            self.machine.apply(entry.index, entry.data)
            self.world.oracle.applied(self.id, entry.index, self.machine.chain)
        term, value = self.proposals.pop(entry.index, (0, ""))
        if term == entry.term:
            self.world.oracle.acknowledge(entry.index, value)
        if self.core.log.applied - self.snapshot_index >= SNAPSHOT_INTERVAL and entry.index == self.core.log.applied:
            self._make_snapshot(entry.index)

    def _answer_reads(self, confirmed: list[tuple[int, int]]) -> None:
        for id_, index in confirmed:
            at_least = self.reads.pop(id_, None)
            if at_least is not None:  # else answered before: messages may come twice
                self.waiting_reads.append((at_least, index))
        for at_least, index in self.waiting_reads:
            if self.core.log.applied >= index:
                self.world.oracle.read_ends(self.id, at_least, self.core.log.applied)
        self.waiting_reads = [waiting for waiting in self.waiting_reads if waiting[1] > self.core.log.applied]

    # --- snapshots ---------------------------------------------------------------------------------------------------

    def _make_snapshot(self, index: int) -> None:
        meta = SnapshotMeta(index, self.core.log.term(index) or 0, self.core.log.membership_at(index))
        writer = self.storage.snapshots.writer(meta, "own")
        for data in self.machine.snapshot():
            writer.add(data)
        writer.finish()
        self.snapshot_index = index
        self.core.compact(index - KEEP_ENTRIES)
        if not self.writing:  # removing segments runs between writes, as in the driver's one thread
            self.storage.compacted(index - KEEP_ENTRIES, 0)

    def _begin_transfer(self, member: int) -> None:
        reader = self.storage.snapshots.newest()
        if reader is not None and member not in self.outgoing:
            self.outgoing[member] = (Outgoing(reader.meta), reader, self.core.term)
            self._drive_transfers()

    def _drive_transfers(self) -> None:
        for member, (outgoing, reader, term) in list(self.outgoing.items()):
            while self.core.leadership is not None and (number := outgoing.next_part()) is not None:
                data = reader.chunk(number)
                if data is None:
                    outgoing.found_end(number)
                    break
                last = reader.chunk(number + 1) is None
                self.send(SnapshotChunk(self.id, member, term, reader.meta, number, data, last))
            if outgoing.ended or self.core.leadership is None or self.core.term != term:
                del self.outgoing[member]
                self.core.snapshot_ended(member, reader.meta.index if outgoing.delivered else 0)

    def _receive(self, chunk: SnapshotChunk) -> None:
        verdict = self.incoming.judge(chunk)
        done = False
        if verdict is Verdict.BEGIN:
            if self.writer is not None:
                self.writer.abort()
            self.writer = self.storage.snapshots.writer(chunk.meta, "received")
        if verdict is not Verdict.SKIP and self.writer is not None:
            self.writer.add(chunk.data)
            if chunk.last:
                done = True
                name = self.writer.finish()
                self.writer = None
                reader = self.storage.snapshots.open(name)
                assert reader is not None
                self.received = (reader.meta, Machine().load(reader.chunks()))
                self.core.install(reader.meta)
        wanted = self.incoming.wanted(chunk)
        if done:
            self.incoming.reset()
        self.send(SnapshotReply(self.id, chunk.sender, chunk.term, chunk.meta.index, wanted, done))
