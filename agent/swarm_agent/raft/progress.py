"""What the leader knows of one member's log, and how much it may send; and the arithmetic of majorities.

Invariant: `0 ≤ match < next`. A member is in one of three states:

    PROBE      where the logs agree is not known: one append at a time, until it is accepted → REPLICATE
    REPLICATE  appends follow each other without waiting, up to a window of bytes and messages; a rejection → PROBE
    SNAPSHOT   it needs entries that are gone: nothing is sent until it has a snapshot (or that failed) → PROBE

The window is counted in bytes, since entries differ a thousandfold in size; it bounds what lies in the transport's
buffers for a member that does not read.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

MAX_INFLIGHT = 64
"""Appends on their way to one member."""

MAX_INFLIGHT_BYTES = 4 * 1024 * 1024
"""Their bytes. One more append may be sent while it is not exceeded."""


class SendState(enum.Enum):
    """See the table above."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


@dataclass(slots=True)
class Progress:
    """One member as the leader sees it. `active`: heard of since the last check of the quorum."""

    next: int
    match: int = 0
    state: SendState = SendState.PROBE
    active: bool = False
    probing: bool = False
    inflight: deque[tuple[int, int]] = field(default_factory=deque)
    inflight_bytes: int = 0

    @property
    def paused(self) -> bool:
        """No further entries may be sent now."""
        if self.state is SendState.PROBE:
            return self.probing
        if self.state is SendState.SNAPSHOT:
            return True
        return len(self.inflight) >= MAX_INFLIGHT or self.inflight_bytes >= MAX_INFLIGHT_BYTES

    def sent(self, last: int, size: int) -> None:
        """An append that ends at `last` was sent; `size` is 0 for one without entries."""
        if self.state is SendState.PROBE:
            self.probing = True
        elif size:
            self.next = last + 1
            self.inflight.append((last, size))
            self.inflight_bytes += size

    def accepted(self, index: int) -> bool:
        """The member's log agrees up to `index`; tells whether that is news."""
        while self.inflight and self.inflight[0][0] <= index:
            self.inflight_bytes -= self.inflight.popleft()[1]
        news = index > self.match
        if news:
            self.match = index
        self.next = max(self.next, index + 1)
        if self.state is SendState.PROBE:
            self.probing = False
            if index >= self.match:
                self._enter(SendState.REPLICATE)
                self.next = self.match + 1
        return news

    def rejected(self, index: int, hint: int) -> bool:
        """The member's log does not agree at `index`, at best at `hint`; False: an old answer, to be ignored."""
        if self.state is SendState.SNAPSHOT:
            return False
        if self.state is SendState.REPLICATE:
            if index <= self.match:
                return False
            self.become_probe()
            return True
        if index != self.next - 1:
            return False
        self.next = max(min(index, hint + 1), self.match + 1)
        self.probing = False
        return True

    def become_probe(self, index: int = 0) -> None:
        """Search anew where the logs agree; the member was given everything up to `index`."""
        self._enter(SendState.PROBE)
        self.next = max(self.match, index) + 1

    def become_snapshot(self) -> None:
        """Send no entries until the sending of a snapshot has ended."""
        self._enter(SendState.SNAPSHOT)

    def _enter(self, state: SendState) -> None:
        self.state = state
        self.probing = False
        self.inflight.clear()
        self.inflight_bytes = 0


class VoteResult(enum.Enum):
    """The outcome of counting votes."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def majority(voters: int) -> int:
    """How many of so many voters decide."""
    return voters // 2 + 1


def agreed(voters: Iterable[int], numbers: Mapping[int, int]) -> int:
    """The highest number that a majority of the voters has reached; 0 without voters.

    With `numbers` the match indexes it is the commit index, with read rounds the newest confirmed round.
    """
    reached = sorted((numbers.get(voter, 0) for voter in voters), reverse=True)
    return reached[majority(len(reached)) - 1] if reached else 0


def tally(voters: Iterable[int], votes: Mapping[int, bool]) -> VoteResult:
    """Whether a majority has said yes, or can no longer do so."""
    ids = tuple(voters)
    yes = sum(1 for voter in ids if votes.get(voter) is True)
    no = sum(1 for voter in ids if votes.get(voter) is False)
    if yes >= majority(len(ids)):
        return VoteResult.WON
    if len(ids) - no < majority(len(ids)):
        return VoteResult.LOST
    return VoteResult.PENDING
