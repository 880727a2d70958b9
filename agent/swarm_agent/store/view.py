"""Tables in memory, and consistent reads of them without copying.

`Tables` is the live state: for each kind a dict of objects and dicts of index keys. There is one, and only applied log
entries change it. A reader sees it through an *overlay*, a small map of objects that differ for this reader:

* a `View` is consistent at one log index. When the tables change while it lives, what it saw before is put in its
  overlay. Views are short-lived, so this costs nearly nothing, where copy-on-write would copy a table of 100,000 tasks
  per write.
* a transaction (tx.py) has its own writes in its overlay.

Trap: one thread. Views and tables belong to the event loop that applies entries; hand objects (immutable) to threads,
not views.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, cast

from .sharing import Parts
from .tables import NAME, Kind, Registry, T

Overlay = dict[Kind, dict[str, Any]]
"""Objects that differ from the tables, by kind and id; None: not there."""


class Change(NamedTuple):
    """One object's change by one log entry: created (old is None), updated, or deleted (new is None)."""

    kind: type[Any]
    old: Any
    new: Any

    @property
    def id(self) -> str:
        """The object's id."""
        return cast(str, (self.new if self.new is not None else self.old).id)


class Table:
    """The live objects of one kind."""

    __slots__ = ("encoded", "indexes", "kind", "objects")

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.objects: dict[str, Any] = {}
        # Ordered dicts in place of sets: iteration order must be the same on every member, and string hashes are not.
        self.indexes: dict[str, dict[str, dict[str, None]]] = {name: {} for name in kind.indexes}
        self.encoded: dict[str, tuple[Any, bytes]] = {}

    def put(self, id_: str, new: Any) -> Any:
        """Set or (with None) remove an object; the old one or None is returned."""
        old = self.objects.get(id_)
        self.encoded.pop(id_, None)
        for name, keys_of in self.kind.indexes.items():
            before = tuple(keys_of(old)) if old is not None else ()
            after = tuple(keys_of(new)) if new is not None else ()
            if before == after:
                continue
            index = self.indexes[name]
            for key in before:
                if key not in after:
                    ids = index[key]
                    del ids[id_]
                    if not ids:
                        del index[key]
            for key in after:
                index.setdefault(key, {})[id_] = None
        if new is None:
            self.objects.pop(id_, None)
        else:
            self.objects[id_] = new
        return old


class Tables:
    """The live state of the store: one `Table` a kind, at `index`, the log index last applied."""

    __slots__ = ("__weakref__", "_current", "_parts", "_views", "index", "registry", "tables")

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.index = 0
        self.tables: dict[Kind, Table] = {kind: Table(kind) for kind in registry.kinds}
        self._views: weakref.WeakSet[View] = weakref.WeakSet()
        self._current: weakref.ref[View] | None = None
        self._parts = Parts()

    def shared(self, kind: Kind, obj: Any) -> Any:
        """The object, with the parts that are known from others."""
        return obj if kind.share is None or obj is None else kind.share(obj, self._parts)

    def view(self) -> View:
        """A consistent view as of now. The same one is handed out until something changes."""
        current = self._current() if self._current is not None else None
        if current is None:
            current = View(self, {}, self.index)
            self._views.add(current)
            self._current = weakref.ref(current)
        return current

    def apply(self, index: int, puts: Iterable[tuple[Kind, str, Any]]) -> list[Change]:
        """Carry out the changes of one log entry; what changed is returned in order."""
        self._current = None
        changes = []
        for kind, id_, put in puts:
            new = self.shared(kind, put)
            old = self.tables[kind].put(id_, new)
            if old is None and new is None:
                continue
            for view in self._views:
                view.overlay.setdefault(kind, {}).setdefault(id_, old)
            changes.append(Change(kind.type, old, new))
        self.index = index
        return changes

    def advance(self, index: int) -> None:
        """An entry without changes was applied."""
        self._current = None
        self.index = index


class Reader:
    """Reads of the tables seen through an overlay. The base of `View` and of a transaction."""

    __slots__ = ("__weakref__", "_tables", "index", "overlay")

    def __init__(self, tables: Tables, overlay: Overlay, index: int) -> None:
        self._tables = tables
        self.overlay = overlay
        self.index = index

    def get(self, type_: type[T], id_: str) -> T | None:
        """The object with exactly this id, or None."""
        kind = self._tables.registry.of(type_)
        over = self.overlay.get(kind)
        if over is not None and id_ in over:
            return cast("T | None", over[id_])
        return cast("T | None", self._tables.tables[kind].objects.get(id_))

    def all(self, type_: type[T]) -> list[T]:
        """All objects of a kind, in the order in which they were first written."""
        kind = self._tables.registry.of(type_)
        objects = self._tables.tables[kind].objects
        over = self.overlay.get(kind)
        return list(objects.values()) if not over else list(_merged(objects, over))

    def count(self, type_: type[T]) -> int:
        """How many objects of a kind there are."""
        kind = self._tables.registry.of(type_)
        objects = self._tables.tables[kind].objects
        over = self.overlay.get(kind)
        return len(objects) if not over else sum(1 for _ in _merged(objects, over))

    def find(self, type_: type[T], **where: str) -> list[T]:
        """Objects found under all the given index keys, e.g. `view.find(Task, service_id=s, node_id=n)`.

        Raises TypeError for an index that the kind does not have (see tables.py).
        """
        kind = self._tables.registry.of(type_)
        if not where:
            return self.all(type_)
        table = self._tables.tables[kind]
        for name in where:
            if name not in kind.indexes:
                raise TypeError(f"{type_.__name__} has no index {name!r}; it has {', '.join(kind.indexes) or 'none'}")
        first: Iterable[str]
        if len(where) == 1:  # nearly always, and asked for once a service
            ((name, key),) = where.items()
            first = table.indexes[name].get(key, ())
        else:
            hits = [table.indexes[name].get(key, {}) for name, key in where.items()]
            hits.sort(key=len)
            first = [id_ for id_ in hits[0] if all(id_ in ids for ids in hits[1:])]
        objects = table.objects
        over = self.overlay.get(kind)
        if not over:
            return [objects[id_] for id_ in first]
        found = [objects[id_] for id_ in first if id_ not in over]
        found.extend(
            obj
            for obj in over.values()
            if obj is not None and all(key in kind.indexes[name](obj) for name, key in where.items())
        )
        return found

    def by_name(self, type_: type[T], name: str) -> T | None:
        """The object of this name (case does not matter), or None; the first where names are not unique."""
        found = self.find(type_, **{NAME: name.lower()})
        return found[0] if found else None

    def by_prefix(self, type_: type[T], prefix: str) -> list[T]:
        """Objects whose id begins so: how the API resolves shortened ids (swarm.md §1.1)."""
        exact = self.get(type_, prefix)
        if exact is not None:
            return [exact]
        return [obj for obj in self.all(type_) if obj.id.startswith(prefix)]


class View(Reader):
    """Read access that stays as it was at log index `index`, however the store goes on."""

    __slots__ = ()


def _merged(objects: Mapping[str, Any], over: Mapping[str, Any]) -> Iterator[Any]:
    for id_, obj in objects.items():
        if id_ not in over:
            yield obj
        elif over[id_] is not None:
            yield over[id_]
    for id_, obj in over.items():
        if obj is not None and id_ not in objects:
            yield obj
