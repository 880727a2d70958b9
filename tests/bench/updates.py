"""Rolling updates of ten replicas: in pairs, in pairs that start first, all at once."""

from __future__ import annotations

from typing import Any

from .services import NEXT_IMAGE, Record, change, now, remove, runs, spec, tasks
from .systems import Stage, until

MANNERS: dict[str, dict[str, Any]] = {
    "rolling update of 10 by 2": {"Parallelism": 2},
    "rolling update of 10 by 2, start-first": {"Parallelism": 2, "Order": "start-first"},
    "update of 10 all at once": {"Parallelism": 0},
}


async def updates(stage: Stage, record: Record) -> None:
    for label, config in MANNERS.items():
        await stage.first.post("/services/create", spec("web", 10, UpdateConfig=config))
        await runs(stage, "web", 10)
        await update(stage, record, label)
        await remove(stage, "web")


async def update(stage: Stage, record: Record, label: str) -> None:
    started = now()
    await change(stage, "web", lambda wanted: wanted["TaskTemplate"]["ContainerSpec"].update(Image=NEXT_IMAGE))

    async def all_new() -> bool:
        found = await tasks(stage, "web")
        return len(found) == 10 and all(t["Spec"]["ContainerSpec"]["Image"] == NEXT_IMAGE for t in found)

    await until(all_new)
    record(f"{label}: all new RUNNING", now() - started)

    async def completed() -> bool:
        return (await stage.first.get("/services/web"))["UpdateStatus"]["State"] == "completed"

    await until(completed)
    record(f"{label}: completed", now() - started)
