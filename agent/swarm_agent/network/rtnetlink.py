"""Neighbours, forwarding entries and routes in bulk: the few netlink messages of which a host may need ten thousands.

pyroute2 does everything else; one message at a time through it takes 0.3 ms and more, which is a minute for a large
cluster. Here messages go out and are acknowledged in batches. Layout: linux/neighbour.h, linux/rtnetlink.h.

Blocking; runs in a worker thread.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

NEW_NEIGHBOUR, DEL_NEIGHBOUR, GET_NEIGHBOUR = 28, 29, 30
NEW_ROUTE, DEL_ROUTE, GET_ROUTE = 24, 25, 26
NUD_NOARP, NUD_PERMANENT = 0x40, 0x80
NTF_SELF, NTF_MASTER = 0x02, 0x04
_REQUEST, _ACK, _REPLACE, _CREATE, _DUMP = 0x1, 0x4, 0x100, 0x400, 0x300
_ERROR, _DONE = 2, 3
_NDA_DST, _NDA_LLADDR, _NDA_MASTER = 1, 2, 9
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 1, 4, 5, 15
_RTNH_ONLINK, _RTPROT_STATIC, _RT_UNIVERSE, _RTN_UNICAST = 4, 4, 0, 1
_BATCH = 64  # messages at once; their acknowledgements must fit into the default receive buffer
_HEADER = struct.Struct("=IHHII")
_NEIGHBOUR = struct.Struct("=BxHiHBB")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")


@dataclass(frozen=True, slots=True)
class Message:
    kind: int
    flags: int
    body: bytes


@dataclass(frozen=True, slots=True)
class NeighbourEntry:
    """An entry of the neighbour table, or of a bridge's or VXLAN link's forwarding table. Missing parts are ""."""

    ifindex: int
    state: int
    flags: int
    ip: str
    mac: str
    mastered: bool


@dataclass(frozen=True, slots=True)
class RouteEntry:
    table: int
    prefix: str
    via: str
    ifindex: int


def set_neighbour(ifindex: int, ip: str, mac: str) -> Message:
    """IP → MAC, for good."""
    body = _NEIGHBOUR.pack(socket.AF_INET, 0, ifindex, NUD_PERMANENT, 0, 0)
    return _change(NEW_NEIGHBOUR, body + _ip(_NDA_DST, ip) + _mac(mac))


def remove_neighbour(ifindex: int, ip: str) -> Message:
    return _change(DEL_NEIGHBOUR, _NEIGHBOUR.pack(socket.AF_INET, 0, ifindex, 0, 0, 0) + _ip(_NDA_DST, ip))


def set_fdb(ifindex: int, mac: str, underlay: str) -> Message:
    """The VXLAN link sends frames for MAC to this host."""
    body = _NEIGHBOUR.pack(socket.AF_BRIDGE, 0, ifindex, NUD_PERMANENT, NTF_SELF, 0)
    return _change(NEW_NEIGHBOUR, body + _mac(mac) + _ip(_NDA_DST, underlay))


def remove_fdb(ifindex: int, mac: str) -> Message:
    body = _NEIGHBOUR.pack(socket.AF_BRIDGE, 0, ifindex, NUD_PERMANENT, NTF_SELF, 0)
    return _change(DEL_NEIGHBOUR, body + _mac(mac))


def set_port_fdb(ifindex: int, mac: str) -> Message:
    """The bridge of which the link is a port finds MAC behind it."""
    body = _NEIGHBOUR.pack(socket.AF_BRIDGE, 0, ifindex, NUD_NOARP, NTF_MASTER, 0)
    return _change(NEW_NEIGHBOUR, body + _mac(mac))


def remove_port_fdb(ifindex: int, mac: str) -> Message:
    body = _NEIGHBOUR.pack(socket.AF_BRIDGE, 0, ifindex, NUD_NOARP, NTF_MASTER, 0)
    return _change(DEL_NEIGHBOUR, body + _mac(mac))


def set_route(table: int, prefix: str, via: str, ifindex: int) -> Message:
    """A route through a neighbour of the link, whatever addresses the link has."""
    body = _route(table, prefix, _RTNH_ONLINK)
    return _change(NEW_ROUTE, body + _ip(_RTA_GATEWAY, via) + _attribute(_RTA_OIF, struct.pack("=i", ifindex)))


def remove_route(table: int, prefix: str) -> Message:
    return _change(DEL_ROUTE, _route(table, prefix, 0))


def _route(table: int, prefix: str, flags: int) -> bytes:
    address, _, length = prefix.partition("/")
    head = _ROUTE.pack(socket.AF_INET, int(length), 0, 0, 0, _RTPROT_STATIC, _RT_UNIVERSE, _RTN_UNICAST, flags)
    return head + _ip(_RTA_DST, address) + _attribute(_RTA_TABLE, struct.pack("=I", table))


def _change(kind: int, body: bytes) -> Message:
    return Message(kind, _REPLACE | _CREATE if kind in (NEW_NEIGHBOUR, NEW_ROUTE) else 0, body)


def _attribute(kind: int, payload: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def _ip(kind: int, address: str) -> bytes:
    return _attribute(kind, socket.inet_aton(address))


def _mac(mac: str) -> bytes:
    return _attribute(_NDA_LLADDR, bytes.fromhex(mac.replace(":", "")))


class RouteSocket:
    """A netlink socket of this network namespace. Use as a context manager."""

    def __init__(self) -> None:
        self._link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._link.bind((0, 0))
        self._link.settimeout(10)
        self._sequence = 0

    def __enter__(self) -> RouteSocket:
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

    def neighbours(self, family: int) -> Iterator[NeighbourEntry]:
        """All entries of AF_INET (neighbours) or AF_BRIDGE (forwarding tables)."""
        for body in self._dump(GET_NEIGHBOUR, _NEIGHBOUR.pack(family, 0, 0, 0, 0, 0)):
            _, _, ifindex, state, flags, _ = _NEIGHBOUR.unpack_from(body)
            found = dict(attributes(body, _NEIGHBOUR.size))
            mac = found.get(_NDA_LLADDR, b"")
            address = found.get(_NDA_DST, b"")
            yield NeighbourEntry(
                ifindex,
                state,
                flags,
                socket.inet_ntoa(address) if len(address) == 4 else "",
                mac.hex(":"),
                _NDA_MASTER in found,
            )

    def routes(self) -> Iterator[RouteEntry]:
        """All IPv4 routes of all tables."""
        for body in self._dump(GET_ROUTE, _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)):
            _, length, _, _, table, *_ = _ROUTE.unpack_from(body)
            found = dict(attributes(body, _ROUTE.size))
            via = found.get(_RTA_GATEWAY)
            oif = found.get(_RTA_OIF)
            yield RouteEntry(
                struct.unpack("=I", found[_RTA_TABLE])[0] if _RTA_TABLE in found else table,
                f"{ipaddress.IPv4Address(found.get(_RTA_DST, bytes(4)))}/{length}",
                socket.inet_ntoa(via) if via else "",
                struct.unpack("=i", oif)[0] if oif else 0,
            )

    def _dump(self, kind: int, body: bytes) -> Iterator[bytes]:
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
