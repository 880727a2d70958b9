"""Restarts: policy, delay, attempts, and the handover from old task to new (reference/swarm.md §3.3)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from swarm_agent.manager.restart import should_restart
from swarm_agent.model.objects import Task, TaskStatus, Version
from swarm_agent.model.specs import Global, RestartPolicy, ServiceMode, TaskSpec
from swarm_agent.model.states import TaskState as S
from swarm_agent.model.times import SECOND, parse_rfc3339, rfc3339
from tests.sim.orchestration_world import update_config, world
from tests.sim.virtual_time import run


def ended(
    state: S = S.FAILED, *, at: int = 100, made: int = 0, again: bool = False, version: int = 1, **policy: Any
) -> Task:
    return Task(
        id=f"t{made}",
        created_at=rfc3339(made * SECOND),
        updated_at=rfc3339(at * SECOND),
        spec=TaskSpec(restart_policy=RestartPolicy(**policy)),
        spec_version=Version(index=version),
        status=TaskStatus(state=state),
        restart_after=rfc3339(made * SECOND) if again else "",
    )


@pytest.mark.parametrize(
    ("condition", "state", "restarts"),
    [
        ("", S.FAILED, True),
        ("any", S.FAILED, True),
        ("any", S.COMPLETE, True),
        ("any", S.REJECTED, True),
        ("on-failure", S.FAILED, True),
        ("on-failure", S.REJECTED, True),
        ("on-failure", S.COMPLETE, False),
        ("none", S.FAILED, False),
        ("none", S.COMPLETE, False),
    ],
)
def test_the_condition_decides(condition: str, state: S, restarts: bool) -> None:
    task = ended(state, condition=condition)
    assert should_restart(task, [task]) is restarts


def test_attempts_count_the_restarts_of_the_slot() -> None:
    first = ended(made=0, max_attempts=2)
    second = ended(made=10, again=True, max_attempts=2)
    third = ended(made=20, again=True, max_attempts=2)
    assert should_restart(first, [first])
    assert should_restart(second, [first, second])
    assert not should_restart(third, [first, second, third])


def test_attempts_start_anew_with_a_new_spec() -> None:
    old = [ended(made=made, again=True, version=1, max_attempts=2) for made in (0, 10, 20)]
    new = ended(made=30, version=2, max_attempts=2)
    assert should_restart(new, [*old, new])


def test_attempts_start_anew_when_a_spec_comes_back() -> None:
    before = [ended(made=made, again=made > 0, version=1, max_attempts=2) for made in (0, 10, 20)]
    between = ended(made=30, version=2, max_attempts=2)
    back = ended(made=40, version=1, max_attempts=2)
    assert should_restart(back, [*before, between, back])
    assert not should_restart(before[-1], [*before, between])


def test_only_restarts_within_the_window_count() -> None:
    tasks = [ended(made=made, again=True, at=100, max_attempts=2, window=30 * SECOND) for made in (0, 60, 90)]
    assert should_restart(tasks[-1], tasks)
    tasks = [ended(made=made, again=True, at=100, max_attempts=2, window=50 * SECOND) for made in (0, 60, 90)]
    assert not should_restart(tasks[-1], tasks)


def test_a_failed_task_is_replaced_at_once_and_started_after_the_delay() -> None:
    async def main() -> None:
        async with world() as w:
            service = await w.create(replicas=1)
            await w.until(lambda: w.running(service))
            old = w.running(service)[0]
            await w.hosts[old.node_id].kill(old.id)
            await w.until(lambda: len(w.tasks(service)) == 2, 1)
            await w.until(lambda: w.tasks(service)[1].status.state is S.READY, 1)
            old, new = w.tasks(service)
            assert old.desired_state is S.SHUTDOWN and new.desired_state is S.READY
            assert new.slot == old.slot and new.cause == "restart"
            assert 4.9 < (parse_rfc3339(new.restart_after) - parse_rfc3339(old.updated_at)) / SECOND < 5.1
            await w.until(lambda: w.running(service), 10)
            assert parse_rfc3339(w.running(service)[0].status.timestamp) > parse_rfc3339(new.restart_after)

    run(main())


def test_tasks_that_fail_while_they_are_prepared_are_tried_again_at_the_pace_of_the_delay() -> None:
    async def main() -> None:
        async with world() as w:
            service = await w.create("missing")
            made: set[str] = set()
            w.checks.append(lambda _: made.update(task.id for task in w.tasks(service)))
            await asyncio.sleep(61)
            assert 12 <= len(made) <= 14
            assert len(w.tasks(service)) == 5

    run(main())


def test_a_slot_whose_attempts_are_used_up_stays_dead_until_the_next_update() -> None:
    async def main() -> None:
        async with world() as w:
            policy = RestartPolicy(condition="any", delay=0, max_attempts=3)
            service = await w.create("crash", template={"restart_policy": policy})
            await asyncio.sleep(30)
            assert [task.status.state for task in w.tasks(service)] == [S.FAILED] * 4
            assert not any(task.desired_state is S.RUNNING for task in w.tasks(service))
            await w.set_image(service, "good")
            await w.until(lambda: w.running(service))

    run(main())


def test_the_count_of_attempts_outlives_the_leader() -> None:
    async def main() -> None:
        async with world() as w:
            policy = RestartPolicy(condition="any", delay=SECOND, max_attempts=5)
            service = await w.create("crash", template={"restart_policy": policy})
            for _ in range(4):
                await asyncio.sleep(1.7)
                await w.depose()
                await w.lead()
            await asyncio.sleep(30)
            assert len(w.tasks(service)) == 6

    run(main())


def test_the_delay_outlives_the_leader() -> None:
    async def main() -> None:
        async with world() as w:
            service = await w.create("dies:1", template={"restart_policy": RestartPolicy(delay=20 * SECOND)})
            await w.until(lambda: len(w.tasks(service)) == 2)
            due = parse_rfc3339(w.tasks(service)[1].restart_after)
            await w.depose()
            await asyncio.sleep(5)
            await w.lead()
            await w.until(lambda: w.tasks(service)[1].status.state.rank >= S.STARTING.rank)
            started = parse_rfc3339(w.tasks(service)[1].status.timestamp)
            assert due < started < due + 2 * SECOND

    run(main())


def test_a_lost_node_s_tasks_are_replaced_without_delay() -> None:
    async def main() -> None:
        async with world() as w:
            service = await w.create(replicas=6)
            await w.until(lambda: len(w.running(service)) == 6)
            lost = w.node_ids[0]
            await w.hosts[lost].power_off()
            await w.until(lambda: len(w.running(service)) == 6, 1.5)
            old = [task for task in w.tasks(service) if task.node_id == lost]
            assert len(old) == 2 and all(task.desired_state is S.SHUTDOWN for task in old)
            assert all(task.status.state is S.RUNNING for task in old)  # nobody could say otherwise yet
            await w.hosts[lost].heal()
            await w.until(
                lambda: all(task.status.state.is_terminal for task in w.tasks(service) if task.node_id == lost)
            )
            assert len(w.running(service)) == 6

    run(main())


def test_a_node_that_was_only_cut_off_stops_what_was_replaced() -> None:
    async def main() -> None:
        async with world() as w:
            service = await w.create(replicas=3)
            await w.until(lambda: len(w.running(service)) == 3)
            host = w.hosts[w.node_ids[0]]
            await host.cut()
            await w.until(lambda: len(w.running(service)) == 3, 2)
            assert len(host.containers) == 1
            await host.heal()
            await w.until(lambda: not host.containers)
            await asyncio.sleep(10)
            assert len(w.running(service)) == 3

    run(main())


def test_a_drained_node_is_emptied_at_once_and_stays_empty() -> None:
    async def main() -> None:
        async with world() as w:
            service = await w.create(replicas=6)
            await w.until(lambda: len(w.running(service)) == 6)
            drained = w.node_ids[1]
            await w.set_node(drained, availability="drain")
            await w.until(lambda: len(w.running(service)) == 6 and not w.hosts[drained].containers, 2)
            await w.set_node(drained, availability="active")
            await asyncio.sleep(10)
            assert not w.hosts[drained].containers

    run(main())


def test_a_drain_is_start_first_when_the_service_is() -> None:
    async def main() -> None:
        async with world() as w:
            service = await w.create("slow:5", update_config=update_config(order="start-first"))
            await w.until(lambda: w.running(service))
            seen: list[int] = []
            w.checks.append(lambda _: seen.append(len(w.running(service))))
            old = w.running(service)[0]
            await w.set_node(old.node_id, availability="drain")
            await w.until(lambda: not w.hosts[old.node_id].containers)
            await w.until(lambda: w.running(service)[0].node_id != old.node_id)
            assert min(seen) == 1
            assert len(w.tasks(service)) == 2

    run(main())


def test_a_drain_does_not_wait_for_ever_for_a_replacement_without_a_place() -> None:
    async def main() -> None:
        async with world(nodes=1) as w:
            service = await w.create(update_config=update_config(order="start-first"))
            await w.until(lambda: w.running(service))
            node = w.node_ids[0]
            await w.set_node(node, availability="drain")
            await asyncio.sleep(30)
            assert w.hosts[node].containers
            await w.until(lambda: not w.hosts[node].containers, 40)

    run(main())


def test_a_paused_node_keeps_what_it_has() -> None:
    async def main() -> None:
        async with world() as w:
            service = await w.create(replicas=3)
            await w.until(lambda: len(w.running(service)) == 3)
            paused = w.node_ids[2]
            await w.set_node(paused, availability="pause")
            await w.scale(service, 9)
            await w.until(lambda: len(w.running(service)) == 9)
            assert len(w.hosts[paused].containers) == 1

    run(main())


def test_a_node_of_unknown_state_is_not_lost() -> None:
    async def main() -> None:
        async with world() as w:
            service = await w.create(replicas=3)
            await w.until(lambda: len(w.running(service)) == 3)
            for host in w.hosts.values():
                await host._set_state("unknown")
            await asyncio.sleep(30)
            assert len(w.tasks(service)) == 3

    run(main())


def test_a_removed_node_s_tasks_are_replaced() -> None:
    async def main() -> None:
        async with world() as w:
            service = await w.create(replicas=3)
            await w.until(lambda: len(w.running(service)) == 3)
            gone = w.node_ids[0]
            w.hosts[gone].connected = False
            from swarm_agent.model.objects import Node

            await w.store.update(lambda tx: tx.delete(Node, gone))
            await w.until(lambda: len(w.running(service)) == 3)
            await w.remove(service)
            await w.until(lambda: not w.tasks(service))

    run(main())


@pytest.mark.parametrize("how", ["lost", "drained"])
def test_with_condition_none_not_even_a_lost_node_or_a_drain_brings_a_replacement(how: str) -> None:
    async def main() -> None:
        async with world() as w:
            service = await w.create(template={"restart_policy": RestartPolicy(condition="none")})
            await w.until(lambda: w.running(service))
            node = w.running(service)[0].node_id
            await (w.hosts[node].power_off() if how == "lost" else w.set_node(node, availability="drain"))
            await asyncio.sleep(30)
            assert [task.desired_state for task in w.tasks(service)] == [S.SHUTDOWN]

    run(main())


def test_what_failed_on_a_drained_node_is_replaced_without_delay() -> None:
    async def main() -> None:
        async with world() as w:
            service = await w.create()
            await w.until(lambda: w.running(service))
            task = w.running(service)[0]
            await w.depose()
            await w.hosts[task.node_id].kill(task.id)
            await w.set_node(task.node_id, availability="drain")
            await w.lead()
            await w.until(lambda: w.running(service), 2)

    run(main())


def test_a_replacement_waits_a_minute_at_most_for_the_old_task_to_stop() -> None:
    async def main() -> None:
        async with world() as w:
            service = await w.create()
            await w.until(lambda: w.running(service))
            node = w.running(service)[0].node_id
            w.hosts[node].connected = False  # hangs, and nobody finds out
            await w.set_node(node, availability="pause")
            await w.force(service)
            await asyncio.sleep(55)
            new = w.tasks(service)[-1]
            assert (new.status.state, new.desired_state) == (S.READY, S.READY)
            await w.until(lambda: [task.id for task in w.running(service)] == [new.id], 10)

    run(main())


def test_attempts_of_a_global_service_are_counted_by_node() -> None:
    async def main() -> None:
        async with world() as w:
            policy = RestartPolicy(delay=SECOND, max_attempts=2)
            service = await w.create("crash", mode=ServiceMode(global_=Global()), template={"restart_policy": policy})
            await asyncio.sleep(30)
            assert sorted(task.node_id for task in w.tasks(service)) == sorted(w.node_ids * 3)

    run(main())
