"""The broadcast queue: which facts ride on the next packet.

A fact is sent L = ceil(ln N + 11.5) times by each node that learns it, to random members; then it is retired. Base-10
ceilings as in memberlist are weakest just below each power of ten (1 of 80 broadcasts misses somebody at 50 nodes),
this L misses about 1 in 100,000 at any size. Three classes share one packet budget, in order: membership, own rows,
relayed rows. So news about who lives is never late behind rows, and a busy relay does not starve its own news (moby
#50193). Within a class the least-sent goes first.

Each entry has a subject; a newer entry of the same subject replaces the older. Traps: an entry may have nobody left
to go to (all peers are known to have it), so entries also age by rounds; and an entry larger than a packet is never
queued.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Hashable


class Rank(enum.IntEnum):
    MEMBERSHIP = 0
    OWN = 1
    RELAYED = 2


def sends(members: int, margin: float, per_peer: int) -> int:
    """How often one node sends one fact in a group of that many live members, itself included."""
    if members < 2:
        return 0
    return min(math.ceil(math.log(members) + margin), per_peer * (members - 1))


class Entry:
    __slots__ = ("data", "group", "order", "rank", "rounds", "sent", "skip", "subject")

    def __init__(
        self, subject: Hashable, group: str, rank: Rank, data: bytes, order: int, skip: frozenset[str]
    ) -> None:
        self.subject = subject
        self.group = group
        self.rank = rank
        self.data = data
        self.order = order
        self.skip = skip
        self.sent = 0
        self.rounds = 0


def _least_sent(entry: Entry) -> tuple[int, int]:
    return entry.sent, -entry.order


class Queue:
    """`frame` is the cost of framing one message in a packet, in bytes."""

    def __init__(self, limit: int, frame: int) -> None:
        self._entries: tuple[dict[Hashable, Entry], ...] = ({}, {}, {})
        self._groups: dict[str, set[Hashable]] = {}
        self._limit = limit
        self._frame = frame
        self._order = 0
        self.dropped = 0

    def __len__(self) -> int:
        a, b, c = self._entries
        return len(a) + len(b) + len(c)

    def lengths(self) -> tuple[int, int, int]:
        a, b, c = self._entries
        return len(a), len(b), len(c)

    def __contains__(self, subject: Hashable) -> bool:
        return any(subject in entries for entries in self._entries)

    def put(self, subject: Hashable, group: str, rank: Rank, data: bytes, skip: frozenset[str] = frozenset()) -> None:
        """Queue a fact, replacing an older one of that subject. `skip`: members known to have it."""
        self.cancel(subject)
        self._order += 1
        entries = self._entries[rank]
        if len(entries) >= self._limit:
            worn = max(entries.values(), key=_least_sent)
            self.cancel(worn.subject)
            self.dropped += 1
        entries[subject] = Entry(subject, group, rank, data, self._order, skip)
        self._groups.setdefault(group, set()).add(subject)

    def cancel(self, subject: Hashable) -> bool:
        for entries in self._entries:
            entry = entries.pop(subject, None)
            if entry is not None:
                group = self._groups[entry.group]
                group.discard(subject)
                if not group:
                    del self._groups[entry.group]
                return True
        return False

    def cancel_group(self, group: str) -> None:
        """Drop all facts of that group, e.g. all accusations against a member that refuted them."""
        for subject in list(self._groups.get(group, ())):
            self.cancel(subject)

    def fresh(self) -> bool:
        """Whether some fact was not sent at all yet."""
        return any(entry.sent == 0 and entry.rounds == 0 for entries in self._entries for entry in entries.values())

    def fill(self, to: str, budget: int, limit: int, fresh_only: bool = False) -> list[bytes]:
        """Messages for one packet to that member, at most `budget` bytes with framing; charges and retires entries."""
        picked: list[bytes] = []
        for entries in self._entries:
            if not entries:
                continue
            worn: list[Entry] = []
            for entry in sorted(entries.values(), key=_least_sent) if len(entries) > 1 else entries.values():
                if fresh_only and (entry.sent or entry.rounds):
                    continue
                cost = len(entry.data) + self._frame
                if cost > budget or to in entry.skip:
                    continue
                budget -= cost
                picked.append(entry.data)
                entry.sent += 1
                if entry.sent >= limit:
                    worn.append(entry)
            for entry in worn:
                self.cancel(entry.subject)
        return picked

    def end_round(self, limit: int) -> None:
        """One gossip tick is over: retire what had its chances though nobody was left to take it."""
        for entries in self._entries:
            for entry in list(entries.values()):
                entry.rounds += 1
                if entry.rounds > 2 * limit:
                    self.cancel(entry.subject)
