"""The whole state of the store as a stream of bytes, and back.

A stream of frames, each a 4-byte length and JSON: first a header, then chunks of objects of one kind, last an end mark
with the number of objects, so a cut stream is noticed. Frames hold up to `CHUNK` bytes of objects, so neither writing
nor reading needs the whole in memory twice. Both ends may run in a thread: writing works on lists of immutable objects
taken at once, reading builds new tables.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from .entry import decode_object, encode_object
from .tables import Kind, Registry
from .view import Tables

FORMAT = 1
CHUNK = 256 * 1024


class Head(msgspec.Struct, frozen=True, tag="head"):
    """`index`: log index of the last store entry in it."""

    format: int
    index: int


class Objects(msgspec.Struct, frozen=True, tag="objects"):
    """Some objects of one kind, in the order of the table."""

    kind: str
    objects: list[msgspec.Raw]


class End(msgspec.Struct, frozen=True, tag="end"):
    """Nothing follows."""

    count: int


Frame = Head | Objects | End
_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Frame] = msgspec.json.Decoder(Frame)


class SnapshotError(Exception):
    """A snapshot's content cannot be read."""


def save(tables: Tables) -> Iterator[bytes]:
    """Frames of the state as it is now. Call it in the loop's thread; the iterator may be consumed in any."""
    return _frames(tables.index, [(kind, list(table.objects.values())) for kind, table in tables.tables.items()])


def _frames(index: int, content: list[tuple[Kind, list[Any]]]) -> Iterator[bytes]:
    yield _frame(Head(FORMAT, index))
    count = 0
    for kind, objects in content:
        chunk: list[msgspec.Raw] = []
        size = 0
        for obj in objects:
            raw = encode_object(obj)
            chunk.append(raw)
            size += len(bytes(raw))
            if size >= CHUNK:
                yield _frame(Objects(kind.name, chunk))
                chunk, size = [], 0
        if chunk:
            yield _frame(Objects(kind.name, chunk))
        count += len(objects)
    yield _frame(End(count))


def _frame(frame: Frame) -> bytes:
    body = _encoder.encode(frame)
    return len(body).to_bytes(4, "big") + body


def load(registry: Registry, chunks: Iterable[bytes]) -> Tables:
    """Tables from the frames, however they are cut into chunks. Raises SnapshotError if anything is amiss."""
    with _no_collector():
        return _load(registry, chunks)


@contextlib.contextmanager
def _no_collector() -> Iterator[None]:
    """Reading makes objects by the hundred thousand, all of which stay: looking for garbage meanwhile takes thrice as
    long as the reading itself."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _load(registry: Registry, chunks: Iterable[bytes]) -> Tables:
    tables = Tables(registry)
    head: Head | None = None
    end: End | None = None
    count = 0
    for body in _split(chunks):
        if end is not None:
            raise SnapshotError("store snapshot: data after the end mark")
        try:
            frame = _decoder.decode(body)
        except msgspec.DecodeError as error:
            raise SnapshotError(f"store snapshot: unreadable frame: {error}") from None
        if isinstance(frame, Head):
            if frame.format != FORMAT:
                raise SnapshotError(f"store snapshot: format {frame.format}, this version reads {FORMAT}")
            head = frame
        elif head is None:
            raise SnapshotError("store snapshot: it does not begin with its header")
        elif isinstance(frame, Objects):
            kind = registry.by_name.get(frame.kind)
            if kind is None:
                raise SnapshotError(f"store snapshot: unknown kind {frame.kind!r}; made by a newer version?")
            table = tables.tables[kind]
            for raw in frame.objects:
                obj = tables.shared(kind, decode_object(kind, raw))
                table.put(obj.id, obj)
            count += len(frame.objects)
        else:
            end = frame
    if head is None or end is None or end.count != count:
        raise SnapshotError(f"store snapshot: cut short after {count} objects")
    tables.index = head.index
    return tables


def _split(chunks: Iterable[bytes]) -> Iterator[bytes]:
    buffer = bytearray()
    for chunk in chunks:
        buffer += chunk
        while len(buffer) >= 4:
            end = 4 + int.from_bytes(buffer[:4], "big")
            if len(buffer) < end:
                break
            yield bytes(buffer[4:end])
            del buffer[:end]
    if buffer:
        raise SnapshotError("store snapshot: it ends inside a frame")
