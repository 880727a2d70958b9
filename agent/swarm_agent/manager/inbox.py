"""What a control loop hears of the store: changes gathered since it last looked, and a wake-up.

Loops are level-triggered, so it does not matter how changes are bundled: while a loop works they gather here, and it
takes all at once. `wait` lets a burst settle for a few milliseconds before it returns, which turns thirty single
writes into one pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any

from swarm_agent.store.store import Store
from swarm_agent.store.view import Change


class Inbox:
    """Changes of some kinds of object. Open from its creation until `close`."""

    def __init__(self, store: Store, kinds: Collection[type[Any]]) -> None:
        self._kinds = frozenset(kinds)
        self._changes: list[Change] = []
        self._event = asyncio.Event()
        self._unsubscribe: Callable[[], None] = store.subscribe(self._receive)

    def take(self) -> list[Change]:
        """All changes since the last call, in order."""
        changes, self._changes = self._changes, []
        self._event.clear()
        return changes

    def wake(self) -> None:
        """Let `wait` return though nothing changed."""
        self._event.set()

    async def wait(self, *, timeout: float | None = None, debounce: float = 0.0) -> None:
        """Return `debounce` seconds after something has changed, or after `timeout` seconds."""
        try:
            # Not wait_for: in Python 3.11 it can swallow a cancellation (bpo-37658), and the loop would never stop.
            async with asyncio.timeout(timeout):
                await self._event.wait()
        except TimeoutError:
            return
        if debounce:
            await asyncio.sleep(debounce)

    def close(self) -> None:
        """Hear no more."""
        self._unsubscribe()

    def _receive(self, changes: list[Change]) -> None:
        wanted = [change for change in changes if change.kind in self._kinds]
        if wanted:
            self._changes += wanted
            self._event.set()
