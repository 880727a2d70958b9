"""What the data plane decides by itself: how long a change waits for the others, and whom containers ask for names."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from swarm_agent.gossip import State, Version
from swarm_agent.node import data_plane
from swarm_agent.node.data_plane import DataPlane, resolvers
from swarm_agent.node.settings import Settings
from swarm_agent.node.state import SavedState

VERSION = Version(1, 1)


@dataclass
class Peer:
    id: str
    state: State


@dataclass
class Gossip:
    """`behind`: who is behind at each look, one after another; the last stays."""

    peers: list[Peer]
    behind: list[set[str]]
    looks: int = field(default=0)

    def members(self) -> list[Peer]:
        return self.peers

    async def wait_applied(self, version: Version, timeout: float) -> set[str]:
        assert version == VERSION
        self.looks += 1
        return self.behind[min(self.looks, len(self.behind)) - 1]


@pytest.fixture
def plane() -> DataPlane:
    state = SavedState(
        node_id="n1", cluster_id="c1", role="worker", listen="127.0.0.1", listen_port=2377, advertise="127.0.0.1",
        advertise_port=2377, data_path="127.0.0.1", managers=[],
    )  # fmt: skip
    return DataPlane(state, Settings())


async def test_a_slow_host_is_waited_for_as_long_as_it_is_heard(plane: DataPlane) -> None:
    gossip = Gossip([Peer("slow", State.ALIVE)], [{"slow"}, {"slow"}, set()])
    assert await plane._behind(gossip, VERSION) == set()
    assert gossip.looks == 3


async def test_a_silent_host_delays_nobody_further(plane: DataPlane) -> None:
    gossip = Gossip([Peer("slow", State.ALIVE), Peer("dead", State.SUSPECT)], [{"slow", "dead"}, {"dead"}])
    assert await plane._behind(gossip, VERSION) == {"dead"}
    assert gossip.looks == 2


async def test_even_a_host_that_is_heard_is_not_waited_for_for_ever(
    plane: DataPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_plane, "LATE_TIMEOUT", data_plane.ACK_TIMEOUT)
    gossip = Gossip([Peer("stuck", State.ALIVE)], [{"stuck"}])
    assert await plane._behind(gossip, VERSION) == {"stuck"}


def test_containers_ask_this_host_first_and_the_next_ones_while_its_agent_is_away() -> None:
    places = {"b": "10.0.1.2", "a": "10.0.1.1", "d": "10.0.1.4", "c": "10.0.1.3"}
    assert resolvers(["10.0.1.3"], places, "c") == ["10.0.1.3", "10.0.1.4", "10.0.1.1"]
    assert resolvers(["10.0.1.3", "10.0.2.3"], places, "c") == ["10.0.1.3", "10.0.2.3", "10.0.1.4"]
    assert resolvers(["1", "2", "3", "4"], places, "c") == ["1", "2", "3", "4"]
    assert resolvers(["10.0.1.3"], {}, "c") == ["10.0.1.3"]
