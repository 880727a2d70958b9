"""Which kinds of object the store holds, and by what they can be looked up.

A `Kind` is one row of a table: the struct type, the word for it in messages and snapshots, its secondary indexes (a
function from the object to the keys it is found under) and whether its name must be unique. Everything else in this
package is generic.

Trap: the `name` of a kind is written into log entries and snapshots. Never rename or reuse one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from swarm_agent.model.objects import Cluster, Config, Network, Node, Secret, Service, Task

from .sharing import Share, share_task


class Stored(Protocol):
    """What the store needs to know of an object. All kinds are frozen msgspec structs."""

    @property
    def id(self) -> str: ...

    @property
    def version(self) -> Any: ...

    @property
    def created_at(self) -> Any: ...

    @property
    def updated_at(self) -> Any: ...


T = TypeVar("T", bound=Stored)

Keys = Callable[[Any], Iterable[str]]
"""From an object to the keys of one index under which it is found; none means that it is not in the index."""

NAME = "name"
"""The index that `by_name` reads. Keys in it are lower-cased: names are unique without regard to case, as in SwarmKit.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """One kind of stored object.

    `indexes` maps an index name to the function that gives an object's keys in it. With `taken`, names are unique: a
    second object under the same key of the index `name` is refused with that text (`{}`: the name). `share` gives an
    object the parts that others have too (sharing.py).
    """

    name: str
    type: type[Any]
    indexes: Mapping[str, Keys] = field(default_factory=dict)
    taken: str = ""
    share: Share | None = None


class Registry:
    """The kinds of one store, found by struct type or by name."""

    __slots__ = ("by_name", "by_type", "kinds")

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self.kinds = tuple(kinds)
        self.by_type: dict[type[Any], Kind] = {kind.type: kind for kind in self.kinds}
        self.by_name: dict[str, Kind] = {kind.name: kind for kind in self.kinds}
        if len(self.by_type) != len(self.kinds) or len(self.by_name) != len(self.kinds):
            raise ValueError("two kinds of the store share a type or a name")

    def of(self, type_: type[Any]) -> Kind:
        """The kind of a struct type."""
        try:
            return self.by_type[type_]
        except KeyError:
            known = ", ".join(kind.type.__name__ for kind in self.kinds)
            raise TypeError(f"{type_.__name__} is not a kind of the store; it holds {known}") from None


def attribute(*path: str) -> Keys:
    """An index on a dotted attribute, e.g. `attribute("spec", "name")`. Empty and None are not indexed."""

    def keys(obj: Any) -> Iterable[str]:
        for step in path:
            obj = getattr(obj, step)
            if obj is None:
                return ()
        return (obj,) if obj else ()

    return keys


def name_of(*path: str) -> Keys:
    """The name index over a dotted attribute, without regard to case."""
    inner = attribute(*path)
    return lambda obj: tuple(key.lower() for key in inner(obj))


def _network_ids(service: Service) -> Iterable[str]:
    networks = (*service.spec.task_template.networks, *service.spec.networks)
    return tuple(dict.fromkeys(network.target for network in networks))


KINDS = Registry(
    (
        Kind(Cluster.KIND, Cluster),
        Kind(
            Node.KIND,
            Node,
            {
                NAME: name_of("description", "hostname"),
                "role": attribute("spec", "role"),
                "manages": lambda node: ("yes",) if node.manager_status is not None else (),
            },
        ),
        Kind(
            Service.KIND,
            Service,
            {NAME: name_of("spec", "name"), "network_id": _network_ids},
            "name conflicts with an existing object: service {} already exists",
        ),
        Kind(
            Task.KIND,
            Task,
            {"service_id": attribute("service_id"), "node_id": attribute("node_id")},
            share=share_task,
        ),
        Kind(Network.KIND, Network, {NAME: name_of("spec", "name")}, "network with name {} already exists"),
        Kind(Secret.KIND, Secret, {NAME: name_of("spec", "name")}, "secret {} already exists"),
        Kind(Config.KIND, Config, {NAME: name_of("spec", "name")}, "config {} already exists"),
    )
)
"""What the cluster's store holds. Nodes are found by hostname under `by_name`; hostnames need not be unique."""
