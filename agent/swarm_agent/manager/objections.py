"""Everything that speaks against a task on a node, in words: the filters of filters.py, asked to the end, with figures.

Where the scheduler stops at the first refusal and counts nodes, a person wants to know what to change: which
constraint, how much memory is missing, who has the port.
"""

from __future__ import annotations

from collections.abc import Iterator

from swarm_agent.model.objects import Node, Task

from . import constraints, generic
from .filters import Demand, Filter, Verdicts
from .nodeset import NodeInfo, host_ports


def objections(task: Task, info: NodeInfo) -> list[str]:
    """Why the node cannot take this task now; nothing when it can."""
    if info.node is None:
        return ["the node is not in the cluster any more"]
    found = [*_not_available(info.node), *_no_room(task, info), *_constraints(task, info.node)]
    found += [*_ports(task, info), *_too_many(task, info)]
    refusal = Demand(task, Verdicts()).refuses(info)
    if refusal is Filter.PLUGINS:
        found.append("a plugin (volume, network or log driver) that the task needs is missing")
    elif refusal is Filter.ENCRYPTION:
        found.append("a network of the task is encrypted, and this node's kernel has no WireGuard")
    elif refusal is Filter.PLATFORM:
        platform = info.node.description.platform
        found.append(f"the image is not for {platform.os}/{platform.architecture}")
    elif refusal is not None and not found:
        found.append(f"refused by the filter {refusal.name.lower()}")
    return found


def _not_available(node: Node) -> Iterator[str]:
    if node.status.state != "ready":
        why = f" ({node.status.message})" if node.status.message else ""
        yield f"the node is {node.status.state or 'unknown'}{why}"
    if node.spec.availability not in ("active", ""):
        words = {"drain": "the node is drained", "pause": "the node is paused"}
        yield words.get(node.spec.availability, f"availability is {node.spec.availability}")


def _no_room(task: Task, info: NodeInfo) -> Iterator[str]:
    reserved = task.spec.resources.reservations if task.spec.resources is not None else None
    if reserved is None:
        return
    if reserved.nano_cpus and reserved.nano_cpus > info.cpus:
        yield f"{_cpus(reserved.nano_cpus)} CPUs are to be reserved, {_cpus(max(info.cpus, 0))} are free"
    if reserved.memory_bytes and reserved.memory_bytes > info.memory:
        yield f"{_size(reserved.memory_bytes)} of memory are to be reserved, {_size(max(info.memory, 0))} are free"
    wanted = generic.wanted(reserved.generic_resources)
    if wanted is None:
        yield "generic resources can be asked for by number only"
        return
    free = info.free_generic()
    for kind, count in wanted.items():
        left = free.get(kind, 0)
        left = left if isinstance(left, int) else len(left)
        if count > left or kind not in free:
            yield f"{count} of {kind} are to be reserved, {left} are free"


def _constraints(task: Task, node: Node) -> Iterator[str]:
    placement = task.spec.placement
    for expression in placement.constraints if placement is not None else ():
        if not constraints.node_satisfies([expression], node):
            yield f"constraint {expression} does not hold: it is {constraints.actual(expression, node)}"


def _ports(task: Task, info: NodeInfo) -> Iterator[str]:
    for protocol, port in host_ports(task):
        if (protocol, port) in info.ports:
            holders = (one.name for one in info.tasks.values() if (protocol, port) in host_ports(one))
            holder = next(holders, "another task")
            yield f"port {port}/{protocol} of the host is taken by {holder}"


def _too_many(task: Task, info: NodeInfo) -> Iterator[str]:
    most = task.spec.placement.max_replicas if task.spec.placement is not None else 0
    count = info.by_service.get(task.service_id, 0)
    if most and count >= most:
        yield f"it has {count} tasks of the service, at most {most} may be on a node"


def _cpus(nano: int) -> str:
    return f"{nano / 1e9:g}"


def _size(count: int) -> str:
    size, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            break
        size /= 1024
    return f"{size:.4g} {unit}"
