"""A store without raft: entries are applied at once, in this process, and nothing is kept.

For tests of what stands on the store (control loops, API): the store itself is the real one, with its batches,
versions and log indexes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from swarm_agent.model import times
from swarm_agent.model.errors import ClusterError

from .store import Store
from .tables import KINDS, Registry


class MemoryProposer:
    """A log of one member that commits as soon as asked. `refusal`, when set, is raised in place of every proposal and
    barrier.
    """

    def __init__(self) -> None:
        self.index = 0
        self.entries: list[bytes] = []
        self.refusal: ClusterError | None = None
        self._apply: Callable[[int, bytes], None] | None = None

    def attach(self, apply: Callable[[int, bytes], None]) -> None:
        """Entries go to `apply(index, data)`."""
        self._apply = apply

    def next_index(self) -> int:
        """See `Proposer`."""
        self._check()
        return self.index + 1

    async def propose(self, data: bytes) -> int:
        """See `Proposer`."""
        self._check()
        self.index += 1
        index = self.index
        await asyncio.sleep(0)  # as in production, other tasks run while an entry is in flight
        self.entries.append(data)
        if self._apply is not None:
            self._apply(index, data)
        return index

    async def barrier(self) -> None:
        """See `Proposer`."""
        self._check()

    def _check(self) -> None:
        if self.refusal is not None:
            raise self.refusal


def memory_store(*, registry: Registry = KINDS, clock: Callable[[], str] = times.now) -> Store:
    """A store ready for use, on a `MemoryProposer`."""
    proposer = MemoryProposer()
    store = Store(proposer, registry=registry, clock=clock)
    proposer.attach(store.apply)
    return store
