"""The log in memory: entries after the last compaction, how far they are on disk, committed and applied.

    base            stable ≤ handed          last
     │ entries ...    │   being written  │ new │
     ┴────────────────┴──────────────────┴─────┘
            applied ≤ min(committed, stable)

Indexes rise: `applied ≤ committed ≤ last`, `stable ≤ handed ≤ last`. Only what is on this member's disk is applied.

Membership follows the log: the newest MEMBERSHIP entry counts, committed or not (Raft thesis §4.1), so a cut of the
log takes a membership back. That is why a change needs no extra agreement, and why there may be only one uncommitted.

Trap (why `in_flight`): writes are acknowledged later. If entries 3-5 are being written, cut, and written again, the
first acknowledgement must not count for the second writing, though index and term may be the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from .errors import InvariantBroken
from .messages import Entry, EntryKind, HardState, Membership, SnapshotMeta, decode_membership

ENTRY_OVERHEAD = 24
"""Bytes that an entry costs beside its data, for limits."""


def entry_size(entry: Entry) -> int:
    """Bytes of an entry, about, for limits."""
    return len(entry.data) + ENTRY_OVERHEAD


class Log:
    """See above. `snapshot` is what stands for everything before the first entry; `entries` must follow its index."""

    __slots__ = (
        "_base_index",
        "_base_term",
        "_entries",
        "_in_flight",
        "_memberships",
        "applied",
        "committed",
        "handed",
        "stable",
    )

    def __init__(self, snapshot: SnapshotMeta, entries: Sequence[Entry], commit: int = 0) -> None:
        self._base_index = snapshot.index
        self._base_term = snapshot.term
        if entries and entries[0].index <= snapshot.index:  # older entries kept for slow followers
            self._base_index = entries[0].index - 1
            self._base_term = 0  # unknown: `term` answers None for it
        self._entries: list[Entry] = list(entries)
        self._memberships: list[tuple[int, Membership]] = [(snapshot.index, snapshot.membership)]
        for entry in self._entries:
            if entry.index > snapshot.index and entry.kind is EntryKind.MEMBERSHIP:
                self._memberships.append((entry.index, decode_membership(entry.data)))
        self.applied = snapshot.index
        self.committed = min(max(commit, snapshot.index), self.last)
        self.stable = self.handed = self.last
        self._in_flight: dict[int, int] = {}

    # --- reading -----------------------------------------------------------------------------------------------------

    @property
    def first(self) -> int:
        """Index of the first entry that is here."""
        return self._base_index + 1

    @property
    def last(self) -> int:
        """Index of the last entry, or of the snapshot if there is none."""
        return self._base_index + len(self._entries)

    @property
    def last_term(self) -> int:
        """Term of the last entry, or of the snapshot."""
        return self._entries[-1].term if self._entries else self._base_term

    @property
    def membership(self) -> Membership:
        """The newest membership in the log: the one that counts."""
        return self._memberships[-1][1]

    @property
    def membership_index(self) -> int:
        """Index of the entry that made it."""
        return self._memberships[-1][0]

    @property
    def committed_membership(self) -> Membership:
        """The newest membership that is known to be committed."""
        return self.membership_at(self.committed)

    def membership_at(self, index: int) -> Membership:
        """The membership as of an index."""
        found = self._memberships[0][1]
        for at, membership in self._memberships:
            if at > index:
                break
            found = membership
        return found

    def term(self, index: int) -> int | None:
        """The term of the entry at an index; None if it is not known (compacted away, or not there yet)."""
        if index == self._base_index:
            return self._base_term if self._base_term or index == 0 else None
        position = index - self._base_index - 1
        return self._entries[position].term if 0 <= position < len(self._entries) else None

    def slice(self, low: int, high: int, max_bytes: int) -> list[Entry]:
        """Entries low..high (both included) up to a size, but at least one."""
        start = low - self._base_index - 1
        found: list[Entry] = []
        size = 0
        for entry in self._entries[start : high - self._base_index]:
            size += entry_size(entry)
            if found and size > max_bytes:
                break
            found.append(entry)
        return found

    def up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a log that ends so is at least as complete as this one (Raft §5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last)

    def agreement(self, index: int, term: int) -> tuple[int, int]:
        """The last place at or before `index` whose term is at most `term`: where two logs may agree at best.

        Given as (index, term); it lets both sides skip a whole term at once when they search where their logs part.
        """
        index = min(index, self.last)
        while index > self._base_index:
            found = self.term(index)
            if found is None or found <= term:
                return index, found or 0
            index -= 1
        return index, self.term(index) or 0

    # --- writing -----------------------------------------------------------------------------------------------------

    def append(self, entry: Entry) -> None:
        """Add the leader's own next entry."""
        self._entries.append(entry)
        if entry.kind is EntryKind.MEMBERSHIP:
            self._memberships.append((entry.index, decode_membership(entry.data)))

    def merge(self, entries: Sequence[Entry]) -> None:
        """Take over a leader's entries whose predecessor is here. Entries that contradict are cut with all after
        them.
        """
        for position, entry in enumerate(entries):
            if entry.index <= self.last and self.term(entry.index) == entry.term:
                continue
            if entry.index <= self._base_index:
                continue  # compacted, hence committed
            if entry.index <= self.last:
                self._cut(entry.index)
            for new in entries[position:]:
                self.append(new)
            return

    def _cut(self, index: int) -> None:
        if index <= self.committed:
            raise InvariantBroken(
                f"raft: a leader wants to replace entry {index}, but entries up to {self.committed} are committed; "
                "a member has lost acknowledged data"
            )
        del self._entries[index - self._base_index - 1 :]
        while self._memberships[-1][0] >= index:
            self._memberships.pop()
        self.stable = min(self.stable, index - 1)
        self.handed = min(self.handed, index - 1)
        self._in_flight = {number: min(upto, index - 1) for number, upto in self._in_flight.items()}

    def commit_to(self, index: int) -> bool:
        """Raise the commit index (never beyond what is here); tells whether it moved."""
        index = min(index, self.last)
        if index <= self.committed:
            return False
        self.committed = index
        return True

    def hand_out(self, number: int) -> list[Entry]:
        """Entries to be written to disk now; `written(number)` acknowledges them."""
        new = self._entries[self.handed - self._base_index :]
        self.handed = self.last
        self._in_flight[number] = self.handed
        return new

    def written(self, number: int) -> None:
        """What was handed out under this number is on disk."""
        self.stable = max(self.stable, min(self._in_flight.pop(number, 0), self.last))

    def take_committed(self, max_bytes: int) -> list[Entry]:
        """The next entries to apply: committed and on this member's disk."""
        upto = min(self.committed, self.stable)
        if upto <= self.applied:
            return []
        entries = self.slice(self.applied + 1, upto, max_bytes)
        self.applied = entries[-1].index
        return entries

    def compact(self, index: int) -> None:
        """Forget entries up to an index; they must be applied and covered by a snapshot."""
        index = min(index, self.applied)
        if index <= self._base_index:
            return
        self._base_term = self.term(index) or 0
        del self._entries[: index - self._base_index]
        self._base_index = index
        while len(self._memberships) > 1 and self._memberships[1][0] <= index:
            self._memberships.pop(0)

    def restore(self, snapshot: SnapshotMeta) -> None:
        """Put a leader's snapshot in place of the whole log. Its file is on disk already."""
        self._entries.clear()
        self._base_index, self._base_term = snapshot.index, snapshot.term
        self._memberships = [(snapshot.index, snapshot.membership)]
        self.committed = self.applied = snapshot.index
        self.stable = self.handed = snapshot.index
        self._in_flight = dict.fromkeys(self._in_flight, 0)

    def hard_state(self, term: int, vote: int) -> HardState:
        """What to write beside the entries."""
        return HardState(term, vote, self.committed)
