"""A service's tasks as a planner changes them: the pure middle of every orchestrator.

A `Draft` is made from a consistent view, handed through the steps of a plan (scale, heal, update, reap), each of which
sees what those before it did, and then written into one transaction. Nothing in it looks at the clock or makes up
randomness by itself: `now` and the source of ids come in.

A draft has *room* for a number of changes, since one log entry is bounded. A step begins nothing new when the room is
used up and sets `more`: the service is planned again at once, from what was written. Each plan reads all tasks of the
service, so the room grows with them: a service of 30,000 takes dozens of plans, not hundreds. `wake` collects the
moments at which time alone will change the plan.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import msgspec

from swarm_agent.model.ids import new_id
from swarm_agent.model.objects import Cluster, Node, Service, Task, UpdateStatus
from swarm_agent.model.states import TaskState
from swarm_agent.model.times import rfc3339
from swarm_agent.store.tx import Tx
from swarm_agent.store.view import Reader

from .tasks import Cause, Mode, SlotKey, age_order, mode_of, new_task, slot_of

ROOM = 200
"""Changes of one plan: SwarmKit's bound of a batch."""

MOST_ROOM = 1000
"""Changes of one plan of a very large service: with tasks of the usual size about two thirds of a log entry."""

SHARE = 10
"""A plan may change this part of a large service: one tenth."""


def the_cluster(reader: Reader) -> Cluster | None:
    """The one cluster object."""
    clusters = reader.all(Cluster)
    return clusters[0] if clusters else None


class Draft:
    """One service's plan in the making. `service` is None when it was removed and only its tasks are left. `room`: at
    most so many changes."""

    def __init__(self, reader: Reader, service_id: str, *, now: int, rng: random.Random, room: int = MOST_ROOM) -> None:
        self.reader = reader
        self.service_id = service_id
        self.now = now
        self.now_text = rfc3339(now)
        self.more = False
        self.wake: int | None = None
        self.service: Service | None = reader.get(Service, service_id)
        self.mode = mode_of(self.service) if self.service is not None else Mode.REPLICATED
        self.cluster = the_cluster(reader)
        self.tasks: dict[str, Task] = {task.id: task for task in reader.find(Task, service_id=service_id)}
        self.room = min(room, max(ROOM, len(self.tasks) // SHARE))
        self._rng = rng
        self._read_service = self.service
        self._created: dict[str, None] = {}
        self._changed: dict[str, None] = {}
        self._deleted: dict[str, None] = {}
        self._nodes: dict[str, Node | None] = {}
        self._slots: dict[SlotKey, list[Task]] | None = None

    # --- reads -------------------------------------------------------------------------------------------------------

    def node(self, node_id: str) -> Node | None:
        """The node, or None when there is none (any more)."""
        try:
            return self._nodes[node_id]
        except KeyError:
            found = self._nodes[node_id] = self.reader.get(Node, node_id)
            return found

    def node_of(self, task: Task) -> Node | None:
        """The task's node; None also for tasks not placed yet."""
        return self.node(task.node_id) if task.node_id else None

    def slots(self) -> dict[SlotKey, list[Task]]:
        """The tasks of each slot, oldest first, without those that are to be removed. Not to be changed by the
        caller."""
        if self._slots is not None:
            return self._slots
        found: dict[SlotKey, list[Task]] = {}
        per_node = self.mode.is_per_node
        for task in self.tasks.values():
            if task.desired_state is not TaskState.REMOVE:
                key: SlotKey = task.node_id if per_node else task.slot
                if key in found:
                    found[key].append(task)
                else:
                    found[key] = [task]
        for tasks in found.values():
            if len(tasks) > 1:
                tasks.sort(key=age_order)
        self._slots = found
        return found

    def current(self, tasks: Iterable[Task]) -> list[Task]:
        """These tasks of one slot as they are in the draft by now, and those made for the slot since."""
        found = [self.tasks[task.id] for task in tasks if task.id in self.tasks]
        if found and self._created:
            slot = slot_of(found[0], self.mode)
            known = {task.id for task in found}
            made = (self.tasks[id_] for id_ in self._created if id_ not in known)
            found += [task for task in made if slot_of(task, self.mode) == slot]
        return found

    @property
    def full(self) -> bool:
        """No room for another step; asking also notes that more is to be done."""
        if self.size < self.room:
            return False
        self.more = True
        return True

    @property
    def size(self) -> int:
        return len(self._created) + len(self._changed) + len(self._deleted)

    @property
    def new_status(self) -> UpdateStatus | None:
        """The state that this plan brings the service's update to, or None when it does not change it."""
        before = self._read_service.update_status if self._read_service is not None else None
        after = self.service.update_status if self.service is not None else None
        return after if after is not before else None

    # --- writes ------------------------------------------------------------------------------------------------------

    def create(
        self,
        *,
        slot: int = 0,
        node_id: str = "",
        cause: Cause,
        desired: TaskState | None = None,
        restart_after: str = "",
        update: str = "",
    ) -> Task:
        """Add a task of the service as it is declared now. `restart_after` marks (and times) a replacement made by a
        restart."""
        assert self.service is not None
        task = new_task(
            self.service,
            slot=slot,
            node_id=node_id,
            task_id=new_id(self._rng),
            now=self.now_text,
            cluster=self.cluster,
            cause=cause,
            desired=desired,
            restart_after=restart_after,
            update=update,
        )
        task = msgspec.structs.replace(task, created_at=self.now_text, updated_at=self.now_text)
        self._slots = None
        self.tasks[task.id] = task
        self._created[task.id] = None
        return task

    def change(self, task: Task, **fields: Any) -> Task:
        """Replace fields of a task."""
        changed = msgspec.structs.replace(self.tasks[task.id], **fields)
        self._slots = None
        self.tasks[task.id] = changed
        if task.id not in self._created:
            self._changed[task.id] = None
        return changed

    def desire(self, task: Task, state: TaskState) -> Task:
        """Raise a task's desired state; lowering it is ignored, for desired states only rise."""
        task = self.tasks[task.id]
        return self.change(task, desired_state=state) if state.rank > task.desired_state.rank else task

    def delete(self, task: Task) -> None:
        """Remove a task from the store."""
        self._slots = None
        del self.tasks[task.id]
        self._changed.pop(task.id, None)
        if task.id in self._created:
            del self._created[task.id]
        else:
            self._deleted[task.id] = None

    def change_service(self, **fields: Any) -> Service:
        """Replace fields of the service."""
        assert self.service is not None
        self.service = msgspec.structs.replace(self.service, **fields)
        return self.service

    def wake_at(self, when: int) -> None:
        """Plan again at this time (ns) even if nothing else happens."""
        if self.wake is None or when < self.wake:
            self.wake = when

    def write(self, tx: Tx) -> None:
        """Put the plan into the transaction whose view it was made from."""
        for id_ in self._created:
            tx.create(self.tasks[id_])
        for id_ in self._changed:
            tx.update(self.tasks[id_])
        for id_ in self._deleted:
            tx.delete(Task, id_)
        if self.service is not self._read_service and self.service is not None:
            tx.update(self.service)
