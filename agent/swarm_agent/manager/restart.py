"""The restart supervisor: keeps each slot at one live task (reference/swarm.md §3.3, §3.7).

A task that ended, or whose node was lost or is being drained, is retired (desired SHUTDOWN) and replaced at once by a
new task that waits with desired READY, so its image is fetched meanwhile. It is lifted to RUNNING when the restart
delay is over and its predecessors have stopped, but waits for them at most a minute; drain and node loss know no delay.

All of it is read from the store: the delay is in `Task.restart_after`, which also marks a task as made by a restart,
and attempts are counted from the slot's history (the reaper keeps enough of it). So a new leader goes on where the old
one stopped.

Beyond Swarm: when the service updates start-first, so does a drain (moby #34139): the old task runs until its
replacement does.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from swarm_agent.model.objects import Node, Task
from swarm_agent.model.states import TaskState
from swarm_agent.model.times import parse_rfc3339, rfc3339

from .defaults import STOP_TIMEOUT, Condition, Order, restart_policy, update_config
from .draft import Draft
from .tasks import (
    Cause,
    Mode,
    age_order,
    changed_ns,
    created_ns,
    has_ended,
    is_dirty,
    is_drained,
    is_live,
    is_paused,
    is_running,
    is_waiting,
    node_is_lost,
    was_assigned,
)

ROLLBACK_STARTED = "rollback_started"
PAUSED_STATES = ("paused", "rollback_paused")


def should_restart(task: Task, history: Iterable[Task]) -> bool:
    """Whether the task's policy wants a replacement. `history`: all known tasks of its slot, oldest first, itself
    included.

    An attempt is a task made by a restart since the slot has this version of the spec; with a window, only those within
    the window before the task ended count. For jobs *any* means *on-failure*.
    """
    policy = restart_policy(task.spec)
    if policy.condition is Condition.NONE:
        return False
    if task.status.state is TaskState.COMPLETE and (
        policy.condition is Condition.ON_FAILURE or task.job_iteration is not None
    ):
        return False
    if not policy.attempts:
        return True
    until_now = [other for other in history if other.created_at <= task.created_at]
    of_version = itertools.takewhile(lambda other: other.spec_version == task.spec_version, reversed(until_now))
    attempts = [other for other in of_version if other.restart_after]
    if policy.window:
        since = changed_ns(task) - policy.window
        attempts = [other for other in attempts if created_ns(other) > since]
    return len(attempts) < policy.attempts


def updatable(tasks: Sequence[Task], *, rolling_back: bool) -> list[Task]:
    """The tasks that stand for a slot (oldest first in, oldest first out): its live ones, or the newest one when that
    ended and is not to be restarted. None: the slot is dead and to be filled again.

    A slot whose task is not to be restarted still counts, so that nothing fills it and an update reaches it. Not so in
    a rollback: that always leads to a full service.
    """
    live = [task for task in tasks if is_live(task)]
    if live:
        return live
    if not tasks or rolling_back or should_restart(tasks[-1], tasks):
        return []
    return [tasks[-1]]


def heal(draft: Draft, tasks: Sequence[Task]) -> None:
    """Retire what ended or is in the wrong place, replace it, and start replacements whose time has come; for one slot.

    `tasks`: the slot's tasks, oldest first. At most two changes per live task.
    """
    if _is_settled(draft, tasks):
        return
    for task in tasks:
        if not is_live(task):
            continue
        if has_ended(task):
            if not (draft.mode.is_job and task.status.state is TaskState.COMPLETE):
                _replace_ended(draft, task, tasks)
        elif task.node_id and node_is_lost(draft.node_of(task)):
            _replace_lost(draft, task, tasks)
        elif task.node_id and is_drained(draft.node_of(task)):
            _leave_drained(draft, task, tasks)
        elif task.cause == Cause.REBALANCE and not was_assigned(task):
            _give_up_move(draft, task, tasks)
    _shed(draft, tasks)
    for task in draft.current(tasks):
        if is_live(task) and is_waiting(task) and not has_ended(task):
            lift(draft, task, tasks)


def _is_settled(draft: Draft, tasks: Sequence[Task]) -> bool:
    """Nothing to do, as nearly always: the only live task is the newest, is wanted to run, and is in a good place."""
    last = tasks[-1]
    if has_ended(last) or is_waiting(last) or not is_live(last):
        return False
    if last.node_id:
        node = draft.node(last.node_id)
        if node_is_lost(node) or is_drained(node):
            return False
    return len(tasks) == 1 or not any(is_live(task) for task in tasks[:-1])


def lift(draft: Draft, task: Task, tasks: Iterable[Task]) -> None:
    """Start a waiting replacement if its delay is over and its predecessors have stopped."""
    due = parse_rfc3339(task.restart_after) if task.restart_after else 0
    if draft.now < due:
        draft.wake_at(due)
        return
    if any(_still_stops(draft, other) for other in draft.current(tasks) if other.id != task.id):
        cap = created_ns(task) + STOP_TIMEOUT
        if draft.now < cap:
            draft.wake_at(cap)
            return
    draft.desire(task, TaskState.COMPLETE if draft.mode.is_job else TaskState.RUNNING)


def _still_stops(draft: Draft, task: Task) -> bool:
    """It was told to stop, and a node that is reachable has not yet said that it did."""
    if is_live(task) or has_ended(task) or not was_assigned(task):
        return False
    return not node_is_lost(draft.node_of(task))


def _others(draft: Draft, task: Task, tasks: Iterable[Task]) -> list[Task]:
    """Live tasks of the slot that can take the place of this one: from the present spec, and not in a wrong place
    themselves."""
    assert draft.service is not None
    found = []
    for other in draft.current(tasks):
        if other.id == task.id or not is_live(other) or has_ended(other):
            continue
        node = draft.node_of(other)
        if other.node_id and (node_is_lost(node) or is_drained(node)):
            continue
        if not is_dirty(draft.service, other, node):
            found.append(other)
    return found


def _is_covered(draft: Draft, task: Task, tasks: Iterable[Task]) -> bool:
    """Another task takes this one's place, or will: one that failed while it was prepared is replaced after its
    delay."""
    if _others(draft, task, tasks):
        return True
    return any(
        other.id != task.id
        and is_live(other)
        and is_waiting(other)
        and bool(other.restart_after)
        and has_ended(other)
        and not _outdated(draft, other)
        for other in draft.current(tasks)
    )


def _replace_ended(draft: Draft, task: Task, tasks: Sequence[Task]) -> None:
    if _is_rolled_back(draft, task):
        return
    needed = not _is_covered(draft, task, tasks) and not _is_spare(draft, task, tasks)
    if needed and is_waiting(task) and task.restart_after:
        # It failed while it was prepared (a missing image): the delay it was to wait for stands, or there would be
        # none.
        due = parse_rfc3339(task.restart_after)
        if draft.now < due:
            draft.wake_at(due)
            return
    draft.desire(task, TaskState.SHUTDOWN)
    if not needed or not should_restart(task, tasks):
        return
    node = draft.node_of(task)
    if _outside(draft, task, node):
        return
    delay = 0 if is_drained(node) or (task.node_id and node_is_lost(node)) else restart_policy(task.spec).delay
    _replacement(draft, task, Cause.RESTART, delay)


def _is_rolled_back(draft: Draft, task: Task) -> bool:
    """It ended, but is from a spec that is being rolled back: the slot is the rollback's to fill, at once and without
    delay."""
    assert draft.service is not None
    status = draft.service.update_status
    rolling_back = status is not None and status.state == ROLLBACK_STARTED
    return rolling_back and is_dirty(draft.service, task, draft.node_of(task))


def _is_spare(draft: Draft, task: Task, tasks: Iterable[Task]) -> bool:
    """The new task of a start-first update that is now paused: the old one still serves the slot, and trying the new
    one again and again is what the pause is to prevent."""
    assert draft.service is not None
    status = draft.service.update_status
    if status is None or status.state not in PAUSED_STATES or is_dirty(draft.service, task, draft.node_of(task)):
        return False
    return any(
        other.id != task.id and is_live(other) and is_running(other) and not node_is_lost(draft.node_of(other))
        for other in draft.current(tasks)
    )


def _outside(draft: Draft, task: Task, node: Node | None) -> bool:
    """Whether a global service's task ended on a node that gets no new one (for now, if it is only paused)."""
    return draft.mode.is_per_node and (node_is_lost(node) or is_drained(node) or is_paused(node))


