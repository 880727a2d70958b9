"""swarm_cluster, swarm_node and the reading modules against the real API."""

from __future__ import annotations

from swarm_agent.model.errors import NoLeader
from tests.unit.api.kit import CLUSTER_ID, NODE_ID, Door, make_node

from .conftest import Module


async def test_founding_and_again(door: Door, module: Module) -> None:
    arguments = {"advertise_addr": "10.1.1.1", "task_history_limit": 3, "heartbeat": "2s"}
    told = await module("swarm_cluster", check=True, **arguments)
    assert told["changed"] and door.node.local_state == "inactive"
    founded = await module("swarm_cluster", **arguments)
    assert founded["changed"] and founded["node_id"] == NODE_ID and founded["cluster_id"] == CLUSTER_ID
    again = await module("swarm_cluster", **arguments)
    assert again["changed"] is False and again["node_id"] == NODE_ID


async def test_settings_change_alone(swarm: Door, module: Module) -> None:
    changed = await module("swarm_cluster", cert_expiry="30d")
    assert changed["diff"] == {"before": {"cert_expiry": "2160h"}, "after": {"cert_expiry": "720h"}}
    assert (await module("swarm_cluster", cert_expiry="720h", task_history_limit=5))["changed"] is False


async def test_the_wrong_cluster_is_left_alone(swarm: Door, module: Module) -> None:
    refused = await module("swarm_cluster", cluster_id="another", task_history_limit=1)
    assert refused["failed"] and CLUSTER_ID in refused["msg"]
    assert (await module("swarm_cluster", task_history_limit=5))["changed"] is False


async def test_joining(door: Door, module: Module) -> None:
    refused = await module("swarm_cluster", state="joined")
    assert "swarm_join_token_info" in refused["msg"]
    arguments = {"state": "joined", "join_token": "SWMTKN-1-secret", "remote_addrs": ["10.1.1.1:2377"]}
    joined = await module("swarm_cluster", **arguments)
    assert joined["changed"] and joined["node_id"] and door.node.joined[0].remote_addrs == ["10.1.1.1:2377"]
    assert "SWMTKN" not in str({key: value for key, value in joined.items() if key != "invocation"})
    assert (await module("swarm_cluster", **arguments))["changed"] is False
    assert "is a worker of a cluster" in (await module("swarm_cluster"))["msg"]


async def test_joining_waits_for_an_election(door: Door, module: Module) -> None:
    """The manager that joined before this host makes the others elect; what passes by itself is no failure."""
    door.node.refusals = [NoLeader(), NoLeader()]
    arguments = {"state": "joined", "join_token": "SWMTKN-1-secret", "remote_addrs": ["10.1.1.1:2377"]}
    assert (await module("swarm_cluster", **arguments))["changed"] and door.node.refusals == []
    await module("swarm_cluster", state="left")
    door.node.refusals = [NoLeader()] * 9
    late = await module("swarm_cluster", **arguments, wait_timeout=0)
    assert late["failed"] and "does not have a leader" in late["msg"]


async def test_leaving(swarm: Door, module: Module) -> None:
    assert (await module("swarm_cluster", state="left", force=True))["changed"] is True
    assert (await module("swarm_cluster", state="left"))["changed"] is False


async def test_tokens(swarm: Door, module: Module) -> None:
    found = await module("swarm_join_token_info")
    assert found["worker"] == "SWMTKN-1-digest-worker" and found["remote_addrs"] == ["10.1.1.1:2377"]


async def test_node_labels_merge_and_replace(swarm: Door, module: Module) -> None:
    assert (await module("swarm_node", name="first", labels={"disk": "ssd"}))["changed"] is True
    assert (await module("swarm_node", name="first", labels={"disk": "ssd"}))["changed"] is False
    merged = await module("swarm_node", name=NODE_ID, labels={"rack": "1"})
    assert merged["node"]["labels"] == {"disk": "ssd", "rack": "1"}
    removed = await module("swarm_node", name="first", labels_to_remove=["rack", "none"])
    assert removed["node"]["labels"] == {"disk": "ssd"}
    replaced = await module("swarm_node", name="first", labels={}, labels_state="replace")
    assert replaced["node"]["labels"] == {}


async def test_node_availability_in_check_mode(swarm: Door, module: Module) -> None:
    told = await module("swarm_node", check=True, name="first", availability="pause")
    assert told["diff"] == {"before": {"availability": "active"}, "after": {"availability": "pause"}}
    assert told["node"]["availability"] == "active"


async def test_of_two_nodes_with_one_hostname_the_living_one_is_meant(swarm: Door, module: Module) -> None:
    down, up = make_node("nodedown", "twin", state="down"), make_node("nodeup", "twin")
    await swarm.store.update(lambda tx: [tx.create(down), tx.create(up)])
    changed = await module("swarm_node", name="twin", labels={"a": "1"})
    assert changed["node"]["id"] == "nodeup"
    other = make_node("nodeup2", "twin")
    await swarm.store.update(lambda tx: [tx.create(other)])
    refused = await module("swarm_node", name="twin", labels={"a": "2"})
    assert "3 nodes have the hostname twin" in refused["msg"] and "nodeup2" in refused["msg"]


async def test_an_unknown_node(swarm: Door, module: Module) -> None:
    assert "has to join the cluster first" in (await module("swarm_node", name="nobody"))["msg"]
    assert (await module("swarm_node", name="nobody", state="absent"))["changed"] is False


async def test_info(swarm: Door, module: Module) -> None:
    await module("swarm_service", name="web", image="web:1", replicas=2, wait=False)
    info = await module("swarm_info", services=True)
    assert info["local_state"] == "active" and info["node_ids"] == [NODE_ID]
    assert info["nodes"][0]["hostname"] == "first" and info["nodes"][0]["leader"] is True
    assert info["services"][0]["name"] == "web" and info["services"][0]["image"] == "web:1"


async def test_info_of_a_bare_host_in_check_mode(door: Door, module: Module) -> None:
    gone = str(door.path) + ".gone"
    assert (await module("swarm_info", socket=gone))["failed"] is True
    assert (await module("swarm_info", check=True, socket=gone))["local_state"] == "absent"
