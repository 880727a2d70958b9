"""swarmctl through a real front door, beside a real leader: what an operator sees while tasks wait, move and run."""

from __future__ import annotations

import asyncio
import io
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from rich.console import Console

from swarm_agent.cli.client import Agent, CommandError
from swarm_agent.cli.main import VERBS, build_parser
from swarm_agent.manager.allocator import Allocator
from swarm_agent.manager.orchestrator import Orchestrator
from swarm_agent.manager.rebalancer import Rebalancer
from swarm_agent.manager.scheduler import Scheduler
from swarm_agent.manager.tasks import has_ended, is_live, was_assigned
from swarm_agent.model.objects import Node, Task, TaskStatus
from swarm_agent.model.states import TaskState
from swarm_agent.model.times import rfc3339
from swarm_agent.store.view import Change

from .kit import Door, make_node

replace = msgspec.structs.replace


class Agents:
    """All nodes' agents: what is assigned runs, what is not wanted any more has stopped."""

    def __init__(self, door: Door) -> None:
        self.store = door.store
        self._event = asyncio.Event()

    def changed(self, changes: list[Change]) -> None:
        if any(change.kind is Task for change in changes):
            self._event.set()

    async def run(self) -> None:
        while True:
            await self._event.wait()
            self._event.clear()
            await self.store.update(self._carry)

    def _carry(self, tx: Any) -> None:
        for task in tx.all(Task):
            if not was_assigned(task) or has_ended(task):
                continue
            state = TaskState.SHUTDOWN if not is_live(task) else TaskState.RUNNING
            if state is TaskState.RUNNING and task.desired_state is TaskState.READY:
                state = TaskState.READY
            if state.rank > task.status.state.rank:
                tx.update(replace(task, status=TaskStatus(timestamp=rfc3339(time.time_ns()), state=state)))


@pytest.fixture
async def led(swarm: Door) -> AsyncIterator[Door]:
    """A cluster of two nodes that is led."""
    store = swarm.store
    await store.update(lambda tx: tx.create(make_node("second000000000000000000", "second")))
    agents = Agents(swarm)
    stop = store.subscribe(agents.changed)
    acting = asyncio.create_task(agents.run())
    rng = random.Random(1)
    loops: list[Any] = [
        Orchestrator(store, clock=time.time_ns, rng=rng),
        Rebalancer(store, clock=time.time_ns, rng=rng),
        Allocator(store),
        Scheduler(store),
    ]
    for loop in loops:
        await loop.start()
    yield swarm
    for loop in loops:
        await loop.stop()
    acting.cancel()
    stop()


async def ctl(door: Door, *words: str) -> str:
    """What `swarmctl WORDS` prints on a wide terminal."""
    printed = io.StringIO()
    arguments = build_parser().parse_args(["--socket", str(door.path), *words])
    run = VERBS[arguments.verb].run
    await asyncio.to_thread(run, Agent(arguments.socket), arguments, Console(file=printed, width=200))
    return printed.getvalue()


async def shows(door: Door, text: str, *words: str) -> str:
    """Ask until it says so."""
    printed = ""
    for _ in range(400):
        printed = await ctl(door, *words)
        if text in printed:
            return printed
        await asyncio.sleep(0.02)
    raise AssertionError(f"{text!r} is not in {printed}")


async def create(door: Door, name: str, replicas: int, **changes: Any) -> None:
    spec = {"Name": name, "TaskTemplate": {"ContainerSpec": {"Image": "web"}, **changes.pop("template", {})},
            "Mode": {"Replicated": {"Replicas": replicas}}, **changes}  # fmt: skip
    status, answer = await door.call("POST", "/v1.41/services/create", spec)
    assert status == 201, answer


async def set_node(door: Door, hostname: str, **changes: Any) -> None:
    def run(tx: Any) -> None:
        node = next(node for node in tx.all(Node) if node.description.hostname == hostname)
        tx.update(replace(node, spec=replace(node.spec, **changes)))

    await door.store.update(run)


