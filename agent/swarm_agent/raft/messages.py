"""What is kept in the log and what members say to each other; msgpack on the wire and on disk.

Every message carries `sender`, `to` and `term`. Messages with a term above the receiver's make it a follower of that
term, those below are answered or dropped; core.py has the rules. Tags and the order of fields are the wire format:
only append to them.
"""

from __future__ import annotations

import enum

import msgspec

NOBODY = 0
"""Not a member id: no vote given, no leader known."""


class EntryKind(enum.IntEnum):
    """DATA belongs to the state machine (empty: the leader's first entry of a term). MEMBERSHIP holds a
    `Membership`.
    """

    DATA = 0
    MEMBERSHIP = 1


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One entry of the log. Two entries with the same index and term are the same entry (Raft §5.3)."""

    index: int
    term: int
    kind: EntryKind
    data: bytes


class HardState(msgspec.Struct, frozen=True, array_like=True):
    """What must be on disk before it is acted upon. `commit` may lag behind; it only saves work after a restart."""

    term: int = 0
    vote: int = NOBODY
    commit: int = 0


class Member(msgspec.Struct, frozen=True, array_like=True):
    """A member of the cluster. `address` is for the transport; raft only keeps it. Ids are never given twice."""

    id: int
    address: str = ""
    voter: bool = True


class Membership(msgspec.Struct, frozen=True, array_like=True):
    """Who is a member, as of some log entry; sorted by id. Non-voters are learners: they get the log and do not
    count.
    """

    members: tuple[Member, ...] = ()

    @property
    def voters(self) -> tuple[int, ...]:
        """Ids of those whose votes and acknowledgements count."""
        return tuple(member.id for member in self.members if member.voter)

    def get(self, id_: int) -> Member | None:
        """The member of this id, or None."""
        for member in self.members:
            if member.id == id_:
                return member
        return None


class SnapshotMeta(msgspec.Struct, frozen=True, array_like=True):
    """What a snapshot stands for: everything up to the entry (index, term), and the membership as of then."""

    index: int = 0
    term: int = 0
    membership: Membership = Membership()


class _Message(msgspec.Struct, frozen=True, array_like=True):
    sender: int
    to: int
    term: int


class VoteRequest(_Message, frozen=True, tag=1):
    """`pre`: would you vote for me in this term? Changes nothing at the receiver. `transfer`: the leader asked for
    it.
    """

    last_index: int
    last_term: int
    pre: bool
    transfer: bool = False


class VoteReply(_Message, frozen=True, tag=2):
    """A granted pre-vote carries the term asked for, everything else the sender's own."""

    pre: bool
    granted: bool


class Append(_Message, frozen=True, tag=3):
    """Entries that follow the entry (prev_index, prev_term)."""

    prev_index: int
    prev_term: int
    entries: list[Entry]
    commit: int


class AppendReply(_Message, frozen=True, tag=4):
    """Accepted: the log agrees up to `index`. Rejected: not at `index`; it may agree at `hint_index` of `hint_term`."""

    index: int
    rejected: bool = False
    hint_index: int = 0
    hint_term: int = 0


class Heartbeat(_Message, frozen=True, tag=5):
    """`round`: number of the newest read round (reads.py)."""

    commit: int
    round: int


class HeartbeatReply(_Message, frozen=True, tag=6):
    """Echoes the round: the sender took the leader for leader after that round began."""

    round: int


class TimeoutNow(_Message, frozen=True, tag=7):
    """Leader to its chosen successor: campaign at once."""


class ReadRequest(_Message, frozen=True, tag=8):
    """Follower to leader: from which index on may I answer reads? `id` is never used twice."""

    id: int


class ReadReply(_Message, frozen=True, tag=9):
    """Answer to a `ReadRequest`."""

    id: int
    index: int


class SnapshotChunk(_Message, frozen=True, tag=10):
    """Part `number` (from 0) of a snapshot. `last` tells that none follows."""

    meta: SnapshotMeta
    number: int
    data: bytes
    last: bool


class SnapshotReply(_Message, frozen=True, tag=11):
    """The receiver has all parts of that snapshot below `next`; `done`: it is installed, or not needed."""

    index: int
    next: int
    done: bool = False


Message = (
    VoteRequest
    | VoteReply
    | Append
    | AppendReply
    | Heartbeat
    | HeartbeatReply
    | TimeoutNow
    | ReadRequest
    | ReadReply
    | SnapshotChunk
    | SnapshotReply
)

_encoder = msgspec.msgpack.Encoder()
_message_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
_membership_decoder = msgspec.msgpack.Decoder(Membership)


def encode_message(message: Message) -> bytes:
    """The message as it travels."""
    return _encoder.encode(message)


def decode_message(data: bytes) -> Message:
    """Reads a message. Raises msgspec.DecodeError on anything else."""
    return _message_decoder.decode(data)


def encode_membership(membership: Membership) -> bytes:
    """The data of a MEMBERSHIP entry."""
    return _encoder.encode(membership)


def decode_membership(data: bytes) -> Membership:
    """Reads the data of a MEMBERSHIP entry. Raises msgspec.DecodeError on anything else."""
    return _membership_decoder.decode(data)
