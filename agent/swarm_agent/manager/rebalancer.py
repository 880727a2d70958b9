"""The driver of rebalancing on the leader: asked for (`swarmctl rebalance`), or by itself (cluster label
`swarm.rebalance=auto`).

A request is a mark on the service (`Service.rebalance`), so it outlives a change of leader; the mark goes when the
service is even. By itself only one task of the whole cluster is under way at a time, a slot is moved at most every ten
minutes, and the nodes must have been the same for half a minute, so a node that comes and goes does not drag tasks
with it.

A move is a replacement like that of a drain: the restart supervisor does the rest. With update order start-first the
old task runs until the new one does, else it is stopped first.

The picture of the nodes is only kept while there is something to do; in between this costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

import msgspec

from swarm_agent.model.errors import ClusterError
from swarm_agent.model.extensions import REBALANCE
from swarm_agent.model.objects import Cluster, Node, Service, Task
from swarm_agent.model.states import TaskState
from swarm_agent.model.times import SECOND, parse_rfc3339
from swarm_agent.store.store import Store
from swarm_agent.store.tx import Tx
from swarm_agent.store.view import Change

from .defaults import Order, update_config
from .draft import Draft
from .filters import Verdicts
from .loop import Clock
from .nodeset import is_available
from .rebalance import Move, find_move, moved_since, why_not
from .scheduling import SchedulerCore
from .tasks import Cause, Mode, has_ended, is_live, is_running, mode_of

log = logging.getLogger(__name__)

CALM = 30 * SECOND
"""By itself: how long the nodes must have been the same."""

REST = 600 * SECOND
"""By itself: how long a slot stays where it was moved to."""

PERIOD = 5 * SECOND
"""By itself: time between two looks at all services."""

DEBOUNCE = 0.05
RETRY = 1.0
SLICE = 1000  # objects taken into the picture between two looks at the event loop


class Rebalancer:
    """Moves tasks while this manager leads."""

    def __init__(self, store: Store, *, clock: Clock, rng: random.Random) -> None:
        self._store = store
        self._clock = clock
        self._rng = rng
        self._wanted: dict[str, None] = {}
        self._auto = False
        self._under_way = ""  # the task that was made by the last move by itself
        self._calm_from = 0
        self._next_look = 0
        self._core: SchedulerCore | None = None
        self._verdicts = Verdicts()
        self._changes: list[Change] = []
        self._event = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._unsubscribe: Callable[[], None] | None = None

    async def start(self) -> None:
        """Begin; returns at once."""
        self._unsubscribe = self._store.subscribe(self._changed)
        view = self._store.view()
        self._wanted = {service.id: None for service in view.all(Service) if service.rebalance}
        self._auto = any(_is_auto(cluster) for cluster in view.all(Cluster))
        self._calm_from = self._clock() + CALM
        self._event.set()
        self._task = asyncio.create_task(self._run(), name="rebalancer")

    async def stop(self) -> None:
        """Stop; a move under way goes on, for it is in the store."""
        if self._unsubscribe is not None:
            self._unsubscribe()
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    @property
    def _active(self) -> bool:
        return self._auto or bool(self._wanted)

    def _changed(self, changes: list[Change]) -> None:
        was_active = self._active
        for change in changes:
            if change.kind is Service:
                if change.new is not None and change.new.rebalance:
                    self._wanted[change.id] = None
                else:
                    self._wanted.pop(change.id, None)
            elif change.kind is Cluster:
                self._auto = change.new is not None and _is_auto(change.new)
            elif change.kind is Node and is_available(change.old) != is_available(change.new):
                self._calm_from = self._clock() + CALM
        if self._core is not None:
            self._changes += [change for change in changes if change.kind in (Node, Task)]
        if self._active or was_active:
            self._event.set()

    async def _run(self) -> None:
        while True:
            await self._event.wait()
            await asyncio.sleep(DEBOUNCE)
            self._event.clear()
            if not self._active:
                self._core = None
                self._changes.clear()
                continue
            try:
                await self._step()
            except ClusterError as error:
                log.info("rebalancing waits: %s", error)
                self._wake_in(RETRY)
            except Exception:
                log.exception("rebalancing failed and starts again")
                self._core = None
                self._wake_in(RETRY)

    def _wake_in(self, seconds: float) -> None:
        if self._timer is not None:  # one at a time: each wake-up may ask for the next
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(max(seconds, 0.001), self._event.set)

    async def _step(self) -> None:
        core = await self._picture()
        found = {service_id: await self._asked(core, service_id) for service_id in list(self._wanted)}
        even = [service_id for service_id, it in found.items() if it]
        # Only when nothing moves: what one service does may open the way for another.
        if even and False not in found.values():
            await self._done(even)
        if self._auto and not self._wanted:
            await self._by_itself(core)

    async def _picture(self) -> SchedulerCore:
        """The nodes and what runs on them, as of now."""
        now = self._clock()
        if self._core is None:
            core = SchedulerCore()
            self._core = core
            self._changes.clear()
            view = self._store.view()
            objects: list[Node | Task] = [*view.all(Node), *view.all(Task)]
            for begin in range(0, len(objects), SLICE):
                core.load(objects[begin : begin + SLICE], now)
                await asyncio.sleep(0)
            self._verdicts = Verdicts()
        changes, self._changes = self._changes, []
        for change in changes:
            if change.kind is Node:
                self._verdicts.forget(change.id)
        self._core.apply(changes, now)
        return self._core

    # --- asked for ---------------------------------------------------------------------------------------------------

    async def _asked(self, core: SchedulerCore, service_id: str) -> bool | None:
        """One step of what was asked for. True: it is even; False: it moves; None: its next change shows."""
        view = self._store.view()
        service = view.get(Service, service_id)
        if service is None:
            return None
        tasks = view.find(Task, service_id=service_id)
        if mode_of(service) is not Mode.REPLICATED:
            return True
        if why_not(service, tasks, named=True):
            moving = any(it.cause == Cause.REBALANCE and is_live(it) and not is_running(it) for it in tasks)
            return False if moving else None
        move = self._find(core, service, tasks, parse_rfc3339(service.rebalance))
        if move is None:
            return True
        await self._move(move)
        return False

    async def _done(self, service_ids: list[str]) -> None:
        """These are even: the request is carried out."""

        def run(tx: Tx) -> None:
            for service_id in service_ids:
                service = tx.get(Service, service_id)
                if service is not None and service.rebalance:
                    tx.update(msgspec.structs.replace(service, rebalance=""))

        await self._store.update(run)
        for service_id in service_ids:
            self._wanted.pop(service_id, None)
            log.info("service %s: its tasks are spread evenly", service_id)

    def _find(self, core: SchedulerCore, service: Service, tasks: list[Task], since: int) -> Move | None:
        moved = moved_since(tasks, since)
        return find_move(core.nodes, self._verdicts, service, tasks, now=self._clock(), moved=moved)

    # --- by itself ---------------------------------------------------------------------------------------------------

    async def _by_itself(self, core: SchedulerCore) -> None:
        now = self._clock()
        due = max(self._calm_from, self._next_look)
        if now < due:
            self._wake_in((due - now) / SECOND)
            return
        self._next_look = now + PERIOD
        view = self._store.view()
        if self._under_way:
            task = view.get(Task, self._under_way)
            if task is not None and is_live(task) and not is_running(task) and not has_ended(task):
                return  # its change wakes us
            self._under_way = ""
        for service in view.all(Service):
            tasks = view.find(Task, service_id=service.id)
            if why_not(service, tasks, named=False):
                continue
            move = self._find(core, service, tasks, now - REST)
            if move is not None:
                self._under_way = await self._move(move)
                return
            await asyncio.sleep(0)
            if self._changes:  # the picture is outdated
                await self._picture()

    # --- a move ------------------------------------------------------------------------------------------------------

    async def _move(self, move: Move) -> str:
        """Begin it, unless things changed meanwhile; the id of the new task."""

        def run(tx: Tx) -> str:
            draft = Draft(tx, move.service_id, now=self._clock(), rng=self._rng)
            made = plan_move(draft, move)
            draft.write(tx)
            return made

        made = await self._store.update(run)
        if made:
            log.info("service %s: slot %d moves: %s", move.service_id, move.slot, move.reason)
        return made


def plan_move(draft: Draft, move: Move) -> str:
    """Replace the task; the new one's id, empty when the move is no longer to be made."""
    service, task = draft.service, draft.tasks.get(move.task_id)
    if service is None or task is None or not is_live(task) or task.node_id != move.source:
        return ""
    if why_not(service, draft.tasks.values(), named=True):
        return ""
    start_first = update_config(service).order is Order.START_FIRST
    if not start_first:
        draft.desire(task, TaskState.SHUTDOWN)
    made = draft.create(
        slot=task.slot, cause=Cause.REBALANCE, desired=TaskState.RUNNING if start_first else TaskState.READY
    )
    return made.id


def _is_auto(cluster: Cluster) -> bool:
    return cluster.spec.labels.get(REBALANCE) == "auto"
