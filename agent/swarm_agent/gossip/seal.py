"""Encryption of packets and streams with the cluster's keyring, and protection against replay.

    packet = version(1) | session(12) | sequence(8) | AES-256-GCM(payload) + tag(16)

Each process picks a random `session` and counts its packets. A packet's key is HMAC-SHA256(cluster key, label,
session), so every sender encrypts under a key of its own with the sequence as nonce: nonces never repeat, however
many nodes and packets there are (random nonces under one shared key would be at their limit within hours in a large
cluster). The packet header and the cluster label are authenticated; the label also enters the key, so clusters cannot
talk across even with equal keys. The sender's id is inside.

Replay: per session a window of 1,024 sequence numbers; a session belongs to one sender, and one that a later session
of this sender replaced is refused for good. What remains: to a node that has just started itself, packets older than
its start can be replayed while their key is in the ring. Every fact is versioned, so they can only repeat what the
cluster knows better. A holder of a key can speak as any node; identity that matters goes over mutual TLS.

Streams: both sides send 16 random bytes, the key is derived from both, frames are counted per direction; nothing of
one connection can be used in another.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SEAL_VERSION = 1
SESSION_SIZE = 12
HEADER_SIZE = 1 + SESSION_SIZE + 8
OVERHEAD = HEADER_SIZE + 16
KEY_SIZE = 32
WINDOW = 1024
MAX_SESSIONS = 16_384
RETIRED = 8  # sessions remembered as over, per sender

HELLO_SIZE = 17
FRAME_PLAIN = 64 * 1024
MAX_STREAM_MESSAGE = 32 * 1024 * 1024


class Refused(Exception):
    """Not sealed with a key of ours, or seen before. `reason` names a counter."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Keyring:
    """Cluster keys; the first encrypts, all decrypt.

    To rotate without a lost packet: add the new key last everywhere, then move it to the front, then drop the old one.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self.keys: tuple[bytes, ...] = ()
        self.replace(keys)

    def replace(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise ValueError("the gossip keyring is empty: at least one key of 32 bytes is needed")
        for key in keys:
            if len(key) != KEY_SIZE:
                raise ValueError(f"a gossip key has {len(key)} bytes, it must have {KEY_SIZE} (AES-256)")
        self.keys = tuple(dict.fromkeys(bytes(key) for key in keys))


def _derive(key: bytes, purpose: bytes, label: bytes, salt: bytes) -> AESGCM:
    info = b"swarm gossip " + purpose + bytes((len(label),)) + label + salt
    return AESGCM(hmac.digest(key, info, "sha256"))


class Sealer:
    """Seals own packets, opens others'. `session`: 12 random bytes, new for each process."""

    def __init__(self, label: bytes, ring: Keyring, session: bytes) -> None:
        if len(session) != SESSION_SIZE:
            raise ValueError(f"a session id has {SESSION_SIZE} bytes, not {len(session)}")
        if len(label) > 255:
            raise ValueError("the cluster label is longer than 255 bytes")
        self._label = label
        self._ring = ring
        self._session = session
        self._sequence = 0
        self._own: tuple[bytes, AESGCM] | None = None
        self._others: OrderedDict[bytes, tuple[bytes, AESGCM]] = OrderedDict()
        self.secondary = 0  # packets opened with a key that is not the first

    def seal(self, payload: bytes) -> bytes:
        key = self._ring.keys[0]
        if self._own is None or self._own[0] != key:
            self._own = (key, _derive(key, b"packet", self._label, self._session))
        self._sequence += 1
        sequence = self._sequence.to_bytes(8, "big")
        header = bytes((SEAL_VERSION,)) + self._session + sequence
        return header + self._own[1].encrypt(b"\0\0\0\0" + sequence, payload, header + self._label)

    def open(self, datagram: bytes) -> tuple[bytes, int, bytes]:
        """Session, sequence, payload. Raises Refused. A stranger's packet leaves no trace here."""
        if len(datagram) < OVERHEAD or datagram[0] != SEAL_VERSION:
            raise Refused("foreign")
        header = datagram[:HEADER_SIZE]
        session = header[1 : 1 + SESSION_SIZE]
        sequence = header[1 + SESSION_SIZE :]
        nonce = b"\0\0\0\0" + sequence
        sealed = datagram[HEADER_SIZE:]
        aad = header + self._label
        keys = self._ring.keys
        known = self._others.get(session)
        if known is not None and known[0] in keys:
            try:
                payload = known[1].decrypt(nonce, sealed, aad)
            except InvalidTag:
                pass
            else:
                if known[0] != keys[0]:
                    self.secondary += 1
                return session, int.from_bytes(sequence, "big"), payload
        for key in keys:
            if known is not None and key == known[0]:
                continue
            cipher = _derive(key, b"packet", self._label, session)
            try:
                payload = cipher.decrypt(nonce, sealed, aad)
            except InvalidTag:
                continue
            self._others[session] = (key, cipher)
            self._others.move_to_end(session)
            if len(self._others) > MAX_SESSIONS:
                self._others.popitem(last=False)
            if key != keys[0]:
                self.secondary += 1
            return session, int.from_bytes(sequence, "big"), payload
        raise Refused("undecryptable")


