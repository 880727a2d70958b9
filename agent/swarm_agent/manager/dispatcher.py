"""The leader's end of all nodes' sessions: who is there, what each has to run, what became of it.

It owns three facts of the store: a node's status (ready, down) and description, the observed state of tasks on nodes,
and which tasks are orphaned. Everything it tells nodes is read from the store (assignments.py); when nodes are taken
for dead is in liveness.py; how reports become writes in reports.py.

What a node runs goes on without the leader, and a node that is down may still run its tasks: the orchestrators
replace them, and when the node returns it finds its old tasks with desired state SHUTDOWN. After ORPHAN_AFTER nobody
waits for it any longer: its unfinished tasks become ORPHANED, which frees their addresses. Tasks of a node that was
removed do so at once.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from msgspec.structs import replace

from swarm_agent.model.errors import ClusterError
from swarm_agent.model.objects import Cluster, Config, Network, Node, NodeDescription, NodeStatus, Secret, Task
from swarm_agent.model.session import Hello, TaskStatusUpdate, ToNode
from swarm_agent.model.states import TaskState
from swarm_agent.model.times import SECOND, parse_rfc3339, rfc3339
from swarm_agent.store.store import Store
from swarm_agent.store.tx import Tx
from swarm_agent.store.view import Change, Reader

from .assignments import Outbox, heartbeat_period
from .control.nodes import REMOVED_TEXT
from .liveness import Gossip, Liveness
from .parts import update_in_parts
from .reports import Reports
from .sessions import Channel, Session

log = logging.getLogger(__name__)

ORPHAN_AFTER = 24 * 3600 * SECOND
"""Swarm's time after which tasks of a node that stays down are given up (nanoseconds)."""

ORPHAN_CHECK = 60.0
"""Seconds between two looks for nodes that have been down so long."""

RETRY = 0.5


