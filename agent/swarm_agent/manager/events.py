"""The cluster's events: what a change of the store is to people, and the last ones, for those who ask later.

As in Swarm, every manager makes them from its own copy of the store, and remembers 256 (swarm.md §1.7).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from swarm_agent.model import times
from swarm_agent.model.objects import Config, Network, Node, Secret, Service
from swarm_agent.store.store import Store
from swarm_agent.store.view import Change

KINDS: dict[type[Any], str] = {
    Service: "service",
    Node: "node",
    Network: "network",
    Secret: "secret",
    Config: "config",
}
CATCH_UP = 30 * times.SECOND  # by then a manager that starts has read its log
FRESH = 10 * times.SECOND  # a change of this age was not read from an old log

Event = dict[str, Any]
"""As GET /events shows it."""


def event_of(change: Change, now_ns: int) -> Event | None:
    """The event that tells of a change of the store; None for kinds that make none (tasks, the cluster itself). It has
    the time of the object's change, and of a removal the present.
    """
    kind = KINDS.get(change.kind)
    if kind is None:
        return None
    action = "create" if change.old is None else "remove" if change.new is None else "update"
    obj = change.new if change.new is not None else change.old
    attributes = {"name": _name(obj)}
    if action == "update":
        for what, old, new in _compared(change.old, change.new):
            if old != new and new:
                attributes |= ({f"{what}.old": old} if old else {}) | {f"{what}.new": new}
    if change.new is not None:
        now_ns = times.parse_rfc3339(change.new.updated_at if action == "update" else change.new.created_at)
    return {
        "Type": kind,
        "Action": action,
        "Actor": {"ID": change.id, "Attributes": attributes},
        "scope": "swarm",
        "time": now_ns // 1_000_000_000,
        "timeNano": now_ns,
    }


def _name(obj: Any) -> str:
    return str(obj.spec.name or (obj.description.hostname if isinstance(obj, Node) else ""))


def _compared(old: Any, new: Any) -> Iterator[tuple[str, str, str]]:
    """What Swarm tells about an update, before and after; of what there was not before, only what there is now, and
    nothing of what there is no more.
    """
    if isinstance(old, Service):
        yield "replicas", _replicas(old), _replicas(new)
        yield "image", _image(old), _image(new)
        yield "updatestate", _update_state(old), _update_state(new)
    elif isinstance(old, Node):
        yield "availability", old.spec.availability, new.spec.availability
        yield "role", old.spec.role, new.spec.role
        yield "state", old.status.state, new.status.state
        before, after = old.manager_status, new.manager_status
        if before is not None and after is not None:  # else its role tells enough
            yield "leader", str(before.leader).lower(), str(after.leader).lower()
            yield "reachability", before.reachability, after.reachability


def _replicas(service: Service) -> str:
    mode = service.spec.mode.replicated
    return str(mode.replicas) if mode is not None else ""


def _image(service: Service) -> str:
    container = service.spec.task_template.container_spec
    return container.image if container is not None else ""


def _update_state(service: Service) -> str:
    return service.update_status.state if service.update_status is not None else ""


class History:
    """The last events, from the moment on that this manager has a store."""

    LIMIT = 256

    def __init__(self, store: Store, clock: Callable[[], int] = time.time_ns) -> None:
        self._events: deque[Event] = deque(maxlen=self.LIMIT)
        self._clock = clock
        self._caught_up_by = clock() + CATCH_UP
        store.subscribe(self._changed)

    def between(self, since: int, until: int) -> list[Event]:
        """Those between two moments (nanoseconds since the epoch; `until` 0: up to now), oldest first."""
        known = sorted(self._events, key=lambda event: event["timeNano"])  # a snapshot brings them by kinds
        return [event for event in known if since <= event["timeNano"] and (not until or event["timeNano"] <= until)]

    def _changed(self, changes: list[Change]) -> None:
        now = self._clock()
        for change in changes:
            if now < self._caught_up_by and change.new is not None:
                age = now - times.parse_rfc3339(change.new.updated_at)
                self._caught_up_by = now if age < FRESH else self._caught_up_by
            event = event_of(change, now)
            # While a log is read that was written long ago, there is no telling when something was removed.
            if event is not None and (change.new is not None or now >= self._caught_up_by):
                self._events.append(event)
