"""The bytes of one store entry in the log: which objects are put and which removed.

JSON with the stored encoding of each object (internal fields included) embedded as it is, so an entry is encoded once
on the leader. `base` is the log index of the last store entry that the leader's transactions were evaluated on. All
members check it when they apply: an entry made on another state than the one it meets is skipped by everybody alike.
Raft makes that impossible as long as one entry is in flight (store.py); the check turns a mistake there into a refused
write in place of a lost one.
"""

from __future__ import annotations

from typing import Any

import msgspec

from swarm_agent.model.base import encode_stored

from .tables import Kind, Registry

MAX_ENTRY = 1536 * 1024
"""Bytes of one entry: SwarmKit's limit of a transaction (swarm.md §3.10). It bounds what raft sends and keeps in
memory.
"""


GONE = msgspec.Raw(b"null")


class Put(msgspec.Struct, frozen=True, array_like=True):
    """One object's new state in its stored encoding; `GONE`: removed."""

    kind: str
    id: str
    object: msgspec.Raw


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """What one log entry does to the store."""

    base: int
    puts: list[Put]


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Entry)
_object_decoders: dict[type[Any], msgspec.json.Decoder[Any]] = {}

OVERHEAD = 64
"""What a `Put` costs beside its object's bytes: kind, id and punctuation, rounded up."""


def encode_object(obj: Any) -> msgspec.Raw:
    """An object as the log and snapshots hold it."""
    return msgspec.Raw(encode_stored(obj))


def decode_object(kind: Kind, data: bytes | msgspec.Raw) -> Any:
    """The object of a kind from its stored bytes. Raises msgspec.ValidationError on anything else."""
    decoder = _object_decoders.get(kind.type)
    if decoder is None:
        decoder = _object_decoders[kind.type] = msgspec.json.Decoder(kind.type)
    return decoder.decode(data)


def encode_entry(base: int, puts: list[Put]) -> bytes:
    """The log entry of these changes, evaluated on the state at log index `base`."""
    return _encoder.encode(Entry(base, puts))


def decode_entry(data: bytes) -> Entry:
    """Reads a log entry. Raises msgspec.DecodeError on anything else."""
    return _decoder.decode(data)


def decode_puts(registry: Registry, entry: Entry, index: int) -> list[tuple[Kind, str, Any]]:
    """The entry's objects, stamped with the log index they are applied at."""
    found = []
    for put in entry.puts:
        kind = registry.by_name[put.kind]
        obj = None
        if put.object != GONE:
            obj = decode_object(kind, put.object)
            if obj.version.index != index:
                obj = stamped(obj, index)
        found.append((kind, put.id, obj))
    return found


def stamped(obj: Any, index: int, **times: str) -> Any:
    """The object with a new version (and times)."""
    return msgspec.structs.replace(obj, version=msgspec.structs.replace(obj.version, index=index), **times)