class Dispatcher:
    """Runs while this manager leads. `liveness(node_id)` is gossip's verdict: True alive, False dead, None unknown."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], int] = time.time_ns,
        liveness: Gossip = lambda _: None,
        gossip_port: int = 7946,
        **_: Any,
    ) -> None:
        self._store = store
        self._clock = clock
        self._gossip = liveness
        self._gossip_port = gossip_port
        self._sessions: dict[str, Session] = {}
        self._nodes = Liveness()
        self._reports = Reports(store)
        self._removed: set[str] = set()
        self._wake_orphans = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._unsubscribe: Callable[[], None] | None = None

    # --- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to take sessions. Nodes keep the status they have until they report, or fail to."""
        self._nodes = Liveness(heartbeat_period(next(iter(self._store.view().all(Cluster)), None)))
        self._reports = Reports(self._store)
        self._unsubscribe = self._store.subscribe(self._changed)
        view = self._store.view()
        for node in view.all(Node):
            self._expect(node)
        self._removed = _nodes_of_tasks(view)
        self._tasks = [
            asyncio.create_task(_forever(self._watch_nodes), name="dispatcher-liveness"),
            asyncio.create_task(_forever(self._orphan), name="dispatcher-orphans"),
            asyncio.create_task(_forever(self._reports.run), name="dispatcher-reports"),
        ]

    async def stop(self) -> None:
        """End all sessions; nodes look for the next leader."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        for session in list(self._sessions.values()):
            session.end("this manager no longer leads")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def session(self, node_id: str, channel: Channel) -> None:
        """Serve a node's connection until it ends; returns at once when this manager does not lead. The caller has
        made sure that it is this node, and closes the channel afterwards."""
        if self._unsubscribe is None:
            return
        session = Session(node_id, channel, Outbox(node_id, self._gossip_port), self._store, self)
        before = self._sessions.get(node_id)
        self._sessions[node_id] = session
        if before is not None:
            before.end("a newer session of this node took its place")
        try:
            await session.run()
        finally:
            if self._sessions.get(node_id) is session:
                del self._sessions[node_id]
                if session.closed_by_node:
                    self._nodes.closed(node_id, self._now())

    def tell(self, node_id: str, message: ToNode) -> bool:
        """Send a message in the node's session; False when it has none now."""
        session = self._sessions.get(node_id)
        if session is None or not session.registered:
            return False
        session.say(message)
        return True

    # --- what sessions tell ------------------------------------------------------------------------------------------

    def heard(self, node_id: str) -> None:
        """A message came from a node. Only a member's counts; a node that is down counts again once it is
        registered."""
        session = self._sessions.get(node_id)
        if session is not None and session.registered:
            self._nodes.heard(node_id, self._now())

    async def register(self, node_id: str, hello: Hello) -> bool:
        """The node is ready, at this address, and has this description; False when it is not a member."""

        def write(tx: Tx) -> bool:
            node = tx.get(Node, node_id)
            if node is None:
                return False
            status = NodeStatus(state="ready", addr=hello.advertise)
            if (node.status, node.description) != (status, hello.description):
                tx.update(replace(node, status=status, description=hello.description))
            return True

        known = await self._store.update(write)
        if known:
            self._nodes.heard(node_id, self._now())
        return known

    async def describe(self, node_id: str, description: NodeDescription) -> None:
        """The node has this description now."""

        def write(tx: Tx) -> None:
            node = tx.get(Node, node_id)
            if node is not None and node.description != description:
                tx.update(replace(node, description=description))

        await self._store.update(write)

    def report(self, node_id: str, updates: list[TaskStatusUpdate]) -> None:
        """What the node observed of its tasks."""
        self._reports.add(node_id, updates)

    # --- what the store tells ----------------------------------------------------------------------------------------

    def _changed(self, changes: list[Change]) -> None:
        everybody = False
        for change in changes:
            old, new = change.old, change.new
            if change.kind is Task:
                for node_id in {task.node_id for task in (old, new) if task is not None}:
                    self._mark(node_id, functools.partial(Outbox.mark_task, task_id=change.id))
            elif change.kind is Node:
                everybody |= _as_manager(old) != _as_manager(new)
                self._node_changed(old, new)
            elif change.kind in (Secret, Config):
                for node_id in self._sessions:
                    self._mark(node_id, functools.partial(Outbox.mark_file, kind=change.kind, id_=change.id))
            elif change.kind is Cluster:
                everybody = True
                self._nodes.set_period(heartbeat_period(new))
            elif change.kind is Network:
                everybody = True
        if everybody:
            for node_id in self._sessions:
                self._mark(node_id, Outbox.mark_welcome)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if new is None:
            assert old is not None
            self._nodes.forget(old.id)
            session = self._sessions.get(old.id)
            if session is not None:
                session.end("the node was removed from the cluster")
            self._removed.add(old.id)
            self._wake_orphans.set()
            return
        if old is None:
            self._expect(new)
        self._mark(new.id, Outbox.mark_welcome)

    def _mark(self, node_id: str, mark: Callable[[Outbox], None]) -> None:
        session = self._sessions.get(node_id)
        if session is not None:
            mark(session.outbox)
            session.wake()

    # --- nodes that fall silent --------------------------------------------------------------------------------------

    def _expect(self, node: Node) -> None:
        if node.status.state != "down":
            self._nodes.expect(node.id, self._now())

    async def _watch_nodes(self) -> None:
        while True:
            dead = self._nodes.check(self._now(), self._gossip)
            if dead:
                await self._mark_down(dead)
            await asyncio.sleep(self._nodes.interval)

    async def _mark_down(self, dead: list[tuple[str, str]]) -> None:
        for node_id, message in dead:
            log.warning("node %s is down: %s", node_id, message)
            session = self._sessions.get(node_id)
            if session is not None:
                session.end("nothing was heard of it")  # a live node comes again and says Hello

        def write(tx: Tx, part: Sequence[tuple[str, str]]) -> None:
            for node_id, message in part:
                node = tx.get(Node, node_id)
                if node is not None and node.status.state != "down":
                    tx.update(replace(node, status=replace(node.status, state="down", message=message)))

        try:
            await update_in_parts(self._store, dead, write)
        except ClusterError as error:
            log.warning("%d nodes could not be marked down, trying again: %s", len(dead), error)
            for node_id, _ in dead:
                node = self._store.view().get(Node, node_id)
                if node is not None:
                    self._expect(node)

    # --- tasks that nobody will report on any more -------------------------------------------------------------------

    async def _orphan(self) -> None:
        while True:
            self._wake_orphans.clear()
            try:
                for node_id in sorted(self._removed | self._long_down()):
                    await self._orphan_tasks(node_id)
                    self._removed.discard(node_id)
            except ClusterError as error:
                log.warning("tasks could not be marked orphaned, trying again: %s", error)
                await asyncio.sleep(RETRY)
                continue
            try:
                async with asyncio.timeout(ORPHAN_CHECK):
                    await self._wake_orphans.wait()
            except TimeoutError:
                pass

    def _long_down(self) -> set[str]:
        """Nodes whose last change, at the latest the one to down, was so long ago."""
        return {
            node.id
            for node in self._store.view().all(Node)
            if node.status.state == "down" and self._clock() - parse_rfc3339(node.updated_at) >= ORPHAN_AFTER
        }

    async def _orphan_tasks(self, node_id: str) -> None:
        tasks = [task.id for task in self._store.view().find(Task, node_id=node_id) if _is_unfinished(task)]
        stamp = rfc3339(self._clock())
        await update_in_parts(self._store, tasks, lambda tx, part: _orphan(tx, node_id, part, stamp))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


async def _forever(work: Callable[[], Awaitable[None]]) -> None:
    """Run the work again if it fails: a fault on one node must not end the watch over all."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("a part of the dispatcher failed and starts again")
            await asyncio.sleep(RETRY)


def _orphan(tx: Tx, node_id: str, task_ids: Iterable[str], stamp: str) -> None:
    """Orphan these tasks of a node, if it is gone or down and they are unfinished."""
    node = tx.get(Node, node_id)
    if node is not None and node.status.state != "down":
        return
    for task_id in task_ids:
        task = tx.get(Task, task_id)
        if task is not None and task.node_id == node_id and _is_unfinished(task):
            message = REMOVED_TEXT if node is None else task.status.message
            status = replace(task.status, state=TaskState.ORPHANED, timestamp=stamp, message=message)
            tx.update(replace(task, status=status))


def _is_unfinished(task: Task) -> bool:
    return TaskState.ASSIGNED.rank <= task.status.state.rank <= TaskState.RUNNING.rank


def _nodes_of_tasks(view: Reader) -> set[str]:
    """Nodes that unfinished tasks name, but that are not in the store."""
    tasks: Iterable[Task] = view.all(Task)
    named = {task.node_id for task in tasks if task.node_id and _is_unfinished(task)}
    return {node_id for node_id in named if view.get(Node, node_id) is None}


def _as_manager(node: Node | None) -> str:
    """What other nodes know of a manager."""
    return node.manager_status.addr if node is not None and node.manager_status is not None else ""
