"""Replicated services: slots 1..N, each with one live task (reference/swarm.md §3.5).

Scaling up fills the lowest free slot numbers. Scaling down takes slots from the nodes that hold most tasks of the
service, of those the ones that do not run, then the highest numbers; victims get desired REMOVE with all their history.
"""

from __future__ import annotations

from swarm_agent.model.objects import Task
from swarm_agent.model.states import TaskState

from .draft import Draft
from .reaper import reap_history
from .restart import heal, updatable
from .tasks import Cause, SlotKey, is_live, is_running
from .update import Memory, is_rolling_back, judge_update, plan_update


def plan_replicated(draft: Draft, memory: Memory) -> None:
    """Bring a replicated service closer to what is declared."""
    assert draft.service is not None
    judge_update(draft, _standing(draft), memory)
    mode = draft.service.spec.mode.replicated  # a rollback may just have changed it
    wanted = 1 if mode is None or mode.replicas is None else mode.replicas
    _scale(draft, wanted)
    for tasks in draft.slots().values():
        if draft.full:
            return
        heal(draft, tasks)
    plan_update(draft, _standing(draft), memory)
    reap_history(draft)


def _standing(draft: Draft) -> dict[SlotKey, list[Task]]:
    assert draft.service is not None
    rolling_back = is_rolling_back(draft.service)
    found: dict[SlotKey, list[Task]] = {}
    for key, tasks in draft.slots().items():
        standing = tasks if len(tasks) == 1 and is_live(tasks[0]) else updatable(tasks, rolling_back=rolling_back)
        if standing:
            found[key] = standing
    return found


def _scale(draft: Draft, wanted: int) -> None:
    slots = dict(draft.slots())
    standing = _standing(draft)
    gone = set(victims(standing, len(standing) - wanted)) if len(standing) > wanted else set()
    missing = wanted - len(standing)
    number = 0
    while missing > 0:
        number += 1
        if number in standing:
            continue
        if draft.full:
            return
        draft.create(slot=number, cause=Cause.SCALE)
        slots.pop(number, None)  # it takes its history over
        missing -= 1
    for key, tasks in slots.items():
        if key in standing and key not in gone:
            continue
        for task in tasks:
            if draft.full:
                return
            draft.desire(task, TaskState.REMOVE)


def victims(slots: dict[SlotKey, list[Task]], count: int) -> list[SlotKey]:
    """The slots to give up, the first to go first.

    Slots are numbered per node, running ones first and then by slot number; whoever has the highest number on its node
    goes first. Slots with several tasks, or one that is on no node yet, go before all others.
    """
    order = sorted(slots, key=lambda key: (not any(is_running(task) for task in slots[key]), key))
    per_node: dict[str, int] = {}
    rank: dict[SlotKey, float] = {}
    for key in order:
        tasks = slots[key]
        if len(tasks) == 1 and tasks[0].node_id:
            node_id = tasks[0].node_id
            per_node[node_id] = per_node.get(node_id, 0) + 1
            rank[key] = per_node[node_id]
        else:
            rank[key] = float("inf")
    order.sort(key=rank.__getitem__)
    return order[len(order) - count :][::-1]
