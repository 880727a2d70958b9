"""What the cases do with services: declare, wait, look."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from .systems import Stage, until

Record = Callable[[str, float], None]
"""Takes a figure: the case's name and the value."""

IMAGE, NEXT_IMAGE = "redis:3.0.6", "redis:3.0.7"  # tiny, and end at once when asked to


def now() -> float:
    """Seconds of a clock that only goes on."""
    return time.perf_counter()


def spec(name: str, replicas: int, *, network: str = "", **changes: Any) -> dict[str, Any]:
    """A service that restarts without delay and updates by two."""
    template: dict[str, Any] = {
        "ContainerSpec": {"Image": IMAGE},
        "RestartPolicy": {"Condition": "any", "Delay": 0},
        **({"Networks": [{"Target": network}]} if network else {}),
    }
    return {
        "Name": name,
        "TaskTemplate": template,
        "Mode": {"Replicated": {"Replicas": replicas}},
        "UpdateConfig": {"Parallelism": 2},
        **changes,
    }


def by(**filters: str) -> str:
    return quote(json.dumps({key: [value] for key, value in filters.items()}))


async def tasks(stage: Stage, name: str, host: str = "") -> list[dict[str, Any]]:
    """The tasks of a service that shall run and run, as told by one host's manager (the first's)."""
    api = stage.apis[host] if host else stage.first
    query = quote(json.dumps({"service": [name], "desired-state": ["running"]}))
    return [task for task in await api.get(f"/tasks?filters={query}") if task["Status"]["State"] == "running"]


async def runs(stage: Stage, name: str, count: int, **options: Any) -> None:
    async def all_run() -> bool:
        return len(await tasks(stage, name)) == count

    await until(all_run, **options)


async def change(stage: Stage, name: str, edit: Any) -> None:
    """Update a service by a function that edits its spec in place."""
    found = await stage.first.get(f"/services/{name}")
    wanted = copy.deepcopy(found["Spec"])
    edit(wanted)
    await stage.first.post(f"/services/{found['ID']}/update?version={found['Version']['Index']}", wanted)


async def containers(stage: Stage, name: str) -> list[str]:
    """Containers of a service in whatever state, asked of every host's engine."""
    found = []
    for engine in stage.engines.values():
        query = by(label=f"com.docker.swarm.service.name={name}")
        found += [each["Id"] for each in await engine.get(f"/containers/json?all=1&filters={query}")]
    return found


async def gone(stage: Stage, name: str) -> None:
    async def none_left() -> bool:
        return not await containers(stage, name)

    await until(none_left)


async def remove(stage: Stage, name: str) -> None:
    await stage.first.delete(f"/services/{name}")
    await gone(stage, name)
