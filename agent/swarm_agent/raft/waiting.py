"""Callers of a node who wait: for their entry to be applied, for a read to be confirmed, for an index to be reached."""

from __future__ import annotations

import asyncio

from .errors import LeadershipLost
from .messages import Entry


class Waiting:
    """The futures of one node. Every one of them gets a result or an error when the node stops leading or stops."""

    __slots__ = ("_applied", "_loop", "_proposals", "_reads")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._proposals: dict[int, tuple[int, asyncio.Future[int]]] = {}
        self._reads: dict[int, asyncio.Future[int]] = {}
        self._applied: list[tuple[int, asyncio.Future[None]]] = []

    def for_entry(self, index: int, term: int) -> asyncio.Future[int]:
        """Done with its index when the entry proposed in this term is applied; LeadershipLost if another is in its
        place.
        """
        future: asyncio.Future[int] = self._loop.create_future()
        self._proposals[index] = (term, future)
        return future

    def for_read(self, id_: int) -> asyncio.Future[int]:
        """Done with the index from which on the read may be answered. Must be forgotten afterwards."""
        self._reads[id_] = self._loop.create_future()
        return self._reads[id_]

    def forget_read(self, id_: int) -> None:
        """Nobody waits for this read any more."""
        self._reads.pop(id_, None)

    def for_index(self, index: int) -> asyncio.Future[None]:
        """Done when entries up to the index are applied."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._applied.append((index, future))
        return future

    def entry_applied(self, entry: Entry) -> None:
        """An entry was applied."""
        term, future = self._proposals.pop(entry.index, (0, None))
        if future is None or future.done():
            return
        if term == entry.term:
            future.set_result(entry.index)
        else:
            future.set_exception(LeadershipLost())

    def index_reached(self, index: int) -> None:
        """Everything up to an index is applied."""
        if not self._applied:
            return
        for at, future in self._applied:
            if at <= index and not future.done():
                future.set_result(None)
        self._applied = [(at, future) for at, future in self._applied if not future.done()]

    def read_confirmed(self, id_: int, index: int) -> None:
        """A read may be answered from an index on."""
        future = self._reads.get(id_)
        if future is not None and not future.done():
            future.set_result(index)

    def leadership_lost(self) -> None:
        """This member leads no more: what it proposed may or may not be committed."""
        proposals, self._proposals = self._proposals, {}
        for _, future in proposals.values():
            if not future.done():
                future.set_exception(LeadershipLost())
