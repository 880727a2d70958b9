"""Updates and rollbacks: order, parallelism, delay, monitoring, failure actions (reference/swarm.md §3.4)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from swarm_agent.model.objects import Task
from swarm_agent.model.specs import ContainerSpec, Global, Placement, ServiceMode, ServiceSpec, TaskSpec
from swarm_agent.model.states import TaskState as S
from swarm_agent.model.times import SECOND, parse_rfc3339
from tests.sim.orchestration_world import World, replace, update_config, world
from tests.sim.virtual_time import run


async def updated(w: World, service: str, state: str = "completed", seconds: float = 120) -> None:
    await w.until(lambda: w.status(service) == state, seconds)


async def started(w: World, replicas: int = 4, image: str = "good", **fields: Any) -> str:
    service = await w.create(image, replicas, **fields)
    await w.until(lambda: len(w.running(service)) == replicas)
    return service


async def next_running(w: World, service: str, known: set[str]) -> Task:
    """The next task that comes to run and is not one of these."""
    await w.until(lambda: any(task.id not in known for task in w.running(service)))
    return next(task for task in w.running(service) if task.id not in known)


def duration(w: World, service: str) -> float:
    """Seconds from the update's start to its end."""
    status = w.service(service).update_status
    assert status is not None and status.started_at and status.completed_at
    return (parse_rfc3339(status.completed_at) - parse_rfc3339(status.started_at)) / SECOND


def coming_up(tasks: list[Task], version: int) -> int:
    return sum(
        1
        for task in tasks
        if task.update
        and task.spec_version is not None
        and task.spec_version.index == version
        and task.desired_state.rank <= S.RUNNING.rank
        and task.status.state.rank < S.RUNNING.rank
    )


def test_an_update_replaces_all_tasks_one_by_one_and_says_so() -> None:
    async def main() -> None:
        async with world() as w:
            service = await started(w)
            assert w.status(service) == ""
            lowest: list[int] = []
            together: list[int] = []
            w.checks.append(lambda _: lowest.append(len(w.running(service))))
            w.checks.append(
                lambda _: together.append(coming_up(w.tasks(service), w.service(service).spec_version.index))
            )
            await w.set_image(service, "dies:1000")
            await updated(w, service, "updating", 1)
            assert w.message(service) == "update in progress"
            await updated(w, service)
            assert w.message(service) == "update completed"
            assert len(w.running(service, "dies:1000")) == 4
            assert min(lowest) == 3 and max(together) == 1

    run(main())


@pytest.mark.parametrize(("parallelism", "fewest"), [(2, 2), (3, 1), (0, 0)])
def test_parallelism_is_how_many_slots_are_replaced_at_a_time(parallelism: int, fewest: int) -> None:
    async def main() -> None:
        async with world() as w:
            service = await started(w, update_config=update_config(parallelism=parallelism))
            lowest: list[int] = []
            w.checks.append(lambda _: lowest.append(len(w.running(service))))
            await w.set_image(service, "slow:3")
            await updated(w, service)
            assert min(lowest) == fewest

    run(main())


def test_start_first_never_has_fewer_tasks_than_declared() -> None:
    async def main() -> None:
        async with world() as w:
            service = await started(w, update_config=update_config(order="start-first", parallelism=2))
            counts: list[int] = []
            w.checks.append(lambda _: counts.append(len(w.running(service))))
            await w.set_image(service, "slow:3")
            await updated(w, service)
            assert min(counts) == 4 and max(counts) <= 6
            assert len(w.running(service, "slow:3")) == 4

    run(main())


def test_the_new_task_of_stop_first_is_started_when_the_old_one_has_stopped() -> None:
    async def main() -> None:
        async with world() as w:
            service = await started(w, replicas=1)
            both: list[int] = []
            w.checks.append(lambda _: both.append(sum(len(host.containers) for host in w.hosts.values())))
            await w.force(service)
            await updated(w, service)
            assert max(both) == 1
            assert [task.cause for task in w.tasks(service)] == ["scale", "update"]

    run(main())


def test_the_delay_lies_between_batches_and_the_monitor_period_after_the_last() -> None:
    async def main() -> None:
        async with world() as w:
            config = update_config(delay=10 * SECOND, monitor=3 * SECOND)
            service = await started(w, replicas=3, update_config=config)
            await w.force(service)
            await updated(w, service)
            # three slots with a delay after each, then the monitor period (delay + 1 s, as it would not outlast the
            # delay)
            assert 41 < duration(w, service) < 43

    run(main())


def test_a_change_that_does_not_touch_the_tasks_is_no_update() -> None:
    async def main() -> None:
        async with world() as w:
            service = await started(w)
            before = [task.id for task in w.tasks(service)]
            await w.change(service, lambda spec: replace(spec, labels={"a": "b"}))
            await w.scale(service, 5)
            await w.until(lambda: len(w.running(service)) == 5)
            assert w.status(service) == ""
            assert [task.id for task in w.tasks(service)][:4] == before

    run(main())


