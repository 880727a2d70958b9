"""Certificates and keys on disk: `root.crt`, `node.crt`, `node.key` in one folder that only root may read.

Every write is complete or not there: temporary file, fsync, rename, fsync of the folder.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, so that after a crash it is either the old or the new one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@dataclass(frozen=True, slots=True)
class NodeCertificate:
    """A node's certificate, its key, and the root bundle it trusts; all PEM."""

    root: str
    cert: str
    key: str

    def save(self, folder: Path) -> None:
        """Write all three. The key goes last: `load` needs all of them."""
        write_private(folder / "root.crt", self.root.encode())
        write_private(folder / "node.crt", self.cert.encode())
        write_private(folder / "node.key", self.key.encode())

    @classmethod
    def load(cls, folder: Path) -> NodeCertificate | None:
        """What `save` wrote, or None when there is nothing (complete)."""
        try:
            return cls(*((folder / name).read_text() for name in ("root.crt", "node.crt", "node.key")))
        except FileNotFoundError:
            return None
