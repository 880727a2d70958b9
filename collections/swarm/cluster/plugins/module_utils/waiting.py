# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting inside a module: one trip to the host, and the last observed state when it was in vain."""

from __future__ import annotations

import time


class TimedOut(Exception):
    """The state that was waited for did not come. `last` is what was seen last."""

    def __init__(self, last):
        super().__init__(str(last))
        self.last = last


def until(ask, timeout, every=0.2):
    """Call `ask` until its first result is true; it returns (done, observation). Returns the observation."""
    deadline = time.monotonic() + timeout
    while True:
        done, seen = ask()
        if done:
            return seen
        if time.monotonic() >= deadline:
            raise TimedOut(seen)
        time.sleep(every)
