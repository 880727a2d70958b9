"""One owner's rows as a log of changes: written by the owner, replicated by everybody else.

Each change has the next sequence number of its owner. A replica knows `watermark`, below which it misses nothing, and
`ahead`, the changes beyond it that came out of order. That pair makes the three hard things simple. *Acknowledging*
is naming the watermark. *Repair* is "give me what comes after my watermark". *Withdrawn rows* need no tombstone to
stay gone: a late copy of an old change is below the watermark and ignored, so tombstones only make repairs small and
may be dropped at any time (`floor`; who is behind it gets a snapshot).

A row that changes twice in quick succession need not be sent twice: the later change lists the earlier ones it
`replaces`, and whoever has it misses none of them.

Traps: a new process of the owner starts a new history (a higher `epoch`). Rows of the earlier one stay visible until
the owner says that it has published everything (`BASELINE`), so that an agent's restart does not make its endpoints
blink; `drop_stale` ends that anyway after a while. A snapshot contains changes beyond its watermark too, else a row
that just changed would vanish until its change arrives.
"""

from __future__ import annotations

from collections.abc import Iterator

from .messages import Delta, DeltaRow, Record
from .types import Row, Version

Key = tuple[str, str]

BASELINE: Key = ("", "")  # a marker in the log, no row: all that its owner has is published
MAX_AHEAD = 8192


class Entry:
    """The latest change of one row. `value` None: withdrawn."""

    __slots__ = ("epoch", "sequence", "value")

    def __init__(self, epoch: int, sequence: int, value: bytes | None) -> None:
        self.epoch = epoch
        self.sequence = sequence
        self.value = value


