"""A loop that keeps one thing as the store says: it looks, takes the step that is due, and waits for a reason to look
again.

A reason is a change of an object of certain kinds, a call of `wake`, or time. Nothing is remembered between two looks,
so whatever was missed, interrupted or refused is found by the next. (The scheduler and the allocator decide on many
objects at once and have planned.py.)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from swarm_agent.model.errors import ClusterError
from swarm_agent.store.store import Store
from swarm_agent.store.view import Change

log = logging.getLogger(__name__)


class Keeper(ABC):
    """Implement `look`. `every`: seconds after which it looks again though nothing changed, None for never; `retry`:
    seconds after a look that failed.
    """

    NAME: ClassVar[str]
    KINDS: ClassVar[tuple[type[Any], ...]] = ()

    def __init__(self, store: Store, *, every: float | None = None, retry: float = 1.0) -> None:
        self._store = store
        self._every = every
        self._retry = retry
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] = lambda: None

    @abstractmethod
    async def look(self) -> None:
        """Compare, and take the step that is due. May raise: then it is tried again."""

    def wake(self) -> None:
        """There is a reason to look that the store does not show."""
        self._wake.set()

    async def start(self) -> None:
        """Begin; the first look is now."""
        self._unsubscribe = self._store.subscribe(self._changed)
        self._task = asyncio.create_task(self._run(), name=self.NAME)

    async def stop(self) -> None:
        """Stop; a write under way may still take effect."""
        self._unsubscribe()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def _changed(self, changes: list[Change]) -> None:
        if any(change.kind in self.KINDS for change in changes):
            self._wake.set()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            pause = self._every
            try:
                await self.look()
            except ClusterError as error:  # no quorum, not the leader any more: the next look finds the same
                log.info("%s: not now: %s", self.NAME, error)
                pause = self._retry
            except Exception:
                log.exception("%s failed, trying again", self.NAME)
                pause = self._retry
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
