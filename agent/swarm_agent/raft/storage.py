"""Log and snapshots together: what a member starts from, and what it writes.

Two kinds of files in one directory. The newest snapshot stands for the entries up to its index; a snapshot file is
renamed into place before the log says anything about it, so a crash can leave a snapshot that is newer than the log:
then the log's entries are void.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .errors import REJOIN, LogCorrupt
from .files import Files
from .messages import Entry, HardState, SnapshotMeta
from .snapshots import SnapshotReader, Snapshots
from .wal import SEGMENT_SIZE, Batch, Recorded, Wal


@dataclass(slots=True)
class Loaded:
    """A member's state on disk. `reader` is the open snapshot, if there is one; `empty`: nothing was ever written."""

    hard_state: HardState
    snapshot: SnapshotMeta
    entries: list[Entry]
    reader: SnapshotReader | None
    empty: bool


class Storage:
    """A member's directory. All methods block."""

    def __init__(self, files: Files, keys: Sequence[bytes], member: int, segment_size: int = SEGMENT_SIZE) -> None:
        self._files = files
        self._keys = tuple(keys)
        self._member = member
        self._segment_size = segment_size
        self.snapshots = Snapshots(files, keys)
        self._wal: Wal | None = None

    def load(self) -> Loaded:
        """Read everything, mend what a crash may leave. Raises LogCorrupt."""
        self._wal, recorded = Wal.load(self._files, self._keys, self._member, self._segment_size)
        self.snapshots.clean()
        reader = self.snapshots.newest()
        snapshot = reader.meta if reader is not None else SnapshotMeta()
        entries = self._joined(snapshot, recorded)
        return Loaded(recorded.hard_state, snapshot, entries, reader, recorded.empty and reader is None)

    def write(self, batches: Sequence[Batch]) -> None:
        """Write batches and return when they are on disk."""
        self.wal.append(batches)
        self.wal.sync()

    def bootstrap(self, entries: Sequence[Entry], hard_state: HardState) -> None:
        """The first content of an empty directory."""
        self.write([Batch(hard_state=hard_state, entries=tuple(entries))])

    def rotate(self, keys: Sequence[bytes], entries: Sequence[Entry]) -> None:
        """Put the log under the first of these keys and remove what is under others.

        The newest snapshot must be under it already and stand for everything before `entries`.
        """
        self.wal.rotate(keys, entries)
        self.snapshots.prune(0)

    def compacted(self, index: int, keep_snapshots: int) -> None:
        """A new snapshot is on disk, and entries up to `index` are no longer needed."""
        self.wal.release(index)
        self.snapshots.prune(keep_snapshots)

    def close(self) -> None:
        """Let go of the files and the directory."""
        if self._wal is not None:
            self._wal.close()
        self._files.close()

    @property
    def path(self) -> str:
        """Where the files are, for messages."""
        return self._files.path

    @property
    def wal(self) -> Wal:
        """The log; only after `load`."""
        if self._wal is None:
            raise RuntimeError("the log was not loaded")
        return self._wal

    def _joined(self, snapshot: SnapshotMeta, recorded: Recorded) -> list[Entry]:
        entries = recorded.entries
        if recorded.snapshot is not None and recorded.snapshot.index > snapshot.index:
            raise self._missing(recorded.snapshot.index)
        if entries and entries[0].index > snapshot.index + 1:
            raise self._missing(entries[0].index - 1)
        if not entries or entries[0].index == snapshot.index + 1:
            return entries
        position = snapshot.index - entries[0].index
        if position < len(entries) and entries[position].term == snapshot.term:
            return entries
        # The snapshot is of another history or beyond the log. Say so in the log before anything follows.
        self.write([Batch(snapshot=snapshot)])
        return []

    def _missing(self, index: int) -> LogCorrupt:
        return LogCorrupt(
            f"the log in {self._files.path} begins after entry {index}, and no snapshot there reaches so far. {REJOIN}"
        )