def test_a_failing_update_is_paused() -> None:
    async def main() -> None:
        async with world() as w:
            service = await started(w)
            await w.set_image(service, "crash")
            await updated(w, service, "paused")
            failed = next(task for task in w.tasks(service) if task.cause == "update")
            text = f"update paused due to failure or early termination of task {failed.id}"
            assert w.message(service) == text
            await asyncio.sleep(60)
            assert len(w.running(service, "good")) == 3
            assert w.status(service) == "paused"

    run(main())


def test_a_good_update_recovers_a_paused_service() -> None:
    async def main() -> None:
        async with world() as w:
            service = await started(w)
            await w.set_image(service, "missing")
            await updated(w, service, "paused")
            await asyncio.sleep(20)
            await w.set_image(service, "dies:1000")
            await updated(w, service)
            assert len(w.running(service, "dies:1000")) == 4

    run(main())


def test_ending_early_is_a_failure_within_the_monitor_period_only() -> None:
    async def main() -> None:
        async with world() as w:
            config = update_config(monitor=10 * SECOND, parallelism=0)
            early = await started(w, replicas=2, update_config=config)
            late = await started(w, replicas=2, update_config=config)
            await w.set_image(early, "exits:8")
            await w.set_image(late, "exits:12")
            await updated(w, early, "paused")
            await updated(w, late, "completed")

    run(main())


def test_failures_up_to_the_ratio_are_tolerated() -> None:
    async def main() -> None:
        async with world() as w:
            for ratio, state in ((0.5, "completed"), (0.2, "paused")):
                config = update_config(max_failure_ratio=ratio, monitor=5 * SECOND)
                service = await started(w, update_config=config)
                await w.force(service)
                for _ in range(2):
                    known = {task.id for task in w.tasks(service)}
                    victim = await next_running(w, service, known)
                    await w.hosts[victim.node_id].kill(victim.id)
                await updated(w, service, state)

    run(main())


def test_continue_goes_on_whatever_happens() -> None:
    async def main() -> None:
        async with world() as w:
            service = await started(w, update_config=update_config(failure_action="continue"))
            await w.set_image(service, "crash")
            await updated(w, service, "completed", 60)
            assert not w.running(service)

    run(main())


def test_a_failing_update_rolls_back_by_itself() -> None:
    async def main() -> None:
        async with world() as w:
            config = update_config(failure_action="rollback", order="start-first")
            service = await started(w, update_config=config)
            good = w.service(service).spec
            version = w.service(service).spec_version
            before = {task.id for task in w.running(service)}
            await w.set_image(service, "crash")
            await updated(w, service, "rollback_started")
            failed = next(task for task in w.tasks(service) if task.cause == "update")
            text = f"update rolled back due to failure or early termination of task {failed.id}"
            assert w.message(service) == text
            await updated(w, service, "rollback_completed")
            assert w.message(service) == "rollback completed"
            assert w.service(service).spec == good and w.service(service).spec_version == version
            assert w.service(service).previous_spec is None
            await w.until(lambda: len(w.running(service, "good")) == 4)
            # start-first: nothing that ran was stopped
            assert {task.id for task in w.running(service)} == before

    run(main())


def test_a_stop_first_rollback_restores_the_slot_that_failed() -> None:
    async def main() -> None:
        async with world() as w:
            service = await started(w, update_config=update_config(failure_action="rollback"))
            await w.set_image(service, "crash")
            await updated(w, service, "rollback_completed")
            assert len(w.running(service, "good")) == 4

    run(main())


def test_a_rollback_that_fails_is_paused_and_never_rolled_back() -> None:
    async def main() -> None:
        async with world() as w:
            service = await started(
                w,
                update_config=update_config(failure_action="rollback"),
                rollback_config=update_config(failure_action="rollback"),
            )
            # the version to come back to has become bad since
            await w.change(
                service,
                lambda spec: replace(spec, task_template=replace(spec.task_template, force_update=1)),
            )
            await updated(w, service)
            await w.set_image(service, "crash")

            def spoil(tx: Any) -> None:
                from swarm_agent.model.objects import Service

                it = tx.get(Service, service)
                assert it is not None and it.previous_spec is not None
                bad = TaskSpec(container_spec=replace(it.previous_spec.task_template.container_spec, image="crash"))
                tx.update(replace(it, previous_spec=replace(it.previous_spec, task_template=bad)))

            await w.store.update(spoil)
            await updated(w, service, "rollback_paused")
            assert w.message(service).startswith("rollback paused due to failure or early termination of task ")

    run(main())


