"""Neighbours, forwarding entries, routes and bridges' ports as netlink messages. Layout: linux/neighbour.h,
linux/rtnetlink.h, linux/if_link.h.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from .names import LOCAL
from .nlsocket import Message, NetlinkSocket, attribute, attributes

NEW_NEIGHBOUR, DEL_NEIGHBOUR, GET_NEIGHBOUR = 28, 29, 30
NEW_ROUTE, DEL_ROUTE, GET_ROUTE = 24, 25, 26
_GET_LINK, _SET_LINK = 18, 19
NUD_NOARP, NUD_PERMANENT = 0x40, 0x80
NTF_SELF, NTF_MASTER = 0x02, 0x04
_REPLACE, _CREATE = 0x100, 0x400
_NDA_DST, _NDA_LLADDR, _NDA_MASTER = 1, 2, 9
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 1, 4, 5, 15
_RTNH_ONLINK, _RTPROT_STATIC = 4, 4
_RT_UNIVERSE, _RT_HOST, _RT_ANY_SCOPE = 0, 254, 255
_RTN_ANY, _RTN_UNICAST, _RTN_LOCAL = 0, 1, 2
_IFLA_MASTER, _IFLA_PROTINFO, _IFLA_LINKINFO, _NESTED = 10, 12, 18, 0x8000
_IFLA_INFO_KIND, _IFLA_INFO_SLAVE_DATA, _IFLA_BRPORT_MODE = 1, 5, 4
_FAMILIES = {4: socket.AF_INET, 16: socket.AF_INET6}  # by an address's length
_NEIGHBOUR = struct.Struct("=BxHiHBB")
_ROUTE = struct.Struct("=BBBBBBBBI")
_LINK = struct.Struct("=BxHiII")


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


@dataclass(frozen=True, slots=True)
class Port:
    """A link that is a port of a bridge. `hairpin`: it may send out what it has received."""

    ifindex: int
    bridge: int
    kind: str
    hairpin: bool


def set_neighbour(ifindex: int, ip: str, mac: str) -> Message:
    """IP → MAC, for good."""
    body = _NEIGHBOUR.pack(_family(ip), 0, ifindex, NUD_PERMANENT, 0, 0)
    return _change(NEW_NEIGHBOUR, body + _ip(_NDA_DST, ip) + _mac(mac))


def remove_neighbour(ifindex: int, ip: str) -> Message:
    return _change(DEL_NEIGHBOUR, _NEIGHBOUR.pack(_family(ip), 0, ifindex, 0, 0, 0) + _ip(_NDA_DST, ip))


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
    """A route through a neighbour of the link, whatever addresses the link has, or to this host itself (via LOCAL)."""
    link = attribute(_RTA_OIF, struct.pack("=i", ifindex))
    if via == LOCAL:
        return _change(NEW_ROUTE, _route(table, prefix, _RT_HOST, _RTN_LOCAL) + link)
    return _change(NEW_ROUTE, _route(table, prefix, flags=_RTNH_ONLINK) + _ip(_RTA_GATEWAY, via) + link)


def remove_route(table: int, prefix: str) -> Message:
    return _change(DEL_ROUTE, _route(table, prefix, _RT_ANY_SCOPE, _RTN_ANY))


def open_hairpin(ifindex: int) -> Message:
    """The port of a bridge may send out what it has received."""
    mode = attribute(_IFLA_BRPORT_MODE, b"\1")
    return _change(
        _SET_LINK, _LINK.pack(socket.AF_BRIDGE, 0, ifindex, 0, 0) + attribute(_IFLA_PROTINFO | _NESTED, mode)
    )


def _route(table: int, prefix: str, scope: int = _RT_UNIVERSE, kind: int = _RTN_UNICAST, flags: int = 0) -> bytes:
    address, _, length = prefix.partition("/")
    head = _ROUTE.pack(socket.AF_INET, int(length), 0, 0, 0, _RTPROT_STATIC, scope, kind, flags)
    return head + _ip(_RTA_DST, address) + attribute(_RTA_TABLE, struct.pack("=I", table))


def _change(kind: int, body: bytes) -> Message:
    return Message(kind, _REPLACE | _CREATE if kind in (NEW_NEIGHBOUR, NEW_ROUTE) else 0, body)


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _ip(kind: int, address: str) -> bytes:
    return attribute(kind, socket.inet_pton(_family(address), address))


def _mac(mac: str) -> bytes:
    return attribute(_NDA_LLADDR, bytes.fromhex(mac.replace(":", "")))


class RouteSocket(NetlinkSocket):
    """A netlink socket for routes and neighbours of this network namespace."""

    def neighbours(self, family: int) -> Iterator[NeighbourEntry]:
        """All entries of AF_INET or AF_INET6 (neighbours) or AF_BRIDGE (forwarding tables)."""
        for body in self.dump(GET_NEIGHBOUR, _NEIGHBOUR.pack(family, 0, 0, 0, 0, 0)):
            _, _, ifindex, state, flags, _ = _NEIGHBOUR.unpack_from(body)
            found = dict(attributes(body, _NEIGHBOUR.size))
            mac = found.get(_NDA_LLADDR, b"")
            address = found.get(_NDA_DST, b"")
            yield NeighbourEntry(
                ifindex,
                state,
                flags,
                socket.inet_ntop(_FAMILIES[len(address)], address) if len(address) in _FAMILIES else "",
                mac.hex(":"),
                _NDA_MASTER in found,
            )

    def routes(self) -> Iterator[RouteEntry]:
        """All IPv4 routes of all tables."""
        for body in self.dump(GET_ROUTE, _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)):
            _, length, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(body)
            found = dict(attributes(body, _ROUTE.size))
            via = found.get(_RTA_GATEWAY)
            oif = found.get(_RTA_OIF)
            yield RouteEntry(
                struct.unpack("=I", found[_RTA_TABLE])[0] if _RTA_TABLE in found else table,
                f"{ipaddress.IPv4Address(found.get(_RTA_DST, bytes(4)))}/{length}",
                LOCAL if kind == _RTN_LOCAL else socket.inet_ntoa(via) if via else "",
                struct.unpack("=i", oif)[0] if oif else 0,
            )

    def ports(self) -> Iterator[Port]:
        """All ports of all bridges. Little of a link is looked at: a busy host asks often, and has many."""
        for body in self.dump(_GET_LINK, _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
            found = dict(attributes(body, _LINK.size))
            if _IFLA_MASTER in found and _IFLA_LINKINFO in found:
                about = dict(attributes(found[_IFLA_LINKINFO], 0))
                mode = dict(attributes(about.get(_IFLA_INFO_SLAVE_DATA, b""), 0)).get(_IFLA_BRPORT_MODE)
                if mode is not None:
                    (bridge,) = struct.unpack("=i", found[_IFLA_MASTER])
                    kind = about.get(_IFLA_INFO_KIND, b"").rstrip(b"\0").decode()
                    yield Port(_LINK.unpack_from(body)[2], bridge, kind, mode != b"\0")