class Log:
    """Rows of one owner. `heard`: highest version known to exist."""

    __slots__ = ("ahead", "entries", "epoch", "floor", "heard", "owner", "size", "tombstones", "watermark")

    def __init__(self, owner: str, epoch: int = 0) -> None:
        self.owner = owner
        self.epoch = epoch
        self.watermark = 0
        self.ahead: set[int] = set()
        self.entries: dict[Key, Entry] = {}
        self.floor = 0
        self.heard = Version(epoch, 0)
        self.tombstones = 0
        self.size = 0  # bytes of keys and values held

    @property
    def version(self) -> Version:
        return Version(self.epoch, self.watermark)

    @property
    def behind(self) -> bool:
        return self.heard > self.version

    def rows(self, table: str) -> Iterator[Row]:
        """Visible rows of that table, in key order."""
        for (name, key), entry in sorted(self.entries.items()):
            if name == table and entry.value is not None:
                yield Row(self.owner, key, entry.value, Version(entry.epoch, entry.sequence))

    # -- the owner's side

    def write(self, table: str, key: str, value: bytes | None) -> tuple[Record, int]:
        """The next change, and the sequence of the change of this row it comes after (0: none)."""
        old = self.entries.get((table, key))
        self.watermark += 1
        self._put((table, key), Entry(self.epoch, self.watermark, value))
        self.heard = self.version
        return Record(self.owner, self.epoch, self.watermark, table, key, value), old.sequence if old else 0

    def restamp(self, epoch: int) -> None:
        """Own history under a higher epoch: somebody remembers a process of ours that was, by its clock, later."""
        self.epoch = epoch
        for entry in self.entries.values():
            entry.epoch = epoch
        self.heard = self.version

    # -- the replica's side

    def switch(self, epoch: int) -> bool:
        """A new process of the owner. True when rows of the earlier one are now stale."""
        if epoch <= self.epoch:
            return False
        self.epoch = epoch
        self.watermark = 0
        self.ahead.clear()
        self.floor = 0
        self.heard = max(self.heard, Version(epoch, 0))
        return bool(self.entries)

    def merge_record(self, record: Record) -> tuple[bool, bool]:
        """(was news, visible rows changed). The caller has switched epochs before."""
        if record.epoch != self.epoch:
            return False, False
        sequence = record.seq
        self.heard = max(self.heard, Version(record.epoch, sequence))
        if sequence <= self.watermark or sequence in self.ahead or sequence < 1:
            return False, False
        if len(self.ahead) >= MAX_AHEAD:
            return False, False  # a repair will bring it
        changed = self._merge((record.table, record.key), sequence, record.value)
        self.ahead.add(sequence)
        self.ahead.update(n for n in record.replaces if self.watermark < n < sequence)
        return True, self._advance(self.watermark) or changed

    def merge_delta(self, delta: Delta) -> tuple[bool, bool]:
        """(was news, visible rows changed). A delta that starts beyond the watermark still brings its rows."""
        if delta.epoch != self.epoch:
            return False, False
        changed = False
        before = self.version
        top = max((row.seq for row in delta.rows), default=0)
        self.heard = max(self.heard, Version(delta.epoch, max(delta.upto, top)))
        listed: set[Key] = set()
        for row in delta.rows:
            listed.add((row.table, row.key))
            changed |= self._merge((row.table, row.key), row.seq, row.value)
            if row.seq > self.watermark:
                self.ahead.add(row.seq)
        if delta.since > self.watermark:
            return self._settled(before), self._advance(self.watermark) or changed
        if delta.since == 0 and delta.upto > self.watermark:
            for key, entry in list(self.entries.items()):
                if entry.epoch == self.epoch and entry.sequence <= delta.upto and key not in listed:
                    changed |= entry.value is not None
                    self._forget(key)
            self.floor = max(self.floor, delta.upto)  # withdrawals up to here are unknown to us
        moved = self._advance(max(self.watermark, delta.upto))
        return self._settled(before), moved or changed

    def _settled(self, before: Version) -> bool:
        return self.version != before

    def delta_since(self, epoch: int, have: int) -> Delta:
        """What brings a replica at that version to ours."""
        if epoch == self.epoch and have >= self.floor and have > 0:
            since = min(have, self.watermark)
            chosen = [
                (e.sequence, k, e) for k, e in self.entries.items() if e.sequence > since and e.epoch == self.epoch
            ]
        else:
            since = 0
            chosen = [
                (e.sequence, k, e)
                for k, e in self.entries.items()
                if e.epoch == self.epoch and (e.value is not None or e.sequence > self.watermark)
            ]
        chosen.sort(key=lambda item: item[0])
        rows = tuple(DeltaRow(sequence, key[0], key[1], entry.value) for sequence, key, entry in chosen)
        return Delta(self.owner, self.epoch, since, self.watermark, rows)

    def drop_stale(self) -> bool:
        """Forget rows of earlier processes; True when visible ones went."""
        stale = [(key, entry.value) for key, entry in self.entries.items() if entry.epoch < self.epoch]
        for key, _ in stale:
            self._forget(key)
        return any(value is not None for _, value in stale)

    @property
    def has_stale(self) -> bool:
        return any(entry.epoch < self.epoch for entry in self.entries.values())

    def trim(self, limit: int) -> None:
        """Drop the oldest half of the tombstones when there are more than `limit`."""
        if self.tombstones <= limit:
            return
        graves = sorted(
            (e.sequence, k)
            for k, e in self.entries.items()
            if e.value is None and e.epoch == self.epoch and e.sequence <= self.watermark
        )
        for sequence, key in graves[: len(graves) // 2 + 1]:
            self._forget(key)
            self.floor = max(self.floor, sequence)

    # -- inner

    def _merge(self, key: Key, sequence: int, value: bytes | None) -> bool:
        old = self.entries.get(key)
        if old is not None and (old.epoch, old.sequence) >= (self.epoch, sequence):
            return False
        self._put(key, Entry(self.epoch, sequence, value))
        return key != BASELINE and (old.value if old else None) != value

    def _put(self, key: Key, entry: Entry) -> None:
        self._forget(key)
        self.entries[key] = entry
        self.size += len(key[0]) + len(key[1]) + len(entry.value or b"")
        if entry.value is None:
            self.tombstones += 1

    def _forget(self, key: Key) -> None:
        old = self.entries.pop(key, None)
        if old is not None:
            self.size -= len(key[0]) + len(key[1]) + len(old.value or b"")
            if old.value is None:
                self.tombstones -= 1

    def _advance(self, watermark: int) -> bool:
        """Move the watermark over what is there; True when that dropped visible stale rows."""
        self.watermark = watermark
        while self.watermark + 1 in self.ahead:
            self.watermark += 1
            self.ahead.discard(self.watermark)
        if self.ahead:
            self.ahead = {n for n in self.ahead if n > self.watermark}
        base = self.entries.get(BASELINE)
        if base is not None and base.epoch == self.epoch and base.sequence <= self.watermark and self.has_stale:
            return self.drop_stale()
        return False
