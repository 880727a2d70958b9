"""Keeps a manager's keys on disk under the cluster's unlock key, and the keys of its raft log young.

The unlock key is in the cluster object, so every manager learns of a new one through the log, and does the same: first
everything under the new lock, then a new raft key, since the old one was on disk under another lock, or none. A raft
key that has been used for KEY_LIFE is replaced too. Level-triggered: what a crash interrupted is done after the start.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from swarm_agent.manager.keeper import Keeper
from swarm_agent.model import times
from swarm_agent.model.objects import Cluster
from swarm_agent.pki import locking
from swarm_agent.raft.driver import RaftNode
from swarm_agent.store.store import Store

from .certificates import CertificateHolder
from .keys import RaftKeys, lock_name

log = logging.getLogger(__name__)

KEY_LIFE = 7 * 24 * 3600 * times.SECOND  # far below the 2³² records for which a key is good
LOOK = 3600.0  # seconds between looks at the key's age
RETRY = 5.0


def turn_is_due(keys: RaftKeys, lock: bytes | None, now: int) -> bool:
    """Whether the raft log needs a new key: a turn was interrupted, the key is old, or the lock is a newer one. Pure;
    `now` in nanoseconds."""
    if len(keys.keys) > 1 or not keys.since or now - times.parse_rfc3339(keys.since) >= KEY_LIFE:
        return True
    return lock is not None and keys.lock != lock_name(lock)


class LockKeeper(Keeper):
    """Runs on every manager. `relocked()` is called when the lock was changed: the TLS key should be a new one too."""

    NAME = "lock-keeper"
    KINDS = (Cluster,)

    def __init__(
        self, store: Store, raft: RaftNode, certificates: CertificateHolder, *, relocked: Callable[[], None]
    ) -> None:
        super().__init__(store, every=LOOK, retry=RETRY)
        self._raft = raft
        self._certificates = certificates
        self._relocked = relocked

    async def look(self) -> None:
        clusters = self._store.view().all(Cluster)
        if not clusters:
            return
        keys, wanted = self._certificates.keys, locking.parse_unlock_key(clusters[0].unlock_key)
        if wanted != keys.lock:
            await self._certificates.change_lock(wanted)
            log.info("this manager's keys are %s", "locked" if wanted is not None else "no longer locked")
            if wanted is not None:
                self._relocked()
        if turn_is_due(await asyncio.to_thread(keys.raft_keys), wanted, time.time_ns()):
            turning = await asyncio.to_thread(keys.begin_turning)
            await self._raft.rotate_keys(turning.raw)
            await asyncio.to_thread(keys.end_turning, turning, lock_name(wanted))
