"""Global services: one task on each node that is up, not drained, and meets the constraints (reference/swarm.md §3.5).

A slot is a node. A node that is drained, down or no longer meets the constraints has its task shut down; one that left
the cluster has it removed. A paused node keeps its task, also when its labels change, but gets no new one and no
update; only a change of the service's constraints can take the task away, as in SwarmKit.
"""

from __future__ import annotations

from swarm_agent.model.objects import Node, Service, Task
from swarm_agent.model.states import TaskState

from .draft import Draft
from .reaper import reap_history
from .restart import heal, updatable
from .tasks import Cause, SlotKey, constraints_of, is_drained, is_live, is_paused, may_run_on, node_is_lost
from .update import Memory, is_rolling_back, judge_update, plan_update


def plan_global(draft: Draft, memory: Memory) -> None:
    """Bring a global service closer to what is declared."""
    assert draft.service is not None
    nodes: dict[str, Node] = {node.id: node for node in draft.reader.all(Node)}
    slots = draft.slots()
    open_to_all = {key: tasks for key, tasks in slots.items() if key in nodes and wants_task(nodes[str(key)])}
    judge_update(draft, {key: updatable(tasks, rolling_back=False) for key, tasks in open_to_all.items()}, memory)
    service = draft.service  # a rollback may just have changed it
    rolling_back = is_rolling_back(service)
    to_update: dict[SlotKey, list[Task]] = {}
    for node_id, tasks in slots.items():
        if draft.full:
            return
        node = nodes.get(str(node_id))
        if node is None:
            for task in tasks:
                draft.desire(task, TaskState.REMOVE)
        elif leaving := [task for task in tasks if is_live(task) and not _may_stay(service, task, node)]:
            for task in leaving:
                draft.desire(task, TaskState.SHUTDOWN)
        else:
            heal(draft, tasks)
    slots = draft.slots()
    for node in nodes.values():
        if not wants_task(node) or not may_run_on(service, node):
            continue
        tasks = updatable(slots.get(node.id, []), rolling_back=rolling_back)
        if tasks:
            to_update[node.id] = tasks
        elif draft.full:
            return
        else:
            draft.create(node_id=node.id, cause=Cause.NODE)
    plan_update(draft, to_update, memory)
    reap_history(draft)


def _may_stay(service: Service, task: Task, node: Node) -> bool:
    if node_is_lost(node) or is_drained(node):
        return False
    if may_run_on(service, node):
        return True
    # That it was made under the same constraints means that the node changed since, not the service.
    return is_paused(node) and constraints_of(task.spec) == constraints_of(service.spec.task_template)


def wants_task(node: Node) -> bool:
    """The node takes new tasks."""
    return node.status.state == "ready" and node.spec.availability in ("active", "")
