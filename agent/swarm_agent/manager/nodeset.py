"""The nodes as the scheduler sees them: what runs where, and what is left. Kept up to date change by change.

A `NodeInfo` adds up its tasks once, when they come and go, so a pass over a thousand nodes reads sums in place of
tasks. The `NodeSet` also keeps the available nodes sorted (partition.py), and for each service the nodes that run it:
the scheduler finds the emptiest nodes without looking at all of them (placement.py).

Two ways of counting (reference/swarm.md §3.6). A task that is to run (desired state up to COMPLETE) counts for
spreading; one that is being stopped no longer does, but it keeps its reservations and host ports until it is seen to
have ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from swarm_agent.model.objects import Node, Task
from swarm_agent.model.specs import GenericResource
from swarm_agent.model.states import TaskState
from swarm_agent.model.times import SECOND

from . import generic
from .partition import Partition, Path

if TYPE_CHECKING:
    from .filters import Fixed

MAX_FAILURES = 5
"""A node on which a version of a service failed so often lately is chosen last for it."""

FAILURE_WINDOW = 300 * SECOND
"""What "lately" means, in nanoseconds."""

HostPort = tuple[str, int]
FailureKey = tuple[str, int]
"""Service id and index of its spec version: failures of another version say nothing about this one."""

_ACTIVE = (
    TaskState.RUNNING,
    TaskState.READY,
    TaskState.COMPLETE,
    *(state for state in TaskState if state.rank < TaskState.RUNNING.rank and state is not TaskState.READY),
)


def is_active(task: Task) -> bool:
    """The task is to run (or to become ready, or to complete): it counts for spreading and for replicas per node."""
    return task.desired_state in _ACTIVE


def is_available(node: Node | None) -> bool:
    """The node takes new tasks: ready and active."""
    return (
        node is not None and node.status.state == "ready" and node.spec.availability in ("active", "")
    )  # empty is the default


def host_ports(task: Task) -> tuple[HostPort, ...]:
    """The fixed ports of its host that the task occupies."""
    if task.endpoint is None or not task.endpoint.ports:
        return ()
    return tuple(
        (port.protocol or "tcp", port.published_port)
        for port in task.endpoint.ports
        if port.publish_mode == "host" and port.published_port
    )


def failure_key(task: Task) -> FailureKey:
    """What failures of the task are counted under."""
    return task.service_id, task.spec_version.index if task.spec_version is not None else 0


class NodeInfo:
    """One node with the sums over its tasks. `node` is None while tasks name a node that is not in the store."""

    __slots__ = (
        "_free",
        "active",
        "available",
        "by_service",
        "cpus",
        "failures",
        "id",
        "memory",
        "node",
        "ports",
        "tasks",
    )

    def __init__(self, id_: str) -> None:
        self.id = id_
        self.node: Node | None = None
        self.available = False
        self.tasks: dict[str, Task] = {}
        self.active = 0
        self.by_service: dict[str, int] = {}
        self.cpus = 0
        self.memory = 0
        self.ports: Counter[HostPort] = Counter()
        self.failures: dict[FailureKey, list[int]] = {}
        self._free: generic.Free | None = None

    def set_node(self, node: Node | None) -> None:
        """The node object changed (or is gone: None)."""
        before = self.node.description.resources if self.node is not None else None
        after = node.description.resources if node is not None else None
        self.node = node
        self.available = is_available(node)
        self.cpus += (after.nano_cpus if after else 0) - (before.nano_cpus if before else 0)
        self.memory += (after.memory_bytes if after else 0) - (before.memory_bytes if before else 0)
        self._free = None

    def add(self, task: Task) -> None:
        """Charge the node with a task that it does not have yet."""
        self.tasks[task.id] = task
        if task.desired_state in _ACTIVE:
            self._count(task.service_id, 1)
        self._reserve(task, 1)

    def remove(self, task_id: str) -> Task:
        """Take a task off the node; it is returned as it was added."""
        task = self.tasks.pop(task_id)
        if task.desired_state in _ACTIVE:
            self._count(task.service_id, -1)
        self._reserve(task, -1)
        return task

    def replace(self, task: Task) -> None:
        """A task that the node has was changed. Its spec, and with it what it reserves, never does."""
        old = self.tasks[task.id]
        self.tasks[task.id] = task
        was, now = old.desired_state in _ACTIVE, task.desired_state in _ACTIVE
        if was != now:
            self._count(task.service_id, 1 if now else -1)
        if old.generic_resources != task.generic_resources:
            self._free = None

    def free_generic(self) -> generic.Free:
        """What is free of the node's generic resources."""
        if self._free is None:
            offered = self.node.description.resources.generic_resources if self.node is not None else []
            self._free = generic.free(offered, self._held())
        return self._free

    def failed(self, key: FailureKey, at: int) -> None:
        """A task of this service and version failed here at this time (nanoseconds)."""
        recent = [when for when in self.failures.get(key, ()) if at - when < FAILURE_WINDOW]
        recent.append(at)
        self.failures[key] = recent

    def penalty(self, key: FailureKey, now: int) -> int:
        """How many recent failures speak against the node; 0 below the threshold."""
        times = self.failures.get(key)
        if times is None:
            return 0
        recent = [when for when in times if now - when < FAILURE_WINDOW]
        if not recent:
            del self.failures[key]
            return 0
        return len(recent) if len(recent) >= MAX_FAILURES else 0

    def _held(self) -> Iterator[GenericResource]:
        for task in self.tasks.values():
            yield from task.generic_resources

    def _count(self, service_id: str, step: int) -> None:
        self.active += step
        count = self.by_service.get(service_id, 0) + step
        if count:
            self.by_service[service_id] = count
        else:
            del self.by_service[service_id]

    def _reserve(self, task: Task, sign: int) -> None:
        requirements = task.spec.resources
        if requirements is not None and requirements.reservations is not None:
            self.cpus -= sign * requirements.reservations.nano_cpus
            self.memory -= sign * requirements.reservations.memory_bytes
        if task.generic_resources:
            self._free = None
        if task.endpoint is not None and task.endpoint.ports:
            for port in host_ports(task):
                self.ports[port] += sign
                if not self.ports[port]:
                    del self.ports[port]


