"""The scheduler's decisions, without store or clock: tasks and nodes go in as changes, assigned tasks come out.

    core.apply(changes, now)             what happened since the last call decisions = core.plan(limit, now)    new
    versions of tasks: assigned, or pending with the reason, or ended before they began core.settle(refused, get)
    those that the store did not take, since the task or its node had changed meanwhile

A decision is charged to its node at once, so the next plan builds on it though it is not yet stored. The change that
the store reports afterwards finds the task where it is. What the store refused is set back to what the store holds.

Tasks of one service and spec version are placed as a group. A group for which no node is left is *blocked*: its tasks
carry the reason, and it is tried again when something makes room: a node changed, or a task ended or is no longer to
run.

Preassigned tasks (global services, attachments) bring their node. They go first and are only checked against it.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable

import msgspec

from swarm_agent.model.objects import ZERO_TIME, Node, Task, TaskStatus
from swarm_agent.model.specs import GenericResource
from swarm_agent.model.states import TaskState
from swarm_agent.model.times import parse_rfc3339, rfc3339
from swarm_agent.store.view import Change

from . import generic
from .filters import Demand, Verdicts, explain, no_suitable_node
from .nodeset import FAILURE_WINDOW, FailureKey, NodeSet, failure_key, is_active
from .placement import Group

ASSIGNED = "scheduler assigned task to node"
CONFIRMED = "scheduler confirmed task can run on preassigned node"

_UNPLACED = (TaskState.NEW, TaskState.PENDING)
_OCCUPYING = tuple(
    state for state in TaskState if TaskState.ASSIGNED.rank <= state.rank <= TaskState.RUNNING.rank
)  # has a node and has not ended

GroupKey = tuple[FailureKey, str]
"""Service and spec version; the task's id for one that has no spec version and is placed alone."""


