"""Drop connection tracking entries that hold clients to endpoints which are gone.

An entry keeps its target for as long as packets come, whatever the rules say meanwhile. So entries of a removed task
go, and so do entries of UDP clients that sent to a port before any task stood behind it (tracked as untranslated).
The kernel selects the entries itself (CTA_FILTER): one message where it can delete by selection, which Debian 12's 6.1
refuses; there it lists the selected entries (Linux 5.8 and later), and each is deleted by its own tuple.

Blocking; runs in a worker thread. Message layout: linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from dataclasses import dataclass

from .nlsocket import Message, NetlinkSocket, attributes

_NETLINK_NETFILTER = 12
_GET, _DELETE = (1 << 8) | 1, (1 << 8) | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET and _DELETE
_REQUEST, _ACK = 1, 4
_NESTED = 0x8000
_TUPLE_ORIG, _TUPLE_REPLY, _ID, _ZONE, _FILTER = 1, 2, 12, 18, 25
_HEAD = struct.pack("BBH", socket.AF_INET, 0, 0)
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
    body = selected(selection)
    return struct.pack("=IHHII", 16 + len(body), _DELETE, _REQUEST | _ACK, sequence, 0) + body


def selected(selection: Selection) -> bytes:
    """What a message says about the entries that it is about."""
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
    body = _HEAD + _attribute(direction | _NESTED, parts)
    # The kernel wants both flag words; the one that is 0 selects nothing.
    words = {_FILTER_ORIG_FLAGS: 0, _FILTER_REPLY_FLAGS: 0, flags_kind: flags}
    return body + _attribute(
        _FILTER | _NESTED, b"".join(_attribute(kind, struct.pack("=I", words[kind])) for kind in words)
    )


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
            if code == errno.EINVAL:
                code = drop_each(selection)
            if code not in (0, errno.ENOENT):
                errors.append(f"conntrack entries of {selection}: {os.strerror(code)}")
    return errors


class _Conntrack(NetlinkSocket):
    protocol = _NETLINK_NETFILTER


def drop_each(selection: Selection) -> int:
    """List the selected entries and delete one by one; returns the first errno that is not "gone already"."""
    try:
        with _Conntrack() as link:
            found = [deletion(body) for body in link.dump(_GET, selected(selection))]
            return next((code for code in link.send(found) if code not in (0, errno.ENOENT)), 0)
    except OSError as error:
        return error.errno or errno.EIO


def deletion(entry: bytes) -> Message:
    """The message that deletes an entry as the kernel listed it: its tuple with zones, and its id."""
    parts = dict(attributes(entry, len(_HEAD)))
    body = _HEAD + _attribute(_TUPLE_ORIG | _NESTED, parts[_TUPLE_ORIG])
    for kind in (_ZONE, _ID):
        if kind in parts:
            body += _attribute(kind, parts[kind])
    return Message(_DELETE, 0, body)


def _answer(data: bytes) -> int:
    """The errno in an acknowledgement (0: done)."""
    _, kind, _, _, _ = struct.unpack_from("=IHHII", data)
    return -int(struct.unpack_from("=i", data, 16)[0]) if kind == 2 else 0
