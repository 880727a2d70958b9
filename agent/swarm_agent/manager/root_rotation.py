"""Ends a change of the root certificate when every node has a certificate by the next root. Runs on the leader.

Nodes that are down are waited for: they could not come back otherwise. Who has lost a node for good removes it, which
lets the rotation end.
"""

from __future__ import annotations

import logging
import random

from swarm_agent.model.objects import Cluster, Node
from swarm_agent.store.store import Store
from swarm_agent.store.tx import Tx

from .control import roots
from .keeper import Keeper

log = logging.getLogger(__name__)


class RootRotation(Keeper):
    """The loop around `roots.is_complete`."""

    NAME = "root-rotation"
    KINDS = (Cluster, Node)

    def __init__(self, store: Store, *, rng: random.Random) -> None:
        super().__init__(store)
        self._rng = rng

    async def look(self) -> None:
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
