"""Notifications of the kernel: which ones mean that somebody changed what is ours."""

from __future__ import annotations

import struct

import pytest

from swarm_agent.network.names import PUBLISH_TABLE
from swarm_agent.network.watch import disturbs

LINKS, TUNNELS = {5, 6}, {6}


def notification(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def link(index: int) -> bytes:
    return struct.pack("=BxHiII", 0, 1, index, 0, 0)


def neighbour(index: int) -> bytes:
    return struct.pack("=BxHiHBB", 2, 0, index, 0x80, 0, 0)


def in_table(table: int) -> bytes:
    return bytes(12) + struct.pack("=HHI", 8, 15, table)


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        (17, link(5), True),
        (16, link(6), True),
        (17, link(7), False),
        (21, struct.pack("=BBBBI", 2, 24, 0, 0, 5), True),
        (21, struct.pack("=BBBBI", 2, 24, 0, 0, 9), False),
        (29, neighbour(6), True),
        (28, neighbour(5), False),  # a container's entry on a bridge
        (25, in_table(PUBLISH_TABLE), True),
        (25, in_table(254), False),
        (33, in_table(PUBLISH_TABLE + 7), True),
        (33, in_table(100), False),
        (24, in_table(PUBLISH_TABLE), False),  # a new route harms nothing
    ],
)
def test_only_changes_to_our_things_disturb(kind: int, body: bytes, expected: bool) -> None:
    assert disturbs(notification(kind, body), LINKS, TUNNELS) is expected


def test_all_messages_of_a_datagram_are_read() -> None:
    data = notification(17, link(7)) + notification(29, neighbour(9)) + notification(17, link(5))
    assert disturbs(data, LINKS, TUNNELS)
