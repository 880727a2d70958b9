"""The scheduler: tasks become assigned, wait with Swarm's words, and are placed when there is room."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from swarm_agent.manager import nodeset
from swarm_agent.manager.constraints import node_satisfies
from swarm_agent.manager.nodeset import FAILURE_WINDOW, MAX_FAILURES
from swarm_agent.manager.scheduler import Scheduler
from swarm_agent.manager.scheduling import SchedulerCore
from swarm_agent.model.encryption import WIREGUARD
from swarm_agent.model.errors import NoLeader
from swarm_agent.model.objects import (
    Endpoint,
    EngineDescription,
    Network,
    NetworkAttachment,
    Node,
    NodeDescription,
    NodeStatus,
    PluginDescription,
    Task,
    TaskStatus,
    Version,
)
from swarm_agent.model.specs import (
    ContainerSpec,
    DiscreteGenericResource,
    Driver,
    GenericResource,
    Mount,
    NamedGenericResource,
    NetworkSpec,
    NodeSpec,
    Placement,
    PlacementPreference,
    Platform,
    PortConfig,
    ResourceRequirements,
    Resources,
    SpreadOver,
    TaskSpec,
    VolumeOptions,
)
from swarm_agent.model.states import TaskState
from swarm_agent.model.times import rfc3339
from swarm_agent.store.memory import memory_store
from swarm_agent.store.store import Store
from swarm_agent.store.view import Change

NOW = 1_700_000_000_000_000_000
GIB = 1 << 30
replace = msgspec.structs.replace
numbers = itertools.count()


def node(name: str, **changes: Any) -> Node:
    """A ready node with 4 CPUs and 8 GiB."""
    description = NodeDescription(
        hostname=name,
        platform=Platform(architecture="x86_64", os="linux"),
        resources=Resources(
            nano_cpus=4_000_000_000, memory_bytes=8 * GIB, generic_resources=changes.pop("generic", [])
        ),
        engine=EngineDescription(plugins=changes.pop("plugins", []), labels=changes.pop("engine_labels", {})),
    )
    spec = NodeSpec(role="worker", availability=changes.pop("availability", "active"), labels=changes.pop("labels", {}))
    state = changes.pop("state", "ready")
    return Node(id=name, description=description, spec=spec, status=NodeStatus(state=state), **changes)


def task(service: str = "web", *, spec: TaskSpec | None = None, version: int = 1, **changes: Any) -> Task:
    """A pending task of a service."""
    return Task(
        **{
            "id": f"t{next(numbers)}",
            "service_id": service,
            "spec": spec or TaskSpec(),
            "spec_version": Version(index=version),
            "status": TaskStatus(state=TaskState.PENDING, message="pending task scheduling"),
            "desired_state": TaskState.RUNNING,
            **changes,
        }
    )


def running(service: str, node_id: str, **changes: Any) -> Task:
    return task(service, node_id=node_id, status=TaskStatus(state=TaskState.RUNNING), **changes)


def reserving(cpus: float = 0, memory: int = 0, **kinds: int) -> TaskSpec:
    generic = [
        GenericResource(discrete_resource_spec=DiscreteGenericResource(kind=kind, value=value))
        for kind, value in kinds.items()
    ]
    wanted = Resources(nano_cpus=int(cpus * 1e9), memory_bytes=memory, generic_resources=generic)
    return TaskSpec(resources=ResourceRequirements(reservations=wanted))


def placed(*constraints: str, prefer: tuple[str, ...] = (), max_replicas: int = 0) -> TaskSpec:
    preferences = [PlacementPreference(spread=SpreadOver(spread_descriptor=text)) for text in prefer]
    return TaskSpec(
        placement=Placement(constraints=list(constraints), preferences=preferences, max_replicas=max_replicas)
    )


def host_port(port: int) -> Endpoint:
    return Endpoint(ports=[PortConfig(protocol="tcp", target_port=80, published_port=port, publish_mode="host")])


class World:
    """A core fed with objects; its decisions count as stored."""

    def __init__(self, *objects: Node | Task) -> None:
        self.core = SchedulerCore()
        self.now = NOW
        self.objects: dict[str, Node | Task] = {}
        self.put(*objects)

    def put(self, *objects: Node | Task) -> None:
        for obj in objects:
            self.core.apply([Change(type(obj), self.objects.get(obj.id), obj)], self.now)
            self.objects[obj.id] = obj

    def drop(self, obj: Node | Task) -> None:
        self.core.apply([Change(type(obj), self.objects.pop(obj.id), None)], self.now)

    def plan(self) -> list[Task]:
        decisions: list[Task] = []
        while self.core.busy:
            some = self.core.plan(7, self.now)
            self.put(*some)
            decisions += some
        return decisions

    def task(self, of: Task) -> Task:
        found = self.objects[of.id]
        assert isinstance(found, Task)
        return found

    def where(self, tasks: list[Task]) -> Counter[str]:
        return Counter(self.task(each).node_id for each in tasks)


def test_an_assigned_task_carries_swarms_message_and_time() -> None:
    wanted = task()
    world = World(node("a"), wanted)
    (assigned,) = world.plan()
    assert assigned.node_id == "a"
    assert assigned.status == TaskStatus(
        timestamp=rfc3339(NOW), state=TaskState.ASSIGNED, message="scheduler assigned task to node"
    )


def test_replicas_spread_evenly_over_nodes_whatever_else_runs_there() -> None:
    tasks = [task() for _ in range(30)]
    world = World(node("a"), node("b"), node("c"), *(running("other", "a") for _ in range(50)), *tasks)
    world.plan()
    assert world.where(tasks) == {"a": 10, "b": 10, "c": 10}


def test_among_nodes_with_equally_many_replicas_the_emptiest_wins() -> None:
    tasks = [task(), task()]
    world = World(node("a"), node("b"), node("c"), running("x", "a"), running("x", "b"), running("x", "b"), *tasks)
    world.plan()
    assert world.where(tasks) == {"c": 1, "a": 1}


def test_tasks_being_stopped_do_not_count_for_spreading() -> None:
    stopping = [running("web", "a", desired_state=TaskState.SHUTDOWN) for _ in range(3)]
    wanted = task()
    world = World(node("a"), node("b"), running("web", "b"), *stopping, wanted)
    world.plan()
    assert world.task(wanted).node_id == "a"


@pytest.mark.parametrize(
    ("nodes", "spec", "reason"),
    [
        ([node("a", state="down")], None, "1 node not available for new tasks"),
        (
            [node("a", availability="drain"), node("b", availability="pause")],
            None,
            "2 nodes not available for new tasks",
        ),
        ([node("a")], reserving(cpus=4.5), "insufficient resources on 1 node"),
        ([node("a"), node("b")], reserving(memory=9 * GIB), "insufficient resources on 2 nodes"),
        ([node("a")], reserving(gpu=1), "insufficient resources on 1 node"),
        (
            [node("a"), node("b"), node("c")],
            placed("node.hostname==zebra"),
            "scheduling constraints not satisfied on 3 nodes",
        ),
        ([node("a")], placed("node.hostname==zebra"), "scheduling constraints not satisfied on 1 node"),
        (
            [node("a")],
            TaskSpec(placement=Placement(platforms=[Platform(architecture="arm64", os="linux")])),
            "unsupported platform on 1 node",
        ),
        (
            [node("a", plugins=[PluginDescription(type="Log", name="json-file")])],
            TaskSpec(log_driver=Driver(name="fluentd")),
            "missing plugin on 1 node",
        ),
        (
            [node("a"), node("b"), node("c", state="down"), node("d", labels={"k": "v"})],
            placed("node.labels.k!=v", max_replicas=0),
            "",
        ),
    ],
)
def test_a_task_that_fits_nowhere_says_why_in_swarms_words(
    nodes: list[Node], spec: TaskSpec | None, reason: str
) -> None:
    wanted = task(spec=spec)
    world = World(*nodes, wanted)
    world.plan()
    status = world.task(wanted).status
    if reason:
        assert status.state is TaskState.PENDING
        assert status.err == f"no suitable node ({reason})"
        assert status.message == "pending task scheduling"
    else:
        assert status.state is TaskState.ASSIGNED


def test_reasons_are_joined_most_frequent_first() -> None:
    wanted = task(spec=placed("node.labels.disk==ssd"))
    world = World(node("a"), node("b"), node("c", state="down"), wanted)
    world.plan()
    assert world.task(wanted).status.err == (
        "no suitable node (scheduling constraints not satisfied on 2 nodes; 1 node not available for new tasks)"
    )


def test_without_any_node_there_is_no_reason_to_give() -> None:
    wanted = task()
    world = World(wanted)
    world.plan()
    assert world.task(wanted).status.err == "no suitable node"


def test_max_replicas_per_node_is_kept_within_one_pass_and_over_passes() -> None:
    spec = placed(max_replicas=2)
    tasks = [task(spec=spec) for _ in range(5)]
    world = World(node("a"), node("b"), *tasks)
    world.plan()
    assert world.where(tasks) == {"a": 2, "b": 2, "": 1}
    (waiting,) = [each for each in tasks if not world.task(each).node_id]
    assert world.task(waiting).status.err == "no suitable node (max replicas per node limit exceed)"
    stopping = next(each for each in tasks if world.task(each).node_id == "b")
    world.put(replace(world.task(stopping), desired_state=TaskState.SHUTDOWN))
    world.plan()
    assert world.task(waiting).node_id == "b"
    assert world.task(waiting).status.err == ""


def test_reservations_are_summed_up_and_given_back_when_a_task_has_ended() -> None:
    spec = reserving(cpus=1.5)
    tasks = [task(spec=spec) for _ in range(3)]
    world = World(node("a"), *tasks)
    world.plan()
    assert world.where(tasks) == {"a": 2, "": 1}
    (waiting,) = [each for each in tasks if not world.task(each).node_id]
    ending = world.task(next(each for each in tasks if each is not waiting))
    world.put(replace(ending, desired_state=TaskState.SHUTDOWN))
    world.plan()
    assert not world.task(waiting).node_id, "a container that is being stopped still has its memory"
    world.put(replace(ending, status=TaskStatus(state=TaskState.SHUTDOWN)))
    world.plan()
    assert world.task(waiting).node_id == "a"


def test_more_room_on_a_node_places_what_waited() -> None:
    wanted = task(spec=reserving(cpus=6))
    small = node("a")
    world = World(small, wanted)
    world.plan()
    assert not world.task(wanted).node_id
    world.put(replace(small, description=replace(small.description, resources=Resources(nano_cpus=8_000_000_000))))
    world.plan()
    assert world.task(wanted).node_id == "a"


def test_a_blocked_task_is_not_decided_again_while_nothing_changes() -> None:
    wanted = task(spec=placed("node.hostname==later"))
    world = World(node("a"), wanted)
    assert len(world.plan()) == 1
    assert world.plan() == []
    world.put(running("other", "a"))
    assert world.plan() == []
    world.put(node("later"))
    assert [each.node_id for each in world.plan()] == ["later"]


def test_a_host_port_is_used_once_per_node_until_its_task_has_ended() -> None:
    tasks = [task(endpoint=host_port(8080)) for _ in range(3)]
    world = World(node("a"), node("b"), *tasks)
    world.plan()
    assert world.where(tasks) == {"a": 1, "b": 1, "": 1}
    (waiting,) = [each for each in tasks if not world.task(each).node_id]
    assert world.task(waiting).status.err == "no suitable node (host-mode port already in use on 2 nodes)"
    world.drop(world.task(next(each for each in tasks if world.task(each).node_id == "b")))
    world.plan()
    assert world.task(waiting).node_id == "b"


def test_named_and_counted_generic_resources_are_handed_out_once() -> None:
    gpus = [
        GenericResource(named_resource_spec=NamedGenericResource(kind="gpu", value=name)) for name in ("g1", "g2", "g3")
    ]
    ssd = GenericResource(discrete_resource_spec=DiscreteGenericResource(kind="ssd", value=3))
    two, one = task("a", spec=reserving(gpu=2, ssd=1)), task("b", spec=reserving(gpu=1, ssd=2))
    none = task("c", spec=reserving(gpu=1))
    world = World(node("a", generic=[*gpus, ssd]))
    for each in (two, one, none):
        world.put(each)
        world.plan()
    names = [
        resource.named_resource_spec.value
        for each in (two, one)
        for resource in world.task(each).generic_resources
        if resource.named_resource_spec is not None
    ]
    assert sorted(names) == ["g1", "g2", "g3"]
    counts = [
        resource.discrete_resource_spec.value
        for each in (two, one)
        for resource in world.task(each).generic_resources
        if resource.discrete_resource_spec is not None
    ]
    assert counts == [1, 2]
    assert world.task(none).status.err == "no suitable node (insufficient resources on 1 node)"


LOCAL = PluginDescription(type="Volume", name="local")  # an engine that tells of its plugins


@pytest.mark.parametrize(
    ("plugins", "reason"),
    [
        ([LOCAL, WIREGUARD], ""),
        ([LOCAL], "no suitable node (no WireGuard for the encrypted network on 1 node)"),
        ([], ""),  # not known: the host itself says so if it cannot
    ],
    ids=["has it", "has it not", "not known"],
)
def test_an_encrypted_network_takes_a_node_whose_kernel_can(plugins: list[PluginDescription], reason: str) -> None:
    spec = NetworkSpec(name="secret", driver_configuration=Driver(name="overlay", options={"encrypted": ""}))
    attachment = NetworkAttachment(network=Network(id="n", spec=spec), addresses=["10.0.1.5/24"])
    wanted, other = task(networks_attachments=[attachment]), task("open")
    world = World(node("a", plugins=plugins), wanted, other)
    world.plan()
    assert world.task(wanted).status.err == reason
    assert world.task(other).node_id == "a"


@pytest.mark.parametrize(
    ("plugin", "fits"), [("nfs", True), ("nfs:latest", True), ("nfs2", False)], ids=["exact", "latest", "another"]
)
def test_a_volume_driver_must_be_on_the_node(plugin: str, fits: bool) -> None:
    options = VolumeOptions(driver_config=Driver(name="nfs"))
    spec = TaskSpec(container_spec=ContainerSpec(mounts=[Mount(type="volume", target="/d", volume_options=options)]))
    wanted = task(spec=spec)
    world = World(node("a", plugins=[PluginDescription(type="Volume", name=plugin)]), wanted)
    world.plan()
    assert bool(world.task(wanted).node_id) is fits


@pytest.mark.parametrize("architecture", ["amd64", "x86_64", ""])
def test_platform_names_of_images_and_kernels_are_the_same(architecture: str) -> None:
    wanted = task(spec=TaskSpec(placement=Placement(platforms=[Platform(architecture=architecture, os="linux")])))
    world = World(node("a"), wanted)
    world.plan()
    assert world.task(wanted).node_id == "a"


def test_nodes_where_this_version_failed_often_come_last_until_the_window_has_passed() -> None:
    world = World(node("a"), node("b"), *(running("other", "b") for _ in range(3)))
    for _ in range(MAX_FAILURES):
        failing = running("web", "a")
        world.put(failing)
        world.put(replace(failing, status=TaskStatus(state=TaskState.FAILED)))
    first, other_version = task(), task(version=2)
    world.put(first)
    world.plan()
    assert world.task(first).node_id == "b", "a is empty, but keeps failing"
    world.put(other_version)
    world.plan()
    assert world.task(other_version).node_id == "a", "another version is another matter"
    world.now += FAILURE_WINDOW
    world.drop(world.task(other_version))
    later = task()
    world.put(later)
    world.plan()
    assert world.task(later).node_id == "a"


def test_failures_in_the_history_count_after_a_change_of_leader() -> None:
    failed = [running("web", "a", slot=1) for _ in range(MAX_FAILURES)]
    history = [
        replace(each, status=TaskStatus(state=TaskState.REJECTED, timestamp=rfc3339(NOW - 1000))) for each in failed
    ]
    core = SchedulerCore()
    core.load([node("a"), node("b"), running("x", "b"), *history, task()], NOW)
    (assigned,) = core.plan(10, NOW)
    assert assigned.node_id == "b"


def test_preferences_make_branches_equal_level_by_level() -> None:
    nodes = [
        node(f"{dc}{rack}{n}", labels={"dc": dc, "rack": rack})
        for dc, rack, count in (("east", "r1", 1), ("east", "r2", 3), ("west", "r1", 6))
        for n in range(count)
    ]
    bare = node("bare")
    tasks = [task(spec=placed(prefer=("node.labels.dc", "node.labels.rack"))) for _ in range(24)]
    world = World(*nodes, bare, *tasks)
    world.plan()
    where = world.where(tasks)
    by_dc = {dc: sum(count for name, count in where.items() if name.startswith(dc)) for dc in ("east", "west", "bare")}
    assert by_dc == {"east": 8, "west": 8, "bare": 8}
    assert where["eastr10"] == 4
    assert sorted(where[f"eastr2{n}"] for n in range(3)) == [1, 1, 2]


def test_a_full_branch_leaves_its_share_to_the_others() -> None:
    tasks = [task(spec=placed(prefer=("engine.labels.zone",), max_replicas=2)) for _ in range(6)]
    world = World(
        node("a", engine_labels={"zone": "1"}),
        node("b", engine_labels={"zone": "2"}),
        node("c", engine_labels={"zone": "2"}),
        *tasks,
    )
    world.plan()
    assert world.where(tasks) == {"a": 2, "b": 2, "c": 2}


def naive_part(nodes: list[Node], tasks: list[Task], labels: list[str], cap: int) -> set[str]:
    """Node ids that a task may go to: at each level into the part with the fewest tasks, of those with room."""
    count = Counter(each.node_id for each in tasks)
    for label in labels:
        parts: dict[str, list[Node]] = {}
        for each in nodes:
            parts.setdefault(each.spec.labels.get(label, ""), []).append(each)
        with_room = [part for part in parts.values() if any(count[each.id] < cap for each in part)]
        if not with_room:
            return set()
        fewest = min(sum(count[each.id] for each in part) for part in with_room)
        # Parts with equally many are all right; the deeper levels are then looked at in each of them.
        equal = [part for part in with_room if sum(count[each.id] for each in part) == fewest]
        if len(equal) > 1:
            return set().union(*(naive_part(part, tasks, labels[labels.index(label) + 1 :], cap) for part in equal))
        nodes = equal[0]
    room = [each for each in nodes if count[each.id] < cap]
    return {each.id for each in room if count[each.id] == min(count[other.id] for other in room)}


@pytest.mark.parametrize("seed", range(20))
def test_every_choice_by_preference_is_in_the_part_with_the_fewest_tasks(seed: int) -> None:
    rng = random.Random(seed)
    labels = ["dc", "rack"][: rng.randrange(1, 3)]
    cap = rng.randrange(1, 5)
    nodes = {
        f"n{number}": node(f"n{number}", labels={label: rng.choice("abc") for label in labels if rng.random() < 0.8})
        for number in range(8)
    }
    world = World(*nodes.values())
    spec = placed(prefer=tuple(f"node.labels.{label}" for label in labels), max_replicas=cap)
    live: dict[str, Task] = {}
    for _ in range(60):
        if rng.random() < 0.25 and live:
            world.drop(live.pop(rng.choice(list(live))))
        elif rng.random() < 0.15:
            chosen = rng.choice(list(nodes))
            nodes[chosen] = replace(nodes[chosen], spec=replace(nodes[chosen].spec, labels={"dc": rng.choice("abc")}))
            world.put(nodes[chosen])
        else:
            wanted = task(spec=spec)
            good = naive_part(list(nodes.values()), list(live.values()), labels, cap)
            world.put(wanted)
            world.plan()
            found = world.task(wanted)
            assert found.node_id in good or (not good and not found.node_id)
            if found.node_id:
                live[found.id] = found
            else:
                world.drop(found)


def test_small_services_take_turns_among_equal_parts() -> None:
    world = World(*(node(f"n{number}", labels={"dc": "abc"[number % 3]}) for number in range(9)))
    tasks = [task(f"s{number}", spec=placed(prefer=("node.labels.dc",))) for number in range(9)]
    for each in tasks:
        world.put(each)
        world.plan()
    assert set(world.where(tasks).values()) == {1}


def test_searching_makes_no_work_for_the_garbage_collector() -> None:
    """It would stop the whole manager: with 100,000 tasks in memory a collection takes a third of a second."""
    nodes = [node(f"n{number}", labels={"rack": f"r{number % 3}"}) for number in range(9)]
    spread = placed("node.labels.rack != r2", prefer=("node.labels.rack",))
    world = World(*nodes, *(task(service, spec=spread) for service in "abcdef" for _ in range(4)))
    gc.collect()
    gc.disable()
    try:
        while world.core.busy:
            world.core.plan(7, NOW)
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_preassigned_task_is_confirmed_or_waits_for_its_own_node() -> None:
    fits = task("g", node_id="a", spec=reserving(cpus=1))
    big = task("h", node_id="b", spec=reserving(cpus=5))
    world = World(node("a"), node("b"), node("c"), fits, big)
    world.plan()
    assert world.task(fits).status.message == "scheduler confirmed task can run on preassigned node"
    assert world.task(big).status.err == "insufficient resources on 1 node"
    assert world.task(big).node_id == "b"


def test_a_task_stopped_before_it_had_a_node_is_shut_down_here() -> None:
    stopped = [
        task(desired_state=TaskState.SHUTDOWN),
        task(desired_state=TaskState.SHUTDOWN, status=TaskStatus(state=TaskState.NEW)),
    ]
    removed = task(desired_state=TaskState.REMOVE)
    world = World(node("a"), *stopped, removed)
    world.plan()
    assert [world.task(each).status.state for each in stopped] == [TaskState.SHUTDOWN] * 2
    assert world.task(removed) == removed, "the reaper deletes those"


def test_refused_decisions_are_taken_back_and_made_anew() -> None:
    first, second = task(spec=reserving(cpus=3)), task(spec=reserving(cpus=3))
    core = SchedulerCore()
    core.load([node("a"), first, second], NOW)
    decisions = core.plan(10, NOW)
    (assigned,) = [each for each in decisions if each.node_id]
    removed = {assigned.id: None}
    others = {first.id: first, second.id: second}
    core.settle(decisions, lambda _, task_id: removed.get(task_id, others[task_id]) if task_id not in removed else None)
    (again,) = [each for each in core.plan(10, NOW) if each.node_id]
    assert again.id != assigned.id


CONSTRAINTS = ("node.labels.disk==ssd", "node.labels.disk!=ssd", "node.hostname==n2", "node.id!=n1")


def naive_best(nodes: dict[str, Node], tasks: dict[str, Task], wanted: Task) -> tuple[int, int] | None:
    """Fewest tasks of the service, then fewest tasks, by counting everything."""
    ranks = []
    for each in nodes.values():
        if each.status.state != "ready":
            continue
        if wanted.spec.placement is not None and not node_satisfies(wanted.spec.placement.constraints, each):
            continue
        here = [t for t in tasks.values() if t.node_id == each.id and t.status.state.rank <= 512]
        cpus = sum(
            t.spec.resources.reservations.nano_cpus for t in here if t.spec.resources and t.spec.resources.reservations
        )
        need = (
            wanted.spec.resources.reservations.nano_cpus
            if wanted.spec.resources and wanted.spec.resources.reservations
            else 0
        )
        if cpus + need > each.description.resources.nano_cpus:
            continue
        active = [t for t in here if t.desired_state.rank <= TaskState.COMPLETE.rank]
        ranks.append((sum(t.service_id == wanted.service_id for t in active), len(active)))
    return min(ranks, default=None)


@pytest.mark.parametrize("log", [4096, 3])
@pytest.mark.parametrize("seed", range(25))
def test_every_choice_is_the_best_that_plain_counting_finds(
    seed: int, log: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`log`: also when partitions of nodes are thrown away all the time."""
    monkeypatch.setattr(nodeset, "LOG", log - 24 if log < 24 else log)
    rng = random.Random(seed)
    world = World(*(node(f"n{i}", labels={"disk": rng.choice(("ssd", "hdd"))}) for i in range(6)))
    nodes = {each.id: each for each in world.objects.values() if isinstance(each, Node)}
    for _ in range(120):
        tasks = {each.id: each for each in world.objects.values() if isinstance(each, Task)}
        placed_tasks = [each for each in tasks.values() if each.node_id]
        action = rng.random()
        if action < 0.6 or not placed_tasks:
            spec = reserving(cpus=rng.choice((0, 0, 0.5, 1)))
            if rng.random() < 0.5:
                spec = replace(spec, placement=Placement(constraints=[rng.choice(CONSTRAINTS)]))
            wanted = task(rng.choice("xyz"), spec=spec)
            best = naive_best(nodes, tasks, wanted)
            world.put(wanted)
            world.plan()
            chosen = world.task(wanted)
            assert bool(chosen.node_id) == (best is not None)
            if best is not None:
                here = [t for t in tasks.values() if t.node_id == chosen.node_id and t.status.state.rank <= 512]
                active = [t for t in here if t.desired_state.rank <= TaskState.COMPLETE.rank]
                assert (sum(t.service_id == wanted.service_id for t in active), len(active)) == best
            else:
                world.drop(wanted)
        elif action < 0.65:
            changed = rng.choice(list(nodes.values()))
            labels = {"disk": "hdd" if changed.spec.labels["disk"] == "ssd" else "ssd"}
            nodes[changed.id] = replace(changed, spec=replace(changed.spec, labels=labels))
            world.put(nodes[changed.id])
        elif action < 0.7:
            flipped = rng.choice(list(nodes.values()))
            state = "down" if flipped.status.state == "ready" else "ready"
            nodes[flipped.id] = replace(flipped, status=NodeStatus(state=state))
            world.put(nodes[flipped.id])
        elif action < 0.8:
            world.drop(rng.choice(placed_tasks))
        elif action < 0.9:
            world.put(replace(rng.choice(placed_tasks), desired_state=TaskState.SHUTDOWN))
        else:
            world.put(replace(rng.choice(placed_tasks), status=TaskStatus(state=TaskState.FAILED)))


