"""The constraint enforcer: tasks whose node changed under them (reference/swarm.md §3.7).

When a node's labels, role, platform or resources change, tasks there that no longer satisfy their service's
constraints, or whose reservations no longer fit, are observed REJECTED here; the orchestrators then replace them like
any task that ended. Only on active nodes: a drained one is emptied anyway, and a paused one is left in peace.

A task that a running (or paused) update is still to replace is held to its own constraints: the service's new ones are
the update's business, at its pace. All others are held to the service's: a change of constraints that a task's node
suits leaves the task as it is, with its old spec.
"""

from __future__ import annotations

import msgspec

from swarm_agent.model.objects import Node, Service, Task, TaskStatus
from swarm_agent.model.specs import Resources
from swarm_agent.model.states import TaskState
from swarm_agent.store.view import Reader

from . import constraints, generic
from .tasks import age_order, has_ended, is_live, was_assigned

MESSAGE = "task rejected by constraint enforcer"
ERROR = "assigned node no longer meets constraints"


def plan_enforcement(reader: Reader, node_id: str, now: str) -> list[Task]:
    """The node's tasks that have to go, in their new state. `now` is RFC 3339."""
    node = reader.get(Node, node_id)
    if node is None or not is_enforced(node):
        return []
    left = _Room(node.description.resources)
    rejected = []
    for task in sorted(reader.find(Task, node_id=node_id), key=age_order):
        if not is_live(task) or has_ended(task) or not was_assigned(task):
            continue
        if _suits(reader, task, node) and left.take(task):
            continue
        status = TaskStatus(
            timestamp=now,
            state=TaskState.REJECTED,
            message=MESSAGE,
            err=ERROR,
            container_status=task.status.container_status,
            port_status=task.status.port_status,
        )
        rejected.append(msgspec.structs.replace(task, status=status))
    return rejected


def is_enforced(node: Node) -> bool:
    """Only active nodes are looked at."""
    return node.spec.availability in ("active", "")


def concerns(old: Node | None, new: Node | None) -> bool:
    """Whether a node's change may have made tasks unfit for it."""
    if new is None:
        return False
    return old is None or (
        old.spec != new.spec
        or old.description.resources != new.description.resources
        or old.description.platform != new.description.platform
        or old.description.hostname != new.description.hostname
        or old.description.engine.labels != new.description.engine.labels
        or old.status.addr != new.status.addr
    )


def _suits(reader: Reader, task: Task, node: Node) -> bool:
    spec = task.spec
    service = reader.get(Service, task.service_id) if task.service_id else None
    if service is not None and (task.spec_version == service.spec_version or _is_settled(service)):
        spec = service.spec.task_template
    placement = spec.placement
    if placement is None or not placement.constraints:
        return True
    return constraints.node_satisfies(placement.constraints, node)


def _is_settled(service: Service) -> bool:
    return service.update_status is None or service.update_status.completed_at is not None


class _Room:
    """What is left of a node's resources while its tasks are counted, oldest first."""

    def __init__(self, resources: Resources) -> None:
        self._cpus = resources.nano_cpus
        self._memory = resources.memory_bytes
        self._generic = generic.free(resources.generic_resources, ())

    def take(self, task: Task) -> bool:
        """Set aside what the task reserves, and the very resources that it was given. False, and nothing set aside, if
        they are not all there."""
        wanted = task.spec.resources.reservations if task.spec.resources is not None else None
        if wanted is None:
            return True
        if wanted.nano_cpus > self._cpus or wanted.memory_bytes > self._memory:
            return False
        if not generic.has(self._generic, task.generic_resources):
            return False
        self._cpus -= wanted.nano_cpus
        self._memory -= wanted.memory_bytes
        generic.take(self._generic, task.generic_resources)
        return True