def test_a_manual_rollback_goes_back_and_a_second_one_forward() -> None:
    async def main() -> None:
        async with world() as w:
            service = await started(w, rollback_config=update_config(parallelism=0))
            await w.set_image(service, "dies:1000")
            await updated(w, service)
            await w.roll_back(service)
            assert w.message(service) == "manually requested rollback"
            await updated(w, service, "rollback_completed")
            assert len(w.running(service, "good")) == 4
            await w.roll_back(service)
            await updated(w, service, "rollback_completed")
            assert len(w.running(service, "dies:1000")) == 4

    run(main())


def test_a_new_update_cancels_the_running_one() -> None:
    async def main() -> None:
        async with world() as w:
            service = await started(w, replicas=6, update_config=update_config(delay=5 * SECOND))
            lowest: list[int] = []
            w.checks.append(lambda _: lowest.append(len(w.running(service))))
            await w.set_image(service, "slow:3")
            await w.until(lambda: len(w.running(service, "slow:3")) == 2)
            await w.until(lambda: len(w.running(service)) == 5)
            await w.set_image(service, "dies:1000")
            await updated(w, service)
            assert len(w.running(service, "dies:1000")) == 6
            assert min(lowest) == 5  # the slot left half-way went first

    run(main())


def test_an_update_goes_on_under_a_new_leader() -> None:
    async def main() -> None:
        async with world() as w:
            service = await started(w, replicas=6, update_config=update_config(delay=5 * SECOND))
            together: list[int] = []
            w.checks.append(
                lambda _: together.append(coming_up(w.tasks(service), w.service(service).spec_version.index))
            )
            await w.set_image(service, "dies:1000")
            for _ in range(5):
                await asyncio.sleep(3.3)
                await w.depose()
                await asyncio.sleep(1)
                await w.lead()
            await updated(w, service)
            assert max(together) == 1
            assert sum(task.cause == "update" for task in w.tasks(service)) == 6
            assert 6 * 5 + 6 < duration(w, service) < 6 * 5 + 6 + 10

    run(main())


def test_failures_are_not_forgotten_by_a_new_leader() -> None:
    async def main() -> None:
        async with world() as w:
            service = await started(w, update_config=update_config(max_failure_ratio=0.3, delay=2 * SECOND))
            await w.set_image(service, "crash")
            await w.until(lambda: sum(task.status.state is S.FAILED for task in w.tasks(service)) == 1)
            await w.depose()
            await w.lead()
            await updated(w, service, "paused")
            assert sum(task.cause == "update" for task in w.tasks(service)) == 2

    run(main())


def test_a_placement_change_leaves_tasks_where_the_node_still_suits() -> None:
    async def main() -> None:
        async with world() as w:
            from swarm_agent.model.specs import Placement

            service = await started(w, replicas=3)
            first, second = w.node_ids[:2]
            for node in (first, second):
                await w.set_node(node, labels={"disk": "ssd"})
            stay = {task.id for task in w.running(service) if task.node_id in (first, second)}
            await w.change(
                service,
                lambda spec: replace(
                    spec,
                    task_template=replace(
                        spec.task_template, placement=Placement(constraints=["node.labels.disk == ssd"])
                    ),
                ),
            )
            await updated(w, service)
            running = w.running(service)
            assert stay < {task.id for task in running} and len(running) == 3
            assert {task.node_id for task in running} == {first, second}

    run(main())


def test_a_global_service_is_updated_node_by_node_but_not_on_paused_ones() -> None:
    async def main() -> None:
        async with world(nodes=4) as w:
            service = await w.create(mode=ServiceMode(global_=Global()))
            await w.until(lambda: len(w.running(service)) == 4)
            paused = w.node_ids[0]
            await w.set_node(paused, availability="pause")
            lowest: list[int] = []
            w.checks.append(lambda _: lowest.append(len(w.running(service))))
            await w.set_image(service, "dies:1000")
            await updated(w, service)
            assert min(lowest) == 3
            assert [task.node_id for task in w.running(service, "good")] == [paused]
            await w.set_node(paused, availability="active")
            await w.until(lambda: len(w.running(service, "dies:1000")) == 4)

    run(main())


def test_a_paused_start_first_update_does_not_keep_trying_beside_the_old_task() -> None:
    async def main() -> None:
        async with world() as w:
            service = await started(w, update_config=update_config(order="start-first"))
            await w.set_image(service, "crash")
            await updated(w, service, "paused")
            await asyncio.sleep(60)
            assert len(w.running(service, "good")) == 4
            assert len(w.tasks(service)) == 5

    run(main())


