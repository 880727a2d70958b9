"""How long a suspect has to defend itself (Lifeguard §IV-B).

Starts at the maximum and shrinks with each *independent* accuser, that is one whose own probe failed, logarithmically
down to the minimum. One sick accuser thus gives everybody a long time to be contradicted; a real death gathers
accusers quickly.
"""

from __future__ import annotations

import math

from .config import Config


def minimum(config: Config, members: int) -> float:
    """Shortest suspicion for a group of that many live members, in seconds."""
    return max(config.suspicion_least, config.suspicion_mult * math.log10(max(1, members))) * config.probe_interval


def timeout(low: float, high: float, confirmations: int, wanted: int) -> float:
    """high at no confirmation, low once all that are wanted are in; low at once where too few members exist to
    confirm.
    """
    if wanted < 1:
        return low
    share = math.log(confirmations + 1) / math.log(wanted + 1)
    return max(low, high - (high - low) * share)


LONGEST_ALLOWANCE = 20.0  # seconds; the leader gives up on a silent session before that


def allowance(stall: float) -> float:
    """Shortest suspicion, in seconds, of a member whose process stopped for up to `stall` seconds lately."""
    return min(LONGEST_ALLOWANCE, 1.5 * stall + 0.5) if stall else 0.0


class Suspicion:
    """One running suspicion. `low`, `high`: seconds from `start`."""

    __slots__ = ("accusers", "asked", "high", "low", "start", "wanted")

    def __init__(self, start: float, low: float, high: float, wanted: int, accuser: str) -> None:
        self.start = start
        self.low = low
        self.high = high
        self.wanted = wanted
        self.accusers = {accuser} if accuser else set()
        self.asked = False  # the last direct check before the verdict is under way

    def confirm(self, accuser: str) -> bool:
        """True when this accuser is new and counts."""
        if not accuser or accuser in self.accusers or len(self.accusers) > self.wanted:
            return False
        self.accusers.add(accuser)
        return True

    @property
    def deadline(self) -> float:
        return self.start + timeout(self.low, self.high, max(0, len(self.accusers) - 1), self.wanted)
