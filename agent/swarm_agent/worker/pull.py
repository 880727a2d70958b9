"""Getting images: pulls shared between tasks, and patience only where it helps.

Swarm pulls before each task and ignores a failed pull when the image is there. So do we, but a registry that could not
be reached a moment ago is not asked again for `FORGET_SECONDS`: else each of thirty tasks would wait for the same
time-out. A refusal by a registry that answers (unknown image, wrong password) is never remembered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from .container import is_digest, registry_host
from .engine import EngineApi, EngineError, EngineGone

log = logging.getLogger(__name__)

FORGET_SECONDS = 10.0
# Without any sign from the registry: with the image at hand a task need not wait long; else there is no other hope.
STALL_PRESENT, STALL_ABSENT = 10.0, 60.0
_UNREACHABLE = (
    "dial tcp", "no such host", "i/o timeout", "connection refused", "network is unreachable", "no route to host",
    "request canceled", "tls handshake timeout", "deadline exceeded", "server misbehaving", "temporary failure",
    "connection reset", "gave no sign",
)  # fmt: skip


def unreachable(error: EngineError) -> bool:
    """True when the text says that the registry was not reached, rather than that it refused."""
    text = error.message.lower()
    return any(sign in text for sign in _UNREACHABLE)


class Puller:
    """Pulls by one engine. `clock` is monotonic seconds."""

    def __init__(self, engine: EngineApi, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._clock = clock
        self._pulls: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._unreachable: dict[str, tuple[float, EngineError]] = {}

    async def fetch(self, reference: str, auth: str) -> None:
        """Have the newest image, or any, or none: creating the container tells. Raises `EngineGone` only.

        `reference` has a tag or digest; `auth` is X-Registry-Auth as the client sent it.
        """
        present = await self._engine.image_exists(reference)
        if present and is_digest(reference):
            return
        host = registry_host(reference)
        known = self._unreachable.get(host)
        if known is not None and self._clock() < known[0]:
            return
        key = (reference, auth)
        pull = self._pulls.get(key)
        if pull is None:
            stall = STALL_PRESENT if present else STALL_ABSENT
            pull = asyncio.create_task(self._engine.pull(reference, auth, stall), name=f"pull {reference}")
            self._pulls[key] = pull
            pull.add_done_callback(lambda done: self._pulled(key, host, done))
        try:
            await asyncio.shield(pull)  # others wait for it too
        except EngineGone:
            raise
        except EngineError as error:
            log.debug("pull of %s failed: %s", reference, error)

    def _pulled(self, key: tuple[str, str], host: str, done: asyncio.Task[None]) -> None:
        self._pulls.pop(key, None)
        error = None if done.cancelled() else done.exception()
        if isinstance(error, EngineGone):
            return
        if isinstance(error, EngineError):
            log.warning("pull of %s failed: %s", key[0], error)
            if unreachable(error):
                self._unreachable[host] = (self._clock() + FORGET_SECONDS, error)
        elif error is None:
            self._unreachable.pop(host, None)

    async def close(self) -> None:
        pulls = list(self._pulls.values())
        for pull in pulls:
            pull.cancel()
        await asyncio.gather(*pulls, return_exceptions=True)
