"""Updates that fail, and rollbacks: monitoring, failure actions, ratio, messages (reference/swarm.md §3.4)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from swarm_agent.model.objects import Service, Task
from swarm_agent.model.specs import ContainerSpec, TaskSpec, UpdateConfig
from swarm_agent.model.states import TaskState as S
from swarm_agent.model.times import SECOND
from tests.sim.orchestration_world import World, replace, update_config, world
from tests.sim.virtual_time import run
from tests.unit.manager.updates import started, updated


async def next_running(w: World, service: str, known: set[str]) -> Task:
    """The next task that comes to run and is not one of these."""
    await w.until(lambda: any(task.id not in known for task in w.running(service)))
    return next(task for task in w.running(service) if task.id not in known)


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


@pytest.mark.parametrize(
    ("config", "within", "after"),
    [
        (update_config(monitor=10 * SECOND, parallelism=0), 8, 12),
        (update_config(monitor=3 * SECOND, delay=20 * SECOND), 2, 10),  # a longer delay makes no later end a failure
    ],
)
def test_ending_early_is_a_failure_within_the_monitor_period_only(
    config: UpdateConfig, within: int, after: int
) -> None:
    async def main() -> None:
        async with world() as w:
            early = await started(w, replicas=2, update_config=config)
            late = await started(w, replicas=2, update_config=config)
            await w.set_image(early, f"exits:{within}")
            await w.set_image(late, f"exits:{after}")
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


@pytest.mark.parametrize(("action", "word"), [("rollback", "rollback"), ("pause", "update")])
def test_a_manual_rollback_that_fails_is_paused_in_swarms_words(action: str, word: str) -> None:
    async def main() -> None:
        async with world() as w:
            service = await started(w, rollback_config=update_config(failure_action=action), image="exits:60")
            await w.set_image(service, "dies:1000")
            await updated(w, service)

            def spoil(tx: Any) -> None:
                it = tx.get(Service, service)
                template = replace(it.previous_spec.task_template, container_spec=ContainerSpec(image="crash"))
                tx.update(replace(it, previous_spec=replace(it.previous_spec, task_template=template)))

            await w.store.update(spoil)
            await w.roll_back(service)
            await updated(w, service, "rollback_paused")
            assert w.message(service).startswith(f"{word} paused due to failure or early termination of task ")

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
