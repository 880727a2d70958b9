"""How fast the scheduler decides: `python -m tests.bench.scheduler`. In the core alone, without store or network.

Each scene brings a cluster of empty nodes and services whose tasks are all pending, and counts decisions per second of
the process's own CPU time (which other work on the machine disturbs little), and the longest single slice: that is how
long the manager's event loop is held. SwarmKit's published figure is about 4,500 placements a second, on an old laptop
(swarmkit PR 193, set-up included).
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass

from swarm_agent.manager.planned import SLICE
from swarm_agent.manager.scheduling import SchedulerCore
from swarm_agent.model.objects import Node, NodeDescription, NodeStatus, Task, TaskStatus, Version
from swarm_agent.model.specs import (
    ContainerSpec,
    NodeSpec,
    Placement,
    PlacementPreference,
    Platform,
    ResourceRequirements,
    Resources,
    SpreadOver,
    TaskSpec,
)
from swarm_agent.model.states import TaskState
from swarm_agent.store.view import Change

SIZES = ((1000, 30_000), (5000, 100_000))
NOW = 1_800_000_000 * 10**9


@dataclass(frozen=True)
class Scene:
    """Services of `replicas` tasks; every `constrained`-th has constraints, every `preferring`-th prefers to spread."""

    name: str
    replicas: int
    constrained: int = 0
    preferring: int = 0
    reserves: bool = False


SCENES = (
    Scene("services of 1,000, nothing asked", 1000),
    Scene("services of 1,000, constraints, preferences, reservations", 1000, 2, 1, reserves=True),
    Scene("services of 10, nothing asked", 10),
    Scene("services of 10, constraints and reservations", 10, 1, reserves=True),
    Scene("services of 10, preferences", 10, 0, 1),
    Scene("services of 10, constraints, preferences, reservations", 10, 2, 1, reserves=True),
    Scene("services of 1, every other with constraints", 1, 2),
)


def a_node(number: int) -> Node:
    labels = {"zone": f"z{number % 5}", "rack": f"r{number % 50}", "disk": "ssd" if number % 3 else "hdd"}
    return Node(
        id=f"node{number}",
        spec=NodeSpec(role="worker", availability="active", labels=labels),
        description=NodeDescription(
            hostname=f"host{number}",
            platform=Platform(architecture="x86_64", os="linux"),
            resources=Resources(nano_cpus=64 * 10**9, memory_bytes=256 << 30),
        ),
        status=NodeStatus(state="ready"),
    )


def spec_of(scene: Scene, service: int) -> TaskSpec:
    constraints = ["node.labels.disk == ssd"] if scene.constrained and service % scene.constrained == 0 else []
    prefers = scene.preferring and service % scene.preferring == 0
    over = ("node.labels.zone", "node.labels.rack") if prefers else ()
    reserved = Resources(nano_cpus=10**8, memory_bytes=64 << 20)
    return TaskSpec(
        container_spec=ContainerSpec(image="web"),
        placement=Placement(
            constraints=constraints,
            preferences=[PlacementPreference(spread=SpreadOver(spread_descriptor=label)) for label in over],
            platforms=[Platform(architecture="amd64", os="linux")],
        ),
        resources=ResourceRequirements(reservations=reserved) if scene.reserves else None,
    )


def pending(scene: Scene, total: int) -> Iterator[Task]:
    version = Version(index=7)
    status = TaskStatus(state=TaskState.PENDING)
    for service in range(total // scene.replicas):
        spec = spec_of(scene, service)
        for slot in range(scene.replicas):
            yield Task(
                id=f"task{service}.{slot}",
                service_id=f"service{service}",
                slot=slot,
                spec=spec,
                spec_version=version,
                status=status,
                desired_state=TaskState.RUNNING,
            )


@dataclass(frozen=True)
class Result:
    """`rate`: placements per CPU second; `longest`: seconds of the longest slice; `spread`: fewest and most tasks."""

    rate: float
    longest: float
    spread: tuple[int, int]


def measure(scene: Scene, nodes: int, tasks: int) -> Result:
    """Place everything once."""
    core = SchedulerCore()
    core.load([a_node(number) for number in range(nodes)], NOW)
    core.apply([Change(Task, None, task) for task in pending(scene, tasks)], NOW)
    gc.collect()
    placed, longest = 0, 0.0
    begun = time.process_time()
    while core.busy:
        slice_begun = time.process_time()
        placed += sum(1 for task in core.plan(SLICE, NOW) if task.node_id)
        longest = max(longest, time.process_time() - slice_begun)
    took = time.process_time() - begun
    assert placed == tasks, f"{placed} of {tasks} tasks were placed"
    loads = [info.active for info in core.nodes.nodes.values()]
    return Result(placed / took, longest, (min(loads), max(loads)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nodes", type=int)
    parser.add_argument("--tasks", type=int)
    options = parser.parse_args()
    sizes = ((options.nodes or 1000, options.tasks or 30_000),) if options.nodes or options.tasks else SIZES
    for nodes, tasks in sizes:
        print(f"{nodes:,} nodes, {tasks:,} tasks: placements per CPU second, longest slice, tasks per node")
        for scene in SCENES:
            found = measure(scene, nodes, tasks)
            print(
                f"  {scene.name:58} {found.rate:>9,.0f} {found.longest * 1000:>7.1f} ms   "
                f"{found.spread[0]}-{found.spread[1]}",
                flush=True,
            )


if __name__ == "__main__":
    main()
