"""Jobs that run by a schedule (schedule.py), in virtual time. The simulated clock begins at 15:06:40 UTC."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from swarm_agent.manager.schedule import what_is_due
from swarm_agent.model.cron import Schedule
from swarm_agent.model.objects import Service, Version
from swarm_agent.model.specs import GlobalJob, ReplicatedJob, ServiceMode
from swarm_agent.model.states import TaskState as S
from swarm_agent.model.times import SECOND, parse_rfc3339, rfc3339
from tests.sim.orchestration_world import World, replace, world
from tests.sim.virtual_time import clock, run

MINUTE = 60 * SECOND


@pytest.mark.parametrize(
    ("labels", "now", "busy", "runs", "why_not"),
    [
        ({}, "10:05:00", False, True, ""),
        ({}, "10:05:59", False, True, ""),
        ({}, "10:09:00", False, True, ""),  # missed, and run late
        ({"swarm.job.missed": "skip"}, "10:05:50", False, True, ""),
        ({"swarm.job.missed": "skip"}, "10:09:00", False, False, "missed"),
        ({}, "10:05:01", True, False, "still under way"),
        ({"swarm.job.overlap": "replace"}, "10:05:01", True, True, ""),
    ],
)
def test_what_is_due_is_decided_by_policy(
    labels: dict[str, str], now: str, busy: bool, runs: bool, why_not: str
) -> None:
    since, at = parse_rfc3339("2026-01-01T10:00:00Z"), parse_rfc3339(f"2026-01-01T{now}Z")
    due = what_is_due(Schedule.parse("*/5 * * * *"), labels, since=since, now=at, busy=busy)
    assert due is not None and rfc3339(due.at)[11:16] == "10:05"
    assert due.run is runs and why_not in due.why_not


def test_nothing_is_due_between_two_times() -> None:
    since = parse_rfc3339("2026-01-01T10:05:00Z")
    assert what_is_due(Schedule.parse("*/5 * * * *"), {}, since=since, now=since + 4 * MINUTE, busy=False) is None


async def job(w: World, image: str = "exits:3", cron: str = "*/5 * * * *", **labels: str) -> str:
    mode = ServiceMode(replicated_job=ReplicatedJob(max_concurrent=1, total_completions=1))
    wanted = {"swarm.job.cron": cron, **{f"swarm.job.{name}": text for name, text in labels.items()}}
    return await w.create(image, mode=mode, labels=wanted)


def starts(w: World) -> list[str]:
    """Notes when tasks are made (minute and second), from now on."""
    seen: list[str] = []

    def note(changes: list[Any]) -> None:
        seen.extend(rfc3339(clock())[14:19] for it in changes if it.new is not None and it.old is None and _is_task(it))

    w.checks.append(note)
    return seen


def _is_task(change: Any) -> bool:
    return hasattr(change.new, "desired_state")


def test_it_runs_at_its_times_and_not_before() -> None:
    async def main() -> None:
        async with world() as w:
            made = starts(w)
            service = await job(w)
            await asyncio.sleep(15 * 60)
            assert made == ["10:00", "15:00", "20:00"]
            assert [task.status.state for task in w.tasks(service)] == [S.COMPLETE]
            assert w.service(service).job_status.job_iteration.index == 3  # type: ignore[union-attr]
            assert w.service(service).job_status.last_execution[14:19] == "20:00"  # type: ignore[union-attr]

    run(main())


def test_a_failed_run_is_retried_by_its_restart_policy() -> None:
    async def main() -> None:
        async with world() as w:
            made = starts(w)
            await job(w, "dies:1", cron="10 * * * *")
            await asyncio.sleep(4 * 60)
            assert len(made) > 3 and made[0] == "10:00"

    run(main())


def test_a_run_that_is_under_way_is_left_or_replaced() -> None:
    async def main() -> None:
        async with world() as w:
            left, replaced = await job(w, "exits:420"), await job(w, "exits:420", overlap="replace")
            await asyncio.sleep(3 * 60 + 30)
            first = [w.tasks(left)[0].id, w.tasks(replaced)[0].id]
            await asyncio.sleep(5 * 60)  # the time at 15:00 passes; the first runs end at 17:00
            assert [task.id for task in w.tasks(left)] == first[:1]
            wanted = [task.job_iteration for task in w.tasks(replaced) if task.desired_state is not S.REMOVE]
            assert wanted == [Version(index=2)]
            await asyncio.sleep(5 * 60)
            assert w.service(left).job_status.job_iteration.index == 2  # type: ignore[union-attr]

    run(main())


def test_a_time_that_passed_without_a_leader_is_made_up_for_once() -> None:
    async def main() -> None:
        async with world() as w:
            made = starts(w)
            await job(w)
            await job(w, missed="skip")
            await asyncio.sleep(60)
            await w.depose()
            await asyncio.sleep(16 * 60)  # 10:00, 15:00 and 20:00 pass
            await w.lead()
            await asyncio.sleep(60)
            assert [at[:2] for at in made] == ["23"]
            await asyncio.sleep(60)
            assert [at[:2] for at in made] == ["23", "25", "25"]

    run(main())


def test_a_new_leader_does_not_run_it_twice() -> None:
    async def main() -> None:
        async with world() as w:
            made = starts(w)
            await job(w)
            for _ in range(40):
                await asyncio.sleep(13)
                await w.depose()
                await w.lead()
            assert [at[:2] for at in made] == ["10", "15"]

    run(main())


def test_a_global_job_runs_on_every_node_at_its_time() -> None:
    async def main() -> None:
        async with world(nodes=3) as w:
            mode = ServiceMode(global_job=GlobalJob())
            service = await w.create("exits:3", mode=mode, labels={"swarm.job.cron": "10 * * * *"})
            await asyncio.sleep(3 * 60)
            assert not w.tasks(service)
            await asyncio.sleep(60)
            assert sorted(task.node_id for task in w.tasks(service)) == sorted(w.node_ids)

    run(main())


def test_a_schedule_that_is_taken_away_lets_the_job_run() -> None:
    async def main() -> None:
        async with world() as w:
            service = await job(w, cron="0 0 1 1 *")
            await asyncio.sleep(5)
            await w.change(service, lambda spec: replace(spec, labels={}))
            await w.until(lambda: [task.status.state for task in w.tasks(service)] == [S.COMPLETE], 20)

    run(main())


def test_the_schedule_wakes_though_nothing_else_happens() -> None:
    """A month of nothing, then the run: the loop's timer is not tied to what the wall clock said a month ago."""

    async def main() -> None:
        async with world() as w:
            service = await job(w, cron="0 0 1 * *")
            await asyncio.sleep(40 * 86400)
            found = w.store.view().get(Service, service)
            assert found is not None and found.job_status is not None
            assert found.job_status.job_iteration.index >= 1

    run(main())
