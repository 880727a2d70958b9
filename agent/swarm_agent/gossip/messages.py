"""What travels: message types, and how they are packed into datagrams and stream messages.

    payload = version(1) | header length(1) | header | ( length | message )*

The header speaks for the sender in every packet: its incarnation, the version of its rows, and a digest of all it
knows. So one ping tells a peer that it missed something, without a byte of its own. Each message is a msgpack array
with a number for its type; lengths are 2 bytes in datagrams, 4 in streams. msgspec checks types and bounds while
decoding. A message that is not understood is skipped and counted, so a newer peer may say new things; a broken frame
voids the packet. Everything is decoded before anything is acted upon.

Wire numbers: only append.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

WIRE_VERSION = 1
MAX_MESSAGES = 255  # in a datagram
MAX_STREAM_MESSAGES = 200_000
MAX_ENTRIES = 20_000  # members in one anti-entropy exchange

U63 = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Id = Annotated[str, Meta(min_length=1, max_length=128)]
By = Annotated[str, Meta(max_length=128)]
Host = Annotated[str, Meta(min_length=1, max_length=255)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Blob = Annotated[bytes, Meta(max_length=64 * 1024)]
MetaData = Annotated[bytes, Meta(max_length=512)]
Name = Annotated[str, Meta(max_length=255)]
StateNumber = Annotated[int, Meta(ge=0, le=3)]


class Header(msgspec.Struct, frozen=True, array_like=True):
    sender: Id
    incarnation: U63
    epoch: U63  # version of the sender's rows
    sequence: U63
    digest: U63


class Ping(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Names its target, so that another process on the same address does not answer for it."""

    seq: U63
    target: Id


class PingReq(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Ping the target for me and tell me either way."""

    seq: U63
    target: Id
    host: Host
    port: Port


class Ack(msgspec.Struct, frozen=True, array_like=True, tag=3):
    seq: U63


class Nack(msgspec.Struct, frozen=True, array_like=True, tag=4):
    seq: U63


class Alive(msgspec.Struct, frozen=True, array_like=True, tag=5):
    id: Id
    incarnation: U63
    host: Host
    port: Port
    epoch: U63
    meta: MetaData
    stall: Annotated[int, Meta(ge=0, le=65535)] = 0  # its longest stop lately, in tenths of a second


class Suspect(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """`by`: whose probe failed; empty when that is not known (then it confirms nothing)."""

    id: Id
    incarnation: U63
    by: By


class Dead(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """`by` the member itself: it left."""

    id: Id
    incarnation: U63
    by: By


class Record(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """One change of one row; value None withdraws it. `replaces`: earlier changes of this row that this one stands
    for.
    """

    owner: Id
    epoch: U63
    seq: U63
    table: Name
    key: Name
    value: Blob | None
    replaces: Annotated[tuple[U63, ...], Meta(max_length=64)] = ()


class Applied(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """`node` has applied the owner's rows up to this version. Passed on when the owner is not the receiver."""

    node: Id
    owner: Id
    epoch: U63
    seq: U63


class AskApplied(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """The owner waits for the target's acknowledgement. Passed on when the target is not the receiver."""

    target: Id
    owner: Id
    epoch: U63
    seq: U63


class Pull(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """Send me the owner's rows after this version."""

    owner: Id
    epoch: U63
    have: U63


class DeltaRow(msgspec.Struct, frozen=True, array_like=True):
    seq: U63
    table: Name
    key: Name
    value: Blob | None


class Delta(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """With these rows, one who had all up to `since` has all up to `upto`. since 0: a snapshot, what is not in it is
    gone.
    """

    owner: Id
    epoch: U63
    since: U63
    upto: U63
    rows: tuple[DeltaRow, ...]


class TooBig(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """The rows asked for do not fit a packet: come by TCP."""

    owner: Id


class Who(msgspec.Struct, frozen=True, array_like=True, tag=14):
    """Tell me about yourself: I hear you but hold no, or an older, fact."""


class SyncEntry(msgspec.Struct, frozen=True, array_like=True):
    id: Id
    incarnation: U63
    info: U63  # incarnation at which address and meta were learnt
    state: StateNumber
    epoch: U63
    seq: U63


class Sync(msgspec.Struct, frozen=True, array_like=True, tag=15):
    """All I know, in short: answer with what I lack."""

    entries: Annotated[tuple[SyncEntry, ...], Meta(max_length=MAX_ENTRIES)]


class Want(msgspec.Struct, frozen=True, array_like=True, tag=16):
    """Of your Sync, these are ahead of me; `more`: I have more for you than fitted, come again."""

    entries: Annotated[tuple[SyncEntry, ...], Meta(max_length=MAX_ENTRIES)]
    more: bool


Message = (
    Ping
    | PingReq
    | Ack
    | Nack
    | Alive
    | Suspect
    | Dead
    | Record
    | Applied
    | AskApplied
    | Pull
    | Delta
    | TooBig
    | Who
    | Sync
    | Want
)

_header_decoder = msgspec.msgpack.Decoder(Header)
_message_decoder = msgspec.msgpack.Decoder(Message)
_encoder = msgspec.msgpack.Encoder()

encode = _encoder.encode

PACKET_FRAME = 2
STREAM_FRAME = 4


class Malformed(Exception):
    """The payload is not one of ours, though it was encrypted with our key."""


def begin(header: Header) -> bytes:
    raw = encode(header)
    return bytes((WIRE_VERSION, len(raw))) + raw


def pack(start: bytes, messages: list[bytes], frame: int = PACKET_FRAME) -> bytes:
    """A payload of already encoded messages."""
    parts = [start]
    for message in messages:
        parts.append(len(message).to_bytes(frame, "big"))
        parts.append(message)
    return b"".join(parts)


def unpack(payload: bytes, frame: int = PACKET_FRAME) -> tuple[Header, list[Message], int]:
    """Header, messages, number of messages skipped as not understood. Raises Malformed."""
    if len(payload) < 2 or payload[0] != WIRE_VERSION:
        raise Malformed("unknown wire version")
    at = 2 + payload[1]
    try:
        header = _header_decoder.decode(payload[2:at])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Malformed("bad header") from error
    limit = MAX_MESSAGES if frame == PACKET_FRAME else MAX_STREAM_MESSAGES
    size = len(payload)
    messages: list[Message] = []
    skipped = 0
    while at < size:
        start = at + frame
        at = start + int.from_bytes(payload[at:start], "big")
        if start > size or at > size or at == start:
            raise Malformed("message longer than its packet, or empty")
        if len(messages) + skipped >= limit:
            raise Malformed(f"more than {limit} messages")
        try:
            messages.append(_message_decoder.decode(payload[start:at]))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            skipped += 1
    return header, messages, skipped
