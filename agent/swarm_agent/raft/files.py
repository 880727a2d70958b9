"""The few file operations that the log needs, behind an interface that the simulator's disk model implements too.

All of them block and are called from a worker thread. Nothing is durable before `sync` of the file, no name before
`sync_dir`. A failed write or sync is never repeated: after an error the kernel may drop the data and report success
the next time, so it raises `DiskFailed`, which ends the process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from .errors import DiskFailed, FatalError


class File(Protocol):
    """An open file."""

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from an offset."""

    def write(self, offset: int, data: bytes) -> None:
        """All of `data` at an offset."""

    def sync(self) -> None:
        """Return when the file's content is on disk."""

    def close(self) -> None:
        """Let go of the file."""


class Files(Protocol):
    """One directory."""

    @property
    def path(self) -> str:
        """Where it is, for messages."""

    def names(self) -> list[str]:
        """Names of the files in it, sorted."""

    def size(self, name: str) -> int:
        """A file's length in bytes."""

    def create(self, name: str) -> File:
        """A new empty file, readable by its owner only. An older one of the name is emptied."""

    def open(self, name: str) -> File:
        """An existing file, for reading and writing."""

    def rename(self, old: str, new: str) -> None:
        """Give a file its final name, atomically."""

    def remove(self, name: str) -> None:
        """Delete a file."""

    def sync_dir(self) -> None:
        """Return when names in the directory are on disk."""

    def close(self) -> None:
        """Let go of the directory."""


class OsFiles:
    """A directory of the host, made if missing (0700) and locked: a second process on the same log is refused."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._dir = Path(path)
        with _guard("create the directory", self._dir):
            self._dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(self._dir, os.O_RDONLY | os.O_DIRECTORY)
        with _guard("sync", self._dir.parent):  # a log in a directory whose own name is lost is lost too
            parent = os.open(self._dir.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(parent)
            finally:
                os.close(parent)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise FatalError(f"{self._dir} is in use by another process; only one may run on it") from None

    @property
    def path(self) -> str:
        """See `Files`."""
        return str(self._dir)

    def close(self) -> None:
        """Unlock the directory. Once more is harmless: the number may be another file's by then."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def names(self) -> list[str]:
        """See `Files`."""
        with _guard("list", self._dir):
            return sorted(os.listdir(self._dir))

    def size(self, name: str) -> int:
        """See `Files`."""
        with _guard("look at", self._dir / name):
            return (self._dir / name).stat().st_size

    def create(self, name: str) -> File:
        """See `Files`."""
        return _OsFile(self._dir / name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    def open(self, name: str) -> File:
        """See `Files`."""
        return _OsFile(self._dir / name, os.O_RDWR)

    def rename(self, old: str, new: str) -> None:
        """See `Files`."""
        with _guard("rename", self._dir / old):
            os.rename(self._dir / old, self._dir / new)

    def remove(self, name: str) -> None:
        """See `Files`."""
        with _guard("remove", self._dir / name):
            (self._dir / name).unlink(missing_ok=True)

    def sync_dir(self) -> None:
        """See `Files`."""
        with _guard("sync", self._dir):
            os.fsync(self._fd)


class _OsFile:
    def __init__(self, path: Path, flags: int) -> None:
        self._path = path
        with _guard("open", path):
            self._fd = os.open(path, flags | os.O_CLOEXEC, 0o600)

    def read(self, offset: int, size: int) -> bytes:
        with _guard("read", self._path):
            return os.pread(self._fd, size, offset)

    def write(self, offset: int, data: bytes) -> None:
        with _guard("write", self._path):
            rest = memoryview(data)
            while rest:
                done = os.pwrite(self._fd, rest, offset)
                rest, offset = rest[done:], offset + done

    def sync(self) -> None:
        with _guard("sync", self._path):
            os.fdatasync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


@contextlib.contextmanager
def _guard(what: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskFailed(
            f"could not {what} {path}: {error.strerror or error}. The process ends, because what is on disk is no "
            "longer known; check the disk (space, dmesg) and start it again"
        ) from error
