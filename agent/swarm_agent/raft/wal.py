"""The log on disk: segments of zeros that are filled from the front with sealed records.

A segment `NNNN.wal` begins with a line that names the format; records (sealing.py) follow without gaps; zeros are the
unused rest. Writing zeros first makes later syncs cheaper: they change no metadata of the file. A record is what one
sync covers: all batches that queued up during the one before. Nothing is ever changed in place: entries that replace
others simply come later.

What a crash can leave, and what is made of it when reading:

* A half-written last record: it was never acknowledged, so it is cut off (overwritten with zeros).
* Anything unreadable with a readable record behind it, or in a segment that is not the last: acknowledged data was
  damaged. It is refused, because leaving entries out would break promises to other members.

That is exact because a record is written only when the one before is synced, and a segment is begun only when the one
before is complete. Hard state is repeated at the start of each segment, so old segments can be removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from .errors import REJOIN, FatalError, LogCorrupt
from .files import File, Files
from .messages import Entry, HardState, SnapshotMeta
from .sealing import MAGIC, Damaged, Sealer, WrongKey, record_end

SEGMENT_SIZE = 8 * 1024 * 1024
"""Zeros written at once take about 10 ms; smaller segments pause writes more often, larger ones longer."""

SUFFIX = ".wal"
_HEADER = b"swarm-agent raft log, format 1\n"
_START = 64


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """One unit of writing. `snapshot` voids all entries before it. `member` is set at the start of a segment."""

    hard_state: HardState | None = None
    snapshot: SnapshotMeta | None = None
    entries: Sequence[Entry] = ()
    member: int = 0


@dataclass(slots=True)
class Recorded:
    """What the segments say. `snapshot`: the last one that was put in place of the log."""

    hard_state: HardState = field(default_factory=HardState)
    snapshot: SnapshotMeta | None = None
    entries: list[Entry] = field(default_factory=list)
    empty: bool = True


@dataclass(slots=True)
class _Segment:
    number: int
    last_index: int = 0

    @property
    def name(self) -> str:
        return f"{self.number:016x}{SUFFIX}"


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Batch])


class Wal:
    """Open with `Wal.load`. All methods block; call them from one thread at a time."""

    def __init__(self, files: Files, keys: Sequence[bytes], member: int, segment_size: int) -> None:
        self._files = files
        self._sealer = Sealer(keys)
        self._member = member
        self._segment_size = segment_size
        self._segments: list[_Segment] = []
        self._file: File | None = None
        self._offset = 0
        self._end = 0
        self._hard_state = HardState()

    @classmethod
    def load(
        cls, files: Files, keys: Sequence[bytes], member: int, segment_size: int = SEGMENT_SIZE
    ) -> tuple[Wal, Recorded]:
        """Read all segments, mend the end, and be ready to append. Raises LogCorrupt."""
        wal = cls(files, keys, member, segment_size)
        recorded = Recorded()
        names = [name for name in files.names() if name.endswith(SUFFIX)]
        for position, name in enumerate(names):
            segment = _Segment(int(name.removesuffix(SUFFIX), 16))
            if wal._segments and segment.number != wal._segments[-1].number + 1:
                raise _corrupt(files, name, 0, f"the segment before it is missing ({wal._segments[-1].name} is there)")
            wal._segments.append(segment)
            wal._read(segment, recorded, is_last=position == len(names) - 1)
        for name in files.names():
            if name.endswith(SUFFIX + ".tmp"):
                files.remove(name)
        wal._hard_state = recorded.hard_state
        return wal, recorded

    def append(self, batches: Sequence[Batch]) -> None:
        """Write batches as one record. They are durable after `sync`, which must come before the next append."""
        for batch in batches:
            if batch.hard_state is not None:
                self._hard_state = batch.hard_state
        size = sum(len(entry.data) + 64 for batch in batches for entry in batch.entries) + 4096
        if self._file is None or self._offset + size > self._end:
            self._begin_segment(size)
            batches = [Batch(hard_state=self._hard_state, member=self._member), *batches]
        assert self._file is not None
        segment = self._segments[-1]
        for batch in batches:
            if batch.entries:
                segment.last_index = max(segment.last_index, batch.entries[-1].index)
        record = self._sealer.seal(_encoder.encode(batches), segment.number, self._offset)
        self._file.write(self._offset, record)
        self._offset += len(record)

    def sync(self) -> None:
        """Return when everything appended is on disk."""
        if self._file is not None:
            self._file.sync()

    def release(self, index: int) -> None:
        """Remove segments that hold nothing but entries up to an index, which a snapshot on disk stands for."""
        removed = False
        while len(self._segments) > 1 and self._segments[0].last_index <= index:
            self._files.remove(self._segments.pop(0).name)
            removed = True
        if removed:
            self._files.sync_dir()

    def rotate(self, keys: Sequence[bytes], entries: Sequence[Entry]) -> None:
        """Go on in a new segment under the first of these keys, and remove all older segments.

        A snapshot on disk must stand for everything before `entries`, which are written again.
        """
        self._sealer = Sealer(keys)
        self.close()
        self.append([Batch(entries=tuple(entries))])
        self.sync()
        for segment in self._segments[:-1]:
            self._files.remove(segment.name)
        del self._segments[:-1]
        self._files.sync_dir()

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    # --- inside ------------------------------------------------------------------------------------------------------

    def _begin_segment(self, size: int) -> None:
        self.close()
        segment = _Segment(self._segments[-1].number + 1 if self._segments else 1)
        end = max(self._segment_size, _START + size + 4096)
        temporary = segment.name + ".tmp"
        file = self._files.create(temporary)
        file.write(0, _HEADER.ljust(_START, b"\0"))
        zeros = bytes(min(end, 1 << 20))
        for offset in range(_START, end, len(zeros)):
            file.write(offset, zeros[: end - offset])
        file.sync()
        self._files.rename(temporary, segment.name)
        self._files.sync_dir()
        self._segments.append(segment)
        self._file, self._offset, self._end = file, _START, end

    def _read(self, segment: _Segment, recorded: Recorded, *, is_last: bool) -> None:
        size = self._files.size(segment.name)
        file = self._files.open(segment.name)
        try:
            data = file.read(0, size)
            if not data.startswith(_HEADER):
                raise _corrupt(self._files, segment.name, 0, "it does not begin as a log of this format")
            offset = _START
            while offset < size:
                try:
                    plain, end = self._sealer.open(data, offset, segment.number, offset)
                    batches = _decoder.decode(plain)
                except Damaged as damage:
                    self._check_end(segment, data, offset, str(damage), is_last=is_last)
                    break
                except WrongKey as error:
                    raise LogCorrupt(
                        f"{self._files.path}/{segment.name}: the record at byte {offset} cannot be decrypted: {error}. "
                        "Give the key that this manager's data was written with, or restore a backup"
                    ) from None
                except msgspec.DecodeError as error:
                    found = f"its content is not understood: {error}"
                    raise _corrupt(self._files, segment.name, offset, found) from None
                for batch in batches:
                    self._replay(segment, batch, recorded, offset)
                recorded.empty = False
                offset = end
            if is_last:
                self._mend(file, data, offset)
                self._file, self._offset, self._end = file, offset, size
        finally:
            if self._file is not file:
                file.close()

    def _check_end(self, segment: _Segment, data: bytes, offset: int, damage: str, *, is_last: bool) -> None:
        """Whether what is unreadable at `offset` is the unused rest or an interrupted write; else raise."""
        if not data[offset : offset + 4096].strip(b"\0") and not data[offset:].strip(b"\0"):
            return
        if not is_last:
            raise _corrupt(self._files, segment.name, offset, f"{damage}, and a later segment exists")
        at = data.find(MAGIC, offset + 1)
        while at >= 0:
            try:
                record_end(data, at)
            except Damaged:
                at = data.find(MAGIC, at + 1)
            else:
                found = f"{damage}, and an intact record follows at byte {at}"
                raise _corrupt(self._files, segment.name, offset, found)

    def _mend(self, file: File, data: bytes, offset: int) -> None:
        rest = data[offset:].rstrip(b"\0")
        if rest:
            file.write(offset, bytes(len(rest)))
            file.sync()

    def _replay(self, segment: _Segment, batch: Batch, recorded: Recorded, offset: int) -> None:
        if batch.member and batch.member != self._member:
            raise FatalError(
                f"{self._files.path} holds the log of raft member {batch.member:x}, not of {self._member:x}; "
                "it was copied from another manager or the node's identity was replaced"
            )
        if batch.hard_state is not None:
            recorded.hard_state = batch.hard_state
        if batch.snapshot is not None:
            recorded.snapshot = batch.snapshot
            recorded.entries.clear()
            segment.last_index = max(segment.last_index, batch.snapshot.index)
        entries = recorded.entries
        if not batch.entries:
            return
        first = batch.entries[0].index
        if entries and first <= entries[-1].index:
            del entries[max(0, first - entries[0].index) :]
        before = entries[-1].index if entries else None
        if before is None and recorded.snapshot is not None:
            before = recorded.snapshot.index
        if before is not None and first != before + 1 and not (not entries and first <= before):
            raise _corrupt(self._files, segment.name, offset, f"entry {first} follows entry {before}")
        entries.extend(batch.entries)
        segment.last_index = max(segment.last_index, batch.entries[-1].index)


def _corrupt(files: Files, name: str, offset: int, found: str) -> LogCorrupt:
    return LogCorrupt(
        f"the log in {files.path} is damaged in {name} at byte {offset}: {found}. What was acknowledged to other "
        f"managers is lost, so this manager must not go on with it. {REJOIN}"
    )
