# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Adds up time by name, for the callback that tells where a run's time went."""

from __future__ import annotations

import time


class Stopwatch:
    """Time by task name: from one task's start to the next. `clock` gives seconds."""

    def __init__(self, clock=time.monotonic):
        self.clock = clock
        self.begun = clock()
        self.totals = {}
        self.counts = {}
        self._running = None

    def start(self, name):
        """A task begins, and with it the one before has ended."""
        self.stop()
        self._running = name, self.clock()

    def stop(self):
        """The task that runs has ended."""
        if self._running:
            name, since = self._running
            self.totals[name] = self.totals.get(name, 0.0) + self.clock() - since
            self.counts[name] = self.counts.get(name, 0) + 1
        self._running = None

    def lines(self, show):
        """The table, longest first, and the sum above it."""
        self.stop()
        longest = sorted(self.totals.items(), key=lambda item: (-item[1], item[0]))
        shown = longest[:show] if show else longest
        head = f"{self.clock() - self.begun:.1f} s in all, {sum(self.counts.values())} tasks"
        return [head] + [
            f"{seconds:7.1f} s  {name}" + (f" ({self.counts[name]} times)" if self.counts[name] > 1 else "")
            for name, seconds in shown
        ]
