"""Beyond Swarm: an update that cannot be placed ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from swarm_agent.model.specs import ContainerSpec, Placement, ServiceSpec
from tests.sim.orchestration_world import World, replace, update_config, world
from tests.sim.virtual_time import run
from tests.unit.manager.updates import started, updated


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
