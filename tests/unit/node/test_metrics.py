"""Metrics: the text format, the families, the port; and what explains a task on a manager."""

from __future__ import annotations

import asyncio
import re

import pytest

from swarm_agent.api.metrics_port import MetricsPort
from swarm_agent.gossip import GossipNode
from swarm_agent.model.objects import Task, TaskStatus
from swarm_agent.model.rows import ENDPOINTS
from swarm_agent.model.states import TaskState
from swarm_agent.node import metrics
from swarm_agent.node.data_plane import DataPlane
from swarm_agent.node.exposition import Family, counters, gauge, render
from swarm_agent.node.gossip_keys import encode_meta
from swarm_agent.node.introspection import Introspection, explain_task
from swarm_agent.node.loop_lag import BOUNDS, LoopLag
from swarm_agent.raft.settings import MemberStatus, Status
from swarm_agent.store.memory import memory_store
from tests.sim.gossip_world import World

LINE = re.compile(r'[a-z_]+(\{[a-z]+="[^"]*"\})? -?[0-9.e+-]+')


def values(families: list[Family]) -> dict[str, float]:
    """name{label} → value, as Prometheus would read the text."""
    found = {}
    for line in render(families).splitlines():
        if not line.startswith("#"):
            assert LINE.fullmatch(line), line
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found


def test_the_text_is_what_prometheus_reads() -> None:
    text = render([gauge("a", "Some\nthing.", 1.5), counters("b_total", "Others.", "reason", {'say "x"': 2})])
    assert text == (
        "# HELP a Some\\nthing.\n# TYPE a gauge\na 1.5\n"
        '# HELP b_total Others.\n# TYPE b_total counter\nb_total{reason="say \\"x\\""} 2\n'
    )


def test_every_name_appears_once_and_gossip_has_its_states_as_labels() -> None:
    world = World(1)
    world.cluster(3)
    world.kill("n2")
    world.run(5)
    stats = world.nodes["n0"].core.stats()
    families = metrics.gossip({**stats, "refused_replayed": 3})
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    found = values(families)
    assert found['swarm_gossip_members{state="dead"}'] == 1 and found['swarm_gossip_members{state="alive"}'] == 1
    assert found['swarm_gossip_refused_total{reason="replayed"}'] == 3
    assert found["swarm_gossip_deaths_total"] == 1 and found["swarm_gossip_probes_total"] == stats["probes"] > 0
    assert 'swarm_gossip_queue{class="own"}' in found and found["swarm_gossip_health"] >= 0


def test_the_histogram_of_loop_lag_adds_up() -> None:
    lag = LoopLag()
    for late in (0.0005, 0.02, 0.02, 9.0):
        lag.note(late)
    found = values(lag.families())
    assert found['swarm_loop_lag_seconds_bucket{le="0.001"}'] == 1
    assert found['swarm_loop_lag_seconds_bucket{le="0.05"}'] == 3
    assert found['swarm_loop_lag_seconds_bucket{le="+Inf"}'] == found["swarm_loop_lag_seconds_count"] == 4
    assert found["swarm_loop_lag_seconds_worst"] == 9.0 and len(lag.buckets) == len(BOUNDS) + 1


def test_raft_tells_term_indexes_and_who_is_there() -> None:
    members = (MemberStatus(1, "a", True, True, 7), MemberStatus(2, "b", True, False, 3))
    found = values(metrics.raft(Status(1, 4, 1, True, 2, 9, 8, 7, members)))
    assert (found["swarm_raft_term"], found["swarm_raft_last_index"], found["swarm_raft_leads"]) == (4, 9, 1)
    assert found["swarm_raft_members_active"] == 1 and found["swarm_raft_log_entries"] == 8


async def test_the_store_counts_objects_and_tasks_by_state() -> None:
    store = memory_store()
    tasks = [
        Task(id="t1", status=TaskStatus(state=TaskState.RUNNING)),
        Task(id="t2", status=TaskStatus(state=TaskState.FAILED)),
    ]
    await store.update(lambda tx: [tx.create(task) for task in tasks])
    found = values(metrics.store(store))
    assert found['swarm_tasks{state="running"}'] == found['swarm_tasks{state="failed"}'] == 1
    assert found['swarm_store_objects{kind="task"}'] == 2 and found["swarm_store_index"] > 0


def test_outside_a_cluster_there_are_metrics_of_the_process() -> None:
    text = Introspection(lambda: None, lambda: "inactive").metrics()
    assert 'swarm_node_state{state="inactive"} 1' in text and "process_resident_memory_bytes" in text


async def test_the_port_serves_metrics_and_nothing_else() -> None:
    port = MetricsPort(lambda: "a 1\n", "127.0.0.1:0")
    await port.start()

    async def ask(head: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port.port)
        writer.write(head)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer

    try:
        answer = await ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"\r\n\r\na 1\n")
        assert (await ask(b"GET /containers/json HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 404")
        assert (await ask(b"rubbish\r\n\r\n")).startswith(b"HTTP/1.1 400")
        assert await ask(b"") == b""
    finally:
        await port.stop()


@pytest.mark.parametrize("address", ["9323", "host:", ":1", "host:99999"])
def test_an_address_that_is_none_is_refused_with_an_example(address: str) -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT, as 127\.0\.0\.1:9323"):
        MetricsPort(str, address)


async def test_a_task_is_explained_by_its_state_and_its_row() -> None:
    gossip = GossipNode("n1", ("127.0.0.1", 0), ("127.0.0.1", 0), "lab", [bytes(32)])
    await gossip.start()
    try:
        store = memory_store()
        tasks = [
            Task(id="here", node_id="n1", status=TaskStatus(state=TaskState.RUNNING)),
            Task(id="there", node_id="n9", status=TaskStatus(state=TaskState.FAILED, err="no such image")),
            Task(id="waits", status=TaskStatus(state=TaskState.PENDING, message="no suitable node")),
        ]
        await store.update(lambda tx: [tx.create(task) for task in tasks])
        gossip.publish(ENDPOINTS, "here", b"row")
        view = store.view()
        assert "is visible" in " ".join(explain_task(gossip, view, "here"))
        assert explain_task(gossip, view, "there")[0] == ("Task there is failed on node n9, wanted new: no such image.")
        assert "n9 is no known member" in explain_task(gossip, view, "there")[1]
        assert "on no node yet" in explain_task(gossip, view, "waits")[0]
        assert "only tasks that run have one" in explain_task(gossip, None, "nothing")[0]
    finally:
        await gossip.stop()


def test_a_host_that_was_removed_does_not_hold_up_the_next_key() -> None:
    """It never confirms new keys, and speaks on under the old one: waiting for it would keep it in for ever."""
    world = World(2)
    world.cluster(3)
    old, new = [bytes(32)], [bytes([7]) * 32]
    for id, keys in (("n0", new), ("n1", new), ("n2", old)):
        world.do(id, lambda core, keys=keys: core.membership.set_meta(encode_meta("10.0.0.1", keys)))
    world.settle()

    class Parts:
        class gossip:
            members = staticmethod(world.nodes["n0"].core.members)

    plane = DataPlane.__new__(DataPlane)
    plane._parts = Parts  # type: ignore[assignment]
    assert not plane.all_hold(new, {"n0", "n1", "n2"})
    assert plane.all_hold(new, {"n0", "n1"}), "n2 is no node of the cluster any more"
