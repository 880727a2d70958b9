"""`Leader`: everything that runs only on the manager that leads.

Made and started when this manager becomes the leader, stopped and thrown away when it ceases to be. Nothing is handed
over: all loops read what they need from the store, so a new leader takes up the work wherever the old one left it.
"""

from __future__ import annotations

import logging
import random
import time
from typing import Protocol

from swarm_agent.store.store import Store

from .allocator import Allocator
from .dispatcher import Dispatcher
from .liveness import Gossip
from .loop import Clock
from .orchestrator import Orchestrator
from .rebalancer import Rebalancer
from .root_rotation import RootRotation
from .scheduler import Scheduler

log = logging.getLogger(__name__)


class Loop(Protocol):
    """A part of the leader's work."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


class Leader:
    """The leader's loops.

    `rng`: where ids come from, `random.SystemRandom()`; `clock`: wall clock in ns since the epoch; `liveness(node_id)`:
    gossip's verdict, True alive, False dead, None unknown. Sessions of nodes go to `dispatcher`.
    """

    def __init__(
        self,
        store: Store,
        *,
        rng: random.Random,
        clock: Clock = time.time_ns,
        liveness: Gossip = lambda _: None,
        gossip_port: int = 7946,
    ) -> None:
        self.dispatcher = Dispatcher(store, clock=clock, liveness=liveness, gossip_port=gossip_port)
        # Tasks flow through them in this order; each only waits for the store, so the order of starting does not
        # matter.
        self._loops: list[Loop] = [
            Orchestrator(store, clock=clock, rng=rng),
            Allocator(store, clock=clock),
            Scheduler(store, clock=clock),
            Rebalancer(store, clock=clock, rng=rng),
            RootRotation(store, rng=rng),
            self.dispatcher,
        ]
        self._started: list[Loop] = []

    async def start(self) -> None:
        """Begin to lead. Returns when all loops run."""
        for loop in self._loops:
            self._started.append(loop)
            await loop.start()
        log.info("leading: %d loops run", len(self._started))

    async def stop(self) -> None:
        """Cease to lead. A write under way may still take effect. Stopping twice is harmless."""
        while self._started:
            await self._started.pop().stop()
