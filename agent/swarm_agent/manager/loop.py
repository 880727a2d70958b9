"""What drives a pure planner: keys that need planning, and the moments at which they will.

A control loop plans *keys* (a service, a node). A key is marked when something about it changed, or planned at a set
time; however often it was marked meanwhile, it is planned once. While plans are being written, marks gather: that is
all the debouncing there is, so an idle loop answers at once and a busy one works in ever larger steps. A plan that
fails is tried again after a growing pause.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable, Iterable

from swarm_agent.model.errors import ClusterError

log = logging.getLogger(__name__)

Clock = Callable[[], int]
"""Wall clock: nanoseconds since the epoch, `time.time_ns` outside simulations. Waiting itself is done by the event
loop's timers."""

WIDTH = 64
"""Keys planned at a time. Their transactions share log entries, so more would only lengthen the wait for the first."""

RETRY_FIRST, RETRY_MOST = 0.1, 2.0
"""Seconds before a failed plan is tried again, doubling. Failures come from a store that has no leader or quorum for a
while."""

LONGEST_SLEEP = 60.0

_MS = 1_000_000


class PlanLoop:
    """Runs `work(key)` for each key that needs it, never twice at once for one key. `name` is for the log."""

    def __init__(self, name: str, work: Callable[[str], Awaitable[None]], *, clock: Clock) -> None:
        self._name = name
        self._work = work
        self._clock = clock
        self._marked: dict[str, None] = {}
        self._due: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []
        self._resting: dict[str, int] = {}
        self._failures: dict[str, int] = {}
        self._event = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def mark(self, key: str) -> None:
        """The key has to be planned. Cheap; may be called from a store subscriber."""
        self._marked[key] = None
        self._event.set()

    def mark_all(self, keys: Iterable[str]) -> None:
        """All these keys have to be planned."""
        for key in keys:
            self.mark(key)

    def wake_at(self, key: str, when: int) -> None:
        """Plan the key at this time (ns), or earlier if it is marked; replaces the time set before."""
        self._due[key] = when
        heapq.heappush(self._heap, (when, key))
        self._event.set()

    def cancel(self, key: str) -> None:
        """Forget the time set for the key."""
        self._due.pop(key, None)

    def rest(self, key: str, until: int) -> None:
        """Do not plan the key before this time (ns); marks wait until then."""
        self._resting[key] = until

    async def start(self) -> None:
        """Begin to work off marked keys."""
        self._task = asyncio.create_task(self._run(), name=f"loop-{self._name}")

    async def stop(self) -> None:
        """Stop at once; a plan that is being written may or may not take effect."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        while True:
            keys = self._take()
            if keys:
                await asyncio.gather(*(self._one(key) for key in keys))
            else:
                await self._sleep()

    def _take(self) -> list[str]:
        now = self._clock()
        while self._heap and self._heap[0][0] <= now:
            when, key = heapq.heappop(self._heap)
            if self._due.get(key) == when:
                del self._due[key]
                self._marked[key] = None
        for key, until in list(self._resting.items()):
            if until <= now:
                del self._resting[key]
            elif key in self._marked:
                del self._marked[key]
                self.wake_at(key, until)
        keys = list(self._marked)[:WIDTH]
        for key in keys:
            del self._marked[key]
        return keys

    async def _sleep(self) -> None:
        self._event.clear()
        timer = None
        if self._heap:
            # At least a millisecond: the wall clock and the loop's timers need not agree exactly. At most a minute:
            # when the wall clock is set, schedules follow it, and the timers do not.
            seconds = min(max((self._heap[0][0] - self._clock()) / 1e9, 0.001), LONGEST_SLEEP)
            timer = asyncio.get_running_loop().call_later(seconds, self._event.set)
        try:
            await self._event.wait()
        finally:
            if timer is not None:
                timer.cancel()

    async def _one(self, key: str) -> None:
        try:
            await self._work(key)
        except Exception as error:
            count = self._failures.get(key, 0)
            self._failures[key] = count + 1
            pause = min(RETRY_FIRST * 2**count, RETRY_MOST)
            if isinstance(error, ClusterError):
                log.info("%s %s: %s; trying again in %.1f s", self._name, key, error, pause)
            else:
                log.exception("%s %s: the plan failed; trying again in %.1f s", self._name, key, pause)
            self.wake_at(key, self._clock() + int(pause * 1000) * _MS)
        else:
            self._failures.pop(key, None)
