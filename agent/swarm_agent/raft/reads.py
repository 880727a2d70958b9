"""Linearizable reads without writing to the log (Raft thesis §6.4): the leader proves that it still leads, then the
commit index of when it asked is a safe point to read at.

The proof is a *round*: a number sent with heartbeats; when a majority has echoed it (or a later one), every read that
was taken into the round before its number was first sent is confirmed. Reads that come while a round is open wait for
the next, so any number of reads costs at most one round at a time.

Trap: a number must never be used for a read that came after it was first sent: late echoes of the first sending would
confirm the newcomer with a proof from before it was asked (etcd #20418: stale reads after a pause). Numbers only rise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from .progress import agreed

MAX_READS = 10_000
"""Reads that wait at the leader; more are dropped, and their callers ask again."""


@dataclass(frozen=True, slots=True)
class Read:
    """A read asked for by `member` (may be the leader itself) under an id of its own."""

    member: int
    id: int


@dataclass(slots=True)
class Reads:
    """The leader's reads of one term. `round`: number of the newest round, 0 before the first."""

    round: int = 0
    index: int = 0
    waiting: list[Read] = field(default_factory=list)
    opened: list[Read] = field(default_factory=list)
    echoed: dict[int, int] = field(default_factory=dict)

    def add(self, read: Read) -> None:
        """A read that takes part in the next round."""
        if len(self.waiting) < MAX_READS:
            self.waiting.append(read)

    def begin(self, commit: int) -> bool:
        """Open a round for what waits, at this commit index, unless one is open; True: send its number to all."""
        if self.opened or not self.waiting:
            return False
        self.round += 1
        self.index = commit
        self.opened, self.waiting = self.waiting, []
        return True

    def echo(self, member: int, number: int) -> None:
        """A member echoed a round's number."""
        self.echoed[member] = max(number, self.echoed.get(member, 0))

    def confirmed(self, leader: int, voters: Iterable[int]) -> list[Read]:
        """Reads of the open round if a majority (the leader included) has echoed it; they may be answered at
        `index`.
        """
        if not self.opened or agreed(voters, {**self.echoed, leader: self.round}) < self.round:
            return []
        done, self.opened = self.opened, []
        return done