LOG = 4096
"""Changes that are noted for partitions at least; beyond four a node more they are not worth following."""

PARTITIONS = 64
"""Partitions that are kept at a time, one for each list of preferences and fixed demand in recent use."""


class NodeSet:
    """All nodes. `forget_verdicts(node_id)` is called when a node changes in a way that filters could judge
    differently."""

    __slots__ = ("_forget_verdicts", "_log", "_partitions", "known", "nodes", "running", "unavailable")

    def __init__(self, forget_verdicts: Callable[[str], None]) -> None:
        self.nodes: dict[str, NodeInfo] = {}
        self.running: dict[str, dict[str, NodeInfo]] = {}
        """For each service the nodes (available or not) with active tasks of it."""
        self.known = 0
        """Nodes that are in the store."""
        self.unavailable = 0
        """Those of them that take no new tasks."""
        self._partitions: dict[tuple[Path, Fixed | None], Partition] = {}
        self._log: list[NodeInfo] = []
        self._forget_verdicts = forget_verdicts

    def partition(self, labels: Path, fixed: Fixed | None = None) -> Partition:
        """The available nodes that satisfy a fixed demand, by these labels; as of now."""
        key = labels, fixed
        found = self._partitions.pop(key, None)
        if found is None:
            found = Partition(labels, fixed)
            for info in self.nodes.values():
                if info.available and (fixed is None or fixed.admits(info)):
                    found.put(info)
        elif found.seen < len(self._log):
            found.follow(self._log[found.seen :])
        found.seen = len(self._log)
        self._partitions[key] = found
        if len(self._partitions) > PARTITIONS:
            del self._partitions[next(iter(self._partitions))]
        return found

    def _note(self, info: NodeInfo) -> None:
        """The node's number of tasks changed."""
        self._log.append(info)
        if len(self._log) > LOG + 4 * self.known:
            # Made anew when they are needed. Not brought up to date here: one of them may just be searched.
            self._partitions.clear()
            self._log.clear()

    def put_node(self, node: Node) -> None:
        """A node came or changed."""
        info = self._info(node.id)
        self._unbucket(info)
        self._tally(info, -1)
        info.set_node(node)
        self._tally(info, 1)
        self._forget_verdicts(node.id)
        self._bucket(info)

    def drop_node(self, node_id: str) -> None:
        """A node left the store. Tasks that still name it are kept apart from all others."""
        info = self.nodes.get(node_id)
        if info is None:
            return
        self._unbucket(info)
        self._tally(info, -1)
        info.set_node(None)
        self._forget_verdicts(node_id)
        self._discard_if_empty(info)

    def charge(self, task: Task) -> None:
        """The task occupies the node that it names; charging it again with a newer version replaces it."""
        info = self._info(task.node_id)
        before = info.active
        if task.id in info.tasks:
            info.replace(task)
        else:
            info.add(task)
        self._moved(info, before, task.service_id)

    def release(self, task_id: str, node_id: str) -> None:
        """The task no longer occupies the node."""
        info = self.nodes.get(node_id)
        if info is None or task_id not in info.tasks:
            return
        before = info.active
        task = info.remove(task_id)
        self._moved(info, before, task.service_id)
        self._discard_if_empty(info)

    def failed(self, task: Task, at: int) -> None:
        """The task failed on its node at this time."""
        info = self.nodes.get(task.node_id)
        if info is not None and info.node is not None:
            info.failed(failure_key(task), at)

    def _info(self, node_id: str) -> NodeInfo:
        info = self.nodes.get(node_id)
        if info is None:
            info = self.nodes[node_id] = NodeInfo(node_id)
        return info

    def _discard_if_empty(self, info: NodeInfo) -> None:
        if info.node is None and not info.tasks:
            del self.nodes[info.id]

    def _tally(self, info: NodeInfo, step: int) -> None:
        if info.node is not None:
            self.known += step
            if not info.available:
                self.unavailable += step

    def _bucket(self, info: NodeInfo) -> None:
        if info.available:
            for partition in self._partitions.values():
                partition.add(info)

    def _unbucket(self, info: NodeInfo) -> None:
        if info.available:
            for partition in self._partitions.values():
                partition.remove(info)

    def _moved(self, info: NodeInfo, before: int, service_id: str) -> None:
        if info.active == before:
            return
        if info.available:
            self._note(info)
        if service_id in info.by_service:
            self.running.setdefault(service_id, {})[info.id] = info
        else:
            nodes = self.running.get(service_id)
            if nodes is not None:
                nodes.pop(info.id, None)
                if not nodes:
                    del self.running[service_id]
