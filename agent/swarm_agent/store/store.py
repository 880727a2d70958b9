"""`Store`: the replicated state of the cluster, on every manager.

Reads see the tables as of the last applied log entry (`view`), or after a round that proves them current (`read`).
Writes run on the leader: `update(fn)` queues a function; the pump evaluates what is queued, in order and each on top
of the one before, and proposes all as *one* log entry; callers return when it is committed and applied here. While it
is in flight new calls queue up, so the more clients write, the larger the batches, and one disk sync serves them all.

One entry in flight at a time is also what makes it correct: transactions are evaluated on a state that nothing can
change before their entry is applied. When a proposal's fate is unknown (leadership lost) the pump goes on only when
the proposer says that this member leads again and has applied all that came before.

All members apply the same entries in the same order; watchers get the changes of each entry at once, in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from typing import Any, Protocol, TypeVar

from swarm_agent.model import times
from swarm_agent.model.base import encode
from swarm_agent.model.errors import OutOfSequence

from . import snapshot
from .entry import decode_entry, decode_puts
from .errors import StoreError, WatchLagged
from .tables import KINDS, Registry
from .tx import Batch, BatchFull, Tx
from .view import Change, Tables, View

log = logging.getLogger(__name__)

R = TypeVar("R")
Subscriber = Callable[[list[Change]], None]

MAX_QUEUE = 10_000
"""Writes waiting for their turn. Above it new ones are refused: at that depth callers have timed out before they are
served.
"""

MAX_BACKLOG = 10_000
"""Batches of changes that a `watch` may lag behind before it is ended with `WatchLagged`."""


class Proposer(Protocol):
    """What replicates the store's entries. In production the raft driver."""

    def next_index(self) -> int:
        """The log index that an entry proposed now would get. Raises a ClusterError if this member does not lead, or
        has not yet applied everything from before its leadership.
        """

    async def propose(self, data: bytes) -> int:
        """Replicate an entry and return its log index after it was committed and applied here. Appends before it first
        awaits. Raises a ClusterError; if it may yet be committed, only after this member has ceased to lead.
        """

    async def barrier(self) -> None:
        """Return when this member has applied everything that was committed anywhere when it was called."""


