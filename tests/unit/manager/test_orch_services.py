"""Service modes, history, removal and constraint enforcement (reference/swarm.md §3.5, §3.7)."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from swarm_agent.manager.draft import Draft
from swarm_agent.manager.replicated import victims
from swarm_agent.manager.tasks import is_dirty, new_task
from swarm_agent.model.objects import Cluster, Endpoint, Service, Task, TaskStatus, Version
from swarm_agent.model.specs import (
    ContainerSpec,
    Driver,
    EndpointSpec,
    Global,
    GlobalJob,
    OrchestrationConfig,
    Placement,
    PortConfig,
    Replicated,
    ReplicatedJob,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    SwarmSpec,
    TaskDefaults,
    TaskSpec,
)
from swarm_agent.model.states import TaskState as S
from swarm_agent.model.times import SECOND
from swarm_agent.store.memory import memory_store
from tests.sim.orchestration_world import World, replace, world
from tests.sim.virtual_time import run


def slots_of(w: World, service: str) -> list[int]:
    return sorted(task.slot for task in w.tasks(service) if task.desired_state is S.RUNNING)


# --- making tasks ----------------------------------------------------------------------------------------------------


def test_a_new_task_carries_what_the_service_is_now() -> None:
    template = TaskSpec(container_spec=ContainerSpec(image="web:1"))
    service = Service(
        id="s",
        spec=ServiceSpec(
            name="web",
            labels={"team": "a"},
            task_template=template,
            mode=ServiceMode(replicated=Replicated(replicas=1)),
            endpoint_spec=EndpointSpec(ports=[PortConfig(target_port=80)]),
        ),
        spec_version=Version(index=7),
        registry_auth="secret",
    )
    cluster = Cluster(spec=SwarmSpec(task_defaults=TaskDefaults(log_driver=Driver(name="syslog"))))
    task = new_task(service, slot=3, node_id="", task_id="t", now="2025-01-01T00:00:00.000000000Z", cluster=cluster)
    assert task.spec is template and task.spec_version == Version(index=7)
    assert (task.service_id, task.slot, task.service_name, task.service_labels) == ("s", 3, "web", {"team": "a"})
    assert (task.status.state, task.status.message, task.desired_state) == (S.NEW, "created", S.RUNNING)
    assert task.endpoint is not None and task.endpoint.spec == service.spec.endpoint_spec
    assert task.registry_auth == "secret"
    assert task.log_driver == Driver(name="syslog") and task.spec.log_driver is None
    assert task.name == "web.3.t"


# --- replicated ------------------------------------------------------------------------------------------------------


def test_slots_are_numbered_from_one_and_the_lowest_free_is_used_again() -> None:
    async def main() -> None:
        async with world() as w:
            service = await w.create(replicas=3)
            await w.until(lambda: len(w.running(service)) == 3)
            assert slots_of(w, service) == [1, 2, 3]
            await w.scale(service, 1)
            await w.until(lambda: len(w.tasks(service)) == 1)
            left = w.tasks(service)[0].slot
            await w.scale(service, 4)
            await w.until(lambda: len(w.running(service)) == 4)
            assert slots_of(w, service) == [1, 2, 3, 4] and left in (1, 2, 3)

    run(main())


def test_scaling_by_hundreds_takes_several_transactions_and_ends_exact() -> None:
    async def main() -> None:
        async with world(nodes=5) as w:
            service = await w.create(replicas=450)
            await w.until(lambda: len(w.running(service)) == 450)
            assert slots_of(w, service) == list(range(1, 451))
            await w.scale(service, 0)
            await w.until(lambda: not w.tasks(service))

    run(main())


@pytest.mark.parametrize(("tasks", "room"), [(0, 200), (1000, 200), (5000, 500), (20_000, 1000)])
def test_a_plan_changes_a_tenth_of_a_large_service_and_at_most_a_thousand_tasks(tasks: int, room: int) -> None:
    async def main() -> None:
        store = memory_store()
        made = [Task(id=f"t{number}", service_id="web", slot=number) for number in range(tasks)]
        for start in range(0, tasks, 1000):
            await store.update(lambda tx, start=start: [tx.create(task) for task in made[start : start + 1000]])
        draft = Draft(store.view(), "web", now=0, rng=random.Random(1))
        assert draft.room == room
        assert Draft(store.view(), "web", now=0, rng=random.Random(1), room=50).room == 50

    run(main())


def slot(number: int, node: str, state: S = S.RUNNING) -> list[Task]:
    return [Task(id=f"t{number}", slot=number, node_id=node, status=TaskStatus(state=state), desired_state=S.RUNNING)]


def test_the_fullest_nodes_lose_tasks_first() -> None:
    slots = {1: slot(1, "a"), 2: slot(2, "a"), 3: slot(3, "a"), 4: slot(4, "b"), 5: slot(5, "c")}
    assert set(victims(dict(slots), 2)) == {2, 3}


def test_of_equal_slots_those_go_that_do_not_run_then_the_highest_numbers() -> None:
    slots = {1: slot(1, "a", S.PREPARING), 2: slot(2, "b"), 3: slot(3, "c")}
    assert victims(dict(slots), 1) == [1]
    slots = {1: slot(1, "a"), 2: slot(2, "b"), 3: slot(3, "c")}
    assert victims(dict(slots), 2) == [3, 2]


def test_slots_without_a_node_go_before_all() -> None:
    slots = {1: slot(1, "", S.PENDING), 2: slot(2, "a"), 3: slot(3, "a")}
    assert victims(dict(slots), 1) == [1]


def test_removing_a_service_removes_its_tasks_when_they_have_stopped() -> None:
    async def main() -> None:
        async with world() as w:
            service = await w.create(replicas=3)
            await w.until(lambda: len(w.running(service)) == 3)
            host = w.hosts[w.node_ids[0]]
            await host.cut()
            await w.remove(service)
            await asyncio.sleep(20)
            # the cut-off node may still run its task: that one is not forgotten
            assert [(task.node_id, task.desired_state) for task in w.tasks(service)] == [(host.node_id, S.REMOVE)]
            await host.heal()
            await w.until(lambda: not w.tasks(service) and not host.containers)

    run(main())


def test_a_removed_service_s_waiting_tasks_go_at_once() -> None:
    async def main() -> None:
        async with world() as w:
            placement = Placement(constraints=["node.labels.x == y"])
            service = await w.create(replicas=3, template={"placement": placement})
            await asyncio.sleep(1)
            assert len(w.tasks(service)) == 3
            await w.remove(service)
            await w.until(lambda: not w.tasks(service), 1)

    run(main())


# --- history ---------------------------------------------------------------------------------------------------------


def test_a_slot_keeps_five_tasks_the_live_one_included() -> None:
    async def main() -> None:
        async with world() as w:
            service = await w.create("dies:1", template={"restart_policy": RestartPolicy(delay=SECOND)})
            most: list[int] = []
            await asyncio.sleep(60)
            w.checks.append(lambda _: most.append(len(w.tasks(service))))
            await asyncio.sleep(60)
            assert len(w.tasks(service)) == 5
            assert max(most) <= 6  # a replacement is made before the oldest is deleted
            assert w.tasks(service)[-1].desired_state.rank <= S.RUNNING.rank

    run(main())


def test_the_limit_can_be_changed_and_negative_keeps_all() -> None:
    async def main() -> None:
        async with world() as w:
            service = await w.create("dies:1", template={"restart_policy": RestartPolicy(delay=SECOND)})
            await w.set_cluster(orchestration=OrchestrationConfig(task_history_retention_limit=-1))
            await w.until(lambda: len(w.tasks(service)) == 12)
            await w.set_cluster(orchestration=OrchestrationConfig(task_history_retention_limit=2))
            await w.until(lambda: len(w.tasks(service)) == 2, 1)

    run(main())


def test_without_history_a_slot_that_is_done_is_not_filled_again() -> None:
    async def main() -> None:
        async with world() as w:
            await w.set_cluster(orchestration=OrchestrationConfig(task_history_retention_limit=0))
            service = await w.create("exits:1", template={"restart_policy": RestartPolicy(condition="none")})
            await asyncio.sleep(60)
            assert [task.status.state for task in w.tasks(service)] == [S.COMPLETE]

    run(main())


def test_a_global_service_keeps_its_history_by_node() -> None:
    async def main() -> None:
        async with world() as w:
            template = {"restart_policy": RestartPolicy(delay=SECOND)}
            service = await w.create("dies:1", mode=ServiceMode(global_=Global()), template=template)
            await asyncio.sleep(60)
            assert sorted(task.node_id for task in w.tasks(service)) == sorted(w.node_ids * 5)

    run(main())


def test_an_orphan_goes_with_its_service() -> None:
    async def main() -> None:
        async with world() as w:
            service = await w.create()
            await w.until(lambda: w.running(service))
            task = w.running(service)[0]
            await w.hosts[task.node_id].cut()
            await w.remove(service)
            await asyncio.sleep(1)
            assert [it.id for it in w.tasks(service)] == [task.id]
            orphaned = TaskStatus(state=S.ORPHANED)
            await w.store.update(lambda tx: tx.update(replace(tx.get(Task, task.id), status=orphaned)))
            await w.until(lambda: not w.tasks(service), 1)

    run(main())


# --- global ----------------------------------------------------------------------------------------------------------


def nodes_of(w: World, service: str) -> set[str]:
    return {task.node_id for task in w.running(service)}


def test_a_global_service_runs_once_on_each_node_also_on_new_ones() -> None:
    async def main() -> None:
        async with world() as w:
            service = await w.create(mode=ServiceMode(global_=Global()))
            await w.until(lambda: len(w.running(service)) == 3)
            new = await w.add_node()
            await w.until(lambda: len(w.running(service)) == 4)
            assert nodes_of(w, service) == set(w.node_ids) and new in nodes_of(w, service)
            task = w.tasks(service)[0]
            assert task.slot == 0 and task.name == f"{task.service_name}.{task.node_id}.{task.id}"

    run(main())


def test_a_global_service_follows_constraints_and_availability() -> None:
    async def main() -> None:
        async with world() as w:
            one, two, three = w.node_ids
            for node in (one, two):
                await w.set_node(node, labels={"disk": "ssd"})
            placement = Placement(constraints=["node.labels.disk == ssd"])
            service = await w.create(mode=ServiceMode(global_=Global()), template={"placement": placement})
            await w.until(lambda: nodes_of(w, service) == {one, two})
            await w.set_node(three, labels={"disk": "ssd"})
            await w.until(lambda: nodes_of(w, service) == {one, two, three})
            await w.set_node(one, labels={})
            await w.until(lambda: nodes_of(w, service) == {two, three})
            await w.set_node(two, availability="drain")
            await w.until(lambda: nodes_of(w, service) == {three})
            await w.set_node(two, availability="active")
            await w.until(lambda: nodes_of(w, service) == {two, three})
            await w.hosts[three].cut()
            await w.until(lambda: nodes_of(w, service) == {two})
            await w.hosts[three].heal()
            await w.until(lambda: nodes_of(w, service) == {two, three})
            assert all(len(host.containers) <= 1 for host in w.hosts.values())

    run(main())


async def on_labelled_nodes(w: World) -> str:
    """A global service on all nodes, bound to a label."""
    for node in w.node_ids:
        await w.set_node(node, labels={"disk": "ssd"})
    service = await w.create(mode=ServiceMode(global_=Global()), template={"placement": SSD})
    await w.until(lambda: nodes_of(w, service) == set(w.node_ids))
    return service


SSD = Placement(constraints=["node.labels.disk == ssd"])


def test_a_paused_node_keeps_its_global_task_though_its_labels_change() -> None:
    async def main() -> None:
        async with world() as w:
            service = await on_labelled_nodes(w)
            paused = w.node_ids[0]
            await w.set_node(paused, availability="pause", labels={})
            await w.change(service, lambda spec: replace(spec, labels={"a": "b"}))
            await asyncio.sleep(10)
            assert nodes_of(w, service) == set(w.node_ids)
            await w.set_node(paused, availability="active")
            await w.until(lambda: nodes_of(w, service) == set(w.node_ids[1:]))

    run(main())


def test_a_paused_node_loses_its_global_task_when_the_service_excludes_it() -> None:
    async def main() -> None:
        async with world() as w:
            service = await on_labelled_nodes(w)
            paused = w.node_ids[0]
            await w.set_node(paused, availability="pause")
            other = Placement(constraints=[f"node.id != {paused}"])
            await w.change(
                service, lambda spec: replace(spec, task_template=replace(spec.task_template, placement=other))
            )
            await w.until(lambda: nodes_of(w, service) == set(w.node_ids[1:]))

    run(main())


@pytest.mark.parametrize("mode", [ServiceMode(global_=Global()), ServiceMode(global_job=GlobalJob())])
def test_a_task_that_fails_on_a_paused_node_is_replaced_when_the_node_is_active_again(mode: ServiceMode) -> None:
    async def main() -> None:
        async with world() as w:
            service = await w.create("slow:1", mode=mode)
            await w.until(lambda: sum(task.status.state is S.RUNNING for task in w.tasks(service)) == 3)
            victim = w.tasks(service)[0]
            await w.set_node(victim.node_id, availability="pause")
            await w.hosts[victim.node_id].kill(victim.id)
            await asyncio.sleep(30)
            assert [task.id for task in w.tasks(service) if task.node_id == victim.node_id] == [victim.id]
            await w.set_node(victim.node_id, availability="active")
            await w.until(lambda: sum(task.status.state is S.RUNNING for task in w.tasks(service)) == 3)

    run(main())


def test_a_global_task_is_restarted_on_its_node() -> None:
    async def main() -> None:
        async with world() as w:
            service = await w.create(mode=ServiceMode(global_=Global()))
            await w.until(lambda: len(w.running(service)) == 3)
            victim = w.running(service)[1]
            await w.hosts[victim.node_id].kill(victim.id)
            await w.until(lambda: len(w.running(service)) == 3)
            assert [task.node_id for task in w.tasks(service)].count(victim.node_id) == 2

    run(main())


# --- jobs ------------------------------------------------------------------------------------------------------------


def completed(w: World, service: str) -> list[Task]:
    return [task for task in w.tasks(service) if task.status.state is S.COMPLETE]


def test_a_job_completes_so_many_runs_and_no_more_than_allowed_at_a_time() -> None:
    async def main() -> None:
        async with world() as w:
            mode = ServiceMode(replicated_job=ReplicatedJob(max_concurrent=3, total_completions=8))
            together: list[int] = []
            w.checks.append(lambda _: together.append(sum(len(host.containers) for host in w.hosts.values())))
            service = await w.create("exits:2", mode=mode)
            await w.until(lambda: len(completed(w, service)) == 8)
            await asyncio.sleep(10)
            assert sorted(task.slot for task in w.tasks(service)) == list(range(8))
            assert {task.desired_state for task in w.tasks(service)} == {S.COMPLETE}
            assert max(together) == 3

    run(main())


@pytest.mark.parametrize(
    ("mode", "together", "slots"),
    [(ReplicatedJob(), 1, 1), (ReplicatedJob(max_concurrent=3), 3, 3), (ReplicatedJob(total_completions=3), 1, 3)],
)
def test_a_job_runs_once_unless_told_otherwise_and_as_often_as_at_a_time(
    mode: ReplicatedJob, together: int, slots: int
) -> None:
    async def main() -> None:
        async with world() as w:
            most: list[int] = []
            w.checks.append(lambda _: most.append(sum(len(host.containers) for host in w.hosts.values())))
            service = await w.create("exits:2", mode=ServiceMode(replicated_job=mode))
            await asyncio.sleep(30)
            assert [task.slot for task in completed(w, service)] == list(range(slots)) and max(most) == together

    run(main())


def test_failed_runs_of_a_job_are_repeated_as_the_policy_says() -> None:
    async def main() -> None:
        async with world() as w:
            mode = ServiceMode(replicated_job=ReplicatedJob(max_concurrent=2, total_completions=2))
            policy = RestartPolicy(condition="on-failure", delay=SECOND, max_attempts=2)
            service = await w.create("crash", mode=mode, template={"restart_policy": policy})
            await asyncio.sleep(60)
            assert len(w.tasks(service)) == 6 and {task.status.state for task in w.tasks(service)} == {S.FAILED}
            once = await w.create("crash", mode=mode, template={"restart_policy": RestartPolicy(condition="none")})
            await asyncio.sleep(60)
            assert len(w.tasks(once)) == 2

    run(main())


def test_an_update_of_a_job_runs_it_again() -> None:
    async def main() -> None:
        async with world() as w:
            mode = ServiceMode(replicated_job=ReplicatedJob(max_concurrent=1, total_completions=2))
            service = await w.create("exits:1", mode=mode)
            await w.until(lambda: len(completed(w, service)) == 2)
            await w.force(service)
            await w.until(lambda: [task.job_iteration for task in completed(w, service)] == [Version(index=1)] * 2)
            await w.until(lambda: len(w.tasks(service)) == 2)
            assert w.status(service) == ""

    run(main())


def test_a_job_s_run_moves_away_from_a_drained_node() -> None:
    async def main() -> None:
        async with world() as w:
            service = await w.create("exits:10", mode=ServiceMode(replicated_job=ReplicatedJob()))
            await w.until(lambda: any(task.status.state is S.RUNNING for task in w.tasks(service)))
            first = w.tasks(service)[0]
            await w.set_node(first.node_id, availability="drain")
            await w.until(lambda: len(completed(w, service)) == 1)
            assert completed(w, service)[0].node_id != first.node_id

    run(main())


def test_a_global_job_runs_once_on_each_active_node_also_on_later_ones() -> None:
    async def main() -> None:
        async with world() as w:
            paused = w.node_ids[0]
            await w.set_node(paused, availability="pause")
            service = await w.create("exits:1", mode=ServiceMode(global_job=GlobalJob()))
            await w.until(lambda: len(completed(w, service)) == 2)
            new = await w.add_node()
            await w.until(lambda: len(completed(w, service)) == 3)
            await asyncio.sleep(10)
            assert {task.node_id for task in w.tasks(service)} == {*w.node_ids[1:3], new}
            await w.set_node(paused, availability="active")
            await w.until(lambda: len(completed(w, service)) == 4)

    run(main())


# --- what makes a task outdated
# ----------------------------------------------------------------------------------------


def port_service(version: int, *ports: PortConfig, **spec: Any) -> Service:
    endpoint = EndpointSpec(mode=spec.pop("mode", ""), ports=list(ports))
    return Service(
        id="s", spec=ServiceSpec(name="web", endpoint_spec=endpoint, **spec), spec_version=Version(index=version)
    )


def made_from(service: Service, endpoint: Endpoint | None) -> Task:
    task = new_task(service, slot=1, node_id="", task_id="t", now="2025-01-01T00:00:00.000000000Z")
    return replace(task, endpoint=endpoint)


def test_ports_as_the_allocator_completes_them_do_not_make_a_task_outdated() -> None:
    old = port_service(1, PortConfig(target_port=80))
    allocated = Endpoint(
        spec=EndpointSpec(mode="vip", ports=[PortConfig(protocol="tcp", target_port=80, publish_mode="ingress")]),
        ports=[PortConfig(protocol="tcp", target_port=80, published_port=30000, publish_mode="ingress")],
    )
    task = made_from(old, allocated)
    assert not is_dirty(port_service(2, PortConfig(target_port=80), labels={"a": "b"}), task, None)
    assert is_dirty(port_service(2, PortConfig(target_port=81)), task, None)
    assert is_dirty(port_service(2), task, None)


def test_the_first_published_port_makes_tasks_outdated() -> None:
    task = made_from(port_service(1), None)
    assert not is_dirty(port_service(2, mode="vip"), task, None)
    assert is_dirty(port_service(2, PortConfig(target_port=80, published_port=8080)), task, None)
    assert is_dirty(port_service(2, mode="dnsrr"), task, None)
