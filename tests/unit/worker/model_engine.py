"""A small model of an engine in memory: containers with lives of their own, events, outages at the worst moments."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from swarm_agent.worker import engine as api
from swarm_agent.worker.container import TASK_ID_LABEL

STARTED = "2026-01-01T00:00:00Z"


@dataclass
class Box:
    id: str
    name: str
    labels: dict[str, str]
    started: bool = False
    running: bool = False
    exit_code: int = 0
    starts: int = 0


@dataclass
class ModelEngine:
    """Implements `worker.engine.EngineApi`. Each call takes a random number of turns; one that is under way when the
    engine goes down fails, after or before it had its effect."""

    rng: random.Random
    on_stop: Callable[[Box], None] = lambda box: None
    api_version: tuple[int, int] = (1, 41)
    up: bool = True
    boxes: dict[str, Box] = field(default_factory=dict)
    listeners: list[asyncio.Queue[api.Event | None]] = field(default_factory=list)
    made: int = 0

    # --- what happens to it -------------------------------------------------------------------------------------------

    def go_down(self) -> None:
        self.up = False
        for listener in self.listeners:
            listener.put_nowait(None)
        self.listeners.clear()

    def come_up(self, *, live_restore: bool) -> None:
        self.up = True
        for box in self.boxes.values():
            if box.running and not live_restore:
                box.running, box.exit_code = False, self.rng.choice((0, 137, 255))

    def end(self, box: Box, code: int) -> None:
        box.running, box.exit_code = False, code
        self._tell("die", box)

    def _tell(self, action: str, box: Box, **more: str) -> None:
        event = api.Event(action, api.Actor(box.id, {**box.labels, **more}))
        for listener in self.listeners:
            listener.put_nowait(event)

    async def _turns(self) -> None:
        for _ in range(self.rng.randrange(4)):
            await asyncio.sleep(0)
        if not self.up:
            raise api.EngineGone("the model is down")

    def _box(self, name: str) -> Box:
        for box in self.boxes.values():
            if name in (box.id, box.name):
                return box
        raise api.EngineError(404, f"No such container: {name}")

    # --- EngineApi ----------------------------------------------------------------------------------------------------

    async def negotiate(self) -> None:
        await self._turns()

    async def ping(self) -> None:
        await self._turns()

    async def info(self) -> dict[str, Any]:
        await self._turns()
        return {"Name": "model"}

    async def plugins(self) -> list[dict[str, Any]]:
        await self._turns()
        return []

    async def list_containers(self, labels: list[str]) -> list[api.ListedContainer]:
        await self._turns()
        listed = [api.ListedContainer(box.id, labels=box.labels) for box in self.boxes.values()]
        await self._turns()
        return listed

    async def inspect(self, container: str) -> api.Container:
        await self._turns()
        box = self._box(container)
        state = api.ContainerState(
            status="running" if box.running else "exited" if box.started else "created",
            running=box.running,
            exit_code=box.exit_code,
            started_at=STARTED if box.started else "",
        )
        seen = api.Container(box.id, box.name, state, api.ContainerConfig(labels=box.labels))
        await self._turns()
        return seen

    async def create(self, name: str, body: Mapping[str, Any]) -> str:
        await self._turns()
        if any(box.name == name for box in self.boxes.values()):
            raise api.EngineError(409, f"Conflict. The container name {name} is already in use")
        self.made += 1
        box = Box(f"c{self.made}", name, dict(body["Labels"]))
        self.boxes[box.id] = box
        await self._turns()
        return box.id

    async def connect(self, network: str, container: str, endpoint: Mapping[str, Any]) -> None:
        await self._turns()

    async def start(self, container: str) -> None:
        await self._turns()
        box = self._box(container)
        if not box.running:
            box.started = box.running = True
            box.starts += 1
            self._tell("start", box)
        await self._turns()

    async def stop(self, container: str, grace: int) -> None:
        await self._turns()
        box = self._box(container)
        if box.running:
            self.on_stop(box)
            self._tell("kill", box, signal="15")
            await self._turns()
            if box.running:
                self.end(box, self.rng.choice((0, 137)))
        await self._turns()

    async def remove(self, container: str) -> None:
        await self._turns()
        try:
            box = self._box(container)
        except api.EngineError:
            return
        if box.running:
            self.end(box, 137)
        self.boxes.pop(box.id, None)
        self._tell("destroy", box)
        await self._turns()

    async def image_exists(self, reference: str) -> bool:
        await self._turns()
        return True

    async def pull(self, reference: str, auth: str, stall: float) -> None:
        await self._turns()

    async def events(self, labels: list[str]) -> AsyncIterator[api.Event | None]:
        await self._turns()
        queue: asyncio.Queue[api.Event | None] = asyncio.Queue()
        self.listeners.append(queue)
        try:
            yield None
            while (event := await queue.get()) is not None:
                yield event
        finally:
            if queue in self.listeners:
                self.listeners.remove(queue)
        raise api.EngineGone("the stream ended")

    async def close(self) -> None:
        pass

    def task_of(self, box: Box) -> str:
        return box.labels[TASK_ID_LABEL]
