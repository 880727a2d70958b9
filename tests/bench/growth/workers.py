"""Many nodes in one process: each joins with the token, keeps a real session, and pretends to run its tasks.

Standard input takes JSON lines: {"join": 100} (that many more; answers when all had their Welcome), {"lose": 1} (that
many fall silent for good, their connections open: a host without power looks so). A task is told to be PREPARING when
it comes and RUNNING a third of a second later, about what a container takes.
"""

from __future__ import annotations

import asyncio
import functools
import json
import random
import sys
import time

import aiohttp

from swarm_agent.model.objects import NodeDescription, Task, TaskStatus
from swarm_agent.model.session import Assignments, FromNode, ManagerPeer, TaskStatusUpdate
from swarm_agent.model.specs import Platform, Resources
from swarm_agent.model.states import TaskState
from swarm_agent.model.times import rfc3339
from swarm_agent.node.admission import request_admission
from swarm_agent.node.session import SessionClient
from swarm_agent.pki import tls

MANAGER = "127.0.0.1:2377"
STARTING = 0.3  # seconds
JOINING = 20  # nodes that join at once


class Session(SessionClient):
    """A session whose node can lose its power."""

    dead = False

    async def _post(self, socket: aiohttp.ClientWebSocketResponse, message: FromNode) -> None:
        if not self.dead:
            await super()._post(socket, message)


class Worker:
    """One node. It remembers what it last said of each task and says no less."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._said: dict[str, TaskState] = {}
        self.session: Session | None = None

    async def join(self, token: str) -> None:
        admission = await request_admission(MANAGER, token, "active", self._name)
        context = tls.client_context(admission.certificate)
        description = NodeDescription(
            hostname=self._name,
            platform=Platform(architecture="x86_64", os="linux"),
            resources=Resources(nano_cpus=64 * 10**9, memory_bytes=256 * 2**30),
        )
        self.session = Session(
            advertise="127.0.0.1",
            managers=[ManagerPeer("leader", MANAGER)],
            context=lambda: context,
            describe=lambda: description,
            on_welcome=lambda _: None,
            on_assignments=self._assigned,
            on_state=lambda _: None,
            on_stream=lambda message, address: None,
            address_of=lambda node_id: "",
            alive=lambda node_id: None,
            leader=lambda: "",
            rng=random.Random(self._name),
        )
        self.session.start()
        await self.session.connected.wait()

    def die(self) -> None:
        assert self.session is not None
        self.session.dead = True

    def _assigned(self, message: Assignments) -> None:
        for task in message.tasks:
            if task.desired_state.is_terminal:
                self._say(task.id, TaskState.SHUTDOWN)
            elif task.desired_state is TaskState.RUNNING:
                self._run(task)
        for task_id in message.gone_tasks:
            self._said.pop(task_id, None)

    def _run(self, task: Task) -> None:
        if task.id not in self._said:
            self._say(task.id, TaskState.PREPARING)
            asyncio.get_running_loop().call_later(STARTING, functools.partial(self._say, task.id, TaskState.RUNNING))

    def _say(self, task_id: str, state: TaskState) -> None:
        before = self._said.get(task_id)
        if before is None or before.rank < state.rank:
            self._said[task_id] = state
            status = TaskStatus(timestamp=rfc3339(time.time_ns()), state=state, message=str(state))
            assert self.session is not None
            self.session.report([TaskStatusUpdate(task_id, status)])


async def main() -> None:
    token = sys.argv[1]
    workers: list[Worker] = []
    gate = asyncio.Semaphore(JOINING)

    async def join(worker: Worker) -> None:
        async with gate:
            await worker.join(token)

    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = json.loads(line)
        if "join" in asked:
            new = [Worker(f"node{len(workers) + number}") for number in range(asked["join"])]
            workers += new
            await asyncio.gather(*(join(worker) for worker in new))
        elif "lose" in asked:
            for worker in workers[-asked["lose"] :]:
                worker.die()
        print(json.dumps({"nodes": len(workers)}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
