"""The key material that a node keeps on disk: its TLS key and, on managers, the keys of its raft log; and their lock.

With autolock both are under the cluster's unlock key (pki/locking.py), so a stolen disk says nothing and a restarted
manager waits for its operator. The lock is *changed* in three writes: the TLS key for both locks, the raft keys for the
new one, the TLS key for the new one. A crash in between leaves files that either the old or the new unlock key opens as
a whole; which one it is, the raft keys decide.

Raft keys are *turned* by RaftNode.rotate_keys: first the new key is put before the old one here, then all data is
written anew, then the old one is forgotten. A start that finds two keys goes on with that.

All methods block, and may be called from several threads.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import threading

import msgspec

from swarm_agent.model import times
from swarm_agent.pki import locking
from swarm_agent.pki.files import NodeCertificate, write_private

from .state import StateFolder

KEY_SIZE = 32


class RaftKeys(msgspec.Struct, frozen=True):
    """`raft-keys.json`: the keys that encrypt log and snapshots, hex, the newest first; and since when that is used."""

    keys: list[str]
    since: str = ""
    lock: str = ""  # name of the lock that the newest key has been under from its beginning, see lock_keeper.py

    def __repr__(self) -> str:
        return f"RaftKeys({len(self.keys)} keys)"

    @property
    def raw(self) -> list[bytes]:
        return [bytes.fromhex(key) for key in self.keys]


class NodeKeys:
    """What is on disk under `lock` (an unlock key's 32 bytes; None: nothing is locked)."""

    def __init__(self, folder: StateFolder, lock: bytes | None = None) -> None:
        self._folder = folder
        self._lock = lock
        self._busy = threading.Lock()

    @property
    def lock(self) -> bytes | None:
        return self._lock

    def save_certificate(self, certificate: NodeCertificate) -> None:
        """Write a certificate and its key."""
        with self._busy:
            certificate.save(self._folder.certificates, self._lock)

    def change_lock(self, lock: bytes | None, certificate: NodeCertificate) -> None:
        """Put everything under another lock. `certificate` is the one in use."""
        with self._busy:
            certificate.save_key(self._folder.certificates, self._lock, lock)
            keys = self._read()
            if keys is not None:
                self._write(keys, lock)
            self._lock = lock
            certificate.save_key(self._folder.certificates, lock)

    def raft_keys(self) -> RaftKeys:
        """The keys of the raft log, made when there are none yet."""
        with self._busy:
            keys = self._read()
            if keys is None:
                keys = RaftKeys([secrets.token_hex(KEY_SIZE)], times.now(), lock_name(self._lock))
                self._write(keys, self._lock)
            return keys

    def begin_turning(self) -> RaftKeys:
        """A new raft key before the present one, or the two of a turn that was interrupted."""
        with self._busy:
            keys = self._read()
            assert keys is not None, "raft runs without keys"
            if len(keys.keys) == 1:
                keys = RaftKeys([secrets.token_hex(KEY_SIZE), *keys.keys], keys.since, keys.lock)
                self._write(keys, self._lock)
            return keys

    def end_turning(self, keys: RaftKeys, lock: str) -> None:
        """Forget all but the first: nothing needs the others. `lock`: the lock's name when the turn began."""
        with self._busy:
            self._write(RaftKeys(keys.keys[:1], times.now(), lock), self._lock)

    def _read(self) -> RaftKeys | None:
        with contextlib.suppress(FileNotFoundError):
            content = locking.unwrap(self._folder.raft_key.read_bytes(), self._lock)
            return msgspec.json.decode(content, type=RaftKeys)
        return None

    def _write(self, keys: RaftKeys, lock: bytes | None) -> None:
        write_private(self._folder.raft_key, locking.wrap(msgspec.json.encode(keys), lock))


def lock_name(lock: bytes | None) -> str:
    """Tells locks apart without giving them away."""
    return hashlib.sha256(b"swarm unlock key id" + lock).hexdigest()[:16] if lock is not None else ""


def is_locked(folder: StateFolder) -> bool:
    """True when this host's keys need an unlock key."""
    try:
        if locking.is_locked(folder.raft_key.read_bytes()):
            return True
    except FileNotFoundError:
        pass
    return NodeCertificate.is_locked(folder.certificates)


def opens(folder: StateFolder, lock: bytes) -> bool:
    """Whether the lock is the one of this host's keys."""
    try:
        with contextlib.suppress(FileNotFoundError):
            locking.unwrap(folder.raft_key.read_bytes(), lock)
        return NodeCertificate.load(folder.certificates, lock) is not None
    except locking.Locked:
        return False
