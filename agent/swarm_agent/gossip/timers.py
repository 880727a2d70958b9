"""Deadlines in *active time*: the clock stands still while this process is paused.

A process that was stopped for a second (a starved host, a frozen VM, a blocked loop) wakes with every deadline in the
past and the answers it waited for still in the socket. Firing them would accuse healthy peers. So all deadlines are
kept relative to `offset`, the sum of pauses, and a pause found on waking moves every one of them at once. The driver
helps by reading the socket dry before it calls tick.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

ROUNDING = 1e-6  # (at + offset) - offset need not be at


class Timer:
    """A scheduled call; cancel() is enough to forget it."""

    __slots__ = ("args", "at", "call", "order")

    def __init__(self, at: float, order: int, call: Callable[..., None], args: tuple[Any, ...]) -> None:
        self.at = at
        self.order = order
        self.call: Callable[..., None] | None = call
        self.args = args

    def __lt__(self, other: Timer) -> bool:
        return (self.at, self.order) < (other.at, other.order)

    def cancel(self) -> None:
        self.call = None
        self.args = ()


class Timers:
    """`now` is active time as of the last wake()."""

    __slots__ = ("_graced", "_heap", "_order", "_stall", "now", "offset")

    def __init__(self, now: float, stall: float) -> None:
        self._heap: list[Timer] = []
        self._order = 0
        self._graced = False
        self._stall = stall
        self.offset = 0.0
        self.now = now

    def wake(self, clock: float) -> float:
        """Take the clock's time; returns the seconds of a pause just found, else 0."""
        pause = 0.0
        due = self._peek()
        if due is not None:
            late = clock - self.offset - due.at
            if late > self._stall:
                # A moment more, as our peers may have been paused with us and answer only now; but not twice in a row,
                # or a process that is always late would never do anything.
                self.offset += late + (0.0 if self._graced else self._stall)
                self._graced = True
                pause = late
        self.now = max(self.now, clock - self.offset)
        return pause

    def after(self, seconds: float, call: Callable[..., None], *args: Any) -> Timer:
        return self.at(self.now + seconds, call, *args)

    def at(self, when: float, call: Callable[..., None], *args: Any) -> Timer:
        self._order += 1
        timer = Timer(when, self._order, call, args)
        heapq.heappush(self._heap, timer)
        return timer

    def fire(self) -> None:
        """Run what is due now, in order; what those calls schedule for now runs too."""
        while (timer := self._peek()) is not None and timer.at <= self.now + ROUNDING:
            heapq.heappop(self._heap)
            self._graced = False
            call, args = timer.call, timer.args
            timer.cancel()
            if call is not None:
                call(*args)

    def next(self) -> float | None:
        """The clock's time at which fire() has something to do."""
        timer = self._peek()
        return None if timer is None else timer.at + self.offset

    def _peek(self) -> Timer | None:
        heap = self._heap
        while heap and heap[0].call is None:
            heapq.heappop(heap)
        return heap[0] if heap else None