def test_a_node_lost_during_an_update_does_not_let_the_next_slot_go_early() -> None:
    async def main() -> None:
        async with world() as w:
            service = await started(w, replicas=6)
            await w.set_image(service, "slow:20")
            await w.until(lambda: coming_up(w.tasks(service), w.service(service).spec_version.index) == 1)
            task = next(task for task in w.tasks(service) if task.update)
            await w.until(lambda: bool(w.store.view().get(Task, task.id).node_id))  # type: ignore[union-attr]
            task = w.store.view().get(Task, task.id)  # type: ignore[assignment]
            others = [other for other in w.running(service) if other.node_id != task.node_id]
            await w.hosts[task.node_id].power_off()
            await asyncio.sleep(5)
            # of the tasks on other nodes none was touched: the lost slot's successor has to come up first
            assert {other.id for other in others} <= {other.id for other in w.running(service)}
            await updated(w, service, "completed", 300)
            assert len(w.running(service, "slow:20")) == 6

    run(main())


# --- beyond Swarm: an update that cannot be placed ends ---------------------------------------------------------------


def nowhere(w: World, service: str, **labels: str) -> Any:
    """A new spec that no node can take; with labels of the service."""

    def change(spec: ServiceSpec) -> ServiceSpec:
        container = ContainerSpec(image="good:2")
        template = replace(
            spec.task_template, container_spec=container, placement=Placement(constraints=["node.labels.x==1"])
        )
        return replace(
            spec, task_template=template, labels={f"swarm.update.{key}": text for key, text in labels.items()}
        )

    return w.change(service, change)


@pytest.mark.parametrize("order", ["stop-first", "start-first"])
def test_an_update_that_finds_no_node_pauses_and_says_why(order: str) -> None:
    async def main() -> None:
        async with world(placing=True) as w:
            service = await started(w, update_config=update_config(order=order))
            await nowhere(w, service, place_within="2m")
            await asyncio.sleep(119)
            assert w.status(service) == "updating"
            await updated(w, service, "paused", 3)
            task = next(task for task in w.tasks(service) if task.update)
            assert w.message(service) == (
                f"update paused because task {task.id} found no node within 120 s: "
                "no suitable node (scheduling constraints not satisfied on 3 nodes)"
            )
            assert len(w.running(service)) == (4 if order == "start-first" else 3)
            await w.set_node(w.node_ids[0], labels={"x": "1"})  # what waits comes up, what is paused stays paused
            await w.until(lambda: len(w.running(service, "good:2")) == 1)
            await asyncio.sleep(60)
            assert w.status(service) == "paused" and len(w.running(service, "good:2")) == 1

    run(main())


def test_an_update_that_finds_no_node_is_rolled_back_where_the_service_says_so() -> None:
    async def main() -> None:
        async with world(placing=True) as w:
            service = await started(w, update_config=update_config(failure_action="rollback"))
            await nowhere(w, service, place_within="30s")
            await updated(w, service, "rollback_completed", 60)
            assert len(w.running(service, "good")) == 4
            assert "found no node within 30 s: no suitable node" not in w.message(service)  # it is over

    run(main())


def test_with_continue_the_others_are_not_held_up() -> None:
    async def main() -> None:
        async with world(placing=True) as w:
            service = await started(w, 3, update_config=update_config(failure_action="continue", order="start-first"))
            await nowhere(w, service, place_within="10s")
            await w.until(lambda: len([task for task in w.tasks(service) if task.update]) == 3, 40)
            assert len(w.running(service, "good")) == 3

    run(main())


@pytest.mark.parametrize(("labels", "still"), [({"place_within": "off"}, 86400), ({}, 14 * 60)])
def test_without_a_limit_it_waits_for_ever_and_by_default_for_a_quarter_of_an_hour(
    labels: dict[str, str], still: int
) -> None:
    async def main() -> None:
        async with world(placing=True) as w:
            service = await started(w)
            await nowhere(w, service, **labels)
            await asyncio.sleep(still)
            assert w.status(service) == "updating"
            if not labels:
                await updated(w, service, "paused", 120)

    run(main())


def test_a_new_leader_goes_on_counting() -> None:
    async def main() -> None:
        async with world(placing=True) as w:
            service = await started(w)
            await nowhere(w, service, place_within="60s")
            await asyncio.sleep(40)
            await w.depose()
            await w.lead()
            await updated(w, service, "paused", 25)

    run(main())


def test_a_change_of_how_containers_are_made_replaces_them_and_other_labels_do_not() -> None:
    async def main() -> None:
        async with world() as w:
            service = await started(w, 2)
            first = {task.id for task in w.running(service)}
            await w.change(service, lambda spec: replace(spec, labels={"swarm.rebalance": "off", "a": "b"}))
            await asyncio.sleep(30)
            assert {task.id for task in w.running(service)} == first
            await w.change(service, lambda spec: replace(spec, labels={"swarm.task.shm_size": "1g"}))
            await updated(w, service)
            assert not first & {task.id for task in w.running(service)}

    run(main())