async def test_a_waiting_task_is_explained_until_it_runs_and_after_it_had_to_go(led: Door) -> None:
    await create(led, "picky", 1, template={"Placement": {"Constraints": ["node.labels.disk==ssd"]}})
    printed = await shows(led, "no suitable node (scheduling constraints not satisfied on 2 nodes)", "explain", "picky")
    assert "0 of 1 replicas run" in printed
    assert "second: constraint node.labels.disk==ssd does not hold: it is not set" in printed
    await set_node(led, "second", labels={"disk": "ssd"})
    await shows(led, "1 of 1 replicas run", "explain", "picky")
    task = led.store.view().all(Task)[0]
    assert "it runs on node second since" in await ctl(led, "explain", task.id[:8])
    await set_node(led, "second", labels={"disk": "hdd"})
    printed = await shows(led, "constraint node.labels.disk==ssd does not hold: it is 'hdd'", "explain", "picky")
    assert "ended on node second: rejected: assigned node no longer meets constraints" in printed
    with pytest.raises(CommandError, match="no service, task or node nobody"):
        await ctl(led, "explain", "nobody")


async def test_tasks_are_spread_on_request_and_the_node_tells_why_they_came(led: Door) -> None:
    await set_node(led, "second", availability="drain")
    await create(led, "web", 4, UpdateConfig={"Order": "start-first", "Parallelism": 1})
    await shows(led, "4 of 4 replicas run", "explain", "web")
    assert "it is drained" in await ctl(led, "explain", "second")
    await set_node(led, "second", availability="active")
    plan = await ctl(led, "rebalance", "--dry-run")
    assert "2 tasks would be moved" in plan and "node first has 4 tasks of the service, node second has 0" in plan
    printed = await ctl(led, "rebalance")
    assert "2 tasks are being moved, one of a service at a time" in printed
    await shows(led, "everything is even", "rebalance", "--dry-run")
    there = Counter(task.node_id for task in led.store.view().all(Task) if is_live(task))
    assert sorted(there.values()) == [2, 2]
    assert "node first had more than its share (rebalancing)" in await ctl(led, "explain", "second")
    await shows(led, "4 of 4 replicas run", "explain", "web")


async def test_the_clusters_setting_is_written_and_taken_back(led: Door) -> None:
    assert "rebalancing by itself is on" in await ctl(led, "rebalance", "--auto", "on")
    assert (await led.call("GET", "/v1.41/swarm"))[1]["Spec"]["Labels"] == {"swarm.rebalance": "auto"}
    await ctl(led, "rebalance", "--auto", "off")
    assert (await led.call("GET", "/v1.41/swarm"))[1]["Spec"]["Labels"] == {}
    _, swarm = await led.call("GET", "/v1.41/swarm")
    wrong = {**swarm["Spec"], "Labels": {"swarm.rebalance": "sometimes"}}
    status, answer = await led.call("POST", f"/v1.41/swarm/update?version={swarm['Version']['Index']}", wrong)
    assert status == 400 and "'sometimes' is neither auto nor off" in answer["message"]


async def test_a_schedule_is_refused_or_told(led: Door) -> None:
    spec = {"Name": "night", "TaskTemplate": {"ContainerSpec": {"Image": "x"}}, "Mode": {"ReplicatedJob": {}}}
    bad = {**spec, "Labels": {"swarm.job.cron": "61 * * * *"}}
    status, answer = await led.call("POST", "/v1.41/services/create", bad)
    assert status == 400 and "label swarm.job.cron: '61' in the minute is not within 0-59" in answer["message"]
    good = {**spec, "Labels": {"swarm.job.cron": "0 3 1 1 *"}}
    assert (await led.call("POST", "/v1.41/services/create", good))[0] == 201
    printed = await ctl(led, "explain", "night")
    assert "(UTC): next run 20" in printed and "-01-01T03:00:00" in printed and "last run none yet" in printed
    assert not led.store.view().all(Task)
