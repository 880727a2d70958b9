"""Certificates and keys on disk: `root.crt`, `node.crt`, `node.key` in one folder that only root may read.

Every write is complete or not there: temporary file, fsync, rename, fsync of the folder. Certificate and key are two
files that must change together: the new key is first put beside the old one, as `node.key.next`, then the certificate
is replaced, then the key. Whichever of the two keys fits the certificate counts, so a crash at any point leaves a pair.

The key file may be locked (locking.py).
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from . import locking
from .authority import is_key_of


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, so that after a crash it is either the old or the new one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        _write_all(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make renames and removals in a folder durable."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


@dataclass(frozen=True, slots=True)
class NodeCertificate:
    """A node's certificate (and what links it to the root), its key, and the root bundle it trusts; all PEM."""

    root: str
    cert: str
    key: str

    def __repr__(self) -> str:
        return "NodeCertificate(…)"  # a key must not get into a log by way of an exception's text

    def save(self, folder: Path, *locks: bytes | None) -> None:
        """Write all three, so that `load` finds either the old or the new certificate. The key file can be opened with
        each of the locks; without any it is not locked."""
        key = locking.wrap_for(self.key.encode(), locks or (None,))
        write_private(folder / "root.crt", self.root.encode())
        write_private(folder / "node.key.next", key)
        write_private(folder / "node.crt", self.cert.encode())
        os.replace(folder / "node.key.next", folder / "node.key")
        sync_folder(folder)

    def save_key(self, folder: Path, *locks: bytes | None) -> None:
        """Write the key file alone, under other locks."""
        write_private(folder / "node.key", locking.wrap_for(self.key.encode(), locks or (None,)))

    @classmethod
    def load(cls, folder: Path, lock: bytes | None = None) -> NodeCertificate | None:
        """What `save` wrote, or None when there is nothing (complete). Raises Locked when the lock is another one."""
        try:
            root, cert = ((folder / name).read_text() for name in ("root.crt", "node.crt"))
        except FileNotFoundError:
            return None
        for name in ("node.key.next", "node.key"):
            with contextlib.suppress(FileNotFoundError):
                key = locking.unwrap((folder / name).read_bytes(), lock).decode()
                if is_key_of(key, cert):
                    return cls(root, cert, key)
        return None

    @staticmethod
    def is_locked(folder: Path) -> bool:
        """True when the key needs an unlock key."""
        try:
            return locking.is_locked((folder / "node.key").read_bytes())
        except FileNotFoundError:
            return False
