"""Updates: order, parallelism, delay, what is replaced at all, and a new leader (reference/swarm.md §3.4)."""

from __future__ import annotations

import asyncio

import pytest

from swarm_agent.model.objects import Task
from swarm_agent.model.specs import Global, RestartPolicy, ServiceMode
from swarm_agent.model.states import TaskState as S
from swarm_agent.model.times import SECOND, parse_rfc3339
from tests.sim.orchestration_world import World, replace, update_config, world
from tests.sim.virtual_time import run
from tests.unit.manager.updates import started, updated


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


def test_new_credentials_reach_tasks_that_could_not_be_prepared_and_leave_the_others() -> None:
    async def main() -> None:
        async with world() as w:
            policy = RestartPolicy(condition="none")
            good = await started(w, 1, template={"restart_policy": policy})
            failing = await w.create("missing", template={"restart_policy": policy})
            await w.until(lambda: [task.status.state for task in w.tasks(failing)] == [S.REJECTED])
            for service in (good, failing):
                await w.change(service, lambda spec: spec, registry_auth="new")
            await w.until(lambda: len(w.tasks(failing)) == 2)
            assert w.tasks(failing)[1].registry_auth == "new"
            await asyncio.sleep(20)
            await w.hosts[w.tasks(good)[0].node_id].kill(w.tasks(good)[0].id)
            await asyncio.sleep(20)
            assert [task.status.state for task in w.tasks(good)] == [S.FAILED] and w.status(good) == ""

    run(main())
