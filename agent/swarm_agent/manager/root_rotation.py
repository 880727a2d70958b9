"""Ends a change of the root certificate when every node has a certificate by the next root. Runs on the leader.

Nodes that are down are waited for: they could not come back otherwise. Who has lost a node for good removes it, which
lets the rotation end.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from swarm_agent.model.errors import ClusterError
from swarm_agent.model.objects import Cluster, Node
from swarm_agent.store.store import Store
from swarm_agent.store.tx import Tx
from swarm_agent.store.view import Change

from .control import roots

log = logging.getLogger(__name__)

RETRY = 1.0  # seconds after a failed write


class RootRotation:
    """The loop around `roots.is_complete`."""

    def __init__(self, store: Store, *, rng: random.Random) -> None:
        self._store = store
        self._rng = rng
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] = lambda: None

    async def start(self) -> None:
        self._unsubscribe = self._store.subscribe(self._changed)
        self._task = asyncio.create_task(self._run(), name="root-rotation")

    async def stop(self) -> None:
        self._unsubscribe()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _changed(self, changes: list[Change]) -> None:
        if any(change.kind in (Cluster, Node) for change in changes):
            self._wake.set()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._pass()
            except ClusterError as error:
                log.info("the root rotation cannot be ended now: %s", error)
                await asyncio.sleep(RETRY)
                continue
            await self._wake.wait()

    async def _pass(self) -> None:
        view = self._store.view()
        due = any(roots.is_complete(cluster, view.all(Node)) for cluster in view.all(Cluster))
        if due and await self._store.update(self._complete):
            log.info("every node has a certificate by the new root; the old root is no longer trusted")

    def _complete(self, tx: Tx) -> bool:
        for cluster in tx.all(Cluster):
            if roots.is_complete(cluster, tx.all(Node)):
                tx.update(roots.completed(cluster, self._rng))
                return True
        return False
