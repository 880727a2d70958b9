"""The scheduler's decisions: made, confirmed, refused and made anew, and written by the loop on the store."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from swarm_agent.manager.scheduler import Scheduler
from swarm_agent.manager.scheduling import SchedulerCore
from swarm_agent.model.errors import NoLeader
from swarm_agent.model.objects import Node, Task, TaskStatus
from swarm_agent.model.states import TaskState
from swarm_agent.model.times import rfc3339
from swarm_agent.store.memory import memory_store
from swarm_agent.store.store import Store
from tests.unit.manager.scheduler_world import NOW, World, node, placed, replace, reserving, task


def test_an_assigned_task_carries_swarms_message_and_time() -> None:
    wanted = task()
    world = World(node("a"), wanted)
    (assigned,) = world.plan()
    assert assigned.node_id == "a"
    assert assigned.status == TaskStatus(
        timestamp=rfc3339(NOW), state=TaskState.ASSIGNED, message="scheduler assigned task to node"
    )


def test_searching_makes_no_work_for_the_garbage_collector() -> None:
    """It would stop the whole manager: with 100,000 tasks in memory a collection takes a third of a second."""
    nodes = [node(f"n{number}", labels={"rack": f"r{number % 3}"}) for number in range(9)]
    spread = placed("node.labels.rack != r2", prefer=("node.labels.rack",))
    world = World(*nodes, *(task(service, spec=spread) for service in "abcdef" for _ in range(4)))
    gc.collect()
    gc.disable()
    try:
        while world.core.busy:
            world.core.plan(7, NOW)
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_preassigned_task_is_confirmed_or_waits_for_its_own_node() -> None:
    fits = task("g", node_id="a", spec=reserving(cpus=1))
    big = task("h", node_id="b", spec=reserving(cpus=5))
    world = World(node("a"), node("b"), node("c"), fits, big)
    world.plan()
    assert world.task(fits).status.message == "scheduler confirmed task can run on preassigned node"
    assert world.task(big).status.err == "insufficient resources on 1 node"
    assert world.task(big).node_id == "b"


def test_a_task_stopped_before_it_had_a_node_is_shut_down_here() -> None:
    stopped = [
        task(desired_state=TaskState.SHUTDOWN),
        task(desired_state=TaskState.SHUTDOWN, status=TaskStatus(state=TaskState.NEW)),
    ]
    removed = task(desired_state=TaskState.REMOVE)
    world = World(node("a"), *stopped, removed)
    world.plan()
    assert [world.task(each).status.state for each in stopped] == [TaskState.SHUTDOWN] * 2
    assert world.task(removed) == removed, "the reaper deletes those"


def test_refused_decisions_are_taken_back_and_made_anew() -> None:
    first, second = task(spec=reserving(cpus=3)), task(spec=reserving(cpus=3))
    core = SchedulerCore()
    core.load([node("a"), first, second], NOW)
    decisions = core.plan(10, NOW)
    (assigned,) = [each for each in decisions if each.node_id]
    removed = {assigned.id: None}
    others = {first.id: first, second.id: second}
    core.settle(decisions, lambda _, task_id: removed.get(task_id, others[task_id]) if task_id not in removed else None)
    (again,) = [each for each in core.plan(10, NOW) if each.node_id]
    assert again.id != assigned.id


# --- the loop on the store -------------------------------------------------------------------------------------------


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    store = memory_store()
    scheduler = Scheduler(store, clock=lambda: NOW)
    await scheduler.start()
    yield store
    await scheduler.stop()
    await store.close()


async def create(store: Store, *objects: Any) -> None:
    await store.update(lambda tx: [tx.create(obj) for obj in objects])


async def until(store: Store, condition: Any) -> None:
    """Return when the condition holds for the store's view; it is tried after each change."""
    changed = asyncio.Event()
    unsubscribe = store.subscribe(lambda _: changed.set())
    async with asyncio.timeout(10):
        while not condition(store.view()):
            changed.clear()
            await changed.wait()
    unsubscribe()


async def test_pending_tasks_in_the_store_become_assigned(store: Store) -> None:
    tasks = [task() for _ in range(500)]
    await create(store, *tasks)
    await until(store, lambda view: all(each.status.err for each in view.all(Task)))
    await create(store, node("a"), node("b"))
    await until(store, lambda view: all(each.status.state is TaskState.ASSIGNED for each in view.all(Task)))
    assert Counter(each.node_id for each in store.view().all(Task)) == {"a": 250, "b": 250}


async def test_a_node_drained_while_an_assignment_is_written_gets_no_task(store: Store) -> None:
    await create(store, node("a"))
    wanted = task()

    def drain_and_create(tx: Any) -> None:
        stored = tx.get(Node, "a")
        tx.update(replace(stored, spec=replace(stored.spec, availability="drain")))

    await asyncio.gather(create(store, wanted), store.update(drain_and_create))
    await until(store, lambda view: view.get(Task, wanted.id).status.err)
    assert store.view().get(Task, wanted.id).status.state is TaskState.PENDING


async def test_the_loop_survives_a_time_without_quorum() -> None:
    store = memory_store()
    await create(store, node("a"), task())
    scheduler = Scheduler(store)
    proposer = store.proposer
    proposer.refusal = NoLeader()  # type: ignore[union-attr]
    await scheduler.start()
    await asyncio.sleep(0.05)
    assert [each.status.state for each in store.view().all(Task)] == [TaskState.PENDING]
    proposer.refusal = None  # type: ignore[union-attr]
    await until(store, lambda view: all(each.status.state is TaskState.ASSIGNED for each in view.all(Task)))
    await scheduler.stop()
