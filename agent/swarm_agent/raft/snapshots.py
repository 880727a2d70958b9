"""Snapshots on disk: files of sealed records, complete or not there.

`INDEX-TERM.snap` holds a record with the `SnapshotMeta`, one for each chunk of the state, and an end mark with their
number. It is written under a temporary name, synced, renamed, and the directory synced: whoever sees the name sees all
of it. Parts are also what travels to other members, so a snapshot is never in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from .errors import REJOIN, LogCorrupt
from .files import File, Files
from .messages import SnapshotMeta
from .sealing import HEAD, Damaged, Sealer, WrongKey, record_size

SUFFIX = ".snap"


class _End(msgspec.Struct, frozen=True, array_like=True):
    chunks: int


_encoder = msgspec.msgpack.Encoder()
_meta_decoder = msgspec.msgpack.Decoder(SnapshotMeta)
_end_decoder = msgspec.msgpack.Decoder(_End)
_CHUNK, _END = b"c", b"e"


def _place(meta: SnapshotMeta) -> int:
    return meta.index


class SnapshotWriter:
    """Writes one snapshot; nothing is seen of it before `finish`."""

    def __init__(self, files: Files, sealer: Sealer, meta: SnapshotMeta, purpose: str) -> None:
        self.meta = meta
        self._files = files
        self._sealer = sealer
        self._name = f"{meta.index:016x}-{meta.term:016x}{SUFFIX}"
        self._temporary = f"{self._name}.{purpose}.tmp"
        self._file: File | None = files.create(self._temporary)
        self._offset = 0
        self.chunks = 0
        self._write(_encoder.encode(meta))

    def add(self, chunk: bytes) -> None:
        """The next part of the state."""
        self._write(_CHUNK + chunk)
        self.chunks += 1

    def finish(self) -> str:
        """Make it durable and visible; its name is returned."""
        assert self._file is not None
        self._write(_END + _encoder.encode(_End(self.chunks)))
        self._file.sync()
        self._close()
        self._files.rename(self._temporary, self._name)
        self._files.sync_dir()
        return self._name

    def abort(self) -> None:
        """Forget it."""
        if self._file is not None:
            self._close()
            self._files.remove(self._temporary)

    def _write(self, plain: bytes) -> None:
        assert self._file is not None
        record = self._sealer.seal(plain, _place(self.meta), self._offset)
        self._file.write(self._offset, record)
        self._offset += len(record)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class SnapshotReader:
    """Reads one snapshot; parts in any order, though in order is quicker. Raises LogCorrupt for anything unreadable."""

    def __init__(self, files: Files, sealer: Sealer, name: str) -> None:
        self._files = files
        self._name = name
        self._sealer = sealer
        index = int(name.split("-")[0], 16)
        self._place = index
        self._file = files.open(name)
        self._offsets = [0]
        self.meta: SnapshotMeta = _meta_decoder.decode(self._record(0))

    def chunk(self, number: int) -> bytes | None:
        """Part `number` of the state; None right behind the last."""
        plain = self._record(number + 1)
        if plain[:1] == _CHUNK:
            return plain[1:]
        if plain[:1] == _END and _end_decoder.decode(plain[1:]).chunks == number:
            return None
        raise self._corrupt("it was cut short")

    def chunks(self) -> Iterator[bytes]:
        """All parts in order."""
        number = 0
        while (data := self.chunk(number)) is not None:
            yield data
            number += 1

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _record(self, number: int) -> bytes:
        while number >= len(self._offsets):
            self._read(self._offsets[-1])
        return self._read(self._offsets[number])

    def _read(self, offset: int) -> bytes:
        try:
            size = record_size(self._file.read(offset, HEAD))
            plain, _ = self._sealer.open(self._file.read(offset, size), 0, self._place, offset)
        except (Damaged, WrongKey) as error:
            raise self._corrupt(f"record at byte {offset}: {error}") from None
        if offset == self._offsets[-1]:
            self._offsets.append(offset + size)
        return plain

    def _corrupt(self, found: str) -> LogCorrupt:
        return LogCorrupt(f"the snapshot {self._files.path}/{self._name} cannot be read: {found}. {REJOIN}")


class Snapshots:
    """The snapshots in a directory."""

    def __init__(self, files: Files, keys: Sequence[bytes]) -> None:
        self._files = files
        self._sealer = Sealer(keys)

    def set_keys(self, keys: Sequence[bytes]) -> None:
        """Write with the first of these from now on, read with all."""
        self._sealer = Sealer(keys)

    def names(self) -> list[str]:
        """All complete ones, oldest first."""
        return [name for name in self._files.names() if name.endswith(SUFFIX)]

    def newest(self) -> SnapshotReader | None:
        """The newest one, opened, or None."""
        names = self.names()
        return SnapshotReader(self._files, self._sealer, names[-1]) if names else None

    def open(self, name: str) -> SnapshotReader | None:
        """The one of this name, or None if it is gone."""
        return SnapshotReader(self._files, self._sealer, name) if name in self._files.names() else None

    def writer(self, meta: SnapshotMeta, purpose: str) -> SnapshotWriter:
        """Begin one. `purpose` tells apart two that are written at once ("own", "received")."""
        return SnapshotWriter(self._files, self._sealer, meta, purpose)

    def prune(self, keep: int) -> None:
        """Remove all but the newest and `keep` older ones, and what was never finished by an earlier process."""
        for name in self.names()[: -(keep + 1)]:
            self._files.remove(name)

    def clean(self) -> None:
        """Remove what an earlier process left unfinished."""
        for name in self._files.names():
            if SUFFIX in name and name.endswith(".tmp"):
                self._files.remove(name)
