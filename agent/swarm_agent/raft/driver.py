"""`RaftNode`: a member on an event loop. It carries out what core.py asks for, and turns calls into awaitable
results.

    transport ──receive──▶ ┌──────┐ ──messages──▶ transport
    timer ────tick───────▶ │ core │ ──entries───▶ worker thread: write, sync ──▶ advance, after_persist ──▶ transport
    propose, read… ──────▶ └──────┘ ──committed─▶ state machine ──▶ waiting callers

The loop never waits for the disk. While one sync runs, all that the core wants written queues up and is covered by
the next (group commit). Applying is synchronous and in order. The first member of a cluster campaigns as it starts,
so it leads after two syncs.

Traps: what is answered to callers. `propose` raises LeadershipLost when this member ceases to lead: the entry may
yet be committed by the next leader. `on_leadership(True)` comes only when everything from before is applied, so a
control loop that starts then sees the whole state.

Any FatalError stops the node at once: nothing more is sent or acknowledged, callers fail, and `fatal` is called so
that the process can end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from swarm_agent.model.errors import NoLeader

from .boot import boot
from .core import Core, Ready
from .errors import (
    FatalError,
    InvariantBroken,
    NotLeader,
    Stopped,
)
from .files import Files, OsFiles
from .listeners import Listeners
from .log import Log, entry_size
from .members import Members
from .messages import (
    NOBODY,
    Entry,
    EntryKind,
    Membership,
    Message,
    decode_message,
    encode_message,
)
from .settings import Settings, Status, status_of
from .snapshotting import SnapshotWork, StateMachine
from .storage import Loaded, Storage
from .waiting import Waiting
from .worker import Worker
from .writing import Writer

log = logging.getLogger(__name__)

R = TypeVar("R")


class Transport(Protocol):
    """How members reach each other. Delivery is not needed, order and secrecy are."""

    def send(self, member: int, data: bytes) -> None:
        """Send a message to a member, or drop it; must not block. Addresses are in `RaftNode.membership`."""


class RaftNode:
    """One member. Make it with `RaftNode.start`."""

    WORKER = Worker
    """What makes its threads; simulations have others."""

    def __init__(
        self,
        member_id: int,
        storage: Storage,
        loaded: Loaded,
        machine: StateMachine,
        transport: Transport,
        rng: random.Random,
        settings: Settings,
        fatal: Callable[[FatalError], None] | None,
    ) -> None:
        self.id = member_id
        self.settings = settings
        self._storage = storage
        self._machine = machine
        self._transport = transport
        self._fatal = fatal
        self._core = Core(
            member_id,
            Log(loaded.snapshot, loaded.entries, loaded.hard_state.commit),
            loaded.hard_state,
            rng,
            election_ticks=settings.election_ticks,
            heartbeat_ticks=settings.heartbeat_ticks,
        )
        self.error: FatalError | None = None
        self._loop = asyncio.get_running_loop()
        self._disk = self.WORKER("raft-disk")
        self._files = self.WORKER("raft-snapshots")
        self._writer = Writer(self._disk, storage, self._on_written, self._failed)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._stopping = False
        self._pumping = False
        self._leader_seen = NOBODY
        self._changed = asyncio.Event()
        self._waiting = Waiting(self._loop)
        # Ids of reads are never used again, not by the next incarnation either: old answers may still be under way.
        self._read_id = rng.getrandbits(60)
        self._listeners = Listeners()
        self._entries_since_snapshot = 0
        self._bytes_since_snapshot = 0
        self.members = Members(self, self._core)
        self._snapshots = SnapshotWork(self, self._core, storage, machine, loaded.snapshot.index)

    # --- life --------------------------------------------------------------------------------------------------------

    @classmethod
    async def start(
        cls,
        directory: str | os.PathLike[str] | Files,
        member_id: int,
        keys: Sequence[bytes],
        machine: StateMachine,
        transport: Transport,
        *,
        rng: random.Random,
        bootstrap: str | None = None,
        force_new_cluster: bool = False,
        settings: Settings | None = None,
        fatal: Callable[[FatalError], None] | None = None,
    ) -> RaftNode:
        """Start from what is on disk. An empty directory with `bootstrap` (this member's address) is a new cluster
        of one; without it the member waits to be added by a leader.

        `keys`: 32 bytes each; the first encrypts, all decrypt. `force_new_cluster`: make this the only member,
        whoever else was one; for use after the quorum is lost for good. `fatal` is called when the process must
        end. Raises FatalError if what is on disk cannot be used.
        """
        settings = settings or Settings()
        files = OsFiles(directory) if isinstance(directory, str | os.PathLike) else directory
        storage = Storage(files, keys, member_id, settings.segment_size)

        booting = asyncio.ensure_future(
            asyncio.to_thread(boot, storage, machine, member_id, bootstrap, force_new_cluster=force_new_cluster)
        )
        try:
            loaded, state = await asyncio.shield(booting)
        except BaseException:
            await asyncio.wait([booting])  # the thread goes on if only this task was cancelled
            storage.close()
            raise
        if state is not None:
            machine.install(state)
        node = cls(member_id, storage, loaded, machine, transport, rng, settings, fatal)
        node._begin()
        return node

    def _begin(self) -> None:
        self._schedule_tick()
        alone = self._core.log.membership.voters == (self.id,)
        self.input(self._core.campaign if alone else self._core.has_ready)

    def configure(self, settings: Settings) -> None:
        """Use other settings from now on (those about ticks and snapshots; the segment size stays)."""
        self.settings = settings
        self._core.configure(settings.election_ticks, settings.heartbeat_ticks)

    async def stop(self) -> None:
        """Stop without telling anybody (see `members.transfer_leadership`). What is on disk stays; callers get
        LeadershipLost.
        """
        self._shut()
        tasks = tuple(task for task in self._tasks if task is not asyncio.current_task())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # What already runs in a thread cannot be cancelled; files are closed and unlocked only after it.
        await self._disk.stop()
        await self._files.stop()
        self._storage.close()

    # --- state -------------------------------------------------------------------------------------------------------

    @property
    def leader_id(self) -> int:
        """The member that leads as far as this one knows, or 0."""
        return NOBODY if self._stopping else self._core.leader

    @property
    def is_leader(self) -> bool:
        """This member leads and has applied everything from before."""
        return self._listeners.leads

    @property
    def membership(self) -> Membership:
        """Who is a member, newest change included though it may not be committed: whom to talk to."""
        return self._core.log.membership

    @property
    def stopping(self) -> bool:
        """It was stopped, or has failed: nothing comes of it any more."""
        return self._stopping

    @property
    def removed(self) -> bool:
        """This member was removed from the cluster and knows it."""
        return self._core.removed

    def status(self) -> Status:
        """For people and metrics."""
        return status_of(self._core, self._listeners.leads)

    def on_leadership(self, callback: Callable[[bool], None]) -> Callable[[], None]:
        """Call back when this member begins to lead (all state applied) and when it ceases to. At once if it leads
        now. What is returned ends that.
        """
        return self._listeners.on_leadership(callback)

    def on_membership(self, callback: Callable[[Membership], None]) -> Callable[[], None]:
        """Call back with every committed change of the members, and now with what is known. What is returned ends
        that.
        """
        return self._listeners.on_membership(callback, self._core.log.membership)

    # --- the log -----------------------------------------------------------------------------------------------------

    def next_index(self) -> int:
        """See `store.Proposer`."""
        if self._stopping or not self._listeners.leads:
            raise NotLeader(self.leader_id)
        return self._core.log.last + 1

    async def propose(self, data: bytes) -> int:
        """Replicate an entry; its index is returned once it is committed and applied here.

        Raises NotLeader and ProposalDropped (nothing happened), LeadershipLost (it may yet be committed).
        """
        return await self.proposed(lambda: self._core.propose(data))

    async def barrier(self) -> None:
        """See `store.Proposer`."""
        await self.read_barrier()

    async def read_barrier(self, timeout: float = 5.0) -> None:
        """Return when everything that was committed anywhere before the call is applied here. Raises NoLeader."""
        deadline = self._loop.time() + timeout
        retry = self.settings.tick * self.settings.election_ticks
        while not self._stopping and (left := deadline - self._loop.time()) > 0:
            self._read_id += 1
            id_ = self._read_id
            future = self._waiting.for_read(id_)
            try:
                self.input(self._core.read, id_)
                async with asyncio.timeout(min(left, retry)):
                    index = await future
                await self._wait_applied(index, deadline)
                return
            except NotLeader:
                await self.changed(left)
            except TimeoutError:
                continue  # the question or the answer was lost, or the leader changed: ask anew
            finally:
                self._waiting.forget_read(id_)
        raise NoLeader

    async def proposed(self, append: Callable[[], int]) -> int:
        """Append an entry and wait until it is applied here; see `propose`."""
        if self._stopping:
            raise NotLeader(NOBODY)
        future = self._waiting.for_entry(append(), self._core.term)
        self._pump()
        return await future

    async def _wait_applied(self, index: int, deadline: float) -> None:
        if self._core.log.applied >= index:
            return
        async with asyncio.timeout(max(0.0, deadline - self._loop.time())):
            await self._waiting.for_index(index)

    # --- keys --------------------------------------------------------------------------------------------------------

    async def rotate_keys(self, keys: Sequence[bytes]) -> None:
        """Encrypt with the first of these keys from now on. When it returns nothing on disk needs any other key.

        Store the new key before, beside the old one, and give both here, new first; forget the old one afterwards.
        If it is interrupted both are needed to start again. Raises Stopped when the node was stopped before the end.
        """
        await self._snapshots.rotate(keys)
        if self.error is not None:
            raise self.error
        if self._stopping:
            raise Stopped

    # --- inputs ------------------------------------------------------------------------------------------------------

    async def receive(self, data: bytes) -> None:
        """A message from the transport. What cannot be read is dropped with a log line."""
        self.deliver(data)

    def deliver(self, data: bytes) -> None:
        """Like `receive`, for callers that are not coroutines."""
        if self._stopping or self._writer.full:  # then it is lost, as on the network
            return
        try:
            message = decode_message(data)
        except ValueError as error:  # msgspec's errors are ValueErrors
            log.warning("dropped a raft message of %d bytes: %s", len(data), error)
            return
        self.input(self._core.step, message)

    def _schedule_tick(self) -> None:
        # Rescheduled from now, not from when it was due: after a pause waiting messages are read before time goes on.
        self._timer = self._loop.call_later(self.settings.tick, self._tick)

    def _tick(self) -> None:
        if self._stopping:
            return
        self._schedule_tick()
        self._snapshots.tick()
        self._changed.set()
        if self._writer.hanging > self.settings.stall and self._core.leadership is not None:
            log.error("a write to the raft log has hung for %.0f s; giving up leadership", self._writer.hanging)
            self._core.become_follower(self._core.term, NOBODY)
        if not self._writer.full:
            self.input(self._core.tick)

    def input(self, call: Callable[..., object], *arguments: Any) -> None:
        """Call the core and carry out what it then asks for. A FatalError stops the node and does not come out here."""
        if self._stopping:
            return
        try:
            call(*arguments)
        except FatalError as error:
            self._die(error)
        else:
            self._pump()

    # --- outputs -----------------------------------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Give a message to the transport. One that was stopped, or has failed, says nothing: tasks may still run."""
        if self._stopping:
            return
        self._transport.send(message.to, encode_message(message))

    def _pump(self) -> None:
        """Carry out everything the core asks for. Calls from callbacks in here leave it to the outer one.

        After each round of applying, other tasks get their turn: a long log is applied in slices.
        """
        if self._pumping or self._stopping:
            return
        self._pumping = True
        try:
            while self._core.has_ready() and not self._stopping:
                ready = self._core.ready()
                self._carry_out(ready)
                if ready.committed and self._core.has_ready():
                    self._loop.call_soon(self._pump)
                    break
        except FatalError as error:
            self._die(error)
            return
        finally:
            self._pumping = False
        self._observe()

    def _carry_out(self, ready: Ready) -> None:
        for message in ready.messages:
            self.send(message)
        if ready.persists or not self._writer.idle:
            self._writer.add(ready)
        else:
            self._written(ready)
        if ready.snapshot is not None:
            self._snapshots.install(ready.snapshot)
            self._entries_since_snapshot = self._bytes_since_snapshot = 0
            self._listeners.tell_membership(ready.snapshot.membership)
            self._after_apply()
        for entry in ready.committed:
            self._apply(entry)
        if ready.committed:
            self._after_apply()
        for id_, index in ready.reads:
            self._waiting.read_confirmed(id_, index)
        for member in ready.snapshots_wanted:
            self._snapshots.send_to(member)
        for reply in ready.snapshot_replies:
            self._snapshots.on_reply(reply)
        self._snapshots.on_chunks(ready.chunks)

    def _on_written(self, readys: Sequence[Ready]) -> None:
        """These are on disk."""
        if self._stopping:
            return
        try:
            for ready in readys:
                self._written(ready)
        except FatalError as error:
            self._die(error)
        else:
            self._pump()

    def _written(self, ready: Ready) -> None:
        for message in ready.after_persist:
            if message.to != self.id:
                self.send(message)
        self._core.advance(ready)

    def _apply(self, entry: Entry) -> None:
        if entry.kind is EntryKind.MEMBERSHIP:
            self._listeners.tell_membership(self._core.log.membership_at(entry.index))
        elif entry.data:
            try:
                self._machine.apply(entry.index, entry.data)
            except Exception as error:
                raise InvariantBroken(f"raft: entry {entry.index} could not be applied: {error!r}") from error
        self._entries_since_snapshot += 1
        self._bytes_since_snapshot += entry_size(entry)
        self._waiting.entry_applied(entry)

    def _after_apply(self) -> None:
        self._waiting.index_reached(self._core.log.applied)
        settings = self.settings
        due = self._entries_since_snapshot >= settings.snapshot_interval
        if (due or self._bytes_since_snapshot >= settings.snapshot_bytes) and not self._snapshots.making:
            self._entries_since_snapshot = self._bytes_since_snapshot = 0
            self._snapshots.make(settings.keep_entries, settings.keep_snapshots)

    def _observe(self) -> None:
        """Tell of changes of leadership."""
        core = self._core
        if core.leader != self._leader_seen:
            self._leader_seen = core.leader
            self._changed.set()
            if core.leader != NOBODY:
                log.info("raft member %x follows leader %x in term %d", self.id, core.leader, core.term)
        if core.leadership is None:
            self._waiting.leadership_lost()
        if core.leads != self._listeners.leads:
            log.info("raft member %x %s in term %d", self.id, "leads" if core.leads else "leads no more", core.term)
            self._listeners.tell_leadership(core.leads)

    # --- inside ------------------------------------------------------------------------------------------------------

    def on_disk(self, call: Callable[[], R]) -> asyncio.Future[R]:
        """Run in the thread that writes the log, in order with its writes."""
        return self._disk.run(call)

    def on_files(self, call: Callable[[], R]) -> asyncio.Future[R]:
        """Run in the thread for snapshots, which may take long: writes of the log do not wait for it."""
        return self._files.run(call)

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a task. If it fails the node stops: nothing that runs here may fail and leave the rest going."""
        task = self._loop.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        """Something that must not fail did."""
        if not isinstance(error, FatalError):
            log.error("a part of raft member %x failed", self.id, exc_info=error)
            error = InvariantBroken(f"raft: a part failed: {error!r}")
        self._die(error)

    async def changed(self, seconds: float) -> None:
        """Return at the next tick or change of leader, at the latest after some seconds."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._changed.wait()

    def _die(self, error: FatalError) -> None:
        if self.error is not None:
            return
        self.error = error
        log.critical("raft member %x stops: %s", self.id, error)
        self._shut()
        if self._fatal is not None:
            self._fatal(error)

    def _shut(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        self._writer.stop()
        self._waiting.leadership_lost()
        self._changed.set()
        if self._listeners.leads:
            self._listeners.tell_leadership(False)
