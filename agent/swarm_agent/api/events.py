"""GET /events on a manager: the engine's stream with the cluster's events in between (swarm.md §1.7).

The engine's events pass as they come, line by line. The cluster's are made from the store's changes, on every manager
alike; a request for the past gets those that this manager remembers, in their places among the engine's. The stream
ends when the engine's does, which keeps `until`, and when the client leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator

import msgspec

from swarm_agent.manager.events import Event, event_of
from swarm_agent.model import times
from swarm_agent.model.errors import ClusterError
from swarm_agent.store.view import Change

from .control_protocol import ManagerHandle
from .engine import EngineClient
from .filters import Filters, has_labels
from .message import Request
from .versions import show

PAUSE = 0.1  # seconds without a line of the engine's, after which its past is told
_MOMENT = re.compile(r"(\d{1,11})(?:\.(\d{1,9}))?")

_ACTOR_FILTERS = (
    "container", "plugin", "volume", "network", "daemon", "node", "service", "secret", "config",
)  # fmt: skip


def matches(event: Event, filters: Filters) -> bool:
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


def moment(text: str) -> int:
    """`since` and `until` in nanoseconds; 0 for none. (What is no moment the engine has refused.)"""
    found = _MOMENT.fullmatch(text)
    return int(found[1]) * times.SECOND + int((found[2] or "0").ljust(9, "0")) if found is not None else 0


class _Stamp(msgspec.Struct, frozen=True):
    """As much of an event as its place among others needs."""

    at: int = msgspec.field(default=0, name="timeNano")


def _time_of(line: bytes) -> int:
    try:
        return _stamp.decode(line).at
    except msgspec.DecodeError:
        return 0


_stamp = msgspec.json.Decoder(_Stamp)


def _line(event: Event) -> bytes:
    return msgspec.json.encode(event) + b"\n"


async def merged(
    request: Request, filters: Filters, engine: EngineClient, manager: ManagerHandle | None
) -> AsyncGenerator[bytes, None]:
    """Lines of JSON, of the engine and (with a manager) of the cluster, until the engine's stream ends.

    The first item is empty and comes when the engine has accepted the request. Raises EngineDown and EngineRefused
    before it.
    """
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(1000)

    def changed(changes: list[Change]) -> None:
        for change in changes:
            event = event_of(change, time.time_ns())
            if event is not None and matches(event, filters) and not queue.full():
                queue.put_nowait(_line(event))

    async def local(lines: AsyncIterator[bytes]) -> None:
        with contextlib.suppress(ClusterError):
            async for line in lines:
                await queue.put(line)
        await queue.put(None)

    lines = engine.lines(f"/v{show(request.version)}/events", request.query)
    unsubscribe = manager.store.subscribe(changed) if manager is not None else None
    since, until = moment(request.query.get("since", "")), moment(request.query.get("until", ""))
    past: deque[Event] = deque()
    if manager is not None and (since or until):
        past.extend(event for event in manager.history.between(since, until) if matches(event, filters))
    reading: asyncio.Task[None] | None = None
    try:
        yield await anext(lines)
        reading = asyncio.create_task(local(lines), name="engine-events")
        while past:
            try:
                async with asyncio.timeout(PAUSE):
                    line = await queue.get()
            except TimeoutError:
                break
            while past and (line is None or past[0]["timeNano"] <= _time_of(line)):
                yield _line(past.popleft())
            if line is None:
                return
            yield line
        for event in past:
            yield _line(event)
        while (line := await queue.get()) is not None:
            yield line
    finally:
        if unsubscribe is not None:
            unsubscribe()
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        await lines.aclose()
