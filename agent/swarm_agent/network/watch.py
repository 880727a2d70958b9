"""Notices cheaply that somebody else changed what is ours, so that looking at everything is done only then.

The kernel tells of each change of links, addresses, neighbours, routes and rules to sockets that ask for it, and
nftables (under iptables-nft) counts its changes. Our own changes are told as well, so each change of ours is followed
by one look that finds all in order; telling them apart would need care at the very moment when others may interfere.

Blocking, but never for long; runs in a worker thread.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection

from .names import is_our_table
from .nlsocket import attributes, split

_GROUPS = 0x1 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100  # links, neighbours, IPv4 addresses, routes, rules; IPv6 addresses
_OF_LINKS = (16, 17, 21)  # link new or changed, link gone, address gone
_OF_NEIGHBOURS = (28, 29)  # neighbour or forwarding entry new or changed, gone
_OF_TABLES = (25, 33)  # route gone, rule gone
_INDEX = 4  # where ifinfomsg, ifaddrmsg and ndmsg have the link's number
_TABLE_ATTRIBUTE = 15  # RTA_TABLE and FRA_TABLE
_TABLE_HEADER = 12  # bytes of rtmsg and of fib_rule_hdr

_NFT_GET_GENERATION = (10 << 8) | 16
_NFT_NEW_GENERATION = (10 << 8) | 15


def disturbs(data: bytes, links: Collection[int], tunnels: Collection[int]) -> bool:
    """Whether a datagram of notifications tells of a change to these links, to the entries of these tunnels, or to our
    routes and rules. `links` includes the tunnels.
    """
    for kind, _, body in split(data):
        if kind in _OF_LINKS:
            found = struct.unpack_from("=i", body, _INDEX)[0] in links
        elif kind in _OF_NEIGHBOURS:
            found = struct.unpack_from("=i", body, _INDEX)[0] in tunnels
        elif kind in _OF_TABLES:
            table = dict(attributes(body, _TABLE_HEADER)).get(_TABLE_ATTRIBUTE, bytes(4))
            found = is_our_table(struct.unpack("=I", table)[0])
        else:
            found = False
        if found:
            return True
    return False


class Watch:
    """Notifications of this network namespace since they were last asked for."""

    def __init__(self) -> None:
        self._link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._link.bind((0, _GROUPS))
        self._link.setblocking(False)

    def disturbed(self, links: Collection[int], tunnels: Collection[int]) -> bool:
        """Whether anything of ours was changed. Reads all notifications away."""
        found = False
        while True:
            try:
                data = self._link.recv(1 << 16)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found = True  # so many that some were lost: no telling
                continue
            found = found or disturbs(data, links, tunnels)

    def forget(self) -> None:
        """Read all notifications away, just before everything is looked at."""
        self.disturbed((), ())

    def close(self) -> None:
        self._link.close()


def firewall_generation() -> int | None:
    """A number that changes with every change of nftables in this namespace; None when the kernel has none."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as link:
            link.bind((0, 0))
            link.settimeout(2)
            link.send(struct.pack("=IHHIIBBH", 20, _NFT_GET_GENERATION, 1, 1, 0, socket.AF_UNSPEC, 0, 0))
            for kind, _, body in split(link.recv(1 << 14)):
                if kind == _NFT_NEW_GENERATION:
                    value = dict(attributes(body, 4)).get(1)
                    return int.from_bytes(value, "big") if value else None
    except OSError:
        return None
    return None
