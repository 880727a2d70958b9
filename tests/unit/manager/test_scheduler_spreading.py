"""The scheduler's choice among nodes that fit: spreading, preferences, and nodes where a version keeps failing."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from swarm_agent.manager import nodeset
from swarm_agent.manager.constraints import node_satisfies
from swarm_agent.manager.nodeset import FAILURE_WINDOW, MAX_FAILURES
from swarm_agent.manager.scheduling import SchedulerCore
from swarm_agent.model.objects import Node, NodeStatus, Task, TaskStatus
from swarm_agent.model.specs import Placement
from swarm_agent.model.states import TaskState
from swarm_agent.model.times import rfc3339
from tests.unit.manager.scheduler_world import NOW, World, node, placed, replace, reserving, running, task


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


@pytest.mark.parametrize(
    ("on_a", "on_b", "state", "ago", "chosen"),
    [
        (4, 0, TaskState.FAILED, 0, "a"),  # b has more tasks
        (5, 0, TaskState.FAILED, 0, "b"),
        (5, 0, TaskState.REJECTED, 0, "b"),
        (5, 0, TaskState.COMPLETE, 0, "a"),
        (5, 0, TaskState.FAILED, 299, "b"),
        (5, 0, TaskState.FAILED, 300, "a"),
        (7, 6, TaskState.FAILED, 0, "b"),
        (6, 7, TaskState.FAILED, 0, "a"),
    ],
)
def test_five_failures_in_five_minutes_and_of_two_such_nodes_the_one_with_fewer(
    on_a: int, on_b: int, state: TaskState, ago: int, chosen: str
) -> None:
    world = World(node("a"), node("b"), *(running("other", "b") for _ in range(3)))
    for name in "a" * on_a + "b" * on_b:
        failing = running("web", name)
        world.put(failing)
        world.put(replace(failing, status=TaskStatus(state=state)))
    world.now += ago * 10**9
    wanted = task()
    world.put(wanted)
    world.plan()
    assert world.task(wanted).node_id == chosen


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
