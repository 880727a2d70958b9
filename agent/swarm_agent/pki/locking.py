"""The unlock key of a cluster (autolock), and what it does to files: key material wrapped so that a disk alone is mute.

`SWMKEY-1-` + unpadded base64 of 32 bytes, as Swarm writes it. A file of key material holds blocks, one after another;
each is the material itself, or the material under AES-256-GCM in PEM armour. Whichever block can be opened is the
content. Two blocks stand in a file only while a lock is being changed, so that a crash in between leaves a file that
both the old and the new unlock key open.

The unlock key is 32 random bytes, so it is used as the wrapping key itself; there is nothing to guess that a slow
derivation would protect.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PREFIX = "SWMKEY-1-"
KEY_SIZE = 32
_NONCE = 12
_BEGIN, _END = b"-----BEGIN LOCKED KEY-----\n", b"-----END LOCKED KEY-----\n"
_BLOCK = re.compile(re.escape(_BEGIN) + rb"([A-Za-z0-9+/=\n]*)" + re.escape(_END))


class Locked(Exception):
    """The content is locked, and no key was given or the key is another one."""


def format_unlock_key(key: bytes) -> str:
    """The key as users see it."""
    return PREFIX + base64.b64encode(key).decode().rstrip("=")


def parse_unlock_key(text: str) -> bytes | None:
    """The 32 bytes of an unlock key; None when the text is none."""
    text = text.strip()
    if not text.startswith(PREFIX):
        return None
    body = text[len(PREFIX) :]
    try:
        key = base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == KEY_SIZE else None


def wrap(plain: bytes, key: bytes | None) -> bytes:
    """One block: under the key, or as it is without one."""
    if key is None:
        return plain if plain.endswith(b"\n") else plain + b"\n"
    nonce = os.urandom(_NONCE)
    sealed = nonce + AESGCM(key).encrypt(nonce, plain, PREFIX.encode())
    return _BEGIN + base64.encodebytes(sealed) + _END


def wrap_for(plain: bytes, keys: Iterable[bytes | None]) -> bytes:
    """Blocks that each of the keys opens (None: anyone)."""
    return b"".join(wrap(plain, key) for key in dict.fromkeys(keys))


def is_locked(content: bytes) -> bool:
    """True when nothing in it can be read without a key."""
    return _BLOCK.search(content) is not None and not _BLOCK.sub(b"", content).strip()


def unwrap(content: bytes, key: bytes | None) -> bytes:
    """What was wrapped. Raises Locked."""
    if key is not None:
        for block in _BLOCK.findall(content):
            sealed = base64.b64decode(block)
            try:
                return AESGCM(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], PREFIX.encode())
            except InvalidTag:
                continue
    plain = _BLOCK.sub(b"", content)
    if plain.strip():
        return plain
    raise Locked
