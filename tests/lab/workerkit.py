"""A worker on a private engine, with stand-ins for the parts beside it that only record what they were asked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from swarm_agent.model.ids import new_id
from swarm_agent.model.objects import Endpoint, Node, NodeDescription, Task, TaskStatus
from swarm_agent.model.rows import EndpointRow
from swarm_agent.model.session import Assignments, TaskStatusUpdate
from swarm_agent.model.specs import ContainerSpec, TaskSpec
from swarm_agent.model.states import TaskState
from swarm_agent.worker.engine import Engine
from swarm_agent.worker.worker import Worker
from tests.lab.private_engine import IMAGE, PrivateEngine

NODE_ID = "n" * 25
_rng = random.Random(7)


class Recorder:
    """Networks and endpoints of a host without other hosts, and the receiver of reports."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.rows: dict[str, EndpointRow] = {}
        self.statuses: dict[str, TaskStatus] = {}
        self.history: dict[str, list[TaskState]] = {}
        self.networks: dict[str, str] = {}
        self.news = asyncio.Event()

    async def attach(self, network_id: str) -> str:
        return self.networks[network_id]

    async def activate(self, row: EndpointRow) -> None:
        self.rows[row.task_id] = row
        self.calls.append(("activate" if row.active else "announce", row.task_id))

    async def deactivate(self, task_id: str) -> None:
        self.calls.append(("deactivate", task_id))

    async def withdraw(self, task_id: str) -> None:
        self.rows.pop(task_id, None)
        self.calls.append(("withdraw", task_id))

    def report(self, updates: list[TaskStatusUpdate]) -> None:
        for update in updates:
            self.statuses[update.task_id] = update.status
            self.history.setdefault(update.task_id, []).append(update.status.state)
        self.news.set()

    async def until(self, fact: Callable[[], Any], what: str, seconds: float = 30) -> None:
        """Wait for a fact that follows from a report."""
        try:
            async with asyncio.timeout(seconds):
                while not fact():
                    self.news.clear()
                    await self.news.wait()
        except TimeoutError:
            raise AssertionError(f"waited {seconds} s in vain until {what}; statuses: {self.statuses}") from None

    async def state(self, task: Task, state: TaskState) -> TaskStatus:
        await self.until(
            lambda: task.id in self.statuses and self.statuses[task.id].state is state, f"{task.name} is {state}"
        )
        return self.statuses[task.id]


class Bench:
    """One agent's worker; `restart` is a restart of the agent."""

    def __init__(self, engine: PrivateEngine, folder: Path) -> None:
        self.engine = engine
        self.folder = folder
        self.seen = Recorder()
        self.worker = self._worker()

    def _worker(self) -> Worker:
        self.client = Engine(str(self.engine.socket))
        worker = Worker(
            engine=self.client,
            node_id=NODE_ID,
            hostname="bench",
            state_dir=self.folder / "state",
            run_dir=self.folder / "run",
            networks=self.seen,
            endpoints=self.seen,
            report=self.seen.report,
        )
        worker.node(Node(id=NODE_ID, description=NodeDescription(hostname="bench")))
        return worker

    async def start(self) -> None:
        await self.worker.start()

    async def stop(self) -> None:
        await self.worker.stop()
        await self.client.close()

    async def restart(self) -> None:
        await self.stop()
        self.seen.rows.clear()
        self.worker = self._worker()
        await self.start()

    def assign(self, *tasks: Task, **more: Any) -> None:
        """All that this node must run."""
        self.worker.assign(Assignments(complete=True, tasks=list(tasks), **more))

    def change(self, *tasks: Task, gone: tuple[str, ...] = ()) -> None:
        self.worker.assign(Assignments(tasks=list(tasks), gone_tasks=list(gone)))

    def containers(self) -> list[str]:
        return self.engine.docker("ps", "-a", "--format", "{{.Names}}").split()

    def inspect(self, task: Task, form: str) -> str:
        return self.engine.docker("inspect", "-f", form, task.name)


def make_task(service: str = "web", slot: int = 1, *, desired: TaskState = TaskState.RUNNING, **changes: Any) -> Task:
    """A task as it comes from the scheduler; `changes` go into the container spec where it has the field."""
    spec_fields = {field.name for field in msgspec.structs.fields(ContainerSpec)}
    container = {"image": IMAGE, "stop_grace_period": 1_000_000_000}
    container |= {key: value for key, value in changes.items() if key in spec_fields}
    task = {key: value for key, value in changes.items() if key not in spec_fields}
    template = {key: task.pop(key) for key in ("resources", "networks", "log_driver") if key in task}
    return Task(
        **{
            "id": new_id(_rng),
            "service_id": "s" * 25,
            "service_name": service,
            "slot": slot,
            "node_id": NODE_ID,
            "status": TaskStatus(state=TaskState.ASSIGNED, message="scheduler assigned task to node"),
            "desired_state": desired,
            "spec": TaskSpec(container_spec=ContainerSpec(**container), **template),
            "endpoint": Endpoint(),
            **task,
        }
    )


def wanting(task: Task, desired: TaskState) -> Task:
    return msgspec.structs.replace(task, desired_state=desired)
