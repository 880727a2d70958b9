"""Sending a snapshot to a member in parts: the decisions of both ends, without I/O.

The sender keeps a window of parts on their way and repeats from the first unanswered one when nothing moves. The
receiver takes parts in order only and answers with the number it wants next, so lost, repeated and reordered parts
need no further rules.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from .messages import SnapshotChunk, SnapshotMeta, SnapshotReply

WINDOW = 8
"""Parts on their way (256 KiB each in the store's snapshots): 2 MiB in the transport's buffers at most."""

REPEAT_TICKS = 10
"""Ticks without an answer before the unanswered parts are sent again."""

GIVE_UP_TICKS = 100
"""Ticks without an answer before the sender gives up. Raft will ask for a snapshot again if it is still needed."""


class Outgoing:
    """One snapshot on its way to one member."""

    __slots__ = ("_acknowledged", "_end", "_next", "_rewound", "_silent", "delivered", "ended", "meta")

    def __init__(self, meta: SnapshotMeta) -> None:
        self.meta = meta
        self.ended = False
        self.delivered = False
        self._acknowledged = 0
        self._next = 0
        self._end: int | None = None
        self._rewound = False
        self._silent = 0

    def next_part(self) -> int | None:
        """The number of the part to send now, or None."""
        if self.ended or self._next >= self._acknowledged + WINDOW:
            return None
        if self._end is not None and self._next >= self._end:
            return None
        number = self._next
        self._next += 1
        return number

    def found_end(self, parts: int) -> None:
        """There are only so many parts."""
        self._end = parts

    def on_reply(self, reply: SnapshotReply) -> None:
        """The receiver told what it has."""
        if reply.index != self.meta.index:
            return
        if reply.done:
            self.ended = self.delivered = True
        elif reply.next > self._acknowledged:
            self._acknowledged = reply.next
            self._next = max(self._next, reply.next)
            self._rewound = False
            self._silent = 0
        elif reply.next == 0 and self._acknowledged:
            self._acknowledged = self._next = 0  # the receiver was restarted
        elif reply.next == self._acknowledged and not self._rewound:
            # It got a later part than the one it wants, which therefore was lost or overtaken. Once is enough.
            self._next = self._acknowledged
            self._rewound = True

    def tick(self) -> None:
        """A tick of the clock."""
        self._silent += 1
        if self._silent >= GIVE_UP_TICKS:
            self.ended = True
        elif self._silent % REPEAT_TICKS == 0:
            self._next = self._acknowledged
            self._rewound = False


class Verdict(enum.Enum):
    """What to do with a part that came in."""

    BEGIN = "begin a new snapshot with it"
    ADD = "add it"
    SKIP = "not the one wanted next"


@dataclass(slots=True)
class Incoming:
    """The snapshot that is being received, if any. `next`: number of the part wanted.

    Parts are joined only if they come from one sender in one term: two members may cut the same state differently.
    """

    source: tuple[SnapshotMeta, int, int] | None = None
    next: int = 0

    def judge(self, chunk: SnapshotChunk) -> Verdict:
        """Decide on a part. Part 0 of another snapshot or sender puts an end to the present one."""
        if self.source != _source(chunk):
            if chunk.number:
                return Verdict.SKIP
            self.source, self.next = _source(chunk), 1
            return Verdict.BEGIN
        if chunk.number != self.next:
            return Verdict.SKIP
        self.next += 1
        return Verdict.ADD

    def wanted(self, chunk: SnapshotChunk) -> int:
        """The number to ask for, of the snapshot that this part belongs to."""
        return self.next if self.source == _source(chunk) else 0

    def reset(self) -> None:
        """It was installed or given up."""
        self.source, self.next = None, 0


def _source(chunk: SnapshotChunk) -> tuple[SnapshotMeta, int, int]:
    return chunk.meta, chunk.sender, chunk.term
