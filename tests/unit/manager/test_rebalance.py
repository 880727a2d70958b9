"""Rebalancing: what moves, what stays, and that moving ends (rebalance.py); and the driver in a simulated cluster."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from swarm_agent.manager.rebalance import look_ahead
from swarm_agent.manager.rebalancer import Rebalancer
from swarm_agent.model.objects import (
    Cluster,
    Node,
    NodeDescription,
    NodeStatus,
    Service,
    Task,
    TaskStatus,
    UpdateStatus,
    Version,
)
from swarm_agent.model.specs import (
    ContainerSpec,
    Global,
    Mount,
    NodeSpec,
    Placement,
    PlacementPreference,
    Replicated,
    ResourceRequirements,
    Resources,
    ServiceMode,
    ServiceSpec,
    SpreadOver,
    TaskSpec,
)
from swarm_agent.model.states import TaskState as S
from swarm_agent.model.times import SECOND
from tests.sim.orchestration_world import World, replace, update_config, world
from tests.sim.virtual_time import run

NOW = 1_800_000_000 * SECOND


def a_node(name: str, *, labels: dict[str, str] | None = None, memory: int = 0, **spec: Any) -> Node:
    return Node(
        id=name,
        spec=NodeSpec(role="worker", availability="active", labels=labels or {}, **spec),
        description=NodeDescription(hostname=name, resources=Resources(memory_bytes=memory)),
        status=NodeStatus(state="ready"),
    )


def a_service(name: str, replicas: int, labels: dict[str, str] | None = None, **template: Any) -> Service:
    container = template.pop("container", ContainerSpec(image="x"))
    return Service(
        id=name,
        spec=ServiceSpec(
            name=name,
            labels=labels or {},
            mode=ServiceMode(replicated=Replicated(replicas=replicas)),
            task_template=TaskSpec(container_spec=container, **template),
        ),
        spec_version=Version(index=1),
    )


def running(service: Service, *nodes: str) -> list[Task]:
    return [
        Task(
            id=f"{service.id}.{slot}",
            service_id=service.id,
            slot=slot,
            node_id=node,
            spec=service.spec.task_template,
            spec_version=service.spec_version,
            desired_state=S.RUNNING,
            status=TaskStatus(state=S.RUNNING),
            created_at="2026-01-01T00:00:00.000000000Z",
        )
        for slot, node in enumerate(nodes, 1)
    ]


def moves(
    nodes: list[Node], services: list[Service], tasks: list[Task], *, named: bool = False
) -> tuple[list[tuple[str, str]], dict[str, str]]:
    found, left = look_ahead(nodes, tasks, services, named=named, now=NOW)
    return [(move.source, move.target) for move in found], left


def test_a_new_node_gets_its_share() -> None:
    web = a_service("web", 6)
    found, left = moves([a_node("a"), a_node("b"), a_node("c")], [web], running(web, *"aaabbb"))
    assert sorted(found) == [("a", "c"), ("b", "c")] and not left


def test_a_difference_of_one_is_even() -> None:
    web = a_service("web", 3)
    assert moves([a_node("a"), a_node("b")], [web], running(web, "a", "a", "b")) == ([], {})


def test_services_of_one_task_each_are_spread_too() -> None:
    services = [a_service(f"s{number}", 1) for number in range(6)]
    tasks = [task for service in services for task in running(service, "a")]
    found, _ = moves([a_node("a"), a_node("b")], services, tasks)
    assert found == [("a", "b")] * 3


def test_nothing_goes_where_it_may_not_be() -> None:
    here = Placement(constraints=["node.hostname == a"])
    big = ResourceRequirements(reservations=Resources(memory_bytes=2 << 30))
    bound, large = a_service("bound", 4, placement=here), a_service("large", 4, resources=big)
    nodes = [a_node("a", memory=64 << 30), a_node("b", memory=1 << 30)]
    assert moves(nodes, [bound, large], running(bound, *"aaaa") + running(large, *"aaaa"))[0] == []
    most = a_service("most", 4, placement=Placement(max_replicas=1))
    assert moves(nodes, [most], running(most, *"aaaa"))[0] == [("a", "b")]


@pytest.mark.parametrize(("availability", "state"), [("drain", "ready"), ("pause", "ready"), ("active", "down")])
def test_nodes_that_take_no_tasks_neither_give_nor_get(availability: str, state: str) -> None:
    web = a_service("web", 4)
    shut = replace(a_node("b"), spec=NodeSpec(availability=availability), status=NodeStatus(state=state))
    assert moves([a_node("a"), shut], [web], running(web, *"aaaa"))[0] == []
    assert moves([a_node("a"), shut], [web], running(web, *"bbbb"))[0] == []


def test_preferences_are_evened_out_part_by_part() -> None:
    spread = Placement(preferences=[PlacementPreference(spread=SpreadOver(spread_descriptor="node.labels.zone"))])
    web = a_service("web", 4, placement=spread)
    nodes = [a_node("a", labels={"zone": "1"}), a_node("b", labels={"zone": "1"}), a_node("c", labels={"zone": "2"})]
    found, _ = look_ahead(nodes, running(web, *"aabb"), [web], named=False, now=NOW)
    assert [move.target for move in found] == ["c", "c"]
    assert {move.source for move in found} == {"a", "b"}
    assert found[0].reason == "node.labels.zone=1 has 4 tasks of the service, node.labels.zone=2 has 0"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"update_status": UpdateStatus(state="updating")}, "being updated"),
        ({"labels": {"swarm.rebalance": "off"}}, "its label swarm.rebalance is off"),
        ({"replicas": 5}, "not all of its tasks run"),
        ({"mode": ServiceMode(global_=Global())}, "only replicated"),
        ({"mount": Mount(type="volume", source="data", target="/d")}, "keep data on their nodes"),
    ],
)
def test_who_is_left_alone(change: dict[str, Any], word: str) -> None:
    web = a_service("web", change.pop("replicas", 4), labels=change.pop("labels", None))
    tasks = running(web, *"aaaa")
    if "mode" in change:
        web = replace(web, spec=replace(web.spec, mode=change.pop("mode")))
    if "mount" in change:
        container = ContainerSpec(image="x", mounts=[change.pop("mount")])
        web = replace(web, spec=replace(web.spec, task_template=TaskSpec(container_spec=container)))
    found, left = moves([a_node("a"), a_node("b")], [replace(web, **change)], tasks)
    assert not found and word in left["web"]


def test_a_service_that_keeps_data_is_moved_when_it_is_named_or_says_so() -> None:
    container = ContainerSpec(image="x", mounts=[Mount(type="bind", source="/srv", target="/d")])
    for labels, named in ((None, True), ({"swarm.rebalance": "on"}, False)):
        web = a_service("web", 4, labels=labels, container=container)
        assert len(moves([a_node("a"), a_node("b")], [web], running(web, *"aaaa"), named=named)[0]) == 2


@pytest.mark.parametrize("seed", range(60))
def test_moving_ends_makes_things_even_and_breaks_no_rule(seed: int) -> None:
    rng = random.Random(seed)
    zones = [str(rng.randint(1, 3)) for _ in range(rng.randint(2, 8))]
    nodes = [a_node(f"n{number}", labels={"zone": zone}, memory=8 << 30) for number, zone in enumerate(zones)]
    services, tasks = [], []
    for number in range(rng.randint(1, 8)):
        placement = Placement(
            constraints=["node.labels.zone != 1"] if rng.random() < 0.3 and set(zones) != {"1"} else [],
            preferences=[PlacementPreference(spread=SpreadOver(spread_descriptor="node.labels.zone"))]
            if rng.random() < 0.4
            else [],
            max_replicas=rng.choice((0, 0, 3)),
        )
        fit = [node for node in nodes if not placement.constraints or node.spec.labels["zone"] != "1"]
        places: list[str] = []
        for _ in range(rng.randint(0, 9)):
            node = rng.choice(fit[: rng.randint(1, len(fit))]).id
            if not placement.max_replicas or places.count(node) < placement.max_replicas:
                places.append(node)
        service = a_service(f"s{number}", len(places), placement=placement)
        services.append(service)
        tasks += running(service, *places)
    found, left = look_ahead(nodes, tasks, services, named=False, now=NOW)
    assert not left
    where = {(task.service_id, task.slot): task.node_id for task in tasks}
    for move in found:
        assert where[(move.service_id, move.slot)] == move.source
        where[(move.service_id, move.slot)] = move.target
    zone_of = {node.id: node.spec.labels["zone"] for node in nodes}
    for service in services:
        placement = service.spec.task_template.placement
        assert placement is not None
        counts = Counter({node.id: 0 for node in nodes})
        counts.update(node for (service_id, _), node in where.items() if service_id == service.id)
        fit = [node.id for node in nodes if not placement.constraints or zone_of[node.id] != "1"]
        assert all(not count or node in fit for node, count in counts.items()), "a constraint is broken"
        assert not placement.max_replicas or max(counts.values()) <= placement.max_replicas
        if placement.preferences:
            parts: Counter[str] = Counter({zone_of[node]: 0 for node in fit})
            for node in fit:
                parts[zone_of[node]] += counts[node]
            full = {
                zone
                for zone in parts
                if placement.max_replicas
                and all(counts[node] >= placement.max_replicas for node in fit if zone_of[node] == zone)
            }
            open_parts = [count for zone, count in parts.items() if zone not in full]
            assert not open_parts or max(parts.values()) - min(open_parts) < 2, parts
        elif fit:
            assert max(counts[node] for node in fit) - min(counts[node] for node in fit) < 2, counts
    again, _ = look_ahead(nodes, [replace(task, node_id=where[(task.service_id, task.slot)]) for task in tasks],
                          services, named=False, now=NOW)  # fmt: skip
    assert again == [], "what is even is moved again"


# --- the driver ------------------------------------------------------------------------------------------------------


def spread_of(w: World, service: str) -> list[int]:
    counts = Counter(dict.fromkeys(w.node_ids, 0))
    counts.update(task.node_id for task in w.running(service))
    return sorted(counts.values())


async def ask(w: World, service: str) -> None:
    await w.store.update(lambda tx: tx.update(replace(w.service(service), rebalance=tx.now)))


def watch_health(w: World, service: str, least: int) -> None:
    def check(_: Any) -> None:
        assert len(w.running(service)) >= least, "too few run"
        coming = [task for task in w.tasks(service) if task.desired_state.rank <= S.RUNNING.rank]
        moving = [task for task in coming if task.cause == "rebalance" and task.status.state.rank < S.RUNNING.rank]
        assert len(moving) <= 1, "several are moved at a time"

    w.checks.append(check)


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
def test_a_service_is_moved_one_by_one_in_its_order(order: str) -> None:
    async def main() -> None:
        async with world(nodes=2, placing=True) as w:
            service = await w.create(replicas=9, update_config=update_config(order=order))
            await w.until(lambda: len(w.running(service)) == 9)
            await w.add_node()
            await asyncio.sleep(20)
            assert spread_of(w, service) == [0, 4, 5]
            watch_health(w, service, 9 if order == "start-first" else 8)
            await ask(w, service)
            await w.until(lambda: spread_of(w, service) == [3, 3, 3], 60)
            await w.until(lambda: w.service(service).rebalance == "", 10)
            causes = Counter(task.cause for task in w.running(service))
            assert causes == {"scale": 6, "rebalance": 3}

    run(main())


def test_a_request_outlives_the_leader() -> None:
    async def main() -> None:
        async with world(nodes=1, placing=True) as w:
            service = await w.create("slow:2", replicas=8)
            await w.until(lambda: len(w.running(service)) == 8)
            await w.add_node()
            await ask(w, service)
            for _ in range(5):
                await asyncio.sleep(3)
                await w.depose()
                await w.lead()
            await w.until(lambda: spread_of(w, service) == [4, 4] and not w.service(service).rebalance, 60)

    run(main())


def test_by_itself_it_waits_for_calm_and_moves_one_task_of_the_cluster_at_a_time() -> None:
    async def main() -> None:
        async with world(nodes=1, placing=True) as w:
            await w.set_cluster(labels={"swarm.rebalance": "auto"})
            services = [await w.create("slow:2", replicas=4) for _ in range(3)]
            await w.until(lambda: all(len(w.running(service)) == 4 for service in services))

            def one_at_a_time(_: Any) -> None:
                coming = [task for task in w.store.view().all(Task)
                          if task.cause == "rebalance" and task.status.state.rank < S.RUNNING.rank]  # fmt: skip
                assert len(coming) <= 1

            w.checks.append(one_at_a_time)
            await w.add_node()
            await asyncio.sleep(28)
            assert all(spread_of(w, service) == [0, 4] for service in services)
            await w.until(lambda: all(spread_of(w, service) == [2, 2] for service in services), 120)
            index, looks = w.store.view().index, count_looks(w)
            await asyncio.sleep(600)
            assert w.store.view().index == index, "it never comes to rest"
            assert len(looks) <= 600 / 5 + 2, "wake-ups add up"

    run(main())


def test_a_move_that_finds_no_node_is_given_up_and_the_old_task_stays() -> None:
    """Between decision and placement the new node may be gone. Here the scheduler is: start-first loses nothing."""

    async def main() -> None:
        async with world(nodes=1, placing=True) as w:
            service = await w.create(replicas=3, update_config=update_config(order="start-first"))
            await w.until(lambda: len(w.running(service)) == 3)
            before = [task.id for task in w.running(service)]
            await w.add_node()
            await w.leader.pop().stop()
            watch_health(w, service, 3)
            await ask(w, service)
            await asyncio.sleep(5)
            assert [task.cause for task in w.tasks(service) if task.status.state is S.PENDING] == ["rebalance"]
            await w.until(lambda: w.service(service).rebalance == "", 300)
            assert [task.id for task in w.running(service)] == before
            tried = [task.slot for task in w.tasks(service) if task.cause == "rebalance"]
            assert sorted(tried) == [1, 2, 3], "each slot is tried once"

    run(main())


def count_looks(w: World) -> list[None]:
    """Gets an entry for each look that the rebalancer takes from now on."""
    rebalancer = next(part for part in w.leader if isinstance(part, Rebalancer))
    look, looks = rebalancer._by_itself, []

    async def counted(core: Any) -> None:
        looks.append(None)
        await look(core)

    rebalancer._by_itself = counted  # type: ignore[method-assign]
    return looks


def test_nothing_is_moved_unless_asked_for() -> None:
    async def main() -> None:
        async with world(nodes=1, placing=True) as w:
            service = await w.create(replicas=6)
            await w.until(lambda: len(w.running(service)) == 6)
            await w.add_node()
            await asyncio.sleep(900)
            assert spread_of(w, service) == [0, 6]
            assert w.store.view().all(Cluster)[0].spec.labels == {}

    run(main())
