"""Encryption at rest: records of AES-256-GCM with a random nonce.

    magic 4 | length 4 | CRC-32 4 | key id 4 | nonce 12 | ciphertext and tag

The CRC (of all behind it) tells a torn or rotten record from one under another key. The place of a record in its file
is authenticated with it, so records cannot be moved. Several keys may be held: the first encrypts, all decrypt; a key
is recognised by the first bytes of its SHA-256.

Trap: never derive the nonce from a place in the file. Cutting a log writes the same place twice, and a nonce used
twice under one key gives the key stream away. With random ones a key is good for 2³² records.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"SwR1"
_HEAD = struct.Struct(">4sII4s12s")
_PLACE = struct.Struct(">QQ")
HEAD = _HEAD.size
TAG = 16
MAX_RECORD = 1 << 30


class Damaged(Exception):
    """There is no intact record at this place."""


class WrongKey(Exception):
    """An intact record that none of the keys opens."""


class Sealer:
    """Seals and opens records. `keys`: 32 bytes each, the first encrypts."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) != 32 for key in keys):
            raise ValueError("data encryption keys are 32 bytes each, and there is at least one")
        self._ciphers = {_key_id(key): AESGCM(key) for key in keys}
        self._first = _key_id(keys[0])

    def seal(self, plain: bytes, file: int, offset: int) -> bytes:
        """The record that holds `plain` at a place: the number of its file and its offset in it."""
        nonce = os.urandom(12)
        place = _PLACE.pack(file, offset)
        rest = self._first + nonce + self._ciphers[self._first].encrypt(nonce, plain, place + self._first)
        return MAGIC + struct.pack(">II", len(rest), zlib.crc32(rest)) + rest

    def open(self, data: bytes | memoryview, at: int, file: int, offset: int) -> tuple[bytes, int]:
        """The content of the record at `data[at:]`, and where it ends in `data`. Raises Damaged, WrongKey."""
        end = record_end(data, at)
        key_id, nonce = bytes(data[at + 12 : at + 16]), bytes(data[at + 16 : at + HEAD])
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise WrongKey(f"it was written with key {key_id.hex()}, which is not among those given")
        try:
            return cipher.decrypt(nonce, bytes(data[at + HEAD : end]), _PLACE.pack(file, offset) + key_id), end
        except InvalidTag:
            raise WrongKey("its content does not authenticate: it was moved or forged") from None


def record_end(data: bytes | memoryview, at: int) -> int:
    """Where the intact record at `data[at:]` ends. Raises Damaged if there is none."""
    if len(data) - at < HEAD:
        raise Damaged("too short for a record")
    magic, length, crc, _, _ = _HEAD.unpack_from(data, at)
    start = at + 12
    if magic != MAGIC:
        raise Damaged("no record begins here")
    if not HEAD - 12 + TAG <= length <= min(MAX_RECORD, len(data) - start):
        raise Damaged(f"length {length} does not fit")
    if zlib.crc32(data[start : start + length]) != crc:
        raise Damaged("checksum differs")
    return int(start + length)


def record_size(head: bytes) -> int:
    """The whole length of the record that begins with these bytes. Raises Damaged if they do not begin one."""
    if len(head) < HEAD or head[:4] != MAGIC:
        raise Damaged("no record begins here")
    length = int.from_bytes(head[4:8], "big")
    if length > MAX_RECORD:
        raise Damaged(f"length {length} does not fit")
    return 12 + length


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"swarm raft key id" + key).digest()[:4]
