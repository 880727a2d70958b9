"""DNS messages as bytes (RFC 1035, 2782, 6891): reading questions, writing answers. Pure.

Questions come from containers, so every length is checked. Only what a resolver on the way needs is understood: one
question, the EDNS size, and where the times to live stand in somebody else's answer. Names are written uncompressed,
except that an answer's own name always points at the question (`SELF`).
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass

A, NS, PTR, AAAA, SRV, OPT, ANY = 1, 2, 12, 28, 33, 41, 255
SOA = 6
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
QR, AA, TC, RD, RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
HEADER = 12
SELF = b"\xc0\x0c"  # a pointer to the question's name
PLAIN_SIZE = 512  # largest answer over UDP to an asker without EDNS
LARGEST_SIZE = 1232  # and to any other: fits every path unfragmented (DNS flag day 2020)
STREAM_SIZE = 65535

_HEADER = struct.Struct(">6H")
_FIXED = struct.Struct(">HHIH")  # type, class, TTL, length of data
_LOWER = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"abcdefghijklmnopqrstuvwxyz")


class Malformed(ValueError):
    """Not a message that can be answered, not even with an error."""


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked. `raw` is the question as it came: letters keep their case in the answer.

    name   lower case, without the last dot; None when a label has a dot or is not ASCII: then no name of ours is meant
    edns   the asker's UDP size, None without EDNS
    rcode  what to answer at once when the message is not a plain question
    """

    flags: int
    name: str | None
    qtype: int
    qclass: int
    raw: bytes
    edns: int | None = None
    rcode: int = NOERROR

    @property
    def limit(self) -> int:
        """How many bytes the asker takes over UDP."""
        return PLAIN_SIZE if self.edns is None else max(PLAIN_SIZE, min(self.edns, LARGEST_SIZE))


def read_question(data: bytes) -> Question:
    """Raises Malformed for what must be dropped: too short, or itself an answer."""
    if len(data) < HEADER:
        raise Malformed(f"{len(data)} bytes are no DNS message")
    _, flags, questions, answers, authority, additional = _HEADER.unpack_from(data)
    if flags & QR:
        raise Malformed("an answer, not a question")
    if flags >> 11 & 15:
        return Question(flags, None, 0, 0, b"", rcode=NOTIMP)
    if questions != 1:
        return Question(flags, None, 0, 0, b"", rcode=FORMERR)
    labels, end = [], HEADER
    try:
        while length := data[end]:
            if length > 63 or end - HEADER > 254:
                return Question(flags, None, 0, 0, b"", rcode=FORMERR)
            labels.append(data[end + 1 : end + 1 + length])
            end += 1 + length
        qtype, qclass = struct.unpack_from(">HH", data, end + 1)
    except (IndexError, struct.error):
        return Question(flags, None, 0, 0, b"", rcode=FORMERR)
    end += 5
    edns, rcode = None, NOERROR
    if answers == authority == 0 and additional and data[end : end + 3] == b"\0\0\x29" and len(data) >= end + 11:
        _, edns, extended, _ = _FIXED.unpack_from(data, end + 1)
        rcode = BADVERS if extended >> 16 & 0xFF else NOERROR
    return Question(flags, _name(labels), qtype, qclass, data[HEADER:end], edns, rcode)


def _name(labels: Sequence[bytes]) -> str | None:
    if any(b"." in label or not label.isascii() for label in labels):
        return None
    return b".".join(labels).translate(_LOWER).decode("ascii")


def name_bytes(name: str) -> bytes:
    """A name for a record's data. Raises ValueError when a label or the whole is too long."""
    labels = [label.encode() for label in name.split(".") if label]
    if any(len(label) > 63 for label in labels):
        raise ValueError(f"a label of {name!r} has over 63 bytes")
    packed = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    if len(packed) > 255:
        raise ValueError(f"{name!r} has over 255 bytes")
    return packed


def record(rtype: int, ttl: int, data: bytes, owner: bytes = SELF) -> bytes:
    """One resource record."""
    return owner + _FIXED.pack(rtype, IN, ttl, len(data)) + data


