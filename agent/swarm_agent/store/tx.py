"""Transactions: reads and writes on top of the tables, turned into one log entry.

A `Batch` gathers several transactions for one entry. Each sees the writes of those before it; one that fails is rolled
back alone by its journal. Objects are stamped here with the log index the entry is about to get: so the second of two
writers who both read version 7 finds another version and gets "update out of sequence", though both are in one entry.

Trap: a transaction's function may run twice, when its changes no longer fit into the batch. It must do nothing but
read and write `tx`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from swarm_agent.model.errors import AlreadyExists, NotFound, OutOfSequence

from .entry import GONE, MAX_ENTRY, OVERHEAD, Put, encode_entry, encode_object, stamped
from .errors import TooLarge
from .tables import NAME, Kind, T
from .view import Overlay, Reader, Tables

R = TypeVar("R")

MAX_CHANGES = 200
"""A batch with this many changes is closed (SwarmKit's figure): it bounds how long the event loop is held by one
entry.
"""


class BatchFull(Exception):
    """This transaction has to wait for the next entry. Never leaves the store."""


class Tx(Reader):
    """Reads (own writes are seen) and writes of one transaction. Valid only inside the function it is passed to."""

    __slots__ = ("_batch", "now")

    def __init__(self, tables: Tables, batch: Batch, now: str) -> None:
        super().__init__(tables, batch.overlay, tables.index)
        self._batch = batch
        self.now = now

    def create(self, obj: T) -> T:
        """Add an object; it is returned with version and times. Raises AlreadyExists for a taken id or unique name."""
        kind = self._tables.registry.of(type(obj))
        if not obj.id:
            raise ValueError(f"a {kind.name} without id cannot be stored")
        if self.get(type(obj), obj.id) is not None:
            raise AlreadyExists(f"{kind.name} with id {obj.id} already exists")
        self._check_name(kind, obj)
        new: T = stamped(obj, self._batch.index, created_at=self.now, updated_at=self.now)
        self._batch.write(kind, obj.id, new)
        return new

    def update(self, obj: T) -> T:
        """Replace an object; it is returned with its new version. Raises NotFound; OutOfSequence if `obj` was not made
        from the object that is stored now (`obj.version` is the version it was read at)."""
        kind = self._tables.registry.of(type(obj))
        old = self.get(type(obj), obj.id)
        if old is None:
            raise NotFound(f"{kind.name} {obj.id} not found")
        if old.version.index != obj.version.index:
            raise OutOfSequence
        self._check_name(kind, obj)
        new: T = stamped(obj, self._batch.index, created_at=old.created_at, updated_at=self.now)
        self._batch.write(kind, obj.id, new)
        return new

    def delete(self, type_: type[Any], id_: str) -> None:
        """Remove an object. Raises NotFound."""
        kind = self._tables.registry.of(type_)
        if self.get(type_, id_) is None:
            raise NotFound(f"{kind.name} {id_} not found")
        self._batch.write(kind, id_, None)

    def _check_name(self, kind: Kind, obj: Any) -> None:
        if not kind.taken:
            return
        for key in kind.indexes[NAME](obj):
            holder = self.by_name(kind.type, key)
            if holder is not None and holder.id != obj.id:
                raise AlreadyExists(kind.taken.format(obj.spec.name))


class Batch:
    """The transactions of one log entry to be, evaluated one after the other on the tables."""

    __slots__ = ("_absent", "_journal", "_puts", "_tables", "index", "overlay", "size")

    def __init__(self, tables: Tables, index: int) -> None:
        self._tables = tables
        self.index = index
        self.overlay: Overlay = {}
        self.size = 0
        self._puts: dict[tuple[Kind, str], Put] = {}
        self._journal: dict[tuple[Kind, str], tuple[bool, Any]] = {}

    @property
    def full(self) -> bool:
        """No further transaction should be added."""
        return len(self._puts) >= MAX_CHANGES or self.size >= MAX_ENTRY // 2

    def run(self, fn: Callable[[Tx], R], now: str) -> R:
        """Evaluate a transaction and keep its changes. If it raises, or does not fit, nothing of it is kept.

        Raises what `fn` raises, TooLarge, or BatchFull when it would fit alone.
        """
        self._journal = {}
        before = len(self._puts)
        try:
            result = fn(Tx(self._tables, self, now))
            puts = {key: self._put(key) for key in self._journal}
            grown = sum(_size(put) for put in puts.values())
            if grown > MAX_ENTRY:
                raise TooLarge
            size = self.size + grown - sum(_size(self._puts[key]) for key in puts if key in self._puts)
            if before and size > MAX_ENTRY:
                raise BatchFull
        except BaseException:
            self._roll_back()
            raise
        self._puts.update(puts)
        self.size = size
        return result

    def write(self, kind: Kind, id_: str, obj: Any) -> None:
        """Used by `Tx`: remember the object's new state (None: removed)."""
        over = self.overlay.setdefault(kind, {})
        if (kind, id_) not in self._journal:
            self._journal[kind, id_] = (id_ in over, over.get(id_))
        over[id_] = obj

    def entry(self) -> bytes | None:
        """The log entry of all changes, or None if there are none."""
        puts = [
            put
            for (kind, id_), put in self._puts.items()
            if put.object != GONE or id_ in self._tables.tables[kind].objects
        ]
        return encode_entry(self._tables.index, puts) if puts else None

    def _put(self, key: tuple[Kind, str]) -> Put:
        kind, id_ = key
        obj = self.overlay[kind][id_]
        return Put(kind.name, id_, GONE if obj is None else encode_object(obj))

    def _roll_back(self) -> None:
        for (kind, id_), (was_there, old) in self._journal.items():
            if was_there:
                self.overlay[kind][id_] = old
            else:
                del self.overlay[kind][id_]


def _size(put: Put) -> int:
    return OVERHEAD + len(bytes(put.object))
