"""An asyncio event loop whose time passes only when nothing is left to do: hours of timers in milliseconds, the same
every time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from swarm_agent.model.times import SECOND

T = TypeVar("T")

EPOCH = 1_750_000_000 * SECOND


class _Selector(selectors.SelectSelector):
    """Waits for nothing: the time it was to wait is added to the loop's clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        found = super().select(0)
        if not found:
            if timeout is None:
                raise RuntimeError("everything waits, and no timer is set: the simulation is stuck")
            self.now += max(timeout, 0.0)
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """`clock()` is its wall clock: ns since the epoch, rising with each call as real clocks do."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        self._last = 0
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now

    def clock(self) -> int:
        self._last = max(self._last + 1000, EPOCH + int(self._virtual.now * SECOND))
        return self._last


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def clock() -> int:
    """The running loop's wall clock."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop.clock()
