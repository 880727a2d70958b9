"""Answers in which the cluster's part is joined to the engine's: /_ping, /version, /info, /networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import msgspec
import pytest

from swarm_agent.api.engine_info import KEPT, EngineInfo
from swarm_agent.api.local import limit_version
from swarm_agent.model.errors import NoLeader
from swarm_agent.model.objects import (
    Endpoint,
    EndpointVirtualIP,
    Network,
    NetworkAttachment,
    Service,
    Task,
    TaskStatus,
)
from swarm_agent.model.specs import NetworkAttachmentConfig, ServiceSpec, TaskSpec
from swarm_agent.model.states import TaskState
from swarm_agent.network.names import NETWORK_LABEL
from tests.unit.api.kit import CLUSTER_ID, NODE_ID, Door, HttpEngine, make_node, open_door

WORKER = "node00000000000000000000b"
OVERLAY = "overlay000000000000000000"


async def headers_of(door: Door, method: str, path: str) -> tuple[int, Any, str]:
    async with door.session.request(method, f"http://door{path}") as reply:
        return reply.status, reply.headers, await reply.text()


# --- /_ping, /version ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_ping_tells_versions_and_the_clusters_state(door: Door, method: str) -> None:
    status, headers, text = await headers_of(door, method, "/_ping")
    assert (status, text) == (200, "OK" if method == "GET" else "")
    assert headers["Api-Version"] == "1.41"
    assert headers["Ostype"] == "linux"
    assert headers["Docker-Experimental"] == "false"
    assert headers["Builder-Version"] == "1"
    assert headers["Server"] == "Docker/20.10.24 (linux)"
    assert headers["Cache-Control"] == "no-cache, no-store, must-revalidate"
    assert headers["Swarm"] == "inactive"
    if method == "HEAD":
        assert headers["Content-Length"] == "0"


@pytest.mark.parametrize(
    ("state", "manager", "word"),
    [
        ("pending", False, "pending"),
        ("error", False, "error"),
        ("locked", False, "locked"),
        ("active", False, "active/worker"),
        ("active", True, "active/manager"),
    ],
)
async def test_the_swarm_header(door: Door, state: str, manager: bool, word: str) -> None:
    if manager:
        await door.call("POST", "/swarm/init", {})
    door.node.local_state = state
    assert (await headers_of(door, "GET", "/_ping"))[1]["Swarm"] == word


async def test_without_an_engine_ping_fails_but_still_tells(tmp_path: Path) -> None:
    async with open_door(tmp_path, tmp_path / "none.sock") as door:
        status, headers, _ = await headers_of(door, "HEAD", "/_ping")
        assert status == 500, "the CLI reads the headers of 200 and 500"
        assert headers["Swarm"] == "inactive" and "Api-Version" in headers


async def test_every_answer_has_the_engines_headers(swarm: Door) -> None:
    for path in ("/services", "/services/nope", "/v1.99/services"):
        headers = (await headers_of(swarm, "GET", path))[1]
        assert headers["Api-Version"] == "1.41"
        assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v1.42/services", "client version 1.42 is too new. Maximum supported API version is 1.41"),
        (
            "/v1.23/services",
            "client version 1.23 is too old. Minimum supported API version is 1.24, "
            "please upgrade your client to a newer version",
        ),
    ],
)
async def test_versions_that_are_not_spoken(swarm: Door, path: str, message: str) -> None:
    assert await swarm.call("GET", path) == (400, {"message": message})


def test_a_newer_engine_is_not_announced_beyond_what_we_speak() -> None:
    details = {"Name": "Engine", "Details": {"ApiVersion": "1.60"}}
    answer = limit_version({"ApiVersion": "1.60", "Components": [details]})
    assert answer["ApiVersion"] == "1.51"
    assert answer["Components"][0]["Details"]["ApiVersion"] == "1.51"


# --- /info -----------------------------------------------------------------------------------------------------------


async def swarm_of(door: Door) -> dict[str, Any]:
    status, answer = await door.call("GET", "/v1.41/info")
    assert status == 200 and answer["ID"] == "engine"
    section: dict[str, Any] = answer["Swarm"]
    return section


async def test_info_outside_a_cluster_is_the_engines(door: Door) -> None:
    assert await swarm_of(door) == {"LocalNodeState": "inactive"}


async def test_info_on_a_manager(swarm: Door) -> None:
    section = await swarm_of(swarm)
    assert section["NodeID"] == NODE_ID
    assert section["NodeAddr"] == "10.1.1.1"
    assert section["LocalNodeState"] == "active"
    assert section["ControlAvailable"] is True
    assert (section["Nodes"], section["Managers"]) == (1, 1)
    assert section["RemoteManagers"] == [{"NodeID": NODE_ID, "Addr": "10.1.1.1:2377"}]
    cluster = section["Cluster"]
    assert cluster["ID"] == CLUSTER_ID
    assert cluster["DefaultAddrPool"] == ["10.0.0.0/8"]
    assert cluster["Spec"]["Orchestration"] == {"TaskHistoryRetentionLimit": 5}
    assert cluster["Spec"]["Dispatcher"] == {"HeartbeatPeriod": 5_000_000_000}
    assert "JoinTokens" not in cluster
    assert "private" not in str(section)


async def test_two_managers_are_warned_about(swarm: Door) -> None:
    await swarm.store.update(lambda tx: tx.create(make_node(WORKER, "second", role="manager")))
    (warning,) = (await swarm_of(swarm))["Warnings"]
    assert warning == (
        "WARNING: Running Swarm in a two-manager configuration. This configuration provides\n"
        "         no fault tolerance, and poses a high risk to lose control over the cluster.\n"
        "         Refer to https://docs.docker.com/engine/swarm/admin_guide/ to configure the\n"
        "         Swarm for fault-tolerance."
    )


async def test_info_on_a_worker(door: Door) -> None:
    await door.call("POST", "/swarm/join", {"RemoteAddrs": ["10.1.1.1:2377"], "JoinToken": "t"})
    section = await swarm_of(door)
    assert section["ControlAvailable"] is False
    assert "Cluster" not in section and "Nodes" not in section


async def test_info_without_quorum_tells_what_is_known_and_why(swarm: Door) -> None:
    swarm.store.proposer.refusal = NoLeader()  # type: ignore[union-attr]
    section = await swarm_of(swarm)
    assert section["Nodes"] == 1
    assert "does not have a leader" in section["Error"]


def asked_for_info(engine: HttpEngine) -> int:
    return sum(path == "/info" for _, path, _ in engine.seen)


async def test_the_engines_part_of_info_is_kept_for_a_moment(swarm: Door, engine: HttpEngine) -> None:
    clock = [100.0]
    swarm.api.engine_info = EngineInfo(swarm.api.engine, clock=lambda: clock[0])
    for _ in range(3):
        await swarm_of(swarm)
    assert asked_for_info(engine) == 1
    clock[0] += KEPT
    assert (await swarm_of(swarm))["Nodes"] == 1
    assert asked_for_info(engine) == 2
    await swarm.store.update(lambda tx: tx.create(make_node(WORKER, "second")))
    assert (await swarm_of(swarm))["Nodes"] == 2, "the cluster's part is never kept"
    assert asked_for_info(engine) == 2


async def test_a_change_of_the_engine_through_the_front_door_shows_in_info_at_once(
    swarm: Door, engine: HttpEngine
) -> None:
    swarm.api.engine_info = EngineInfo(swarm.api.engine, clock=lambda: 100.0)
    await swarm_of(swarm)
    for method, path in (("POST", "/containers/x/start"), ("DELETE", "/images/x"), ("POST", "/networks/prune")):
        asked = asked_for_info(engine)
        await swarm.call(method, path)
        await swarm_of(swarm)
        assert asked_for_info(engine) == asked + 1, path
    asked = asked_for_info(engine)
    await swarm.call("GET", "/containers/json")
    with swarm.api.engine_info.during("POST"):  # as long as an upload lasts
        await swarm_of(swarm)
        await swarm_of(swarm)
    assert asked_for_info(engine) == asked + 2


# --- /networks -------------------------------------------------------------------------------------------------------


async def names(door: Door, filters: str = "") -> list[str]:
    status, found = await door.call("GET", "/networks" + (f"?filters={filters}" if filters else ""))
    assert status == 200
    return [item["Name"] for item in found]


async def overlay(door: Door, name: str = "back", **parts: Any) -> str:
    status, answer = await door.call("POST", "/networks/create", {"Name": name, "Driver": "overlay", **parts})
    assert status == 201, answer
    id_: str = answer["Id"]
    return id_


async def test_outside_a_cluster_networks_are_the_engines(door: Door, engine: HttpEngine) -> None:
    assert await names(door) == ["bridge", "host", "none"]
    await door.call("POST", "/networks/create", {"Name": "x", "Driver": "overlay"})
    assert ("POST", "/networks/create", "") in engine.seen


async def test_overlays_come_first_and_our_bridges_are_hidden(swarm: Door, engine: HttpEngine) -> None:
    id_ = await overlay(swarm)
    engine.add("swb-back", labels={NETWORK_LABEL: id_})
    assert await names(swarm) == ["ingress", "back", "bridge", "host", "none"]


@pytest.mark.parametrize(
    ("filters", "overlays"),
    [
        ('{"scope":["swarm"]}', ["ingress", "back"]),
        ('{"scope":["local"]}', []),
        ('{"driver":{"overlay":true}}', ["ingress", "back"]),
        ('{"driver":["bridge"]}', []),
        ('{"name":["ac"]}', ["back"]),
        ('{"label":["team=a"]}', ["back"]),
        ('{"label":["team=b"]}', []),
        ('{"type":["builtin"]}', []),
        ('{"dangling":["true"]}', ["ingress", "back"]),
        ('{"dangling":["false"]}', []),
    ],
)
async def test_network_filters(swarm: Door, filters: str, overlays: list[str]) -> None:
    await overlay(swarm, Labels={"team": "a"})
    local = {"bridge", "host", "none"}  # this engine does not filter
    assert [name for name in await names(swarm, filters) if name not in local] == overlays


async def test_a_network_is_found_by_name_id_and_beginning(swarm: Door) -> None:
    id_ = await overlay(swarm)
    for term in (id_, "back", id_[:8]):
        status, found = await swarm.call("GET", f"/networks/{term}")
        assert (status, found["Id"], found["Scope"], found["Driver"]) == (200, id_, "swarm", "overlay")
    assert (await swarm.call("GET", "/networks/bridge"))[1]["Containers"] == {}
    assert await swarm.call("GET", "/networks/nope") == (404, {"message": "network nope not found"})


async def test_scope_tells_networks_of_one_name_apart(swarm: Door, engine: HttpEngine) -> None:
    id_ = await overlay(swarm)
    engine.add("back")
    status, answer = await swarm.call("GET", "/networks/back")
    assert status == 400 and "2 matches found based on name" in answer["message"]
    assert (await swarm.call("GET", "/networks/back?scope=swarm"))[1]["Id"] == id_
    assert (await swarm.call("GET", "/networks/back?scope=local"))[1]["Scope"] == "local"


async def test_services_may_ask_for_a_hosts_own_network_by_name(swarm: Door, engine: HttpEngine) -> None:
    _, found = await swarm.call("GET", "/networks/host?scope=swarm")
    assert (found["Id"], found["Scope"]) == ("host", "swarm")
    engine.add("mine")
    assert (await swarm.call("GET", "/networks/mine?scope=swarm"))[0] == 404


async def test_an_overlay_shows_this_hosts_containers(swarm: Door, engine: HttpEngine) -> None:
    id_ = await overlay(swarm)
    assert (await swarm.call("GET", "/networks/back"))[1]["Containers"] is None
    engine.add("swb-back", labels={NETWORK_LABEL: id_})
    assert (await swarm.call("GET", "/networks/back"))[1]["Containers"] == {}


async def test_a_name_is_taken_on_either_side(swarm: Door) -> None:
    await overlay(swarm)
    taken = (409, {"message": "network with name back already exists"})
    for driver in ("overlay", "bridge"):
        assert await swarm.call("POST", "/networks/create", {"Name": "back", "Driver": driver}) == taken
    assert (await swarm.call("POST", "/networks/create", {"Name": "own", "Driver": "bridge"}))[0] in (200, 201)
    taken = (409, {"message": "network with name own already exists"})
    assert await swarm.call("POST", "/networks/create", {"Name": "own", "Driver": "overlay"}) == taken


async def test_overlays_are_removed_here_and_others_by_the_engine(swarm: Door, engine: HttpEngine) -> None:
    await overlay(swarm)
    id_ = engine.add("own")
    assert await swarm.call("DELETE", "/networks/back") == (204, None)
    assert (await swarm.call("GET", "/networks/back"))[0] == 404
    await swarm.call("DELETE", f"/networks/{id_}")
    assert engine.seen[-1][:2] == ("DELETE", f"/networks/{id_}")


async def test_pruning_spares_our_bridges_and_the_ingress_network(swarm: Door, engine: HttpEngine) -> None:
    await overlay(swarm)
    await overlay(swarm, "kept", Labels={"keep": ""})
    status, answer = await swarm.call("POST", '/networks/prune?filters={"label!":{"keep":true}}')
    assert (status, answer) == (200, {"NetworksDeleted": ["back", "leftover"]})
    assert NETWORK_LABEL in engine.seen[-1][2]
    assert await names(swarm) == ["ingress", "kept", "bridge", "host", "none"]


# --- membership ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/services", "/nodes", "/tasks", "/secrets", "/configs", "/swarm", "/nodes/x"])
async def test_outside_a_cluster_there_is_no_cluster_state(door: Door, path: str) -> None:
    status, answer = await door.call("GET", path)
    assert status == 503
    assert answer["message"].startswith('This node is not a swarm manager. Use "docker swarm init"')


async def test_init_answers_the_node_id_once(door: Door) -> None:
    assert await door.call("POST", "/swarm/init", {}) == (200, NODE_ID)
    status, answer = await door.call("POST", "/swarm/init", {})
    assert status == 503 and answer["message"].startswith("This node is already part of a swarm.")


async def test_leave_and_unlock_outside(door: Door) -> None:
    assert await door.call("POST", "/swarm/leave") == (503, {"message": "This node is not part of a swarm"})
    assert (await door.call("POST", "/swarm/unlock", {"UnlockKey": "x"}))[0] == 503


async def test_a_cluster_that_is_not_locked(swarm: Door) -> None:
    assert await swarm.call("POST", "/swarm/unlock", {"UnlockKey": "x"}) == (409, {"message": "swarm is not locked"})
    assert await swarm.call("GET", "/swarm/unlockkey") == (200, {"UnlockKey": ""})


async def test_join_passes_the_request_on(door: Door) -> None:
    document = {"ListenAddr": "0.0.0.0:2377", "RemoteAddrs": ["10.1.1.1:2377"], "JoinToken": "SWMTKN-1-x-y"}
    assert await door.call("POST", "/swarm/join", document) == (200, None)
    (request,) = door.node.joined
    assert (request.remote_addrs, request.join_token) == (["10.1.1.1:2377"], "SWMTKN-1-x-y")


@pytest.mark.parametrize("filters", ["{", '{"label!":"x"}', '{"odd":["x"]}', "[" * 5000])
async def test_a_prune_whose_filters_are_not_understood_removes_nothing(
    swarm: Door, engine: HttpEngine, filters: str
) -> None:
    engine.seen.clear()
    status, answer = await swarm.call("POST", f"/networks/prune?filters={quote(filters)}")
    assert status == 400 and answer["message"].startswith("invalid filter")
    assert not engine.seen


# --- containers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "names", "asked"),
    [
        ('filters={"is-task":["true"]}', ["task1", "task2"], "filters={}"),
        ('filters={"is-task":{"false":true},"name":["x"]}', ["plain"], 'filters={"name":["x"]}'),
        ('filters={"is-task":["true","false"]}', ["plain", "task1", "task2"], "filters={}"),
        ('limit=1&filters={"is-task":["true"]}', ["task1"], "filters={}&all=1"),
    ],
)
async def test_containers_of_tasks_are_told_from_others(
    swarm: Door, engine: HttpEngine, query: str, names: list[str], asked: str
) -> None:
    engine.containers = [
        {"Id": "plain", "Labels": {}},
        {"Id": "task1", "Labels": {"com.docker.swarm.task.id": "x"}},
        {"Id": "task2", "Labels": {"com.docker.swarm.task.id": "y"}},
    ]
    status, found = await swarm.call("GET", f"/v1.41/containers/json?{query}")
    assert status == 200 and [item["Id"] for item in found] == names
    assert engine.seen[-1] == ("GET", "/containers/json", asked)


@pytest.mark.parametrize(
    ("wanted", "asked"),
    [
        (OVERLAY, [OVERLAY, "back"]),
        (OVERLAY[:9], [OVERLAY[:9], "back"]),
        ("back", ["back"]),
        ("bridge", ["bridge"]),
    ],
)
async def test_containers_on_an_overlay_are_found_by_its_id(
    swarm: Door, engine: HttpEngine, wanted: str, asked: list[str]
) -> None:
    """Which the engine does not know: to it the network is our bridge."""
    engine.add("back", labels={NETWORK_LABEL: OVERLAY})
    filters = quote(json.dumps({"network": [wanted], "name": ["x"]}))
    status, _ = await swarm.call("GET", f"/containers/json?filters={filters}")
    assert status == 200
    method, path, query = engine.seen[-1]
    assert (method, path) == ("GET", "/containers/json")
    assert json.loads(unquote(query.partition("=")[2])) == {"network": asked, "name": ["x"]}


async def test_outside_a_cluster_lists_of_containers_pass(door: Door) -> None:
    assert not door.api.owns("GET", "/containers/json", 'filters={"network":["x"]}')


async def test_a_word_that_is_neither_true_nor_false_is_refused(swarm: Door) -> None:
    status, answer = await swarm.call("GET", '/containers/json?filters={"is-task":["perhaps"]}')
    assert (status, answer) == (400, {"message": "invalid filter 'is-task=[perhaps]'"})


async def test_a_network_is_shown_with_its_services_tasks_and_hosts(swarm: Door, engine: HttpEngine) -> None:
    _, made = await swarm.call("POST", "/networks/create", {"Name": "net", "Driver": "overlay"})
    network = swarm.store.view().get(Network, made["Id"])
    spec = ServiceSpec(name="web", task_template=TaskSpec(networks=[NetworkAttachmentConfig(target=made["Id"])]))
    vip = EndpointVirtualIP(network_id=made["Id"], addr="10.0.1.2/24")
    service = Service(id="service0", spec=spec, endpoint=Endpoint(virtual_ips=[vip]))
    place = [NetworkAttachment(network=network, addresses=["10.0.1.3/24"])]
    node = make_node(WORKER, "second")
    tasks = [
        Task(
            id=f"task{number}",
            service_id="service0",
            service_name="web",
            slot=number,
            node_id=WORKER,
            status=TaskStatus(state=state),
            networks_attachments=place,
        )
        for number, state in ((1, TaskState.RUNNING), (2, TaskState.FAILED))
    ]
    node = msgspec.structs.replace(node, attachments={made["Id"]: "10.0.1.4/24"})
    await swarm.store.update(lambda tx: [tx.create(item) for item in (node, service, *tasks)])
    _, plain = await swarm.call("GET", "/networks/net")
    assert "Services" not in plain and "Peers" not in plain
    engine.add("net", labels={NETWORK_LABEL: made["Id"]})  # this host has it, too
    _, shown = await swarm.call("GET", "/networks/net?verbose=true")
    assert shown["Peers"] == [{"Name": WORKER[:12], "IP": "10.1.1.1"}]
    assert shown["Services"] == {
        "web": {
            "VIP": "10.0.1.2",
            "Ports": [],
            "LocalLBIndex": 0,
            "Tasks": [
                {
                    "Name": "web.1.task1",
                    "EndpointID": "task1",
                    "EndpointIP": "10.0.1.3",
                    "Info": {"Host IP": "10.1.1.1"},
                }
            ],
        }
    }


async def test_auxiliary_addresses_are_kept_and_shown(swarm: Door) -> None:
    config = {"Subnet": "10.77.0.0/24", "AuxiliaryAddresses": {"router": "10.77.0.9"}}
    body = {"Name": "net", "Driver": "overlay", "IPAM": {"Config": [config]}}
    status, made = await swarm.call("POST", "/networks/create", body)
    assert status == 201, made
    _, shown = await swarm.call("GET", f"/networks/{made['Id']}")
    assert shown["IPAM"]["Config"] == [config]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"EnableIPv4": False}, 501, "networks without IPv4 are not supported"),
        (
            {"IPAM": {"Config": [{"Subnet": "fd00:77::/64"}]}},
            400,
            "subnet fd00:77::/64 is of use only with --ipv6",
        ),
        (
            {"IPAM": {"Config": [{"Subnet": "10.77.0.0/24", "AuxiliaryAddresses": {"a": "10.78.0.1"}}]}},
            400,
            "subnet 10.77.0.0/24 does not contain auxiliary address a=10.78.0.1",
        ),
        (
            {"IPAM": {"Config": [{"Subnet": "10.77.0.0/24", "AuxiliaryAddresses": {"a": "x"}}]}},
            400,
            "invalid auxiliary address a=x",
        ),
    ],
)
async def test_what_an_overlay_cannot_be_is_refused(swarm: Door, body: dict[str, Any], status: int, words: str) -> None:
    answered, answer = await swarm.call("POST", "/networks/create", {"Name": "net", "Driver": "overlay", **body})
    assert answered == status and words in answer["message"], answer
    assert swarm.store.view().by_name(Network, "net") is None
