"""A disk as a machine sees it: what is written is not there after a crash unless it was synced.

Implements `swarm_agent.raft.files.Files`. A crash keeps, of each unsynced write, a random set of 512-byte sectors
(so writes tear and reorder), and of unsynced changes to the directory a random number of the first (journals keep
their order). Syncs can be made to fail, and every operation is a point at which the world may crash the host.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from swarm_agent.raft.errors import DiskFailed

SECTOR = 512


class _Content:
    """A file's content: as the process sees it, as it is on disk, and the writes in between."""

    def __init__(self) -> None:
        self.seen = bytearray()
        self.synced = b""
        self.unsynced: list[tuple[int, bytes]] = []

    def write(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        if len(self.seen) < end:
            self.seen.extend(bytes(end - len(self.seen)))
        self.seen[offset:end] = data
        self.unsynced.append((offset, data))

    def sync(self) -> None:
        if self.unsynced:
            self.synced = bytes(self.seen)
            self.unsynced.clear()

    def crash(self, rng: random.Random) -> None:
        disk = bytearray(self.synced)
        for offset, data in self.unsynced:
            if rng.random() < 0.3:
                continue
            start = 0
            while start < len(data):
                end = min(len(data), (offset + start) // SECTOR * SECTOR + SECTOR - offset)
                if rng.random() < 0.7:
                    if len(disk) < offset + end:
                        disk.extend(bytes(offset + end - len(disk)))
                    disk[offset + start : offset + end] = data[start:end]
                start = end
        self.seen = disk
        self.synced = bytes(disk)
        self.unsynced.clear()


class SimFiles:
    """One host's directory. `effect` is called before each operation and may raise to crash the host there."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._seen: dict[str, _Content] = {}
        self._synced: dict[str, _Content] = {}
        self._changes: list[Callable[[dict[str, _Content]], None]] = []
        self.effect: Callable[[], None] = lambda: None
        self.failing = False

    @property
    def path(self) -> str:
        return "simulated"

    def crash(self) -> None:
        """Power off: only what the disk has remains."""
        names = dict(self._synced)
        for change in self._changes[: self._rng.randint(0, len(self._changes))]:
            change(names)
        for content in {id(content): content for content in names.values()}.values():
            content.crash(self._rng)
        self._seen, self._synced, self._changes = dict(names), names, []
        self.failing = False

    def names(self) -> list[str]:
        return sorted(self._seen)

    def size(self, name: str) -> int:
        return len(self._seen[name].seen)

    def create(self, name: str) -> SimFile:
        content = _Content()
        self._change(lambda names: names.__setitem__(name, content))
        return SimFile(self, content)

    def open(self, name: str) -> SimFile:
        return SimFile(self, self._seen[name])

    def rename(self, old: str, new: str) -> None:
        def change(names: dict[str, _Content]) -> None:
            if old in names:
                names[new] = names.pop(old)

        self._change(change)

    def remove(self, name: str) -> None:
        self._change(lambda names: names.pop(name, None))

    def sync_dir(self) -> None:
        self.check()
        for change in self._changes:
            change(self._synced)
        self._changes.clear()

    def close(self) -> None:
        pass

    def check(self) -> None:
        """A sync is asked for: it may crash the host, or fail."""
        self.effect()
        if self.failing:
            raise DiskFailed("simulated sync failure")

    def _change(self, change: Callable[[dict[str, _Content]], None]) -> None:
        self.effect()
        change(self._seen)
        self._changes.append(change)


class SimFile:
    """An open file of a `SimFiles`."""

    def __init__(self, files: SimFiles, content: _Content) -> None:
        self._files = files
        self._content = content

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self._content.seen[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        self._files.effect()
        self._content.write(offset, bytes(data))

    def sync(self) -> None:
        self._files.check()
        self._content.sync()

    def close(self) -> None:
        pass
