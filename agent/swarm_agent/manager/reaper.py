"""The task reaper: takes tasks out of the store that nobody needs (reference/swarm.md §3.7).

* Tasks with desired REMOVE (scaled away, service removed, old runs of a job) go as soon as no node has anything of
  them.
* Each slot keeps a number of tasks (5 by default), the live one included; beyond it the oldest that have ended go.

Two things are kept against the limit, because the state of the world is read off them: the newest task of a slot
without a live one (it says that the slot is not to be filled again), and tasks of an update that is under way.
"""

from __future__ import annotations

from swarm_agent.model.objects import Task
from swarm_agent.model.states import TaskState

from .defaults import history_limit
from .draft import Draft
from .tasks import has_ended, is_live, was_assigned, will_never_run


def reap_removed(draft: Draft) -> None:
    """Delete tasks that are to be removed and have stopped; with their service gone, all tasks are to be removed."""
    for task in list(draft.tasks.values()):
        if draft.service is None and task.desired_state is not TaskState.REMOVE:
            if draft.full:
                return
            task = draft.desire(task, TaskState.REMOVE)
        if task.desired_state is not TaskState.REMOVE:
            continue
        # A node that left the cluster will never report on it.
        if has_ended(task) or not was_assigned(task) or draft.node_of(task) is None:
            if draft.full:
                return
            draft.delete(task)


def reap_history(draft: Draft) -> None:
    """Delete the oldest ended tasks of each slot that has more than it may keep."""
    service = draft.service
    assert service is not None
    limit = history_limit(draft.cluster, service.spec.task_template)
    if limit < 0:
        return
    status = service.update_status
    updating = status.started_at if status is not None and status.completed_at is None else None
    for tasks in draft.slots().values():
        surplus = len(tasks) - limit
        if surplus <= 0:
            continue
        keep = None if any(is_live(task) for task in tasks) else tasks[-1].id
        for task in tasks:
            if surplus <= 0:
                break
            if not _may_go(task) or task.id == keep or (updating and task.update == updating):
                continue
            if draft.full:
                return
            draft.delete(task)
            surplus -= 1


def _may_go(task: Task) -> bool:
    if task.status.state is TaskState.COMPLETE and is_live(task):
        return False  # a job's finished run
    return has_ended(task) or will_never_run(task)
