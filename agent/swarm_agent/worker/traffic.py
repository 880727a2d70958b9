"""Waits for the right moment to let traffic in and to end a server: when it listens, and when nobody awaits an answer.

Both are bounded, and both do nothing for a container whose sockets cannot be seen.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from .sockets import Probe, Socket, busy, listening

log = logging.getLogger(__name__)

POLL = 0.02  # seconds between two looks
LISTEN_PATIENCE = 5.0
"""Seconds that a task with published ports may take until it listens. One that takes longer needs a healthcheck."""
SERVE_PATIENCE = 0.5
"""The same for a task that is reached by its VIP alone, and whose image says that it serves ports."""


class Sight(Protocol):
    """What is looked through (sockets.Probe)."""

    def sockets(self) -> Sequence[Socket]: ...

    def close(self) -> None: ...


class Traffic:
    """See the module. `look` opens a sight of a container by the id of its first process."""

    def __init__(self, look: Callable[[int], Sight | None] = Probe.open) -> None:
        self._look = look

    async def until_listening(self, pid: int, ports: Collection[int], patience: float) -> bool:
        """Wait until one of the ports (any, when there are none) is listened on; False when it is not, in time."""
        return await self._watch(pid, patience, lambda found: bool(_those(listening(found), ports)), times=1)

    async def until_drained(self, pid: int, patience: float) -> bool:
        """Wait until no connection to the server has anything under way; False when some still have, then.

        Two looks must agree: a packet may have been under way at the first.
        """
        known: set[int] = set()
        left: list[Socket] = []

        def idle(found: Sequence[Socket]) -> bool:
            known.update(listening(found))
            left[:] = busy(found, known)
            return not left

        return await self._watch(pid, patience, idle, times=2)

    async def _watch(
        self, pid: int, patience: float, enough: Callable[[Sequence[Socket]], bool], *, times: int
    ) -> bool:
        sight = await asyncio.to_thread(self._look, pid) if pid else None
        if sight is None:
            return True
        end = time.monotonic() + patience
        seen = 0
        try:
            while True:
                seen = seen + 1 if enough(await asyncio.to_thread(sight.sockets)) else 0
                if seen >= times:
                    return True
                if time.monotonic() >= end:
                    return False
                await asyncio.sleep(POLL)
        except OSError as error:
            log.warning("the sockets of process %d cannot be seen: %s", pid, error)
            return True
        finally:
            sight.close()


def _those(found: set[int], wanted: Collection[int]) -> set[int]:
    return found & set(wanted) if wanted else found
