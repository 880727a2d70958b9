"""Drop connection tracking entries that hold clients to endpoints which are gone.

An entry keeps its target for as long as packets come, whatever the rules say meanwhile. So entries of a removed task
go, and so do entries of UDP clients that sent to a port before any task stood behind it (tracked as untranslated).
The kernel selects the entries itself (CTA_FILTER, Linux 5.8 and later): one message, no dump of the whole table.

Blocking; runs in a worker thread. Message layout: linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from dataclasses import dataclass

_NETLINK_NETFILTER = 12
_DELETE = (1 << 8) | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE
_REQUEST, _ACK = 1, 4
_NESTED = 0x8000
_TUPLE_ORIG, _TUPLE_REPLY, _FILTER = 1, 2, 25
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_IP_V4_SRC, _IP_V4_DST = 1, 2
_PROTO_NUM, _PROTO_DST_PORT = 1, 3
_FILTER_ORIG_FLAGS, _FILTER_REPLY_FLAGS = 1, 2
_BY_IP_SRC, _BY_IP_DST, _BY_PROTO, _BY_DST_PORT = 1 << 0, 1 << 1, 1 << 3, 1 << 5

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


@dataclass(frozen=True, slots=True)
class Answers:
    """Entries whose answers come from this address (a task's), of one protocol or of all ("")."""

    ip: str
    protocol: str = ""


@dataclass(frozen=True, slots=True)
class SentTo:
    """Entries of packets sent to this port of any address (ip ""), or to this address (port 0), translated or not."""

    protocol: str
    port: int = 0
    ip: str = ""


Selection = Answers | SentTo


def message(selection: Selection, sequence: int) -> bytes:
    """The netlink message that deletes the selected IPv4 entries."""
    if isinstance(selection, Answers):
        direction, flags_kind = _TUPLE_REPLY, _FILTER_REPLY_FLAGS
        flags, address, port = _BY_IP_SRC, (_IP_V4_SRC, selection.ip), 0
    else:
        direction, flags_kind = _TUPLE_ORIG, _FILTER_ORIG_FLAGS
        flags, address, port = 0, (_IP_V4_DST, selection.ip), selection.port
        if selection.ip:
            flags |= _BY_IP_DST
    parts = b""
    if address[1]:
        parts += _attribute(_TUPLE_IP | _NESTED, _attribute(address[0], ipaddress.IPv4Address(address[1]).packed))
    proto = b""
    if selection.protocol:
        flags |= _BY_PROTO
        proto += _attribute(_PROTO_NUM, struct.pack("B", PROTOCOLS[selection.protocol]))
    if port:
        flags |= _BY_DST_PORT
        proto += _attribute(_PROTO_DST_PORT, struct.pack(">H", port))
    if proto:
        parts += _attribute(_TUPLE_PROTO | _NESTED, proto)
    body = struct.pack("BBH", socket.AF_INET, 0, 0)
    body += _attribute(direction | _NESTED, parts)
    # The kernel wants both flag words; the one that is 0 selects nothing.
    words = {_FILTER_ORIG_FLAGS: 0, _FILTER_REPLY_FLAGS: 0, flags_kind: flags}
    body += _attribute(_FILTER | _NESTED, b"".join(_attribute(kind, struct.pack("=I", words[kind])) for kind in words))
    return struct.pack("=IHHII", 16 + len(body), _DELETE, _REQUEST | _ACK, sequence, 0) + body


def _attribute(kind: int, payload: bytes) -> bytes:
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + bytes(-length % 4)


def drop(selections: list[Selection]) -> list[str]:
    """Delete the selected entries; returns what went wrong. None to delete is fine."""
    if not selections:
        return []
    errors = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as link:
        link.bind((0, 0))
        link.settimeout(5)
        for sequence, selection in enumerate(selections, start=1):
            try:
                link.send(message(selection, sequence))
                code = _answer(link.recv(65536))
            except OSError as error:
                errors.append(f"conntrack entries of {selection}: {error}")
                continue
            if code not in (0, errno.ENOENT):
                errors.append(f"conntrack entries of {selection}: {os.strerror(code)}")
    return errors


def _answer(data: bytes) -> int:
    """The errno in an acknowledgement (0: done)."""
    _, kind, _, _, _ = struct.unpack_from("=IHHII", data)
    return -int(struct.unpack_from("=i", data, 16)[0]) if kind == 2 else 0