def _replace_lost(draft: Draft, task: Task, tasks: Sequence[Task]) -> None:
    needed = not _is_covered(draft, task, tasks)
    draft.desire(task, TaskState.SHUTDOWN)
    if needed and not draft.mode.is_per_node and should_restart(task, tasks):
        _replacement(draft, task, Cause.NODE_LOST, 0)


def _leave_drained(draft: Draft, task: Task, tasks: Sequence[Task]) -> None:
    assert draft.service is not None
    if draft.mode.is_per_node:
        draft.desire(task, TaskState.SHUTDOWN)
        return
    others = _others(draft, task, tasks)
    gently = (
        draft.mode is Mode.REPLICATED
        and is_running(task)
        and not is_waiting(task)
        and update_config(draft.service).order is Order.START_FIRST
        and should_restart(task, tasks)
    )
    if not gently:
        draft.desire(task, TaskState.SHUTDOWN)
        if not _is_covered(draft, task, tasks) and should_restart(task, tasks):
            _replacement(draft, task, Cause.DRAIN, 0)
        return
    if not others:
        # One that just ended is replaced with the usual delay by `_replace_ended`.
        if not any(is_live(other) and other.id != task.id for other in draft.current(tasks)):
            draft.create(slot=task.slot, cause=Cause.DRAIN, restart_after=draft.now_text, update=task.update)
        return
    # `_shed` ends the old task once a replacement runs. One that finds no node must not hold up the drain for ever.
    if not any(was_assigned(other) for other in others):
        cap = max(created_ns(other) for other in others) + STOP_TIMEOUT
        if draft.now < cap:
            draft.wake_at(cap)
        else:
            draft.desire(task, TaskState.SHUTDOWN)