class _Session:
    __slots__ = ("highest", "seen", "sender")

    def __init__(self, sender: str) -> None:
        self.sender = sender
        self.highest = 0
        self.seen = 0  # bit i: highest - i was received


class ReplayGuard:
    """Lets each packet through once."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()
        self._current: OrderedDict[str, tuple[bytes, ...]] = OrderedDict()  # sender: its session, then retired ones

    def check(self, session: bytes, sequence: int, sender: str) -> None:
        """Raises Refused("replayed") or Refused("impostor")."""
        window = self._sessions.get(session)
        if window is None:
            known = self._current.get(sender, ())
            if session in known:
                raise Refused("replayed")
            if known:
                self._sessions.pop(known[0], None)
            self._current[sender] = (session, *known)[: RETIRED + 1]
            self._current.move_to_end(sender)
            if len(self._current) > MAX_SESSIONS:
                _, gone = self._current.popitem(last=False)
                self._sessions.pop(gone[0], None)
            window = self._sessions[session] = _Session(sender)
        elif window.sender != sender:
            raise Refused("impostor")
        ahead = sequence - window.highest
        if ahead > 0:
            window.seen = ((window.seen << ahead) | 1) & ((1 << WINDOW) - 1) if ahead < WINDOW else 1
            window.highest = sequence
            return
        bit = 1 << -ahead
        if -ahead >= WINDOW or window.seen & bit:
            raise Refused("replayed")
        window.seen |= bit


class StreamSealer:
    """One TCP connection, no I/O: hello bytes out, peer's hello in, then messages to frames and back.

    The client seals with its first key; the server finds which key that was on the first frame and answers with the
    same.
    """

    def __init__(self, label: bytes, ring: Keyring, client: bool, nonce: bytes) -> None:
        if len(nonce) != HELLO_SIZE - 1:
            raise ValueError(f"a stream nonce has {HELLO_SIZE - 1} bytes, not {len(nonce)}")
        self.hello = bytes((SEAL_VERSION,)) + nonce
        self._label = label
        self._ring = ring
        self._client = client
        self._salt = b""
        self._cipher: AESGCM | None = None
        self._sent = 0
        self._received = 0
        self._parts: list[bytes] = []
        self._size = 0

    def greet(self, hello: bytes) -> None:
        """Take the peer's hello."""
        if len(hello) != HELLO_SIZE or hello[0] != SEAL_VERSION:
            raise Refused("foreign")
        self._salt = self.hello + hello if self._client else hello + self.hello
        if self._client:
            self._cipher = _derive(self._ring.keys[0], b"stream", self._label, self._salt)

    def seal(self, message: bytes) -> bytes:
        """Frames (length, sealed bytes) that carry one message."""
        if self._cipher is None:
            raise Refused("foreign")
        frames: list[bytes] = []
        at = 0
        while True:
            part = message[at : at + FRAME_PLAIN]
            at += len(part)
            last = at >= len(message)
            sealed = self._cipher.encrypt(self._nonce(self._client, self._sent), bytes((last,)) + part, self._label)
            self._sent += 1
            frames.append(len(sealed).to_bytes(4, "big") + sealed)
            if last:
                return b"".join(frames)

    def open(self, frame: bytes) -> bytes | None:
        """The message that this frame completes, or None. Raises Refused."""
        nonce = self._nonce(not self._client, self._received)
        plain = self._open(nonce, frame)
        self._received += 1
        if not plain:
            raise Refused("foreign")
        self._parts.append(plain[1:])
        self._size += len(plain)  # the flag counts too, else frames without content would pile up
        if self._size > MAX_STREAM_MESSAGE:
            raise Refused("oversized")
        if plain[:1] != b"\1":
            return None
        message = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        return message

    def _open(self, nonce: bytes, frame: bytes) -> bytes:
        if self._cipher is not None:
            try:
                return self._cipher.decrypt(nonce, frame, self._label)
            except InvalidTag:
                raise Refused("undecryptable") from None
        for key in self._ring.keys:
            cipher = _derive(key, b"stream", self._label, self._salt)
            try:
                plain = cipher.decrypt(nonce, frame, self._label)
            except InvalidTag:
                continue
            self._cipher = cipher
            return plain
        raise Refused("undecryptable")

    @staticmethod
    def _nonce(client: bool, count: int) -> bytes:
        return bytes((client, 0, 0, 0)) + count.to_bytes(8, "big")


FRAME_LIMIT = FRAME_PLAIN + 1 + 16
