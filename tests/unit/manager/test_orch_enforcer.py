"""What happens to tasks whose node changes under them (reference/swarm.md §3.7)."""

from __future__ import annotations

import asyncio

from swarm_agent.model.objects import Node
from swarm_agent.model.specs import (
    DiscreteGenericResource,
    GenericResource,
    Global,
    NamedGenericResource,
    Placement,
    ResourceRequirements,
    Resources,
    ServiceMode,
)
from swarm_agent.model.states import TaskState as S
from swarm_agent.model.times import SECOND
from tests.sim.orchestration_world import World, replace, update_config, world
from tests.sim.virtual_time import run


def test_a_task_whose_node_no_longer_meets_the_constraints_is_rejected_and_replaced() -> None:
    async def main() -> None:
        async with world() as w:
            for node in w.node_ids[:2]:
                await w.set_node(node, labels={"zone": "a"})
            placement = Placement(constraints=["node.labels.zone == a"])
            service = await w.create(template={"placement": placement})
            await w.until(lambda: w.running(service))
            old = w.running(service)[0]
            await w.set_node(old.node_id, labels={})
            await w.until(lambda: w.running(service) and w.running(service)[0].id != old.id)
            status = next(task for task in w.tasks(service) if task.id == old.id).status
            assert (status.state, status.err) == (S.REJECTED, "assigned node no longer meets constraints")
            await w.until(lambda: not w.hosts[old.node_id].containers)

    run(main())


def test_the_youngest_tasks_go_when_a_node_has_less_than_is_reserved_on_it() -> None:
    async def main() -> None:
        async with world(nodes=1) as w:
            node = w.node_ids[0]
            await resize(w, node, 4 << 30)
            reserve = ResourceRequirements(reservations=Resources(memory_bytes=1 << 30))
            service = await w.create(replicas=3, template={"resources": reserve})
            await w.until(lambda: len(w.running(service)) == 3)
            before = w.running(service)
            await resize(w, node, 2 << 30)
            await asyncio.sleep(1)
            rejected = [task.id for task in w.tasks(service) if task.status.state is S.REJECTED]
            assert rejected[:1] == [max(before, key=lambda task: (task.created_at, task.id)).id]

    run(main())


async def resize(w: World, node_id: str, memory: int, generic: list[GenericResource] | None = None) -> None:
    def change(tx: object) -> None:
        node = tx.get(Node, node_id)  # type: ignore[attr-defined]
        resources = Resources(memory_bytes=memory, generic_resources=generic or [])
        description = replace(node.description, resources=resources)
        tx.update(replace(node, description=description))  # type: ignore[attr-defined]

    await w.store.update(change)


def test_a_paused_node_s_tasks_are_left_in_peace() -> None:
    async def main() -> None:
        async with world() as w:
            for node in w.node_ids:
                await w.set_node(node, labels={"zone": "a"})
            placement = Placement(constraints=["node.labels.zone == a"])
            service = await w.create(template={"placement": placement})
            await w.until(lambda: w.running(service))
            task = w.running(service)[0]
            await w.set_node(task.node_id, labels={}, availability="pause")
            await asyncio.sleep(10)
            assert [it.id for it in w.running(service)] == [task.id]
            await w.set_node(task.node_id, availability="active")
            await w.until(lambda: [it.node_id for it in w.running(service)] not in ([], [task.node_id]))

    run(main())


def test_a_global_task_too_says_why_it_had_to_go() -> None:
    async def main() -> None:
        async with world() as w:
            for node in w.node_ids:
                await w.set_node(node, labels={"zone": "a"})
            placement = Placement(constraints=["node.labels.zone == a"])
            service = await w.create(mode=ServiceMode(global_=Global()), template={"placement": placement})
            await w.until(lambda: len(w.running(service)) == 3)
            await w.set_node(w.node_ids[0], labels={})
            await w.until(lambda: len(w.running(service)) == 2 and not w.hosts[w.node_ids[0]].containers)
            status = next(task for task in w.tasks(service) if task.node_id == w.node_ids[0]).status
            assert (status.state, status.err) == (S.REJECTED, "assigned node no longer meets constraints")
            assert len(w.tasks(service)) == 3

    run(main())


def test_new_constraints_are_the_update_s_business_not_the_enforcer_s() -> None:
    async def main() -> None:
        async with world() as w:
            service = await w.create(replicas=3, update_config=update_config(delay=2 * SECOND))
            await w.until(lambda: len(w.running(service)) == 3)
            await w.set_node(w.node_ids[0], labels={"zone": "a"})
            lowest: list[int] = []
            w.checks.append(lambda _: lowest.append(len(w.running(service))))
            placement = Placement(constraints=["node.labels.zone == a"])
            await w.change(
                service,
                lambda spec: replace(spec, task_template=replace(spec.task_template, placement=placement)),
            )
            for node in w.node_ids[1:]:
                await w.set_node(node, labels={"other": "x"})
            await w.until(lambda: w.status(service) == "completed")
            assert min(lowest) == 2
            assert {task.node_id for task in w.running(service)} == {w.node_ids[0]}
            assert not any(task.status.state is S.REJECTED for task in w.tasks(service))

    run(main())


def test_a_task_that_new_constraints_left_in_place_is_held_to_them() -> None:
    async def main() -> None:
        async with world() as w:
            service = await w.create()
            await w.until(lambda: w.running(service))
            old = w.running(service)[0]
            await w.set_node(old.node_id, labels={"zone": "a"})
            placement = Placement(constraints=["node.labels.zone == a"])
            await w.change(
                service,
                lambda spec: replace(spec, task_template=replace(spec.task_template, placement=placement)),
            )
            await asyncio.sleep(1)
            assert [task.id for task in w.tasks(service)] == [old.id] and w.status(service) == ""
            await w.set_node(w.node_ids[1], labels={"zone": "a"})
            await w.set_node(old.node_id, labels={})
            await w.until(lambda: [task.node_id for task in w.running(service)] == [w.node_ids[1]])
            assert w.tasks(service)[0].status.err == "assigned node no longer meets constraints"
            assert [task.cause for task in w.tasks(service)] == ["scale", "restart"] and w.status(service) == ""

    run(main())


def test_a_task_goes_when_its_node_no_longer_has_the_very_thing_that_it_was_given() -> None:
    async def main() -> None:
        async with world(nodes=1, placing=True) as w:
            node = w.node_ids[0]
            gpus = [named("g1"), named("g2")]
            await resize(w, node, 0, gpus)
            asked = [GenericResource(discrete_resource_spec=DiscreteGenericResource(kind="gpu", value=1))]
            reserve = ResourceRequirements(reservations=Resources(generic_resources=asked))
            service = await w.create(replicas=2, template={"resources": reserve})
            await w.until(lambda: len(w.running(service)) == 2)
            loser = next(task for task in w.running(service) if task.generic_resources == gpus[:1])
            await resize(w, node, 0, [named("g2"), named("g3")])
            await w.until(lambda: any(task.generic_resources == [named("g3")] for task in w.running(service)))
            assert [task.id for task in w.tasks(service) if task.status.state is S.REJECTED] == [loser.id]

    run(main())


def named(value: str) -> GenericResource:
    return GenericResource(named_resource_spec=NamedGenericResource(kind="gpu", value=value))
