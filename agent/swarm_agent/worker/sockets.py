"""The TCP sockets of a container, as its own network namespace shows them to the kernel's socket diagnosis.

From them follow two things that the engine cannot tell: whether a server listens already, and whether anybody still
waits for an answer of it (pure functions `listens` and `busy`). `Probe` reads them.

Traps: a thread that enters another namespace must never do anything else, so each probe is opened by a thread of its
own; the socket stays in that namespace, and later reads need no thread. The engine's resolver listens on the loopback
of every container, which is why loopback does not count.

Layout: linux/inet_diag.h, linux/sock_diag.h, linux/tcp.h.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

QUIET = 0.25
"""Seconds without data after which a connection whose last word was the server's counts as idle. Shorter than any
keep-alive, longer than the pause between the parts of an answer."""

_CLONE_NEWNET = 0x40000000
_SOCK_DIAG = 4
_BY_FAMILY, _DONE, _ERROR = 20, 3, 2
_REQUEST_DUMP = 0x1 | 0x300
_INFO = 2  # INET_DIAG_INFO
_SYN_RECEIVED, _LISTEN = 3, 10
_OVER = (6, 7)  # TIME_WAIT, CLOSE
_STATES = 0xFFF & ~sum(1 << state for state in _OVER)
_HEADER = struct.Struct("=IHHII")
_MESSAGE = struct.Struct("=BBBB2s2s16s16sI8sIIIII")
_LAST_SENT, _LAST_RECEIVED = 44, 52  # where tcp_info has these ages, in milliseconds


@dataclass(frozen=True, slots=True)
class Socket:
    """One TCP socket. `unread` and `unsent`: bytes that the program has not read, and the peer not acknowledged.
    `received` and `sent`: seconds since data came and went; since the connection began where none did."""

    state: int
    port: int
    loopback: bool
    unread: int = 0
    unsent: int = 0
    received: float = 0.0
    sent: float = 0.0


def listening(sockets: Sequence[Socket]) -> set[int]:
    """The ports on which something listens that can be reached from outside."""
    return {one.port for one in sockets if one.state == _LISTEN and not one.loopback}


def busy(sockets: Sequence[Socket], ports: Collection[int]) -> list[Socket]:
    """Connections to these ports of a server in which something is under way: they should not be cut now.

    That is one in which bytes wait on either side, one whose last word was the client's, and one in which anything was
    said a moment ago. Idle ones are left out: kept-alive connections and pools would never end by themselves.
    """
    return [one for one in sockets if one.port in ports and not one.loopback and _under_way(one)]


def _under_way(one: Socket) -> bool:
    if one.state == _LISTEN:
        return False
    if one.state == _SYN_RECEIVED or one.unread or one.unsent:
        return True
    if one.state not in (1, 8):  # ESTABLISHED, CLOSE_WAIT: only there the server can still answer
        return False
    return one.received < one.sent or min(one.received, one.sent) < QUIET


class Probe:
    """Looks at the sockets of the network namespace of a process, for as long as the probe is open."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link

    @classmethod
    def open(cls, pid: int) -> Probe | None:
        """None when the process has no network namespace of its own, or is gone, or the kernel cannot tell."""
        opened: list[socket.socket] = []
        thread = threading.Thread(target=_open_inside, args=(pid, opened), name=f"namespace of {pid}")
        thread.start()
        thread.join()
        return cls(opened[0]) if opened else None

    def close(self) -> None:
        self._link.close()

    def sockets(self) -> list[Socket]:
        """All of them but those that are over. Raises OSError."""
        return [found for family in (socket.AF_INET, socket.AF_INET6) for found in self._dump(family)]

    def _dump(self, family: int) -> Iterator[Socket]:
        body = struct.pack("=BBBBI48x", family, socket.IPPROTO_TCP, 1 << (_INFO - 1), 0, _STATES)
        self._link.send(_HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, _REQUEST_DUMP, 1, 0) + body)
        while True:
            data = self._link.recv(1 << 18)
            for kind, body in _messages(data):
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    raise OSError(-struct.unpack_from("=i", body)[0], "socket diagnosis")
                yield read(body)


def _open_inside(pid: int, opened: list[socket.socket]) -> None:
    """Runs in a thread that ends with it: the thread never comes back from the other namespace."""
    try:
        with open(f"/proc/{pid}/ns/net") as namespace:
            if os.fstat(namespace.fileno()).st_ino == os.stat("/proc/self/ns/net").st_ino:
                return
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET) != 0:
                return
        link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG)
        link.settimeout(2)
        opened.append(link)
    except OSError:
        return


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        yield kind, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def read(body: bytes) -> Socket:
    """One answer of the kernel: inet_diag_msg with its attributes."""
    family, state, _, _, port, _, source, _, _, _, _, unread, unsent, _, _ = _MESSAGE.unpack_from(body)
    address = source[:4] if family == socket.AF_INET else source
    found = Socket(state, int.from_bytes(port, "big"), _is_loopback(address))
    if state == _LISTEN:
        return found  # its queues count connections, not bytes
    received = sent = 0.0
    offset = _MESSAGE.size
    while offset + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, offset)
        if kind == _INFO and length >= 4 + _LAST_RECEIVED + 4:
            sent = struct.unpack_from("=I", body, offset + 4 + _LAST_SENT)[0] / 1000
            received = struct.unpack_from("=I", body, offset + 4 + _LAST_RECEIVED)[0] / 1000
        offset += max(4, (length + 3) & ~3)
    return Socket(found.state, found.port, found.loopback, unread, unsent, received, sent)


def _is_loopback(address: bytes) -> bool:
    if len(address) == 16:
        if address[:12] == bytes(10) + b"\xff\xff":
            return address[12] == 127
        return address == bytes(15) + b"\x01"
    return address[0] == 127
