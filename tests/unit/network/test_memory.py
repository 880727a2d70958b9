"""Tables that outlive a restart of the agent."""

from __future__ import annotations

from pathlib import Path

from swarm_agent.model.objects import Network
from swarm_agent.model.rows import EndpointRow, PeerRow
from swarm_agent.network.memory import is_settled, load, save, with_memory
from swarm_agent.network.tables import NetworkTables


def row(task: str) -> EndpointRow:
    return EndpointRow(task, "s", "web", 1, "c")


PEER_B = ("b", PeerRow("n", "10.0.0.3", "02:42:0a:00:00:03"))
OLD = NetworkTables(
    networks=[Network(id="n")],
    own={"n": "10.0.0.2/24"},
    hosts={"a": "192.168.0.1", "b": "192.168.0.2", "c": "192.168.0.3"},
    endpoints=[("a", row("a1")), ("b", row("b1")), ("c", row("c1"))],
    peers=[PEER_B],
)


def test_hosts_that_were_not_heard_keep_their_rows() -> None:
    now = NetworkTables(hosts={"a": "192.168.0.1", "b": "192.168.0.9"}, endpoints=[("a", row("a2"))], peers=[PEER_B])
    merged = with_memory(now, OLD)
    assert merged.endpoints == [("a", row("a2")), ("c", row("c1"))]
    assert merged.hosts == {"a": "192.168.0.1", "b": "192.168.0.9", "c": "192.168.0.3"}
    assert (merged.networks, merged.own) == (OLD.networks, OLD.own)


def test_a_task_that_moved_is_not_doubled() -> None:
    assert with_memory(NetworkTables(endpoints=[("a", row("c1"))]), OLD).endpoints == [
        ("a", row("c1")),
        ("b", row("b1")),
    ]


def test_settled_when_every_remembered_host_was_heard() -> None:
    heard = [("a", row("a2")), ("c", row("c1"))]
    assert not is_settled(NetworkTables(endpoints=heard), OLD)
    assert is_settled(NetworkTables(endpoints=heard, peers=[PEER_B]), OLD)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "tables"
    assert load(path) is None
    save(path, OLD)
    assert load(path) == OLD
    path.write_bytes(b"\xc1 damaged")
    assert load(path) is None
