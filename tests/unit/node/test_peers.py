"""Messages to a peer that does not take them are dropped, not kept."""

import asyncio

import pytest

from swarm_agent.node import peers
from swarm_agent.node.peers import PeerTransport


@pytest.fixture
async def transport():
    transport = PeerTransport(1, "127.0.0.1:1", lambda member: "", lambda: None)
    yield transport
    await transport.stop()


async def test_what_waits_for_a_peer_is_bounded_in_bytes(transport, monkeypatch):
    monkeypatch.setattr(peers, "MAX_QUEUED", 1000)
    for _ in range(50):
        transport.send(2, b"m" * 300)
    transport.send(2, b"small")
    peer = transport._peers[2]
    assert [len(data) for data in peer._queue] == [300, 300, 300, 5] and peer._queued == 905


async def test_connections_to_former_members_end(transport):
    for member in (2, 3):
        transport.send(member, b"m")
    gone = transport._peers[3].task
    transport.keep({1, 2})
    assert set(transport._peers) == {2}
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert gone.cancelled()