def _give_up_move(draft: Draft, task: Task, tasks: Iterable[Task]) -> None:
    """The replacement of a start-first move for balance finds no node after all: the old task stays."""
    if not any(_serves(draft, other) for other in _others(draft, task, tasks)):
        return
    cap = created_ns(task) + STOP_TIMEOUT
    if draft.now < cap:
        draft.wake_at(cap)
    else:
        draft.desire(task, TaskState.SHUTDOWN)


def _replacement(draft: Draft, task: Task, cause: Cause, delay: int) -> None:
    """Make the task that takes over, waiting. The delay that a still waiting task has to sit out is passed on."""
    due = draft.now + delay
    if is_waiting(task) and task.restart_after and not has_ended(task):
        due = max(due, parse_rfc3339(task.restart_after))
    draft.create(
        slot=task.slot,
        node_id=task.node_id if draft.mode.is_per_node else "",
        cause=cause,
        desired=TaskState.READY,
        restart_after=rfc3339(due),
        update="" if cause is Cause.RESTART else task.update,
    )


def _shed(draft: Draft, tasks: Sequence[Task]) -> None:
    """Leave a slot with several live tasks to those it needs.

    When one runs that is as declared and stands where it may, that is the newest such. Until then one outdated task may
    serve the slot, beside the new one that comes up; an outdated one that does not run serves nobody.
    """
    live = [task for task in draft.current(tasks) if is_live(task)]
    if len(live) < 2 or draft.mode.is_job:
        return
    fresh = [task for task in live if not _outdated(draft, task)]
    serving = [task for task in live if _serves(draft, task)]
    keepers = [task for task in fresh if task in serving and not is_drained(draft.node_of(task))]
    if keepers:
        # A move for balance begins beside a task that is good where it is, and takes over when it runs.
        arriving = [it for it in live if it.cause == Cause.REBALANCE and not it.update and not has_ended(it)]
        kept = [*keepers[-1:], *(it for it in arriving[-1:] if it is live[-1] and not _serves(draft, it))]
    else:
        stale = [task for task in live if task not in fresh]
        # On a good node rather than on a drained one, running rather than not, then the newest.
        stale.sort(key=lambda task: (task in serving, not is_drained(draft.node_of(task)), age_order(task)))
        kept = [*fresh, *(task for task in stale[-1:] if task in serving or not fresh)]
    for task in live:
        if task not in kept:
            draft.desire(task, TaskState.SHUTDOWN)


def _serves(draft: Draft, task: Task) -> bool:
    return is_running(task) and not is_waiting(task) and not node_is_lost(draft.node_of(task))


def _outdated(draft: Draft, task: Task) -> bool:
    assert draft.service is not None
    return is_dirty(draft.service, task, draft.node_of(task))