# --- the loop on the store -------------------------------------------------------------------------------------------


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    store = memory_store()
    scheduler = Scheduler(store, clock=lambda: NOW)
    await scheduler.start()
    yield store
    await scheduler.stop()
    await store.close()


async def create(store: Store, *objects: Any) -> None:
    await store.update(lambda tx: [tx.create(obj) for obj in objects])


async def until(store: Store, condition: Any) -> None:
    """Return when the condition holds for the store's view; it is tried after each change."""
    changed = asyncio.Event()
    unsubscribe = store.subscribe(lambda _: changed.set())
    async with asyncio.timeout(10):
        while not condition(store.view()):
            changed.clear()
            await changed.wait()
    unsubscribe()


async def test_pending_tasks_in_the_store_become_assigned(store: Store) -> None:
    tasks = [task() for _ in range(500)]
    await create(store, *tasks)
    await until(store, lambda view: all(each.status.err for each in view.all(Task)))
    await create(store, node("a"), node("b"))
    await until(store, lambda view: all(each.status.state is TaskState.ASSIGNED for each in view.all(Task)))
    assert Counter(each.node_id for each in store.view().all(Task)) == {"a": 250, "b": 250}


async def test_a_node_drained_while_an_assignment_is_written_gets_no_task(store: Store) -> None:
    await create(store, node("a"))
    wanted = task()

    def drain_and_create(tx: Any) -> None:
        stored = tx.get(Node, "a")
        tx.update(replace(stored, spec=replace(stored.spec, availability="drain")))

    await asyncio.gather(create(store, wanted), store.update(drain_and_create))
    await until(store, lambda view: view.get(Task, wanted.id).status.err)
    assert store.view().get(Task, wanted.id).status.state is TaskState.PENDING


async def test_the_loop_survives_a_time_without_quorum() -> None:
    store = memory_store()
    await create(store, node("a"), task())
    scheduler = Scheduler(store)
    proposer = store.proposer
    proposer.refusal = NoLeader()  # type: ignore[union-attr]
    await scheduler.start()
    await asyncio.sleep(0.05)
    assert [each.status.state for each in store.view().all(Task)] == [TaskState.PENDING]
    proposer.refusal = None  # type: ignore[union-attr]
    await until(store, lambda view: all(each.status.state is TaskState.ASSIGNED for each in view.all(Task)))
    await scheduler.stop()
