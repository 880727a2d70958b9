"""Jobs: services whose tasks run to completion (reference/swarm.md §3.5).

Each update of a job starts its next *iteration* (`JobStatus.job_iteration`, raised by the API); tasks of earlier ones
are removed. A job's tasks have desired state COMPLETE. A failed one is replaced under the restart policy, for which
*any* means *on-failure*.

replicated-job: slots 0..total-1, each to complete once, at most `max_concurrent` unfinished at a time.
A job with a schedule (extensions.CRON) gets its iterations from schedule.py instead, and waits for the first.

global-job: once on each node that is up, active and meets the constraints, also on those that join later.
"""

from __future__ import annotations

from collections.abc import Sequence

from swarm_agent.model.objects import Node, Task
from swarm_agent.model.states import TaskState

from .draft import Draft
from .global_ import wants_task
from .reaper import reap_history
from .restart import heal, should_restart
from .schedule import follow_schedule, is_under_way
from .tasks import Cause, is_drained, iteration_of, may_run_on, node_is_lost


def plan_replicated_job(draft: Draft) -> None:
    """Bring a replicated job closer to all its completions."""
    service = draft.service
    assert service is not None
    mode = service.spec.mode.replicated_job
    assert mode is not None
    concurrent = 1 if mode.max_concurrent is None else mode.max_concurrent
    total = concurrent if mode.total_completions is None else mode.total_completions
    released = follow_schedule(draft)
    _drop_old(draft)
    for key, tasks in draft.slots().items():
        if draft.full:
            return
        if isinstance(key, int) and key >= total:
            for task in tasks:
                draft.desire(task, TaskState.REMOVE)
        else:
            heal(draft, tasks)
    if not released:
        reap_history(draft)
        return
    slots = draft.slots()
    unfinished = sum(1 for tasks in slots.values() if any(is_under_way(task) for task in tasks))
    for slot in range(total):
        if unfinished >= concurrent:
            break
        if not _is_open(slots.get(slot, [])):
            continue
        if draft.full:
            return
        draft.create(slot=slot, cause=Cause.JOB)
        unfinished += 1
    reap_history(draft)


def plan_global_job(draft: Draft) -> None:
    """Bring a global job closer to having run on every node."""
    service = draft.service
    assert service is not None
    released = follow_schedule(draft)
    _drop_old(draft)
    nodes: dict[str, Node] = {node.id: node for node in draft.reader.all(Node)}
    for node_id, tasks in draft.slots().items():
        if draft.full:
            return
        node = nodes.get(str(node_id))
        if node is None:
            for task in tasks:
                draft.desire(task, TaskState.REMOVE)
        elif node_is_lost(node) or is_drained(node):
            for task in tasks:
                if is_under_way(task):
                    draft.desire(task, TaskState.SHUTDOWN)
        else:
            heal(draft, tasks)
    slots = draft.slots()
    for node in nodes.values():
        if released and wants_task(node) and may_run_on(service, node) and _is_open(slots.get(node.id, [])):
            if draft.full:
                return
            draft.create(node_id=node.id, cause=Cause.JOB)
    reap_history(draft)


def _drop_old(draft: Draft) -> None:
    """Tasks of earlier iterations are of no more interest."""
    assert draft.service is not None
    present = iteration_of(draft.service)
    for task in list(draft.tasks.values()):
        if task.job_iteration is not None and task.job_iteration.index != present:
            if draft.full:
                return
            draft.desire(task, TaskState.REMOVE)


def _is_open(tasks: Sequence[Task]) -> bool:
    """Whether a slot needs a run: it has not completed, nothing is under way, and its policy allows another attempt."""
    if any(is_under_way(task) or task.status.state is TaskState.COMPLETE for task in tasks):
        return False
    return not tasks or should_restart(tasks[-1], tasks)
