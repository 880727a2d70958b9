"""The engine's part of GET /info, which costs the engine some 5 ms: it runs two programs to learn their versions.

Clients ask for /info with nearly every command about nodes, so an answer is kept for a moment. It is not used while a
request that may change the engine goes through the front door, nor after one: who changes something here sees it at
once. What others do at the engine's own socket is seen after `KEPT` seconds at the latest.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from .engine import EngineClient
from .versions import ApiVersion, show

KEPT = 1.0
"""Seconds for which an answer may be used."""

READS = ("GET", "HEAD")


class EngineInfo:
    """Answers of one engine, by API version."""

    def __init__(self, engine: EngineClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._answers: dict[ApiVersion, tuple[float, dict[str, Any]]] = {}
        self._changing = 0
        self._changes = 0

    @contextlib.contextmanager
    def during(self, method: str) -> Iterator[None]:
        """While a request of this method is carried out."""
        if method in READS:
            yield
            return
        self._changing += 1
        try:
            yield
        finally:
            self._changing -= 1
            self._changes += 1
            self._answers.clear()

    async def get(self, version: ApiVersion) -> dict[str, Any]:
        """The engine's answer; the caller may add members to it. Raises EngineDown and EngineRefused."""
        asked, changes = self._clock(), self._changes
        at, answer = self._answers.get(version, (asked - KEPT, {}))
        if self._changing or asked - at >= KEPT:
            answer = await self._engine.get_json(f"/v{show(version)}/info")
            if not self._changing and self._changes == changes:
                self._answers[version] = asked, answer
        return dict(answer)
