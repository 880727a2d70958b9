"""A backup of the cluster in one file: a snapshot of the store, encrypted under a passphrase or a key file.

    SWARM-SNAPSHOT-1\\n | length 4 | head (JSON, readable) | length 4, nonce 12, ciphertext | … | end record

The key is scrypt's of the secret. Each record is AES-256-GCM with its number and the head as associated data, so parts
can be neither swapped, dropped, nor put under another head. The last record holds the number of parts: a file that was
cut is noticed. Parts are the store's own snapshot stream (snapshot.py), compressed.

Everything streams; neither side holds the state as bytes. Calls block (scrypt takes about 0.1 s and 32 MiB by intent).
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

MAGIC = b"SWARM-SNAPSHOT-1\n"
MAX_HEAD = 64 * 1024
MAX_RECORD = 256 * 1024 * 1024
MAX_COST = 1 << 20  # of scrypt, read from the file: a forged head must not eat the memory
_LENGTH = struct.Struct(">I")
_NUMBER = struct.Struct(">Q")
_NONCE = 12
_PART, _END = b"p", b"e"


class ArchiveError(Exception):
    """The file is no backup, is damaged or cut, or the secret is another one. The text says which."""


class Kdf(msgspec.Struct, frozen=True):
    """Parameters of scrypt."""

    salt: bytes
    n: int = 1 << 15
    r: int = 8
    p: int = 1


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup says of itself without its secret. `index` and `term`: the raft entry that it stands for."""

    created: str  # RFC 3339
    cluster_id: str
    node_id: str  # of the manager that made it
    hostname: str
    index: int
    term: int
    kdf: Kdf


def new_head(*, created: str, cluster_id: str, node_id: str, hostname: str, index: int, term: int) -> Head:
    """A head with a salt of its own."""
    kdf = Kdf(os.urandom(16))
    return Head(
        created=created,
        cluster_id=cluster_id,
        node_id=node_id,
        hostname=hostname,
        index=index,
        term=term,
        kdf=kdf,
    )


def write(head: Head, parts: Iterable[bytes], secret: bytes) -> Iterator[bytes]:
    """The file, piece by piece."""
    data = msgspec.json.encode(head)
    cipher = _cipher(head.kdf, secret)
    bound = hashlib.sha256(data).digest()
    yield MAGIC + _LENGTH.pack(len(data)) + data
    number = 0
    for part in parts:
        yield _seal(cipher, bound, number, _PART + zlib.compress(part, 1))
        number += 1
    yield _seal(cipher, bound, number, _END + _NUMBER.pack(number))


def read_head(file: BinaryIO) -> Head:
    """The head at the file's beginning. Raises ArchiveError."""
    return _head(file)[0]


def read(file: BinaryIO, secret: bytes) -> tuple[Head, Iterator[bytes]]:
    """Head and parts. Raises ArchiveError, also while parts are taken: only when all were taken is the file good."""
    head, data = _head(file)
    return head, _parts(file, _cipher(head.kdf, secret), hashlib.sha256(data).digest())


def _head(file: BinaryIO) -> tuple[Head, bytes]:
    if file.read(len(MAGIC)) != MAGIC:
        raise ArchiveError("this is not a snapshot of a cluster, or one of another version")
    data = _sized(file, MAX_HEAD)
    try:
        head = msgspec.json.decode(data, type=Head)
    except msgspec.MsgspecError as error:
        raise ArchiveError(f"the snapshot's head cannot be read: {error}") from None
    return head, data


def _parts(file: BinaryIO, cipher: AESGCM, bound: bytes) -> Iterator[bytes]:
    number = 0
    while True:
        record = _sized(file, MAX_RECORD)
        try:
            plain = cipher.decrypt(record[:_NONCE], record[_NONCE:], bound + _NUMBER.pack(number))
        except (InvalidTag, ValueError):
            if number == 0:
                raise ArchiveError("the passphrase or key is not this snapshot's, or the file is damaged") from None
            raise ArchiveError(f"the snapshot is damaged in part {number + 1}") from None
        if plain[:1] == _END:
            if file.read(1):
                raise ArchiveError("something follows the snapshot's end")
            return
        yield zlib.decompress(plain[1:])
        number += 1


def _seal(cipher: AESGCM, bound: bytes, number: int, plain: bytes) -> bytes:
    nonce = os.urandom(_NONCE)
    record = nonce + cipher.encrypt(nonce, plain, bound + _NUMBER.pack(number))
    return _LENGTH.pack(len(record)) + record


def _sized(file: BinaryIO, most: int) -> bytes:
    prefix = file.read(_LENGTH.size)
    length = _LENGTH.unpack(prefix)[0] if len(prefix) == _LENGTH.size else 0
    data = file.read(length) if length <= most else b""
    if not data or len(data) != length:
        raise ArchiveError("the snapshot was cut short, or is damaged")
    return data


def _cipher(kdf: Kdf, secret: bytes) -> AESGCM:
    if kdf.n > MAX_COST or kdf.r > 32 or kdf.p > 16:
        raise ArchiveError("the snapshot asks for more work on its secret than is reasonable")
    try:
        return AESGCM(Scrypt(salt=kdf.salt, length=32, n=kdf.n, r=kdf.r, p=kdf.p).derive(secret))
    except ValueError as error:
        raise ArchiveError(f"the snapshot's head cannot be used: {error}") from None
