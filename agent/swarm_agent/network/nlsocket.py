"""Netlink messages in bulk: sent and acknowledged in batches, for tables of ten thousands of entries.

pyroute2 does everything else; one message at a time through it takes 0.3 ms and more, which is a minute for a large
cluster. What goes into messages is said elsewhere: rtnetlink.py (neighbours, routes), ipvs_netlink.py. Layout:
linux/netlink.h, linux/genetlink.h.

Blocking; runs in a worker thread.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_CONTROL_FAMILY, _GET_FAMILY = 16, 3
_FAMILY_ID, _FAMILY_NAME = 1, 2
_BATCH = 64  # messages at once; their acknowledgements must fit into the default receive buffer
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")


@dataclass(frozen=True, slots=True)
class Message:
    kind: int
    flags: int
    body: bytes


class NetlinkSocket:
    """A netlink socket of this network namespace. Use as a context manager."""

    protocol = socket.NETLINK_ROUTE

    def __init__(self) -> None:
        self._link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, self.protocol)
        self._link.bind((0, 0))
        self._link.settimeout(10)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._link.close()

    def send(self, messages: Sequence[Message]) -> list[int]:
        """Carry out changes in order; the errno of each (0: done)."""
        results: list[int] = []
        for start in range(0, len(messages), _BATCH):
            results += self._batch(messages[start : start + _BATCH])
        return results

    def _batch(self, messages: Sequence[Message]) -> list[int]:
        first = self._sequence + 1
        self._sequence += len(messages)
        self._link.send(
            b"".join(
                _HEADER.pack(16 + len(item.body), item.kind, item.flags | _REQUEST | _ACK, first + position, 0)
                + item.body
                for position, item in enumerate(messages)
            )
        )
        results = [0] * len(messages)
        waiting = len(messages)
        while waiting:
            for kind, sequence, body in split(self._link.recv(1 << 18)):
                if kind == _ERROR and first <= sequence <= self._sequence:
                    results[sequence - first] = -int(struct.unpack_from("=i", body)[0])
                    waiting -= 1
        return results

    def ask(self, message: Message) -> list[bytes]:
        """The answers to one question that is not a dump. Raises OSError (FileNotFoundError, …) when refused."""
        self._sequence += 1
        header = _HEADER.pack(16 + len(message.body), message.kind, message.flags | _REQUEST | _ACK, self._sequence, 0)
        self._link.send(header + message.body)
        answers: list[bytes] = []
        while True:
            for found, sequence, content in split(self._link.recv(1 << 18)):
                if sequence != self._sequence:
                    continue
                if found == _ERROR:
                    code = -int(struct.unpack_from("=i", content)[0])
                    if code:
                        raise OSError(code, os.strerror(code))
                    return answers
                answers.append(content)

    def dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        """The bodies of all answers to a question for a whole table. Raises OSError."""
        self._sequence += 1
        self._link.send(_HEADER.pack(16 + len(body), kind, _REQUEST | _DUMP, self._sequence, 0) + body)
        while True:
            for found, sequence, content in split(self._link.recv(1 << 18)):
                if sequence != self._sequence:
                    continue
                if found == _DONE:
                    return
                if found == _ERROR:
                    code = -int(struct.unpack_from("=i", content)[0])
                    raise OSError(code, f"netlink dump {kind} failed")
                yield content


class GenericSocket(NetlinkSocket):
    """A generic netlink socket that has found one part of the kernel. Raises FileNotFoundError where it is missing."""

    protocol = 16  # NETLINK_GENERIC, which Python does not name
    family: str

    def __init__(self) -> None:
        super().__init__()
        try:
            self.number = self._find()
        except BaseException:
            self._link.close()
            raise

    def _find(self) -> int:
        head = struct.pack("=BBH", _GET_FAMILY, 1, 0)
        name = attribute(_FAMILY_NAME, self.family.encode() + b"\0")
        for body in self.ask(Message(_CONTROL_FAMILY, 0, head + name)):
            found = dict(attributes(body, 4))
            return int(struct.unpack("=H", found[_FAMILY_ID])[0])
        raise FileNotFoundError(errno.ENOENT, f"this kernel offers no {self.family}")

    def head(self, command: int) -> bytes:
        """What every message of the family begins with."""
        return struct.pack("=BBH", command, 1, 0)

    def message(self, command: int, body: bytes) -> Message:
        return Message(self.number, 0, self.head(command) + body)


def split(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(kind, sequence, body) of each message in a datagram."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
        yield kind, sequence, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def attributes(data: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    """(kind, payload) of each attribute from `offset` on."""
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3 or 4


def attribute(kind: int, payload: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + bytes(-len(payload) % 4)
