"""Global services: one task on each node that is up, not drained, and meets the constraints (reference/swarm.md §3.5).

A slot is a node. A paused node keeps its task, but gets no new one and no update. A node that is drained, down or no
longer meets the constraints has its task shut down; one that left the cluster has it removed.
"""

from __future__ import annotations

from swarm_agent.model.objects import Node, Task
from swarm_agent.model.states import TaskState

from .draft import Draft
from .reaper import reap_history
from .restart import heal, updatable
from .tasks import Cause, SlotKey, is_drained, is_live, may_run_on, node_is_lost
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
        elif node_is_lost(node) or is_drained(node) or not may_run_on(service, node):
            for task in tasks:
                if is_live(task):
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


def wants_task(node: Node) -> bool:
    """The node takes new tasks."""
    return node.status.state == "ready" and node.spec.availability in ("active", "")
