"""What tests of updates wait for: a service that runs, and an update in a given state."""

from __future__ import annotations

from typing import Any

from tests.sim.orchestration_world import World


async def updated(w: World, service: str, state: str = "completed", seconds: float = 120) -> None:
    await w.until(lambda: w.status(service) == state, seconds)


async def started(w: World, replicas: int = 4, image: str = "good", **fields: Any) -> str:
    service = await w.create(image, replicas, **fields)
    await w.until(lambda: len(w.running(service)) == replicas)
    return service
