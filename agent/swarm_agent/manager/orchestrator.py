"""The driver of the orchestrators: watches the store, plans what changed, writes the plans.

One service is planned as a whole, in one transaction: scale, restarts, update, history (see `plan_service`). That
leaves no two loops that could work against each other on the same tasks. Nodes are looked at by the constraint
enforcer.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence

from swarm_agent.model.objects import Cluster, Node, Service, Task
from swarm_agent.model.times import rfc3339
from swarm_agent.store.errors import TooLarge
from swarm_agent.store.store import Store
from swarm_agent.store.tx import Tx
from swarm_agent.store.view import Change

from .draft import MOST_ROOM, Draft
from .enforcer import concerns, is_enforced, plan_enforcement
from .global_ import plan_global
from .jobs import plan_global_job, plan_replicated_job
from .loop import Clock, PlanLoop
from .parts import update_in_parts
from .reaper import reap_removed
from .replicated import plan_replicated
from .tasks import Cause, Mode, has_ended, is_drained, is_running, mode_of, node_is_lost
from .update import Memory

log = logging.getLogger(__name__)

REST_FROM = 1000
REST_PER_TASK = 10_000
"""Planning reads all tasks of a service. Above `REST_FROM` tasks a service rests this many ns a task after each plan,
so that a service of 10,000 is planned at most ten times a second however fast its tasks report."""


_FILLING = (Cause.SCALE, Cause.NODE, Cause.JOB)
"""Tasks that replace nothing: nobody waits for them to run."""


def plan_service(draft: Draft, memory: Memory) -> None:
    """One step towards what is declared, for a service of any mode or one that was removed."""
    reap_removed(draft)
    if draft.service is None:
        return
    match draft.mode:
        case Mode.REPLICATED:
            plan_replicated(draft, memory)
        case Mode.GLOBAL:
            plan_global(draft, memory)
        case Mode.REPLICATED_JOB:
            plan_replicated_job(draft)
        case Mode.GLOBAL_JOB:
            plan_global_job(draft)


class Orchestrator:
    """Keeps all services as they are declared, while this manager leads."""

    def __init__(self, store: Store, *, clock: Clock, rng: random.Random) -> None:
        self._store = store
        self._clock = clock
        self._rng = rng
        self._memory: dict[str, Memory] = {}
        self._room: dict[str, int] = {}
        self._started = 0
        self._services = PlanLoop("service", self._plan_service, clock=clock)
        self._nodes = PlanLoop("node", self._enforce, clock=clock)
        self._held_back: set[str] = set()
        self._unsubscribe: Callable[[], None] | None = None

    async def start(self) -> None:
        """Begin: everything is planned once, and from then on what changes."""
        self._started = self._clock()
        self._unsubscribe = self._store.subscribe(self._changed)
        view = self._store.view()
        self._services.mark_all(service.id for service in view.all(Service))
        self._services.mark_all(task.service_id for task in view.all(Task) if task.service_id)
        self._nodes.mark_all(node.id for node in view.all(Node))
        await self._services.start()
        await self._nodes.start()

    async def stop(self) -> None:
        """Stop planning."""
        if self._unsubscribe is not None:
            self._unsubscribe()
        await self._services.stop()
        await self._nodes.stop()

    # --- what changed ------------------------------------------------------------------------------------------------

    def _changed(self, changes: list[Change]) -> None:
        for change in changes:
            if change.kind is Task:
                self._task_changed(change.old, change.new)
            elif change.kind is Service:
                self._services.mark(change.id)
            elif change.kind is Node:
                self._node_changed(change.old, change.new)
            elif change.kind is Cluster:
                self._cluster_changed(change.old, change.new)

    def _task_changed(self, old: Task | None, new: Task | None) -> None:
        task = new or old
        assert task is not None
        if not task.service_id:
            return
        if old is None or new is None or self._matters(old, new):
            self._services.mark(task.service_id)

    def _matters(self, old: Task, new: Task) -> bool:
        """Whether a task's change can change the plan. Its way from ASSIGNED to RUNNING does not, except for
        replacements."""
        if old.desired_state is not new.desired_state:
            return True
        if old.node_id != new.node_id:
            node = self._store.view().get(Node, new.node_id)
            if node_is_lost(node) or is_drained(node):
                return True
        if old.status.state is new.status.state:
            return False
        return has_ended(new) or (is_running(new) and (bool(new.update) or new.cause not in _FILLING))

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if concerns(old, new):
            assert new is not None
            self._nodes.mark(new.id)
            if is_enforced(new):
                # Its services are planned after that: a task that has to go is rejected and says why, and is no update.
                self._held_back.add(new.id)
                return
        elif old is not None and new is not None and old.status.state == new.status.state:
            return
        self._mark_services_of((new or old).id)  # type: ignore[union-attr]

    def _mark_services_of(self, node_id: str) -> None:
        view = self._store.view()
        self._services.mark_all({task.service_id: None for task in view.find(Task, node_id=node_id) if task.service_id})
        self._services.mark_all(service.id for service in view.all(Service) if mode_of(service).is_per_node)

    def _cluster_changed(self, old: Cluster | None, new: Cluster | None) -> None:
        if old is None or new is None or old.spec.orchestration != new.spec.orchestration:
            self._services.mark_all(service.id for service in self._store.view().all(Service))

    # --- plans -------------------------------------------------------------------------------------------------------

    async def _plan_service(self, service_id: str) -> None:
        memory = self._memory.setdefault(service_id, Memory(since=self._started))
        room = used = self._room.get(service_id, MOST_ROOM)

        def run(tx: Tx) -> Draft:
            nonlocal used
            draft = Draft(tx, service_id, now=self._clock(), rng=self._rng, room=room)
            used = draft.room
            plan_service(draft, memory)
            draft.write(tx)
            return draft

        self._services.cancel(service_id)
        try:
            draft = await self._store.update(run)
        except TooLarge:
            if used == 1:
                raise
            # Tasks with large specs: fewer at a time.
            self._room[service_id] = used // 2
            self._services.mark(service_id)
            return
        if draft.new_status is not None and draft.service is not None:
            log.info("service %s (%s): %s", draft.service.spec.name, service_id, draft.new_status.message)
        if draft.service is None and not draft.tasks:
            self._memory.pop(service_id, None)
            self._room.pop(service_id, None)
            return
        if draft.more:
            self._services.mark(service_id)
            return
        if draft.wake is not None:
            self._services.wake_at(service_id, draft.wake)
        if len(draft.tasks) > REST_FROM:
            self._services.rest(service_id, draft.now + len(draft.tasks) * REST_PER_TASK)

    async def _enforce(self, node_id: str) -> None:
        now = rfc3339(self._clock())

        def write(tx: Tx, part: Sequence[str]) -> None:
            for task in plan_enforcement(tx, node_id, now):
                if task.id in part:
                    tx.update(task)

        rejected = [task.id for task in plan_enforcement(self._store.view(), node_id, now)]
        await update_in_parts(self._store, rejected, write)
        if rejected:
            log.info("node %s: %d tasks no longer meet their constraints there", node_id, len(rejected))
        if node_id in self._held_back:
            self._held_back.discard(node_id)
            self._mark_services_of(node_id)
