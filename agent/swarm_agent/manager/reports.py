"""Task states as nodes report them, written into the store in batches.

The first report is written at once; what comes while it is on its way forms the next batch (at most ENTRY tasks a
transaction). So one report waits for nobody, and a thousand cost a few log entries.

What is accepted (swarm.md §3.1): the observed state only rises, a node speaks only for tasks that are its own, and
only of states that a node can see. Within one state details may change (an error while it retries, ports that became
known), but a task that has ended stays as it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from msgspec.structs import replace

from swarm_agent.model.errors import ClusterError
from swarm_agent.model.objects import Task, TaskStatus
from swarm_agent.model.session import TaskStatusUpdate
from swarm_agent.model.states import TaskState
from swarm_agent.store.store import Store
from swarm_agent.store.tx import Tx

from .parts import ENTRY, update_in_parts

log = logging.getLogger(__name__)

GATHER = 0.002
"""Seconds between the first report and the write: containers of one service start at the same moment."""

RETRY = 0.2

_REPORTABLE = frozenset(
    (
        TaskState.ACCEPTED,
        TaskState.PREPARING,
        TaskState.READY,
        TaskState.STARTING,
        TaskState.RUNNING,
        TaskState.COMPLETE,
        TaskState.SHUTDOWN,
        TaskState.FAILED,
        TaskState.REJECTED,
    )
)


def advance(task: Task, node_id: str, status: TaskStatus) -> Task | None:
    """The task with the status that a node reports, or None when that says nothing new or is not the node's to say."""
    if task.node_id != node_id or status.state not in _REPORTABLE or task.status.state.rank < TaskState.ASSIGNED.rank:
        return None
    old = task.status
    if status.state.rank < old.state.rank:
        return None
    if status.state is old.state and (old.state.is_terminal or replace(status, timestamp=old.timestamp) == old):
        return None
    return replace(task, status=status)


Waiting = dict[tuple[str, str], TaskStatus]
"""The newest report by node and task: nobody's report can displace another's."""


class Reports:
    """Gathers reports and writes them until stopped. What could not be written is tried again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: Waiting = {}
        self._event = asyncio.Event()

    def add(self, node_id: str, updates: Iterable[TaskStatusUpdate]) -> None:
        """A node says this of tasks."""
        for update in updates:
            key = node_id, update.task_id
            known = self._waiting.get(key)
            if known is None or known.state.rank <= update.status.state.rank:
                self._waiting[key] = update.status
        if self._waiting:
            self._event.set()

    async def run(self) -> None:
        """Write what comes, for ever."""
        while True:
            await self._event.wait()
            await asyncio.sleep(GATHER)
            while self._waiting:
                await self._write_some()
            self._event.clear()

    async def _write_some(self) -> None:
        batch = dict(list(self._waiting.items())[:ENTRY])
        for key in batch:
            del self._waiting[key]
        try:
            await update_in_parts(self._store, list(batch.items()), _write)
        except ClusterError as error:
            log.warning("states of %d tasks were not written, trying again: %s", len(batch), error)
            self._waiting = {**batch, **self._waiting}  # what came meanwhile is newer
            await asyncio.sleep(RETRY)


def _write(tx: Tx, batch: Iterable[tuple[tuple[str, str], TaskStatus]]) -> None:
    for (node_id, task_id), status in batch:
        task = tx.get(Task, task_id)
        new = advance(task, node_id, status) if task is not None else None
        if new is not None:
            tx.update(new)
