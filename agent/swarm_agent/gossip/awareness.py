"""How far this node trusts itself (Lifeguard §IV-A: local health multiplier).

A node whose own packets go missing should blame itself before others. Each sign of own trouble raises the score, each
probe that went well lowers it; own timers are stretched by score + 1.
"""

from __future__ import annotations


class Awareness:
    """Score 0 (healthy) .. limit-1."""

    __slots__ = ("_limit", "score")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.score = 0

    def add(self, delta: int) -> None:
        """−1 for an answered probe; +1 for a refutation of an accusation, a missing nack, a pause of this process."""
        self.score = max(0, min(self._limit - 1, self.score + delta))

    def scale(self, seconds: float) -> float:
        return seconds * (self.score + 1)