class Store:
    """The cluster's objects on this member. `clock` gives RFC 3339 times for created_at and updated_at."""

    def __init__(
        self, proposer: Proposer | None = None, *, registry: Registry = KINDS, clock: Callable[[], str] = times.now
    ) -> None:
        self.proposer = proposer
        self._registry = registry
        self._clock = clock
        self._tables = Tables(registry)
        self._queue: deque[tuple[Callable[[Tx], Any], asyncio.Future[Any]]] = deque()
        self._pump: asyncio.Task[None] | None = None
        self._subscribers: dict[int, Subscriber] = {}
        self._next_subscriber = 0
        self._skipped = 0

    # --- reads -------------------------------------------------------------------------------------------------------

    def view(self) -> View:
        """Everything as of the last entry applied on this member. Costs nothing; may be behind the leader."""
        return self._tables.view()

    def counts(self) -> dict[str, int]:
        """How many objects of each kind there are, by the kind's name."""
        return {kind.name: len(table.objects) for kind, table in self._tables.tables.items()}

    @property
    def index(self) -> int:
        """Log index of the last applied entry."""
        return self._tables.index

    @property
    def queued(self) -> int:
        """Writes that wait for their turn."""
        return len(self._queue)

    async def read(self) -> View:
        """A view that contains everything acknowledged before the call (linearizable). Raises a ClusterError without
        quorum.
        """
        await self._proposer.barrier()
        return self._tables.view()

    def encoded(self, obj: Any) -> bytes:
        """The object's API JSON. Kept with the stored object, so a list of many objects is a join of bytes."""
        table = self._tables.tables[self._registry.of(type(obj))]
        id_: str = obj.id
        known = table.encoded.get(id_)
        if known is not None and known[0] is obj:
            return known[1]
        data = encode(obj)
        if table.objects.get(id_) is obj:
            table.encoded[id_] = (obj, data)
        return data

    # --- writes ------------------------------------------------------------------------------------------------------

    async def update(self, fn: Callable[[Tx], R]) -> R:
        """Run `fn(tx)` on the leader's state and replicate what it changed; its result is returned once that is
        applied here.

        `fn` is synchronous, has no effects but on `tx`, and may be run more than once. If it raises, nothing is
        changed and the error comes out here. If it changes nothing, nothing is proposed. Raises OutOfSequence,
        NotFound and AlreadyExists from `tx`, TooLarge, and the proposer's errors (not leading, no quorum).
        """
        if len(self._queue) >= MAX_QUEUE:
            raise StoreError(f"too many writes are waiting ({MAX_QUEUE}); try again later")
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._queue.append((fn, future))
        if self._pump is None:
            self._pump = asyncio.create_task(self._run_pump(), name="store-pump")
        return await future

    async def close(self) -> None:
        """Refuse waiting writes and stop."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        self._fail_queue(StoreError("the store is being closed"))

    @property
    def _proposer(self) -> Proposer:
        if self.proposer is None:
            raise RuntimeError("the store has no proposer yet")
        return self.proposer

    async def _run_pump(self) -> None:
        try:
            while self._queue:
                await self._one_batch()
        finally:
            self._pump = None

    async def _one_batch(self) -> None:
        try:
            index = self._proposer.next_index()
        except Exception as error:
            self._fail_queue(error)
            return
        batch = Batch(self._tables, index)
        waiting: list[tuple[asyncio.Future[Any], Any]] = []
        while self._queue and not batch.full:
            fn, future = self._queue.popleft()
            if future.done():  # the caller gave up while waiting
                continue
            try:
                waiting.append((future, batch.run(fn, self._clock())))
            except BatchFull:
                self._queue.appendleft((fn, future))
                break
            except Exception as error:
                future.set_exception(error)
        entry = batch.entry()
        failure: BaseException | None = None
        if entry is not None:
            skipped = self._skipped
            try:
                # Since next_index() nothing was awaited, and propose() appends before it awaits: the index is right.
                await self._proposer.propose(entry)
            except BaseException as error:
                failure = error
            if failure is None and self._skipped != skipped:
                failure = OutOfSequence()  # skipped by all; the callers may try again
        for future, result in waiting:
            if future.done():
                continue
            if failure is None:
                future.set_result(result)
            elif isinstance(failure, Exception):
                future.set_exception(failure)
            else:
                future.cancel()
        if failure is not None and not isinstance(failure, Exception):
            raise failure

    def _fail_queue(self, error: Exception) -> None:
        while self._queue:
            _, future = self._queue.popleft()
            if not future.done():
                future.set_exception(error)

    # --- what raft calls ---------------------------------------------------------------------------------------------

    def apply(self, index: int, data: bytes) -> None:
        """Apply a committed entry. Called once for each, in order of index."""
        entry = decode_entry(data)
        if entry.base != self._tables.index:
            log.error(
                "skipped entry %d: made on the state at index %d, met the state at %d",
                index,
                entry.base,
                self._tables.index,
            )
            self._skipped += 1
            return
        changes = self._tables.apply(index, decode_puts(self._registry, entry, index))
        self._notify(changes)

    def snapshot(self) -> Iterator[bytes]:
        """The whole state as a stream. Call it in the loop's thread, consume the iterator in any."""
        return snapshot.save(self._tables)

    def load(self, chunks: Iterable[bytes]) -> Tables:
        """Read a stream made by `snapshot` without touching the present state; may run in a thread. Raises
        SnapshotError.
        """
        return snapshot.load(self._registry, chunks)

    def install(self, tables: Tables) -> None:
        """Make a loaded state the present one. Watchers get the differences as changes."""
        old, self._tables = self._tables, tables
        changes = []
        for kind, table in tables.tables.items():
            before = old.tables[kind].objects
            changes += [Change(kind.type, gone, None) for id_, gone in before.items() if id_ not in table.objects]
            for id_, new in table.objects.items():
                was = before.get(id_)
                if was is None or was.version.index != new.version.index:
                    changes.append(Change(kind.type, was, new))
        if changes:
            self._notify(changes)

    # --- watching ----------------------------------------------------------------------------------------------------

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call `callback(changes)` right after each applied entry, in order. It must be quick and must not raise: wake
        a loop, count, forward. What is returned ends the subscription.
        """
        number = self._next_subscriber
        self._next_subscriber += 1
        self._subscribers[number] = callback

        def unsubscribe() -> None:
            self._subscribers.pop(number, None)

        return unsubscribe

    @contextlib.asynccontextmanager
    async def watch(self, kinds: Collection[type[Any]] | None = None) -> AsyncIterator[AsyncIterator[list[Change]]]:
        """Changes from now on, a list per applied entry, of all or some kinds:

            async with store.watch({Task}) as changes:
                async for batch in changes: ...

        Subscribed from the moment the block is entered, so a view taken inside it misses nothing. Raises WatchLagged
        in the loop when the reader falls too far behind.
        """
        wanted = None if kinds is None else frozenset(kinds)
        queue: asyncio.Queue[list[Change]] = asyncio.Queue()
        lagged = False

        def enqueue(changes: list[Change]) -> None:
            nonlocal lagged
            if wanted is not None:
                changes = [change for change in changes if change.kind in wanted]
            if not changes or lagged:
                return
            lagged = queue.qsize() >= MAX_BACKLOG
            queue.put_nowait(changes)

        async def batches() -> AsyncIterator[list[Change]]:
            while True:
                if lagged:
                    raise WatchLagged(f"a watcher is {MAX_BACKLOG} changes behind; it must read the state anew")
                yield await queue.get()

        unsubscribe = self.subscribe(enqueue)
        try:
            yield batches()
        finally:
            unsubscribe()

    def _notify(self, changes: list[Change]) -> None:
        for callback in tuple(self._subscribers.values()):
            try:
                callback(changes)
            except Exception:
                log.exception("a subscriber of the store failed on %d changes", len(changes))
