"""Keeps a manager's keys on disk under the cluster's unlock key, and the keys of its raft log young.

The unlock key is in the cluster object, so every manager learns of a new one through the log, and does the same: first
everything under the new lock, then a new raft key, since the old one was on disk under another lock, or none. A raft
key that has been used for KEY_LIFE is replaced too. Level-triggered: what a crash interrupted is done after the start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from swarm_agent.model import times
from swarm_agent.model.objects import Cluster
from swarm_agent.pki import locking
from swarm_agent.raft.driver import RaftNode
from swarm_agent.store.store import Store
from swarm_agent.store.view import Change

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


class LockKeeper:
    """Runs on every manager. `relocked()` is called when the lock was changed: the TLS key should be a new one too."""

    def __init__(
        self, store: Store, raft: RaftNode, certificates: CertificateHolder, *, relocked: Callable[[], None]
    ) -> None:
        self._store = store
        self._raft = raft
        self._certificates = certificates
        self._relocked = relocked
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] = lambda: None

    def start(self) -> None:
        self._unsubscribe = self._store.subscribe(self._changed)
        self._task = asyncio.create_task(self._run(), name="lock-keeper")

    async def stop(self) -> None:
        self._unsubscribe()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _changed(self, changes: list[Change]) -> None:
        if any(change.kind is Cluster for change in changes):
            self._wake.set()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            pause = LOOK
            try:
                await self._pass()
            except (OSError, ValueError) as error:
                log.error("the keys on disk cannot be put under their lock, trying again: %s", error)
                pause = RETRY
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _pass(self) -> None:
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
