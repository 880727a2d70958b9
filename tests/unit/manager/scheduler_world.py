"""Nodes and tasks for the tests of the scheduler, and a world in which its core's decisions count as stored."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import msgspec

from swarm_agent.manager.scheduling import SchedulerCore
from swarm_agent.model.objects import (
    Endpoint,
    EngineDescription,
    Node,
    NodeDescription,
    NodeStatus,
    Task,
    TaskStatus,
    Version,
)
from swarm_agent.model.specs import (
    DiscreteGenericResource,
    GenericResource,
    NodeSpec,
    Placement,
    PlacementPreference,
    Platform,
    PortConfig,
    ResourceRequirements,
    Resources,
    SpreadOver,
    TaskSpec,
)
from swarm_agent.model.states import TaskState
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
