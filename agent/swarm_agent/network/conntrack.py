"""Drop connection tracking entries that hold clients to endpoints which are gone.

An entry keeps its target for as long as packets come, whatever the rules say meanwhile. So entries of a removed task
go, and so do entries of UDP clients that sent to a port before any task stood behind it (tracked as untranslated).
The kernel selects IPv4 entries itself (CTA_FILTER): one message where it can delete by selection, which Debian 12's 6.1
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
_HEAD, _HEAD6 = struct.pack("BBH", socket.AF_INET, 0, 0), struct.pack("BBH", socket.AF_INET6, 0, 0)
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_IP_V4_SRC, _IP_V4_DST = 1, 2
_IP_V6_SRC, _IP_V6_DST = 3, 4
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
    """Entries of packets sent to this port of any IPv4 address (ip ""), or to this address (port 0), translated or
    not.
    """

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
    errors = _drop_six([one for one in selections if ":" in one.ip])
    selections = [one for one in selections if ":" not in one.ip]
    if not selections:
        return errors
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


def _drop_six(selections: list[Selection]) -> list[str]:
    """Delete entries of IPv6 addresses. They are selected here: the kernel's own selection leaves just those that are
    meant (seen with 6.18; ctnetlink_filter_match_tuple takes "equal" for "different").
    """
    if not selections:
        return []
    try:
        with _Conntrack() as link:
            found = [
                deletion(body) for body in link.dump(_GET, _HEAD6) if any(matches(one, body) for one in selections)
            ]
            codes = {code for code in link.send(found) if code not in (0, errno.ENOENT)}
    except OSError as error:
        return [f"conntrack entries of IPv6: {error}"]
    return [f"conntrack entries of IPv6: {os.strerror(code)}" for code in sorted(codes)]


def matches(selection: Selection, entry: bytes) -> bool:
    """Whether an entry as the kernel listed it is of an IPv6 address that is meant."""
    parts = dict(attributes(entry, len(_HEAD)))
    direction, kind = (_TUPLE_REPLY, _IP_V6_SRC) if isinstance(selection, Answers) else (_TUPLE_ORIG, _IP_V6_DST)
    one = dict(attributes(parts.get(direction, b""), 0))
    if dict(attributes(one.get(_TUPLE_IP, b""), 0)).get(kind) != ipaddress.IPv6Address(selection.ip).packed:
        return False
    protocol = dict(attributes(one.get(_TUPLE_PROTO, b""), 0)).get(_PROTO_NUM, b"\0")[0]
    return not selection.protocol or PROTOCOLS[selection.protocol] == protocol


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
    body = entry[: len(_HEAD)] + _attribute(_TUPLE_ORIG | _NESTED, parts[_TUPLE_ORIG])
    for kind in (_ZONE, _ID):
        if kind in parts:
            body += _attribute(kind, parts[kind])
    return Message(_DELETE, 0, body)


def _answer(data: bytes) -> int:
    """The errno in an acknowledgement (0: done)."""
    _, kind, _, _, _ = struct.unpack_from("=IHHII", data)
    return -int(struct.unpack_from("=i", data, 16)[0]) if kind == 2 else 0
