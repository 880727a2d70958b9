"""Seeded stories: tasks come, change and go while containers die, the engine falls over and the agent restarts.

Whatever happens, once it is quiet again the host holds exactly what was assigned, and on the way no rule was broken:
observed states only rise, no container is started twice, none is told to stop while it still gets traffic.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from swarm_agent.model.ids import new_id
from swarm_agent.model.objects import Endpoint, Network, NetworkAttachment, Task, TaskStatus
from swarm_agent.model.rows import EndpointRow
from swarm_agent.model.session import Assignments, TaskStatusUpdate
from swarm_agent.model.specs import ContainerSpec, TaskSpec
from swarm_agent.model.states import TaskState
from swarm_agent.worker.worker import Worker
from tests.unit.worker.model_engine import Box, ModelEngine

S = TaskState
NODE = "n" * 25


class Story:
    def __init__(self, seed: int, folder: Path) -> None:
        self.rng = random.Random(seed)
        self.folder = folder
        self.engine = ModelEngine(self.rng, self.on_stop)
        self.tasks: dict[str, Task] = {}  # as in the store
        self.rows: dict[str, EndpointRow] = {}
        self.faults: list[str] = []
        self.connected = False  # whether a manager hears the reports
        self.worker = self.new_worker()

    def new_worker(self) -> Worker:
        return Worker(
            engine=self.engine,
            node_id=NODE,
            hostname="h",
            state_dir=self.folder,
            run_dir=self.folder / "run",
            networks=self,
            endpoints=self,
            report=self.report,
        )

    # --- the parts beside the worker ----------------------------------------------------------------------------------

    async def attach(self, network_id: str) -> str:
        return network_id

    async def activate(self, row: EndpointRow) -> None:
        await asyncio.sleep(0)
        self.rows[row.task_id] = row

    async def deactivate(self, task_id: str) -> None:
        await asyncio.sleep(0)
        if task_id in self.rows:
            self.rows[task_id] = msgspec.structs.replace(self.rows[task_id], active=False)

    async def withdraw(self, task_id: str) -> None:
        self.rows.pop(task_id, None)

    def on_stop(self, box: Box) -> None:
        row = self.rows.get(self.engine.task_of(box))
        if row is not None and row.active:
            self.faults.append(f"{box.name} was told to stop while it got traffic")

    def report(self, updates: list[TaskStatusUpdate]) -> None:
        if not self.connected:
            return
        for update in updates:
            task = self.tasks.get(update.task_id)
            if task is None:
                continue
            if update.status.state.rank < task.status.state.rank:
                self.faults.append(f"{task.name} fell from {task.status.state} to {update.status.state}")
            else:
                self.tasks[task.id] = msgspec.structs.replace(task, status=update.status)

    # --- what can happen ----------------------------------------------------------------------------------------------

    async def act(self) -> None:
        actions: list[Callable[[], object]] = [
            self.add, self.add, self.lift, self.shut_down, self.remove, self.die, self.fall, self.rise,
            self.disconnect, self.new_session,
        ]  # fmt: skip
        if self.rng.random() < 0.06:
            await self.restart_agent()
        else:
            self.rng.choice(actions)()
        if self.engine.up and self.rng.random() < 0.2:
            await asyncio.sleep(0.06)  # long enough for the worker to find the engine again
        for _ in range(self.rng.randrange(25)):
            await asyncio.sleep(0)

    def add(self) -> None:
        task = Task(
            id=new_id(self.rng),
            service_name="web",
            slot=len(self.tasks) + 1,
            node_id=NODE,
            spec=TaskSpec(container_spec=ContainerSpec(image="x")),
            status=TaskStatus(state=S.ASSIGNED),
            desired_state=self.rng.choice((S.READY, S.RUNNING, S.RUNNING)),
            networks_attachments=self.rng.choice(([], [NetworkAttachment(network=Network(id="net"))])),
            endpoint=Endpoint(),
        )
        self.put(task)

    def put(self, task: Task) -> None:
        self.tasks[task.id] = task
        if self.connected:
            self.worker.assign(Assignments(tasks=[task]))

    def raise_desired(self, state: TaskState) -> None:
        lower = [task for task in self.tasks.values() if task.desired_state.rank < state.rank]
        if lower:
            self.put(msgspec.structs.replace(self.rng.choice(lower), desired_state=state))

    def lift(self) -> None:
        self.raise_desired(S.RUNNING)

    def shut_down(self) -> None:
        self.raise_desired(self.rng.choice((S.SHUTDOWN, S.REMOVE)))

    def remove(self) -> None:
        if self.tasks:
            task_id = self.rng.choice(list(self.tasks))
            del self.tasks[task_id]
            if self.connected:
                self.worker.assign(Assignments(gone_tasks=[task_id]))

    def die(self) -> None:
        running = [box for box in self.engine.boxes.values() if box.running]
        if running and self.engine.up:
            self.engine.end(self.rng.choice(running), self.rng.choice((0, 1)))

    def fall(self) -> None:
        if self.rng.random() < 0.4:
            self.engine.go_down()

    def rise(self) -> None:
        if not self.engine.up:
            self.engine.come_up(live_restore=self.rng.random() < 0.5)

    def disconnect(self) -> None:
        self.connected = False

    def new_session(self) -> None:
        self.connected = True
        self.worker.assign(Assignments(complete=True, tasks=list(self.tasks.values())))

    async def restart_agent(self) -> None:
        await self.worker.stop()
        if self.rng.random() < 0.3:
            (self.folder / "worker.json").unlink()
        self.rows.clear()
        self.connected = False
        self.worker = self.new_worker()
        await self.worker.start()

    # --- the end ------------------------------------------------------------------------------------------------------

    def wrong(self) -> list[str]:
        """What is not as declared."""
        found = []
        boxes = {self.engine.task_of(box): box for box in self.engine.boxes.values()}
        found += [f"{box.name} belongs to no task" for task_id, box in boxes.items() if task_id not in self.tasks]
        found += [f"row of {task_id} left" for task_id in self.rows if task_id not in self.tasks]
        for task in self.tasks.values():
            box, row = boxes.get(task.id), self.rows.get(task.id)
            runs, state = box is not None and box.running, task.status.state
            if state is S.RUNNING and task.desired_state in (S.READY, S.RUNNING):
                good = runs and row is not None and row.active
            elif state.is_terminal:
                good = not runs and row is None
            else:
                good = state is S.READY and task.desired_state is S.READY and box is not None and not runs
            if not good:
                found.append(f"{task.id}: desired {task.desired_state}, observed {task.status}, {box}, {row}")
        return found


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_happens_the_host_comes_to_hold_what_was_assigned(seed: int, tmp_path: Path) -> None:
    story = Story(seed, tmp_path)
    await story.worker.start()
    try:
        for _ in range(120):
            await story.act()
        if not story.engine.up:
            story.engine.come_up(live_restore=True)
        story.new_session()
        await quiet(story)
    finally:
        await story.worker.stop()
    assert story.faults == []
    assert all(box.starts <= 1 for box in story.engine.boxes.values())


async def quiet(story: Story) -> None:
    """Wait until all is as declared."""
    try:
        async with asyncio.timeout(10):
            while story.wrong():  # noqa: ASYNC110 - the condition spans engine, rows and reports
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError("\n".join(story.wrong())) from None
