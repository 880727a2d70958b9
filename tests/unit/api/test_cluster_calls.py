"""The cluster's calls over HTTP: shapes, filters, versions and errors that clients depend on (swarm.md §1)."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote

import pytest

from swarm_agent.api.message import Request, Response, decode_request, decode_response, encode_request, encode_response
from swarm_agent.model.errors import NoLeader
from swarm_agent.model.objects import Service, Task, TaskStatus, Version
from swarm_agent.model.specs import TaskSpec
from swarm_agent.model.states import TaskState
from tests.unit.api.kit import NODE_ID, Door, HttpEngine, Manager, make_node, open_door


def web(name: str = "web", **parts: Any) -> dict[str, Any]:
    container = {"Image": "alpine:latest", **parts.pop("container", {})}
    return {"Name": name, "TaskTemplate": {"ContainerSpec": container, **parts.pop("template", {})}, **parts}


def where(**filters: Any) -> str:
    return "?filters=" + quote(json.dumps({key.replace("__", ".").replace("_", "-"): v for key, v in filters.items()}))


async def created(door: Door, document: dict[str, Any] | None = None, version: str = "", **headers: str) -> str:
    status, answer = await door.call("POST", f"{version}/services/create", document or web(), headers=headers)
    assert status == 201, answer
    assert answer["Warnings"] is None
    id_: str = answer["ID"]
    return id_


async def names(door: Door, query: str = "", kind: str = "services") -> list[str]:
    status, found = await door.call("GET", f"/{kind}{query}")
    assert status == 200, found
    return [item["Spec"]["Name"] for item in found]


async def message(door: Door, method: str, path: str, body: Any = None) -> tuple[int, str]:
    status, answer = await door.call(method, path, body)
    return status, answer["message"]


# --- services --------------------------------------------------------------------------------------------------------


async def test_a_new_service_as_swarm_shows_it(swarm: Door) -> None:
    id_ = await created(swarm)
    status, service = await swarm.call("GET", f"/v1.41/services/{id_}")
    assert status == 200
    assert service.pop("CreatedAt") == service.pop("UpdatedAt")
    assert service == {
        "ID": id_,
        "Version": {"Index": 2},
        "Spec": {
            "Name": "web",
            "Labels": {},
            "TaskTemplate": {
                "ContainerSpec": {"Image": "alpine:latest", "Isolation": "default"},
                "ForceUpdate": 0,
                "Runtime": "container",
            },
            "Mode": {"Replicated": {"Replicas": 1}},
        },
        "Endpoint": {"Spec": {}},
    }
    assert await swarm.call("GET", "/services") == (200, [await fetch(swarm, id_)])


async def fetch(door: Door, term: str) -> dict[str, Any]:
    status, service = await door.call("GET", f"/services/{term}")
    assert status == 200
    found: dict[str, Any] = service
    return found


async def test_a_service_is_found_by_id_name_and_beginning(swarm: Door) -> None:
    id_ = await created(swarm)
    for term in (id_, "web", id_[:5]):
        assert (await fetch(swarm, term))["ID"] == id_
    assert await message(swarm, "GET", "/services/nope") == (404, "service nope not found")


async def test_insert_defaults(swarm: Door) -> None:
    await created(swarm)
    status, service = await swarm.call("GET", "/services/web?insertDefaults=true")
    assert status == 200
    assert service["Spec"]["UpdateConfig"]["Monitor"] == 5_000_000_000
    assert service["Spec"]["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"] == 10_000_000_000
    assert "UpdateConfig" not in (await fetch(swarm, "web"))["Spec"], "and nothing of it is kept"
    status, text = await message(swarm, "GET", "/services/web?insertDefaults=perhaps")
    assert status == 400 and text.startswith("invalid value for insertDefaults: perhaps")


async def test_service_filters(swarm: Door) -> None:
    first = await created(swarm, web("web-one", Labels={"team": "a"}))
    await created(swarm, web("web-two", Labels={"team": "b"}, Mode={"Global": {}}))
    await created(swarm, web("job", Mode={"ReplicatedJob": {}}))
    assert await names(swarm, where(name=["web"])) == ["web-one", "web-two"]
    assert await names(swarm, where(name={"web-o": True, "job": True})) == ["web-one", "job"]
    assert await names(swarm, where(id=[first[:10]])) == ["web-one"]
    assert await names(swarm, where(label=["team"])) == ["web-one", "web-two"]
    assert await names(swarm, where(label=["team=b"])) == ["web-two"]
    assert await names(swarm, where(mode=["global", "replicated-job"])) == ["web-two", "job"]
    assert await names(swarm, where(runtime=["plugin"])) == []
    assert await names(swarm, "?filters=") == ["web-one", "web-two", "job"]


@pytest.mark.parametrize("kind", ["services", "tasks", "nodes", "secrets", "configs", "networks"])
async def test_unknown_and_malformed_filters(swarm: Door, kind: str) -> None:
    assert await message(swarm, "GET", f"/{kind}" + where(colour=["red"])) == (400, "invalid filter 'colour'")
    for text in ("{", "[1]", '{"name":3}', '{"name":[1]}', '{"name":{"a":1}}'):
        assert await message(swarm, "GET", f"/{kind}?filters={quote(text)}") == (400, "invalid filter")


async def put_task(door: Door, service_id: str, id_: str, state: TaskState, desired: TaskState, **parts: Any) -> None:
    service = door.store.view().get(Service, service_id)
    assert service is not None
    task = Task(
        **{
            "id": id_,
            "service_id": service_id,
            "service_name": service.spec.name,
            "service_labels": service.spec.labels,
            "slot": 1,
            "spec": service.spec.task_template,
            "spec_version": service.spec_version,
            "status": TaskStatus(state=state),
            "desired_state": desired,
            **parts,
        }
    )
    await door.store.update(lambda tx: tx.create(task))


async def test_status_counts_tasks_when_asked(swarm: Door) -> None:
    id_ = await created(swarm, web(Mode={"Replicated": {"Replicas": 3}}))
    await put_task(swarm, id_, "t1", TaskState.RUNNING, TaskState.RUNNING)
    await put_task(swarm, id_, "t2", TaskState.FAILED, TaskState.SHUTDOWN)
    (service,) = (await swarm.call("GET", "/services?status=true"))[1]
    assert service["ServiceStatus"] == {"RunningTasks": 1, "DesiredTasks": 3, "CompletedTasks": 0}
    for path in ("/services", "/v1.40/services?status=true"):
        (service,) = (await swarm.call("GET", path))[1]
        assert "ServiceStatus" not in service
    assert (await swarm.call("GET", "/services?status=maybe"))[0] == 400


async def test_status_of_global_services_and_jobs(swarm: Door) -> None:
    everywhere = await created(swarm, web("everywhere", Mode={"Global": {}}))
    await put_task(swarm, everywhere, "g1", TaskState.RUNNING, TaskState.RUNNING, slot=0, node_id=NODE_ID)
    await put_task(swarm, everywhere, "g2", TaskState.RUNNING, TaskState.SHUTDOWN, slot=0, node_id="other")
    job = await created(swarm, web("job", Mode={"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 5}}))
    old, new = ({"job_iteration": Version(index=index)} for index in (7, 0))
    await put_task(swarm, job, "j1", TaskState.COMPLETE, TaskState.COMPLETE, **new)
    await put_task(swarm, job, "j2", TaskState.RUNNING, TaskState.COMPLETE, **new)
    await put_task(swarm, job, "j3", TaskState.COMPLETE, TaskState.COMPLETE, **old)
    found = {item["Spec"]["Name"]: item["ServiceStatus"] for item in (await swarm.call("GET", "/services?status=1"))[1]}
    assert found == {
        "everywhere": {"RunningTasks": 2, "DesiredTasks": 1, "CompletedTasks": 0},
        "job": {"RunningTasks": 1, "DesiredTasks": 2, "CompletedTasks": 1},
    }


async def test_updates_need_the_version_that_is_current(swarm: Door) -> None:
    await created(swarm)
    assert await swarm.call("POST", "/services/web/update?version=2", web(Labels={"a": "b"})) == (
        200,
        {"Warnings": None},
    )
    assert await message(swarm, "POST", "/services/web/update?version=2", web()) == (
        500,
        "rpc error: code = Unknown desc = update out of sequence",
    )
    service = await fetch(swarm, "web")
    assert service["Spec"]["Labels"] == {"a": "b"}
    assert service["PreviousSpec"]["Labels"] == {}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "/services/web/update?version=x",
            "invalid service version 'x': strconv.ParseUint: parsing \"x\": invalid syntax",
        ),
        ("/services/web/update", "invalid service version '': strconv.ParseUint: parsing \"\": invalid syntax"),
        (f"/nodes/{NODE_ID}/update?version=-1", "invalid node version '-1': "),
        ("/swarm/update", "invalid swarm version '': "),
        ("/secrets/s/update?version=x", "invalid secret version"),
        ("/configs/c/update", "invalid config version"),
    ],
)
async def test_versions_that_are_no_numbers(swarm: Door, path: str, text: str) -> None:
    status, answer = await message(swarm, "POST", path, {})
    assert status == 400 and answer.startswith(text)


async def test_rollback_over_the_api(swarm: Door) -> None:
    await created(swarm)
    status, text = await message(swarm, "POST", "/services/web/update?version=2&rollback=previous", web())
    assert status == 400 and text.endswith("does not have a previous spec")
    await swarm.call("POST", "/services/web/update?version=2", web(container={"Image": "alpine:3"}))
    await swarm.call("POST", "/services/web/update?version=3&rollback=previous", web())
    service = await fetch(swarm, "web")
    assert service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] == "alpine:latest"
    assert service["UpdateStatus"]["State"] == "rollback_started"


async def test_registry_credentials_are_kept_but_never_shown(swarm: Door) -> None:
    id_ = await created(swarm, **{"X-Registry-Auth": "c2VjcmV0"})
    service = swarm.store.view().get(Service, id_)
    assert service is not None and service.registry_auth == "c2VjcmV0"
    assert "c2VjcmV0" not in json.dumps(await fetch(swarm, id_))


async def test_older_clients_do_not_set_what_their_version_lacks(swarm: Door) -> None:
    document = web(
        container={"Sysctls": {"a": "1"}, "CapabilityAdd": ["CAP_X"], "Init": True},
        template={"Resources": {"Limits": {"Pids": 9}}, "Placement": {"MaxReplicas": 2}},
    )
    await created(swarm, document, "/v1.39")
    spec = (await fetch(swarm, "web"))["Spec"]["TaskTemplate"]
    assert spec["ContainerSpec"] == {"Image": "alpine:latest", "Init": True, "Isolation": "default"}
    assert spec["Resources"] == {"Limits": {}}
    assert spec["Placement"] == {}
    await created(swarm, {**document, "Name": "new"}, "/v1.41")
    spec = (await fetch(swarm, "new"))["Spec"]["TaskTemplate"]
    assert spec["ContainerSpec"]["Sysctls"] == {"a": "1"}
    assert spec["Placement"] == {"MaxReplicas": 2}


async def test_networks_at_the_top_of_old_specs_move_to_the_task(swarm: Door) -> None:
    _, network = await swarm.call("POST", "/networks/create", {"Name": "back", "Driver": "overlay"})
    await created(swarm, web(Networks=[{"Target": "back"}]), "/v1.29")
    spec = (await fetch(swarm, "web"))["Spec"]
    assert spec["TaskTemplate"]["Networks"] == [{"Target": network["Id"]}]
    assert "Networks" not in spec


async def test_a_network_of_one_host_is_not_for_services(swarm: Door, engine: HttpEngine) -> None:
    engine.add("mine")
    document = web(template={"Networks": [{"Target": "mine"}]})
    status, text = await message(swarm, "POST", "/services/create", document)
    assert status == 403
    assert text.startswith(
        "The network mine cannot be used with services. Only networks scoped to the swarm can be used"
    )
    document = web(template={"Networks": [{"Target": "nope"}]})
    assert await message(swarm, "POST", "/services/create", document) == (404, "network nope not found")
    host = next(item["Id"] for item in engine.networks if item["Name"] == "host")
    await created(swarm, web(template={"Networks": [{"Target": host}]}))
    assert (await fetch(swarm, "web"))["Spec"]["TaskTemplate"]["Networks"] == [{"Target": "host"}]


async def test_a_service_is_removed_by_name(swarm: Door) -> None:
    await created(swarm)
    assert await swarm.call("DELETE", "/services/web") == (200, None)
    assert await message(swarm, "DELETE", "/services/web") == (404, "service web not found")


async def test_logs_are_refused_in_words_and_only_for_what_exists(swarm: Door) -> None:
    await created(swarm)
    assert await message(swarm, "GET", "/tasks/none/logs?stdout=1") == (404, "task none not found")
    no_stream = (500, "Bad parameters: you must choose at least one stream")
    assert await message(swarm, "GET", "/services/web/logs?stdout=0") == no_stream


@pytest.mark.parametrize(
    ("body", "content_type", "text"),
    [
        (b"{", "application/json", "invalid JSON: "),
        (b'{"Name": 3}', "application/json", "invalid JSON: Expected `str`, got `int` - at Name"),
        (b"{}", "text/plain", "unsupported Content-Type header (text/plain): must be 'application/json'"),
        (b'{"Mode":{"Replicated":{"Replicas":9223372036854775808}}}', "application/json", "invalid JSON: number"),
        (b'{"Mode":{"Replicated":{"Replicas":1e30}}}', "application/json", "invalid JSON: Expected `int"),
    ],
)
async def test_bodies_that_cannot_be_read(swarm: Door, body: bytes, content_type: str, text: str) -> None:
    async with swarm.session.post(
        "http://door/services/create", data=body, headers={"Content-Type": content_type}
    ) as reply:
        answer = json.loads(await reply.text())
    assert reply.status == 400
    assert answer["message"].startswith(text), answer


async def test_nulls_are_zero_values_and_unknown_fields_are_ignored(swarm: Door) -> None:
    await created(swarm, {**web(Labels=None, UpdateConfig=None, Mode=None), "Colour": "red"})
    assert (await fetch(swarm, "web"))["Spec"]["Labels"] == {}


async def test_case_does_not_matter_in_field_names_but_in_keys_of_maps(swarm: Door) -> None:
    document = {
        "name": "web",
        "labels": {"Key": "1", "key": "2"},
        "TASKTEMPLATE": {"containerspec": {"IMAGE": "alpine", "mounts": [{"target": "/x", "SOURCE": "v"}]}},
        "Mode": {"replicated": {"REPLICAS": 3}},
        "endpointSpec": {"ports": [{"targetport": 80}]},
    }
    await created(swarm, document)
    spec = (await fetch(swarm, "web"))["Spec"]
    assert spec["Labels"] == {"Key": "1", "key": "2"}
    assert spec["Mode"] == {"Replicated": {"Replicas": 3}}
    assert spec["TaskTemplate"]["ContainerSpec"]["Mounts"] == [{"Type": "bind", "Source": "v", "Target": "/x"}]
    assert spec["EndpointSpec"]["Ports"][0]["TargetPort"] == 80


# --- tasks -----------------------------------------------------------------------------------------------------------


async def task_ids(door: Door, **filters: Any) -> list[str]:
    status, found = await door.call("GET", "/tasks" + where(**filters))
    assert status == 200, found
    return [task["ID"] for task in found]


async def test_task_filters(swarm: Door) -> None:
    one, two = await created(swarm, web("one", Labels={"team": "a"})), await created(swarm, web("two"))
    await put_task(swarm, one, "t1", TaskState.RUNNING, TaskState.RUNNING, node_id=NODE_ID)
    await put_task(swarm, one, "t2", TaskState.FAILED, TaskState.SHUTDOWN)
    await put_task(swarm, two, "t3", TaskState.NEW, TaskState.RUNNING)
    assert await task_ids(swarm) == ["t1", "t2", "t3"]
    assert await task_ids(swarm, service=["one"]) == ["t1", "t2"]
    assert await task_ids(swarm, service={one: True, "two": True}) == ["t1", "t2", "t3"]
    assert await task_ids(swarm, node=["first"]) == ["t1"]
    assert await task_ids(swarm, node=["first"], service=["two"]) == []
    assert await task_ids(swarm, desired_state=["running"]) == ["t1", "t3"]
    assert await task_ids(swarm, desired_state=["Shutdown"]) == ["t2"]
    assert await task_ids(swarm, name=["one.1"]) == ["t1", "t2"]
    assert await task_ids(swarm, id=["t3"]) == ["t3"]
    assert await task_ids(swarm, label=["team=a"]) == ["t1", "t2"]
    assert await task_ids(swarm, runtime=["attachment"]) == []
    assert await message(swarm, "GET", "/tasks" + where(service=["no-id"])) == (404, "service no-id not found")
    assert await message(swarm, "GET", "/tasks" + where(node=["no-id"])) == (404, "node no-id not found")
    assert await message(swarm, "GET", "/tasks" + where(desired_state=["odd"])) == (
        500,
        "Invalid desired-state filter: 'odd'",
    )


async def test_up_to_date_tasks_are_those_of_the_present_spec(swarm: Door) -> None:
    id_ = await created(swarm)
    await put_task(swarm, id_, "t1", TaskState.RUNNING, TaskState.RUNNING)
    await swarm.call("POST", "/services/web/update?version=2", web(container={"Image": "alpine:3"}))
    await put_task(swarm, id_, "t2", TaskState.NEW, TaskState.RUNNING)
    query = "/tasks?filters=" + quote('{"_up-to-date":{"true":true},"service":{"web":true}}')
    assert [task["ID"] for task in (await swarm.call("GET", query))[1]] == ["t2"]


async def test_a_task_as_swarm_shows_it(swarm: Door) -> None:
    task = Task(id="t1", service_id="s", status=TaskStatus(state=TaskState.NEW, timestamp="now"), spec=TaskSpec())
    await swarm.store.update(lambda tx: tx.create(task))
    status, shown = await swarm.call("GET", "/tasks/t1")
    assert status == 200
    assert {key: shown[key] for key in ("Labels", "Status", "DesiredState", "Spec", "Volumes")} == {
        "Labels": {},
        "Status": {"Timestamp": "now", "State": "new", "PortStatus": {}},
        "DesiredState": "new",
        "Spec": {"ForceUpdate": 0},
        "Volumes": None,
    }
    assert not [key for key in shown if key.startswith("_") or key in ("Slot", "NodeID")]


# --- nodes -----------------------------------------------------------------------------------------------------------


async def test_node_filters(swarm: Door) -> None:
    await swarm.store.update(lambda tx: tx.create(make_node("w1", "second")))
    await swarm.call(
        "POST",
        "/nodes/second/update?version=2",
        {"Role": "worker", "Availability": "active", "Labels": {"disk": "ssd"}},
    )

    async def ids(**filters: Any) -> list[str]:
        status, found = await swarm.call("GET", "/nodes" + where(**filters))
        assert status == 200, found
        return [node["ID"] for node in found]

    assert await ids() == [NODE_ID, "w1"]
    assert await ids(name=["sec"]) == ["w1"]
    assert await ids(id=["node"]) == [NODE_ID]
    assert await ids(role=["manager"]) == [NODE_ID]
    assert await ids(node__label=["disk=ssd"]) == ["w1"]
    assert await ids(label=["disk"]) == [], "engine labels are another thing"
    assert await ids(membership=["accepted"]) == [NODE_ID, "w1"]
    assert await ids(membership=["pending"]) == []
    assert await message(swarm, "GET", "/nodes" + where(role=["king"])) == (500, "Invalid role filter: 'king'")


async def test_a_node_is_changed_and_removed_by_hostname(swarm: Door) -> None:
    await swarm.store.update(lambda tx: tx.create(make_node("w1", "second")))
    spec = {"Role": "worker", "Availability": "drain"}
    assert await swarm.call("POST", "/nodes/second/update?version=2", spec) == (200, None)
    assert (await swarm.call("GET", "/nodes/w1"))[1]["Spec"] == {**spec, "Labels": {}}
    status, text = await message(swarm, "DELETE", "/nodes/second")
    assert (status, text) == (
        400,
        "rpc error: code = FailedPrecondition desc = node w1 is not down and can't be removed",
    )
    assert await swarm.call("DELETE", "/nodes/second?force=1") == (200, None)
    assert await message(swarm, "GET", "/nodes/second") == (404, "node second not found")


# --- secrets, configs ------------------------------------------------------------------------------------------------

DATA = base64.b64encode(b"very secret").decode()


async def test_a_secrets_data_never_comes_back(swarm: Door) -> None:
    status, answer = await swarm.call("POST", "/secrets/create", {"Name": "s", "Data": DATA, "Labels": {"a": "b"}})
    assert status == 201 and set(answer) == {"ID"}
    for path in ("/secrets", "/secrets/s"):
        assert DATA not in json.dumps((await swarm.call("GET", path))[1])
    status, answer = await swarm.call("POST", "/secrets/create", {"Name": "s", "Data": DATA})
    assert (status, answer["message"]) == (409, "rpc error: code = AlreadyExists desc = secret s already exists")
    assert await swarm.call("DELETE", "/secrets/s") == (204, None)


async def test_a_configs_data_comes_back(swarm: Door) -> None:
    await swarm.call("POST", "/configs/create", {"Name": "c", "Data": DATA})
    assert (await swarm.call("GET", "/configs/c"))[1]["Spec"] == {"Name": "c", "Labels": {}, "Data": DATA}
    assert await swarm.call("POST", "/configs/c/update?version=2", {"Name": "c", "Labels": {"x": "y"}}) == (200, None)
    assert (await swarm.call("GET", "/configs/c"))[1]["Spec"] == {"Name": "c", "Labels": {"x": "y"}, "Data": DATA}


async def test_secret_filters(swarm: Door) -> None:
    for name in ("one", "one-more", "two"):
        await swarm.call("POST", "/secrets/create", {"Name": name, "Data": DATA})
    assert await names(swarm, where(names=["one"]), "secrets") == ["one"]
    assert await names(swarm, where(name=["one"]), "secrets") == ["one", "one-more"]
    assert await names(swarm, where(names=["two"], name=["one-"]), "secrets") == ["one-more", "two"]
    assert await names(swarm, where(names=["TWO"], name=["One-"]), "secrets") == ["one-more", "two"]


# --- the cluster -----------------------------------------------------------------------------------------------------


async def test_tokens_are_shown_to_managers_and_keys_to_nobody(swarm: Door) -> None:
    status, cluster = await swarm.call("GET", "/swarm")
    assert status == 200
    assert cluster["JoinTokens"] == {"Worker": "SWMTKN-1-digest-worker", "Manager": "SWMTKN-1-digest-manager"}
    assert cluster["RootRotationInProgress"] is False
    assert "private" not in json.dumps(cluster)


async def test_a_token_is_rotated(swarm: Door) -> None:
    _, before = await swarm.call("GET", "/swarm")
    path = f"/swarm/update?version={before['Version']['Index']}&rotateWorkerToken=true&rotateManagerToken=false"
    assert await swarm.call("POST", path, before["Spec"]) == (200, None)
    _, after = await swarm.call("GET", "/swarm")
    assert after["JoinTokens"]["Worker"] != before["JoinTokens"]["Worker"]
    assert after["JoinTokens"]["Manager"] == before["JoinTokens"]["Manager"]
    assert after["Spec"] == before["Spec"]


async def test_without_quorum_calls_fail_with_swarms_text(swarm: Door) -> None:
    swarm.store.proposer.refusal = NoLeader()  # type: ignore[union-attr]
    for method, path, body in (("GET", "/services", None), ("POST", "/services/create", web())):
        status, text = await message(swarm, method, path, body)
        assert status == 500
        assert text.endswith("Make sure more than half of the managers are online.")


async def test_a_follower_sends_changes_to_the_leader_and_reads_itself(tmp_path: Any, engine: HttpEngine) -> None:
    sent: list[tuple[str, Request]] = []

    async def forward(leader: str, request: Request) -> Response:
        sent.append((leader, decode_request(encode_request(request))))
        return decode_response(encode_response(Response(status=201, body=b'{"ID":"x"}\n')))

    async with open_door(tmp_path, tmp_path / "engine.sock", forward=forward) as door:
        await door.call("POST", "/swarm/init", {})
        assert isinstance(door.node.role, Manager)
        door.node.role.is_leader = False
        status, answer = await door.call(
            "POST", "/v1.40/services/create?x=y", web(), headers={"X-Registry-Auth": "auth"}
        )
        assert (status, answer) == (201, {"ID": "x"})
        assert (await door.call("GET", "/services"))[0] == 200
        ((leader, request),) = sent
        assert leader == "10.1.1.1:2377"
        assert (request.method, request.path, request.version) == ("POST", "/services/create", (1, 40))
        assert request.headers["x-registry-auth"] == "auth"
        assert json.loads(request.body) == web()
