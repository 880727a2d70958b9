"""The driver of a planning core: store changes in, decisions out, in slices (used by the scheduler and the allocator).

A core decides on its own picture of the store and assumes that its decisions will be stored. Here they are, in
transactions that check each object to be the one that was decided on, and a guard's further conditions. What does not
hold any more is refused and goes back to the core, which decides anew. So nothing is ever written on an outdated
picture, and two loops cannot overwrite each other.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Protocol

from swarm_agent.model.errors import ClusterError
from swarm_agent.model.objects import Stored
from swarm_agent.store.errors import TooLarge
from swarm_agent.store.store import Store
from swarm_agent.store.tx import Tx
from swarm_agent.store.view import Change

from .inbox import Inbox
from .parts import ENTRY

log = logging.getLogger(__name__)

DEBOUNCE = 0.002
"""Seconds to wait for more after a change: enough to see a service's tasks together, too little to be felt."""

SLICE = 400
"""Objects decided on between two looks at the event loop: some milliseconds of work."""

RETRY = 0.5
"""Seconds before a write that failed (no quorum, for one) is tried again."""

Guard = Callable[[Tx, Any], bool]


class Core(Protocol):
    """What is driven. Times are nanoseconds since the epoch."""

    def load(self, objects: Iterable[Any], now: int) -> None:
        """Objects of the store at the start, kind by kind in the order of the loop's kinds."""

    def apply(self, changes: Iterable[Change], now: int) -> None:
        """Changes of the store, in order."""

    def plan(self, limit: int, now: int) -> Sequence[Any]:
        """New versions of about `limit` objects at most."""

    def settle(self, refused: Iterable[Any], get: Callable[[type[Any], str], Any]) -> None:
        """These decisions were not stored; `get` reads what is."""

    @property
    def busy(self) -> bool:
        """`plan` should be called again at once."""

    @property
    def wake_at(self) -> int | None:
        """When `plan` should be called though nothing changed."""


class PlannedLoop:
    """Runs a core on a store while this manager leads."""

    def __init__(
        self,
        store: Store,
        make_core: Callable[[], Core],
        kinds: Sequence[type[Stored]],
        *,
        name: str,
        guard: Guard,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._store = store
        self._make_core = make_core
        self._kinds = kinds
        self._name = name
        self._guard = guard
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; returns at once."""
        inbox = Inbox(self._store, self._kinds)
        self._task = asyncio.create_task(self._run(inbox), name=self._name)

    async def stop(self) -> None:
        """Stop; a write under way may still take effect."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self, inbox: Inbox) -> None:
        try:
            while True:
                try:
                    await self._drive(inbox, self._make_core())
                except Exception:
                    # A core that failed is in an unknown state; a new one is made from the store.
                    log.exception("the %s failed and starts again", self._name)
                    await asyncio.sleep(RETRY)
        finally:
            inbox.close()

    async def _drive(self, inbox: Inbox, core: Core) -> None:
        await self._settle_past()
        inbox.take()
        await self._load(core)
        while True:
            core.apply(inbox.take(), self._clock())
            decisions = core.plan(SLICE, self._clock())
            if decisions:
                await self._store_all(inbox, core, decisions)
            elif core.busy:
                await asyncio.sleep(0)
            else:
                at = core.wake_at
                timeout = None if at is None else max(0.0, (at - self._clock()) / 1e9)
                await inbox.wait(timeout=timeout, debounce=DEBOUNCE)

    async def _settle_past(self) -> None:
        """Return when nothing written earlier can still take effect. A write whose fate is unknown (of an earlier run
        of this loop, or one that failed) may be on its way to the log; deciding without it could give an address
        twice."""
        while True:
            try:
                await self._store.update(lambda _: None)  # its turn comes when all before it is applied
                return
            except ClusterError:
                await asyncio.sleep(RETRY)

    async def _load(self, core: Core) -> None:
        view = self._store.view()
        for kind in self._kinds:
            objects: Collection[Any] = view.all(kind)
            some: list[Any] = []
            for obj in objects:
                some.append(obj)
                if len(some) == 2000:
                    core.load(some, self._clock())
                    some = []
                    await asyncio.sleep(0)
            core.load(some, self._clock())

    async def _store_all(self, inbox: Inbox, core: Core, decisions: Sequence[Any]) -> None:
        refused: list[Any] = []
        failure: ClusterError | None = None
        parts = [decisions[start : start + ENTRY] for start in range(0, len(decisions), ENTRY)]
        while parts:
            part = parts.pop(0)
            try:
                refused += await self._store.update(self._transaction(part))
            except TooLarge as error:
                if len(part) > 1:  # unusually large specs
                    middle = len(part) // 2
                    parts[:0] = [part[:middle], part[middle:]]
                else:
                    failure = error
                    refused += part
            except ClusterError as error:
                failure = error
                refused += part
        if failure is not None:
            log.warning("%s: %d decisions were not stored, trying again: %s", self._name, len(refused), failure)
            await asyncio.sleep(RETRY)
            await self._settle_past()
        # What happened meanwhile first: `settle` reads the store as it is now.
        core.apply(inbox.take(), self._clock())
        if refused:
            view = self._store.view()
            core.settle(refused, view.get)

    def _transaction(self, decisions: Sequence[Any]) -> Callable[[Tx], list[Any]]:
        def write(tx: Tx) -> list[Any]:
            refused = []
            for obj in decisions:
                stored: Any = tx.get(type(obj), obj.id)
                if stored is not None and stored.version.index == obj.version.index and self._guard(tx, obj):
                    tx.update(obj)
                else:
                    refused.append(obj)
            return refused

        return write
