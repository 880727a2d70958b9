"""The dispatcher and what nodes report of their tasks: what is accepted, and how it is written."""

from __future__ import annotations

import asyncio

import pytest

from swarm_agent.manager.reports import advance
from swarm_agent.model.errors import NoLeader
from swarm_agent.model.objects import TaskStatus
from swarm_agent.model.states import TaskState
from tests.unit.manager.dispatcher_world import World, large, replace, simulate, task


@pytest.mark.parametrize(
    ("old", "new", "accepted"),
    [
        (TaskState.ASSIGNED, TaskState.ACCEPTED, True),
        (TaskState.ASSIGNED, TaskState.REJECTED, True),
        (TaskState.RUNNING, TaskState.STARTING, False),
        (TaskState.FAILED, TaskState.RUNNING, False),
        (TaskState.SHUTDOWN, TaskState.COMPLETE, False),
        (TaskState.PENDING, TaskState.RUNNING, False),
        (TaskState.RUNNING, TaskState.ORPHANED, False),
        (TaskState.RUNNING, TaskState.REMOVE, False),
    ],
)
def test_observed_states_only_rise_and_only_to_what_a_node_can_see(
    old: TaskState, new: TaskState, accepted: bool
) -> None:
    found = advance(task("t", state=old), "n", TaskStatus(state=new))
    assert (found is not None) is accepted


def test_a_node_speaks_only_for_its_own_tasks() -> None:
    assert advance(task("t", "n"), "intruder", TaskStatus(state=TaskState.FAILED)) is None


def test_details_may_change_within_a_state_until_the_task_has_ended() -> None:
    preparing = task("t", state=TaskState.PREPARING)
    retrying = TaskStatus(state=TaskState.PREPARING, err="no route to host", timestamp="2024-01-01T00:00:00Z")
    updated = advance(preparing, "n", retrying)
    assert updated is not None
    assert updated.status == retrying
    assert advance(updated, "n", replace(retrying, timestamp="2024-01-02T00:00:00Z")) is None
    assert advance(task("t", state=TaskState.FAILED), "n", TaskStatus(state=TaskState.FAILED, err="again")) is None


def test_an_intruders_report_does_not_displace_the_true_one() -> None:
    async def scenario(world: World) -> None:
        await world.create(task("t"))
        peer, intruder = await world.join("n"), await world.join("x")
        peer.report("t", TaskState.RUNNING)
        intruder.report("t", TaskState.FAILED)
        await asyncio.sleep(0.1)
        assert world.status("t").state is TaskState.RUNNING

    simulate(scenario)


def test_reports_are_batched_into_few_log_entries() -> None:
    async def scenario(world: World) -> None:
        await world.create(*(task(f"t{number}") for number in range(190)))
        peer = await world.join()
        before = len(world.store.proposer.entries)  # type: ignore[union-attr]
        for number in range(190):
            peer.report(f"t{number}", TaskState.RUNNING)
        await asyncio.sleep(0.1)
        assert all(world.status(f"t{number}").state is TaskState.RUNNING for number in range(190))
        assert len(world.store.proposer.entries) - before <= 3  # type: ignore[union-attr]

    simulate(scenario)


def test_reports_of_large_tasks_are_spread_over_entries() -> None:
    async def scenario(world: World) -> None:
        for number in range(150):
            await world.create(task(f"t{number}", spec=large()))
        peer = await world.join()
        for number in range(150):
            peer.report(f"t{number}", TaskState.RUNNING)
        await asyncio.sleep(0.5)
        assert all(world.status(f"t{number}").state is TaskState.RUNNING for number in range(150))

    simulate(scenario)


def test_reports_wait_for_a_quorum() -> None:
    async def scenario(world: World) -> None:
        await world.create(task("t"))
        peer = await world.join()
        world.store.proposer.refusal = NoLeader()  # type: ignore[union-attr]
        peer.report("t", TaskState.ACCEPTED)
        await asyncio.sleep(0.3)
        peer.report("t", TaskState.RUNNING)
        await asyncio.sleep(0.3)
        world.store.proposer.refusal = None  # type: ignore[union-attr]
        await asyncio.sleep(1)
        assert world.status("t").state is TaskState.RUNNING

    simulate(scenario)
