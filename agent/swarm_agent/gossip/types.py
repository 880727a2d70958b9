"""What users of the gossip see: members, versions, rows, and what a core asks its driver to do (effects)."""

from __future__ import annotations

import enum
from typing import NamedTuple

import msgspec

Address = tuple[str, int]


class State(enum.IntEnum):
    """A member as this node sees it. Only append: the numbers travel in anti-entropy entries."""

    ALIVE = 0
    SUSPECT = 1  # somebody's probe failed; it has until the suspicion's deadline to say otherwise
    DEAD = 2
    LEFT = 3  # said so itself

    @property
    def live(self) -> bool:
        return self <= State.SUSPECT


class Member(msgspec.Struct, frozen=True):
    """One host. `incarnation` is raised by the member itself only; `meta` is what it handed to its GossipNode."""

    id: str
    host: str
    port: int
    state: State
    incarnation: int
    meta: bytes = b""


class Version(NamedTuple):
    """Place of a change in its owner's history: the owner's process (by its first incarnation), then a count from 1."""

    incarnation: int
    sequence: int


class Row(msgspec.Struct, frozen=True):
    """One row of a table; (table, owner, key) identifies it, only the owner writes it."""

    owner: str
    key: str
    value: bytes
    version: Version


class StreamKind(enum.Enum):
    PING = "ping"
    PULL = "pull"
    SYNC = "sync"


class SendPacket(msgspec.Struct, frozen=True):
    """Send this datagram."""

    to: Address
    data: bytes


class OpenStream(msgspec.Struct, frozen=True):
    """Open a TCP exchange: write `request`, give the answer to Core.stream_reply, write what that returns, close."""

    kind: StreamKind
    to: Address
    peer: str  # "" when only the address is known
    request: bytes
    seq: int = 0


class MemberChanged(msgspec.Struct, frozen=True):
    """A member appeared (old is None), changed its state, address or meta."""

    member: Member
    old: State | None


class RowsChanged(msgspec.Struct, frozen=True):
    """Some visible row appeared, changed or went."""


class AckChanged(msgspec.Struct, frozen=True):
    """A member acknowledged more of our own rows, or one of those we waited for is no longer live."""


class Notice(msgspec.Struct, frozen=True):
    """Something that a person reading the log should see."""

    text: str


Effect = SendPacket | OpenStream | MemberChanged | RowsChanged | AckChanged | Notice


class GossipError(Exception):
    """Base of what this package raises to its callers."""


class RowTooLarge(GossipError):
    """A row, or all own rows together, exceed what the tables carry."""
