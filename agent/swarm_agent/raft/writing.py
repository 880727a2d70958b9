"""The driver's writes: what Readys want on disk, in their order.

One write with its sync runs at a time, in the log's thread. What comes meanwhile is gathered and covered by the next
(group commit), so the slower the disk, the larger the writes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from .core import Ready
from .storage import Storage
from .wal import Batch
from .worker import Worker

MAX_WAITING = 1024
"""Readys that may wait. Their content is bounded by what the core lets be proposed and a leader's window lets come;
their number would rise with every beat while a disk hangs."""


class Writer:
    """`written(readys)` is called when they are on disk, `failed(error)` when a write failed: then no other follows."""

    def __init__(
        self,
        worker: Worker,
        storage: Storage,
        written: Callable[[Sequence[Ready]], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._worker = worker
        self._storage = storage
        self._on_written = written
        self._failed = failed
        self._waiting: deque[Ready] = deque()
        self._since: float | None = None  # when the present write began

    @property
    def idle(self) -> bool:
        """Nothing is being written, nothing waits: a Ready without writes needs not queue up."""
        return self._since is None and not self._waiting

    @property
    def full(self) -> bool:
        """Too much waits: the member should hear nothing and let no time pass until the disk goes on."""
        return len(self._waiting) >= MAX_WAITING

    @property
    def hanging(self) -> float:
        """Seconds for which the present write has been under way."""
        return 0.0 if self._since is None else asyncio.get_running_loop().time() - self._since

    def add(self, ready: Ready) -> None:
        """Write what this wants, after those before it."""
        self._waiting.append(ready)
        if self._since is None:
            self._begin()

    def stop(self) -> None:
        """Begin no other write."""
        self._waiting.clear()

    def _begin(self) -> None:
        readys = tuple(self._waiting)
        self._waiting.clear()
        batches = [Batch(ready.hard_state, ready.snapshot, tuple(ready.entries)) for ready in readys if ready.persists]
        if not batches:
            self._on_written(readys)
            return
        self._since = asyncio.get_running_loop().time()
        self._worker.submit(lambda: self._storage.write(batches), lambda _, error: self._done(readys, error))

    def _done(self, readys: Sequence[Ready], error: BaseException | None) -> None:
        if error is not None:
            self._failed(error)
            return
        self._since = None
        self._on_written(readys)
        if self._waiting and self._since is None:
            self._begin()
