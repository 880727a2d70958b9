"""GET /events on a manager: the engine's stream with the cluster's events in between (swarm.md §1.7).

The engine's events pass as they come, line by line. The cluster's are made from the store's changes, on every manager
alike; like Swarm's they begin with the request, there is no history of them. The stream ends when the engine's does,
which keeps `until`, and when the client leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import msgspec

from swarm_agent.model.errors import ClusterError
from swarm_agent.model.objects import Config, Network, Node, Secret, Service
from swarm_agent.store.store import Store
from swarm_agent.store.view import Change

from .engine import EngineClient
from .filters import Filters, has_labels
from .message import Request
from .versions import show

KINDS: dict[type[Any], str] = {
    Service: "service",
    Node: "node",
    Network: "network",
    Secret: "secret",
    Config: "config",
}
_ACTOR_FILTERS = (
    "container", "plugin", "volume", "network", "daemon", "node", "service", "secret", "config",
)  # fmt: skip


def event_of(change: Change, now_ns: int) -> dict[str, Any] | None:
    """The event that tells of a change of the store; None for kinds that make none (tasks, the cluster itself)."""
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


def matches(event: dict[str, Any], filters: Filters) -> bool:
    """Whether the cluster's event passes the request's filters. Actors match by the beginning of id or name, labels
    are compared with the actor's attributes, and an image is none of the cluster's objects.
    """
    actor = event["Actor"]
    for key, value in (("scope", "swarm"), ("type", event["Type"]), ("event", event["Action"])):
        if filters.get(key) and value not in filters[key]:
            return False
    if filters.get("image") or not has_labels(actor["Attributes"], filters.get("label")):
        return False
    for key in _ACTOR_FILTERS:
        wanted = tuple(filters.get(key) or ())
        if wanted and not actor["ID"].startswith(wanted) and not actor["Attributes"]["name"].startswith(wanted):
            return False
    return True


async def merged(
    request: Request, filters: Filters, engine: EngineClient, store: Store | None
) -> AsyncGenerator[bytes, None]:
    """Lines of JSON, of the engine and (with a store) of the cluster, until the engine's stream ends.

    The first item is empty and comes when the engine has accepted the request. Raises EngineDown and EngineRefused
    before it.
    """
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(1000)

    def changed(changes: list[Change]) -> None:
        for change in changes:
            event = event_of(change, time.time_ns())
            if event is not None and matches(event, filters) and not queue.full():
                queue.put_nowait(msgspec.json.encode(event) + b"\n")

    async def local(lines: AsyncIterator[bytes]) -> None:
        with contextlib.suppress(ClusterError):
            async for line in lines:
                await queue.put(line)
        await queue.put(None)

    lines = engine.lines(f"/v{show(request.version)}/events", request.query)
    unsubscribe = store.subscribe(changed) if store is not None else None
    reading: asyncio.Task[None] | None = None
    try:
        yield await anext(lines)
        reading = asyncio.create_task(local(lines), name="engine-events")
        while (line := await queue.get()) is not None:
            yield line
    finally:
        if unsubscribe is not None:
            unsubscribe()
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        await lines.aclose()