class SchedulerCore:
    """What the scheduler knows. Times are nanoseconds since the epoch."""

    def __init__(self) -> None:
        self._verdicts = Verdicts()
        self.nodes = NodeSet(self._verdicts.forget)
        self._tasks: dict[str, Task] = {}
        # Ordered: they are taken from the front, which a plain dictionary finds by passing over all that was deleted.
        self._queued: OrderedDict[GroupKey, dict[str, Task]] = OrderedDict()
        self._blocked: dict[GroupKey, dict[str, Task]] = {}
        self._preassigned: OrderedDict[str, Task] = OrderedDict()
        self._unfit: dict[str, Task] = {}
        self._ended: dict[str, Task] = {}
        self._room = False

    # --- input -------------------------------------------------------------------------------------------------------

    def load(self, objects: Iterable[Node | Task], now: int) -> None:
        """Objects of the store at the start of leadership. Failures in the kept history count as if they had been
        seen."""
        for obj in objects:
            if isinstance(obj, Node):
                self.nodes.put_node(obj)
                self._room = True
                continue
            self._put(obj)
            if obj.status.state in (TaskState.FAILED, TaskState.REJECTED):
                at = parse_rfc3339(obj.status.timestamp or ZERO_TIME)
                if now - at < FAILURE_WINDOW:
                    self._failed_at(obj, at)

    def apply(self, changes: Iterable[Change], now: int) -> None:
        """Changes of the store, in order. Kinds other than nodes and tasks are ignored."""
        for change in changes:
            if change.kind is Task:
                self._change_task(change.id, change.new, now)
            elif change.kind is Node:
                self._change_node(change.old, change.new)

    def _change_node(self, old: Node | None, new: Node | None) -> None:
        if new is None:
            assert old is not None
            self.nodes.drop_node(old.id)
        elif old is None or (old.status, old.spec, old.description) != (new.status, new.spec, new.description):
            self.nodes.put_node(new)
            self._room = True

    def _change_task(self, task_id: str, new: Task | None, now: int) -> None:
        known = self._tasks.get(task_id)
        if new is None:
            self._forget(task_id)
            return
        if known is not None and new.status.state in (TaskState.FAILED, TaskState.REJECTED):
            self._failed_at(new, now)
        self._put(new)

    def _failed_at(self, task: Task, at: int) -> None:
        if task.node_id:
            self.nodes.failed(task, at)

    def _put(self, task: Task) -> None:
        """The task is now this, whatever it was before."""
        state = task.status.state
        if state in _OCCUPYING:
            self._unqueue(task)
            before = self._tasks.get(task.id)
            if before is not None and before.status.state in _OCCUPYING:
                if before.node_id != task.node_id:
                    self.nodes.release(task.id, before.node_id)
                if is_active(before) and not is_active(task):
                    self._room = True  # one replica less on its node
            self._tasks[task.id] = task
            if task.node_id:
                self.nodes.charge(task)
        elif state in _UNPLACED and task.desired_state is TaskState.SHUTDOWN:
            self._forget(task.id)
            self._ended[task.id] = task
        elif state is TaskState.PENDING and is_active(task):
            self._want(task)
        else:
            self._forget(task.id)

    def _want(self, task: Task) -> None:
        before = self._tasks.get(task.id)
        if before is not None and before.status.state in _OCCUPYING:
            self._forget(task.id)  # it was charged for a decision that the store refused
        self._tasks[task.id] = task
        if task.node_id:
            waiting = self._unfit if task.id in self._unfit else self._preassigned
            waiting[task.id] = task
            return
        key = _group(task)
        blocked = self._blocked.get(key)
        if blocked is not None and task.id in blocked:
            blocked[task.id] = task
        else:
            self._queued.setdefault(key, {})[task.id] = task

    def _forget(self, task_id: str) -> None:
        self._ended.pop(task_id, None)
        task = self._tasks.pop(task_id, None)
        if task is None:
            return
        self._unqueue(task)
        if task.status.state in _OCCUPYING:
            self.nodes.release(task_id, task.node_id)
            self._room = True

    def _unqueue(self, task: Task) -> None:
        self._preassigned.pop(task.id, None)
        self._unfit.pop(task.id, None)
        key = _group(task)
        for groups in (self._queued, self._blocked):
            group = groups.get(key)
            if group is not None and group.pop(task.id, None) is not None and not group:
                del groups[key]

    # --- output ------------------------------------------------------------------------------------------------------

    def plan(self, limit: int, now: int) -> list[Task]:
        """Decide on about `limit` tasks: their new versions. Fewer than asked, or none, when nothing else can be
        decided now."""
        if self._room:
            self._room = False
            self._retry()
        stamp = rfc3339(now)
        decisions: list[Task] = []
        considered = 0
        for task_id in list(itertools.islice(self._ended, limit)):
            decisions.append(_stopped(self._ended.pop(task_id), stamp))
            considered += 1
        while self._preassigned and considered < limit:
            _, task = self._preassigned.popitem(last=False)
            self._check(task, stamp, decisions)
            considered += 1
        while self._queued and considered < limit:
            considered += self._place(next(iter(self._queued)), limit - considered, now, stamp, decisions)
        return decisions

    @property
    def busy(self) -> bool:
        """`plan` has something to look at."""
        return bool(self._room or self._ended or self._preassigned or self._queued)

    @property
    def wake_at(self) -> int | None:
        """Time alone changes nothing here."""
        return None

    def settle(self, refused: Iterable[Task], get: Callable[[type[Task], str], Task | None]) -> None:
        """Decisions on these tasks were not stored: go on from what `get` says is stored."""
        for task in refused:
            self._forget(task.id)
            stored = get(Task, task.id)
            if stored is not None:
                self._put(stored)

    def _retry(self) -> None:
        blocked, self._blocked = self._blocked, {}
        for key, group in blocked.items():
            self._queued.setdefault(key, {}).update(group)
        self._preassigned.update(self._unfit)
        self._unfit = {}

    def _check(self, task: Task, stamp: str, decisions: list[Task]) -> None:
        info = self.nodes.nodes.get(task.node_id)
        if info is None or info.node is None:
            self._unfit[task.id] = task  # its node is gone; whoever named it will see that
            return
        demand = Demand(task, self._verdicts)
        refusal = demand.refuses(info)
        if refusal is not None:
            self._unfit[task.id] = task
            self._report(task, explain({refusal: 1}), stamp, decisions)
            return
        given = generic.claim(info.free_generic(), demand.generic) if demand.generic else []
        self._charge(_assigned(task, task.node_id, CONFIRMED, stamp, given), decisions)

    def _place(self, key: GroupKey, limit: int, now: int, stamp: str, decisions: list[Task]) -> int:
        """Place up to `limit` tasks of a group; how many were looked at."""
        group = self._queued[key]
        sample = next(iter(group.values()))
        demand = Demand(sample, self._verdicts)
        preferences = sample.spec.placement.preferences if sample.spec.placement is not None else []
        search = Group(self.nodes, demand, key[0], preferences, now)
        batch = list(itertools.islice(group.values(), limit))
        for number, task in enumerate(batch):
            info = search.next()
            if info is None:
                text = no_suitable_node(search.refusals)
                for waiting in batch[number:]:
                    del group[waiting.id]
                    self._blocked.setdefault(key, {})[waiting.id] = waiting
                    self._report(waiting, text, stamp, decisions)
                break
            del group[task.id]
            given = generic.claim(info.free_generic(), demand.generic) if demand.generic else []
            self._charge(_assigned(task, info.id, ASSIGNED, stamp, given), decisions)
        if not group:
            del self._queued[key]
        return len(batch)

    def _charge(self, task: Task, decisions: list[Task]) -> None:
        self._tasks[task.id] = task
        self.nodes.charge(task)
        decisions.append(task)

    def _report(self, task: Task, text: str, stamp: str, decisions: list[Task]) -> None:
        if task.status.err != text:
            status = msgspec.structs.replace(task.status, timestamp=stamp, err=text)
            decisions.append(msgspec.structs.replace(task, status=status))


def _group(task: Task) -> GroupKey:
    return failure_key(task), "" if task.spec_version is not None and task.service_id else task.id


def _assigned(task: Task, node_id: str, message: str, stamp: str, given: list[GenericResource]) -> Task:
    status = TaskStatus(timestamp=stamp, state=TaskState.ASSIGNED, message=message)
    return msgspec.structs.replace(task, node_id=node_id, status=status, generic_resources=given)


def _stopped(task: Task, stamp: str) -> Task:
    """No node ever heard of the task, so there is nobody else to say that it does not run."""
    status = TaskStatus(timestamp=stamp, state=TaskState.SHUTDOWN, message="shutdown")
    return msgspec.structs.replace(task, status=status)
