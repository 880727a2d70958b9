"""The update supervisor: replaces a service's outdated tasks slot by slot (reference/swarm.md §3.4).

Level-triggered: each plan reads off the tasks how far the update is. A task made by a worker of an update carries the
update's id (the time it started, `UpdateStatus.started_at`) in `Task.update`. So for each slot:

    waiting   it has an outdated live task, and none of this update; it is started when less than `parallelism` are busy
    busy      the task of this update has not come to run yet, or it did so, or ended, less than `delay` ago
    done      otherwise

stop-first: the new task is made with desired READY and the old one is told to stop; the restart supervisor lifts the
new one when the old one is gone. start-first: the new task is wanted RUNNING at once; when it runs, the restart
supervisor sheds the old one. A task of the update that ends by itself within the monitor period after it came to run,
or before, is a failure. When no slot waits or is busy and the last one was watched for the monitor period (or longer
than the delay, if that is longer), the update is complete.

A new update (the API clears `update_status` and raises the spec version) simply has another id: all slots are waiting
again. Slots without a running task go first, so slots that a cancelled update left half-way are not left lying.

Beyond Swarm: a task of the update that finds no node within a time (label `swarm.update.place_within`, 15 minutes) is a
failure too, so an update that cannot be placed ends as its failure action says, with the scheduler's reason, where
Swarm's waits for ever.

A replacement made because of a drain or a lost node inherits the id, so the slot stays busy. The reaper keeps tasks of
a running update. In memory only, as in Swarm: since when a task runs. A new leader takes the time of the task's last
write for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from swarm_agent.model.extensions import place_within
from swarm_agent.model.objects import Service, Task, UpdateStatus, Version
from swarm_agent.model.states import TaskState
from swarm_agent.model.times import SECOND, parse_rfc3339

from .defaults import FailureAction, Order, Update, update_config
from .draft import Draft
from .restart import PAUSED_STATES, ROLLBACK_STARTED
from .tasks import (
    Cause,
    Mode,
    SlotKey,
    changed_ns,
    created_ns,
    ended_by_itself,
    has_ended,
    is_dirty,
    is_live,
    is_running,
    is_waiting,
    was_assigned,
)

UPDATING = "updating"
COMPLETED = "completed"
PAUSED = "paused"
ROLLBACK_PAUSED = "rollback_paused"
ROLLBACK_COMPLETED = "rollback_completed"
ROLLING_BACK = (ROLLBACK_STARTED, ROLLBACK_COMPLETED)
ACTIVE = (UPDATING, ROLLBACK_STARTED)


def is_rolling_back(service: Service) -> bool:
    """A rollback is under way."""
    return service.update_status is not None and service.update_status.state == ROLLBACK_STARTED


@dataclass(slots=True)
class Memory:
    """What a leader remembers of one service's update. Losing it makes a new leader more patient, never wrong.

    `since`: this leader has watched the service from then on. `running`: since when a task runs. `failed`: tasks of
    update `id` that failed, and in which words.
    """

    since: int
    id: str = ""
    running: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Progress:
    """How far the update is. `last`: when the last event of it happened that is still to be watched."""

    waiting: list[SlotKey]
    busy: int
    begun: int
    last: int


def judge_update(draft: Draft, slots: Mapping[SlotKey, list[Task]], memory: Memory) -> None:
    """Pause the update or roll it back if too many of its tasks failed. To be asked before failed tasks are replaced,
    since they are replaced by what the service wants then.
    """
    service = draft.service
    assert service is not None
    status = service.update_status
    if status is None or status.state not in ACTIVE or not status.started_at:
        return
    config = update_config(service, rollback=status.state in ROLLING_BACK)
    if config.failure_action is FailureAction.CONTINUE:
        return
    _remember(draft, status.started_at, memory)
    for task in draft.tasks.values():
        if task.update != status.started_at or task.id in memory.failed:
            continue
        if _failed(task, config, memory):
            memory.failed[task.id] = f"due to failure or early termination of task {task.id}"
        elif (deadline := _placed_until(draft, task)) is not None:
            if draft.now < deadline:
                draft.wake_at(deadline)
            else:
                memory.failed[task.id] = _not_placed(task, deadline)
    if not memory.failed:
        return
    begun = _made_by(draft, status.started_at)
    waiting = [key for key, tasks in slots.items() if key not in begun and any(_outdated(draft, it) for it in tasks)]
    if len(memory.failed) > config.max_failure_ratio * (len(begun) + len(waiting)):
        _give_up(draft, status, config, next(reversed(memory.failed.values())))


def plan_update(draft: Draft, slots: Mapping[SlotKey, list[Task]], memory: Memory) -> None:
    """One step of the update, if there is something to update.

    `slots`: for each slot that may be updated the tasks that stand for it (see `restart.updatable`), oldest first.
    """
    service = draft.service
    assert service is not None
    status = service.update_status
    dirty = [key for key, tasks in slots.items() if any(_outdated(draft, task) for task in tasks)]
    if status is not None and status.state in PAUSED_STATES:
        return
    if status is None:
        if not dirty:
            return
        status = _set_status(draft, UpdateStatus(state=UPDATING, message="update in progress"), started=True)
    elif not status.started_at:
        status = _set_status(draft, status, started=True)
    update_id = status.started_at or ""
    config = update_config(service, rollback=status.state in ROLLING_BACK)
    _remember(draft, update_id, memory)

    progress = _progress(draft, slots, dirty, update_id, config, memory)
    parallelism = config.parallelism or max(progress.begun + len(progress.waiting), 1)
    started = 0
    for key in progress.waiting[: max(0, parallelism - progress.busy)]:
        if draft.full:
            return
        _start(draft, slots[key], update_id, config.order)
        started += 1
    if progress.waiting or progress.busy or started or status.state not in ACTIVE:
        return
    if progress.begun:
        done = progress.last + config.watch
    else:
        # Nothing had to be replaced. What a rollback comes back to is watched all the same, and people see why it
        # happened.
        done = parse_rfc3339(update_id) + config.watch if status.state == ROLLBACK_STARTED else draft.now
    if draft.now < done:
        draft.wake_at(done)
        return
    rollback = status.state == ROLLBACK_STARTED
    draft.change_service(
        update_status=UpdateStatus(
            state=ROLLBACK_COMPLETED if rollback else COMPLETED,
            started_at=status.started_at,
            completed_at=draft.now_text,
            message="rollback completed" if rollback else "update completed",
        )
    )


def _outdated(draft: Draft, task: Task) -> bool:
    service = draft.service
    assert service is not None
    return task.spec_version != service.spec_version and is_dirty(service, task, draft.node_of(task))


def _set_status(draft: Draft, status: UpdateStatus, *, started: bool = False) -> UpdateStatus:
    status = UpdateStatus(
        state=status.state,
        started_at=draft.now_text if started else status.started_at,
        completed_at=status.completed_at,
        message=status.message,
    )
    draft.change_service(update_status=status)
    return status


def _remember(draft: Draft, update_id: str, memory: Memory) -> None:
    """Note which tasks of this update run, and which have failed."""
    if memory.id != update_id:
        memory.id = update_id
        memory.running.clear()
        memory.failed.clear()
    for task in draft.tasks.values():
        if task.update == update_id and is_running(task) and task.id not in memory.running:
            memory.running[task.id] = min(changed_ns(task), draft.now)


def _progress(
    draft: Draft,
    slots: Mapping[SlotKey, list[Task]],
    dirty: list[SlotKey],
    update_id: str,
    config: Update,
    memory: Memory,
) -> _Progress:
    made = _made_by(draft, update_id)
    waiting = [key for key in dirty if key not in made]
    waiting.sort(key=lambda key: (any(is_live(task) and is_running(task) for task in slots[key]), key))
    busy = 0
    last = 0
    for task in made.values():
        since = _idle_since(draft, task, memory)
        if since is None:
            busy += 1
            continue
        last = max(last, since + config.delay)
        if draft.now < since + config.delay:
            busy += 1
            draft.wake_at(since + config.delay)
    known = {*made, *dirty}
    for key, tasks in slots.items():
        # Left half-way by a cancelled update, but as it is wanted now (the new spec says the same): it comes up all the
        # same.
        if key not in known and any(_comes_up(task) for task in tasks):
            busy += 1
    return _Progress(waiting, busy, len(made), last)


def _comes_up(task: Task) -> bool:
    return bool(task.update) and is_live(task) and not has_ended(task) and not is_running(task)


def _made_by(draft: Draft, update_id: str) -> dict[SlotKey, Task]:
    """The newest task that this update made in each slot."""
    found: dict[SlotKey, Task] = {}
    for task in draft.tasks.values():
        if task.update != update_id or not update_id or task.desired_state is TaskState.REMOVE:
            continue
        key: SlotKey = task.node_id if draft.mode is Mode.GLOBAL else task.slot
        known = found.get(key)
        if known is None or known.created_at < task.created_at:
            found[key] = task
    return found


def _idle_since(draft: Draft, task: Task, memory: Memory) -> int | None:
    """When the slot's worker was done with it, or None when it is not yet. `task` is what the update made there
    last."""
    if ended_by_itself(task):
        return min(changed_ns(task), draft.now)
    deadline = _placed_until(draft, task)
    if deadline is not None:
        # With failure action "continue" the others are not held up by it; it comes up when there is room.
        if draft.now >= deadline:
            return deadline
        draft.wake_at(deadline)
        return None
    if is_live(task):
        return memory.running.get(task.id) if is_running(task) and not is_waiting(task) else None
    # It was taken away, and nothing came in its place (that would carry the update's id): nothing to wait for.
    return memory.running.get(task.id, min(changed_ns(task), draft.now))


def _failed(task: Task, config: Update, memory: Memory) -> bool:
    """Ended by itself before it ran, or within the monitor period after. Where nobody saw it come to run (a change of
    leader), the time since it was made stands for it."""
    if not ended_by_itself(task):
        return False
    ended = changed_ns(task)
    running = memory.running.get(task.id)
    if running is not None:
        return ended - running <= config.monitor
    if ended >= memory.since or task.status.state is TaskState.REJECTED:
        return True
    return ended - created_ns(task) <= config.monitor


def _placed_until(draft: Draft, task: Task) -> int | None:
    """The time (ns) by which a task of the update must have found a node; None when it has, or may wait for ever."""
    assert draft.service is not None
    if was_assigned(task) or not is_live(task):
        return None
    patience = place_within(draft.service.spec.labels)
    return created_ns(task) + patience if patience else None


def _not_placed(task: Task, deadline: int) -> str:
    seconds = (deadline - created_ns(task)) // SECOND
    return f"because task {task.id} found no node within {seconds} s: {task.status.err or task.status.message}"


def _give_up(draft: Draft, status: UpdateStatus, config: Update, why: str) -> None:
    """React to too many failures as the service says: roll back, but never a rollback, or pause."""
    service = draft.service
    assert service is not None
    rollback = status.state == ROLLBACK_STARTED
    if config.failure_action is FailureAction.ROLLBACK and not rollback and service.previous_spec is not None:
        draft.change_service(
            spec=service.previous_spec,
            # Only the API sets specs, and with a version. Should one lack it, any version that no task has will do.
            spec_version=service.previous_spec_version or Version(index=service.version.index + 1),
            previous_spec=None,
            previous_spec_version=None,
            update_status=UpdateStatus(
                state=ROLLBACK_STARTED, started_at=draft.now_text, message=f"update rolled back {why}"
            ),
        )
        return
    word = "rollback" if rollback and config.failure_action is FailureAction.ROLLBACK else "update"
    draft.change_service(
        update_status=UpdateStatus(
            state=ROLLBACK_PAUSED if rollback else PAUSED,
            started_at=status.started_at,
            message=f"{word} paused {why}",
        )
    )


def _start(draft: Draft, tasks: list[Task], update_id: str, order: Order) -> None:
    """Begin with one slot: have one task of the present spec come up in it, by the given order."""
    outdated = [task for task in tasks if _outdated(draft, task)]
    ready = [task for task in tasks if is_live(task) and task not in outdated]
    stop_first = order is Order.STOP_FIRST
    if ready:
        # Made from the present spec for another reason (a restart): it is taken over, and starts when it is its time.
        draft.change(ready[-1], update=update_id)
    else:
        draft.create(
            slot=tasks[-1].slot,
            node_id=tasks[-1].node_id if draft.mode is Mode.GLOBAL else "",
            cause=Cause.UPDATE,
            desired=TaskState.READY if stop_first else TaskState.RUNNING,
            update=update_id,
        )
    for task in outdated:
        if is_live(task) and (stop_first or not is_running(task)):
            draft.desire(task, TaskState.SHUTDOWN)
