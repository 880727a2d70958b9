"""How late the event loop runs what is due: the one figure that shows a starved host or a callback that blocks."""

from __future__ import annotations

import asyncio

from .exposition import Family

PERIOD = 0.5  # seconds between looks
BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)


class LoopLag:
    """A histogram of the delays, in seconds."""

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.total = 0.0
        self.worst = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look from now on, on the running loop."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(loop.time() + PERIOD, self._look, loop, loop.time() + PERIOD)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def note(self, late: float) -> None:
        """One delay."""
        place = next((place for place, bound in enumerate(BOUNDS) if late <= bound), len(BOUNDS))
        self.buckets[place] += 1
        self.total += late
        self.worst = max(self.worst, late)

    def _look(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        now = loop.time()
        self.note(max(0.0, now - due))
        self._timer = loop.call_at(now + PERIOD, self._look, loop, now + PERIOD)

    def families(self) -> list[Family]:
        """The histogram, and its worst value since the start."""
        name = "swarm_loop_lag_seconds"
        below = 0
        samples: list[tuple[str, dict[str, str], float]] = []
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self.buckets, strict=True):
            below += count
            samples.append(("_bucket", {"le": bound}, below))
        samples += [("_sum", {}, self.total), ("_count", {}, below)]
        return [
            Family(name, "histogram", "Delay of what was due on the agent's event loop.", list(samples)),
            Family(f"{name}_worst", "gauge", "Longest such delay since the start.", [("", {}, self.worst)]),
        ]