def denial(ttl: int) -> bytes:
    """The SOA record that lets an asker remember for `ttl` seconds that there is nothing (RFC 2308)."""
    return record(SOA, ttl, SELF + SELF + struct.pack(">5I", 1, 3600, 600, 86400, ttl))


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer, but for the id and the order of its records.

    body is everything behind the id when nothing is left to choose; else `records` are shuffled for each asker and as
    many as `fits` are put between `head` and `tail`.
    """

    body: bytes = b""
    head: bytes = b""
    records: tuple[bytes, ...] = ()
    fits: int = 0
    tail: bytes = b""

    def packet(self, message_id: bytes, rng: random.Random) -> bytes:
        """The message to send. `message_id`: the question's first two bytes."""
        if self.body:
            return message_id + self.body
        return message_id + self.head + b"".join(rng.sample(self.records, self.fits)) + self.tail


def make_answer(
    question: Question,
    limit: int,
    *,
    rcode: int = NOERROR,
    authoritative: bool = False,
    answers: Sequence[bytes] = (),
    authority: Sequence[bytes] = (),
    additional: Sequence[bytes] = (),
) -> Answer:
    """The answer in at most `limit` bytes. Of records that do not fit, a random part is sent with the TC flag: askers
    that never repeat a question over TCP (musl before 1.2.4) have something to use, and not all the same.
    """
    option = b"" if question.edns is None else b"\0" + _FIXED.pack(OPT, LARGEST_SIZE, rcode >> 4 << 24, 0)
    room = limit - HEADER - len(question.raw) - len(option)
    fits, used = 0, 0
    for one in answers:
        if used + len(one) > room:
            break
        used += len(one)
        fits += 1
    if len({len(one) for one in answers}) > 1 and fits < len(answers):
        fits = min(fits, room // max(len(one) for one in answers))  # whichever are chosen, they fit
    cut = fits < len(answers)
    rest = b"".join((*authority, *additional))
    if cut or used + len(rest) > room:
        authority, additional, rest = (), (), b""
    flags = QR | RA | question.flags & RD | (AA if authoritative else 0) | (TC if cut else 0) | rcode & 15
    counts = (1 if question.raw else 0, fits, len(authority), len(additional) + (1 if option else 0))
    head = struct.pack(">5H", flags, *counts) + question.raw
    if len(answers) < 2:
        return Answer(body=head + b"".join(answers[:fits]) + rest + option)
    return Answer(head=head, records=tuple(answers), fits=fits, tail=rest + option)


# --- other servers' answers ------------------------------------------------------------------------------------------


def lifetimes(packet: bytes) -> list[int]:
    """Where the TTLs of a message's records stand (OPT has none). Raises Malformed."""
    found = []
    try:
        _, _, questions, *counts = _HEADER.unpack_from(packet)
        at = HEADER
        for _ in range(questions):
            at = _skip_name(packet, at) + 4
        for _ in range(sum(counts)):
            at = _skip_name(packet, at)
            rtype, _, _, length = _FIXED.unpack_from(packet, at)
            if rtype != OPT:
                found.append(at + 4)
            at += 10 + length
    except (IndexError, struct.error) as error:
        raise Malformed(f"cut off: {error}") from None
    if at > len(packet):
        raise Malformed("cut off in a record's data")
    return found


def _skip_name(packet: bytes, at: int) -> int:
    while length := packet[at]:
        if length >= 0xC0:
            return at + 2
        if length > 63:
            raise Malformed(f"label of type {length >> 6}")
        at += 1 + length
    return at + 1


def aged(packet: bytes, places: Sequence[int], seconds: int) -> bytes:
    """The message with its TTLs lowered by the time that it was kept."""
    changed = bytearray(packet)
    for at in places:
        ttl = int.from_bytes(packet[at : at + 4], "big")
        changed[at : at + 4] = max(0, ttl - seconds).to_bytes(4, "big")
    return bytes(changed)
