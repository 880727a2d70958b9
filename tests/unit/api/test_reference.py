"""What Swarm's API refuses, as a table: a request, the status and the words of the answer (reference/swarm.md 1.1-1.8).

Where a real Swarm answers otherwise than the reference says (constraints, states of tasks), this is as it answers.
"""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest

from .kit import Door, make_node

ALPINE = {"ContainerSpec": {"Image": "alpine"}}
SECRET = base64.b64encode(b"x").decode()


def service(name: str = "new", template: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"Name": name, "TaskTemplate": ALPINE if template is None else template, **more}


def container(**fields: Any) -> dict[str, Any]:
    return service(template={"ContainerSpec": {"Image": "alpine", **fields}})


def port(published: int, mode: str = "ingress", **more: Any) -> dict[str, Any]:
    return {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": published, "PublishMode": mode, **more}


@pytest.fixture
async def stocked(swarm: Door) -> Door:
    """A cluster with one of everything."""
    await swarm.store.update(lambda tx: tx.create(make_node("second000000000000000000", "second")))
    for name in ("key", "other"):
        status, _ = await swarm.call("POST", "/secrets/create", {"Name": name, "Labels": {}, "Data": SECRET})
        assert status == 201
    status, _ = await swarm.call("POST", "/configs/create", {"Name": "conf", "Labels": {}, "Data": SECRET})
    assert status == 201
    status, _ = await swarm.call("POST", "/networks/create", {"Name": "net", "Driver": "overlay"})
    assert status == 201
    _, secrets = await swarm.call("GET", "/secrets")
    key = next(found["ID"] for found in secrets if found["Spec"]["Name"] == "key")
    _, [conf] = await swarm.call("GET", "/configs")
    file = {"UID": "0", "GID": "0", "Mode": 292}
    secret = {"SecretID": key, "SecretName": "key", "File": {"Name": "key", **file}}
    config = {"ConfigID": conf["ID"], "ConfigName": "conf", "File": {"Name": "conf", **file}}
    contents = {"ContainerSpec": {"Image": "alpine", "Secrets": [secret], "Configs": [config]}}
    published = {"Ports": [port(30500), port(30600, "host")]}
    template = {**contents, "Networks": [{"Target": "net"}]}
    status, answer = await swarm.call("POST", "/services/create", service("web", template, EndpointSpec=published))
    assert status == 201, answer
    contents = {"ContainerSpec": {"Image": "alpine", "Configs": [config]}}
    status, _ = await swarm.call("POST", "/services/create", service("job", contents, Mode={"ReplicatedJob": {}}))
    assert status == 201
    return swarm


RPC = "rpc error: code = {} desc = "
INVALID = RPC.format("InvalidArgument")
UNKNOWN = RPC.format("Unknown")

Row = tuple[str, str, Any, int, str]


def create(body: dict[str, Any], words: str, status: int = 400, start: str = INVALID) -> Row:
    return "POST", "/services/create", body, status, start + words


def task(**fields: Any) -> dict[str, Any]:
    return service(template={**ALPINE, **fields})


def placed(constraint: str) -> dict[str, Any]:
    return task(Placement={"Constraints": [constraint]})


def secret(*names: str, target: str = "") -> dict[str, Any]:
    return container(Secrets=[{"SecretID": n, "SecretName": n, "File": {"Name": target or n}} for n in names])


KINDS = ("service", "task", "node", "secret", "config")
SPECS: dict[str, Any] = {
    "/services/web": service("web"),
    "/swarm": {"Name": "default"},
    "/nodes/second": {"Role": "worker", "Availability": "active"},
    "/secrets/key": {"Name": "key"},
    "/configs/conf": {"Name": "conf"},
}

ROWS: list[Row] = [
    # 1.1: versions of objects, ids, filters
    *(
        ("POST", f"{path}/update?version=999", body, 500, UNKNOWN + "update out of sequence")
        for path, body in SPECS.items()
    ),
    ("POST", "/services/web/update?version=x", service("web"), 400, "invalid service version"),
    ("POST", "/services/web/update", service("web"), 400, "invalid service version"),
    ("POST", "/swarm/update?version=", {"Name": "default"}, 400, "invalid swarm version ''"),
    ("POST", "/nodes/second/update?version=x", {}, 400, "invalid node version 'x'"),
    ("POST", "/secrets/key/update?version=x", {}, 400, "invalid secret version"),
    ("POST", "/configs/conf/update?version=x", {}, 400, "invalid config version"),
    *(("GET", f"/{kind}s/nobody", None, 404, f"{kind} nobody not found") for kind in KINDS),
    ("GET", "/networks/nobody?scope=swarm", None, 404, "network nobody not found"),
    *(("GET", f'/{kind}s?filters={{"nonsense":["1"]}}', None, 400, "invalid filter 'nonsense'") for kind in KINDS),
    ("GET", "/v1.1/services", None, 400, "client version 1.1 is too old. Minimum supported API version is"),
    ("GET", "/v9.99/services", None, 400, "client version 9.99 is too new. Maximum supported API version is"),
    # 1.2: the swarm
    (
        "POST",
        "/swarm/init",
        {},
        503,
        'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm',
    ),
    (
        "POST",
        "/swarm/join",
        {"RemoteAddrs": ["10.0.0.1"], "JoinToken": "x"},
        503,
        "This node is already part of a swarm",
    ),
    ("POST", "/swarm/unlock", {"UnlockKey": "x"}, 409, "swarm is not locked"),
    # 1.3: services
    create(service("no good"), "name must be valid as a DNS name component"),
    create(service("x" * 64), "name must be"),
    create(
        service("web"),
        "name conflicts with an existing object: service web already exists",
        409,
        RPC.format("AlreadyExists"),
    ),
    create(service(template={"ContainerSpec": {}}), "ContainerSpec: image reference must be provided"),
    create(
        service(template={"ContainerSpec": {"Image": "No!Good"}}),
        'ContainerSpec: "No!Good" is not a valid repository/tag',
    ),
    create(
        container(Mounts=[{"Type": "volume", "Source": s, "Target": "/x"} for s in "ab"]),
        "ContainerSpec: duplicate mount point: /x",
    ),
    create(task(Resources={"Limits": {"NanoCPUs": 1}}), "invalid cpu value"),
    create(task(Resources={"Limits": {"MemoryBytes": 1024}}), "invalid memory value"),
    create(task(Resources={"Reservations": {"NanoCPUs": -1}}), "invalid cpu value"),
    create(
        service(EndpointSpec={"Mode": "dnsrr", "Ports": [port(30700)]}),
        "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
    ),
    create(
        service(EndpointSpec={"Ports": [port(30700), port(30700)]}), "EndpointSpec: duplicate published ports provided"
    ),
    create(service(EndpointSpec={"Ports": [port(30500)]}), "port '30500' is already in use by service 'web' ("),
    create(service(EndpointSpec={"Ports": [port(30600)]}), ") as a host-published port", 400, ""),
    create(service(EndpointSpec={"Ports": [port(30500, "host")]}), ") as an ingress port", 400, ""),
    create(secret("zz"), "secret not found: zz"),
    create(secret("z1", "z2"), "secrets not found: "),
    create(container(Configs=[{"ConfigID": "zz", "ConfigName": "zz", "File": {"Name": "zz"}}]), "config not found: zz"),
    create(secret("a", "b", target="t"), "secret references 'a' and 'b' have a conflicting target: 't'"),
    create(container(Secrets=[{"SecretID": "a", "SecretName": "a"}]), "malformed secret reference, no target provided"),
    create(service(Mode={"ReplicatedJob": {}}, UpdateConfig={"Parallelism": 1}), "Jobs may not have an update config"),
    create(service(Mode={"Replicated": {"Replicas": -1}}), "replicas", 400, ""),
    create(service(UpdateConfig={"Delay": -1}), "TaskSpec: update-delay cannot be negative"),
    create(service(UpdateConfig={"Monitor": -1}), "TaskSpec: update-monitor cannot be negative"),
    create(
        service(UpdateConfig={"MaxFailureRatio": 2}),
        "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1",
    ),
    create(task(RestartPolicy={"Delay": -1}), "TaskSpec: restart-delay cannot be negative"),
    create(task(RestartPolicy={"Window": -1}), "TaskSpec: restart-window cannot be negative"),
    *(
        (
            "POST",
            "/services/create",
            container(Healthcheck={"Test": ["NONE"], field: 1}),
            400,
            INVALID + f"ContainerSpec: {field} in HealthConfig cannot be less than 1ms",
        )
        for field in ("Interval", "Timeout", "StartPeriod")
    ),
    create(task(Networks=[{"Target": "nonet"}]), "network nonet not found", 404, ""),
    create(
        task(Networks=[{"Target": "ingress"}]), 'Service cannot be explicitly attached to the ingress network "ingress"'
    ),
    create(placed("node.id=1"), "constraint expected one operator from ==, !=", 500, UNKNOWN),
    create(placed("no de==1"), "key 'no de' is invalid", 500, UNKNOWN),
    create(placed("node.id==a;b"), "value 'a;b' is invalid", 500, UNKNOWN),
    (
        "POST",
        "/services/web/update?version=VERSION",
        service("renamed"),
        501,
        RPC.format("Unimplemented") + "renaming services is not supported",
    ),
    (
        "POST",
        "/services/web/update?version=VERSION",
        service("web", Mode={"Global": {}}),
        501,
        RPC.format("Unimplemented") + "service mode change is not allowed",
    ),
    (
        "POST",
        "/services/web/update?version=VERSION&rollback=previous",
        service("web"),
        400,
        "does not have a previous spec",
    ),
    ("GET", "/services/web/logs", None, 500, "Bad parameters: you must choose at least one stream"),
    # 1.4: tasks
    ("GET", '/tasks?filters={"service":["nobody"]}', None, 404, "service nobody not found"),
    ("GET", '/tasks?filters={"node":["nobody"]}', None, 404, "node nobody not found"),
    *(
        ("GET", f'/tasks?filters={{"desired-state":["{word}"]}}', None, 500, f"Invalid desired-state filter: '{word}'")
        for word in ("bored", "completed", "allocated")
    ),
    # 1.5: nodes
    (
        "DELETE",
        "/nodes/second",
        None,
        400,
        RPC.format("FailedPrecondition") + "node second000000000000000000 is not down and can't be removed",
    ),
    (
        "DELETE",
        "/nodes/first?force=1",
        None,
        400,
        "is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal",
    ),
    (
        "POST",
        "/nodes/first/update?version=VERSION",
        {"Role": "worker", "Availability": "active"},
        400,
        "attempting to demote the last manager of the swarm",
    ),
    # 1.6: secrets and configs
    ("POST", "/secrets/create", {"Name": "key", "Data": SECRET}, 409, "already exists"),
    ("POST", "/configs/create", {"Name": "conf", "Data": SECRET}, 409, "already exists"),
    ("POST", "/secrets/create", {"Name": "s p", "Data": SECRET}, 400, INVALID + "invalid name"),
    ("POST", "/secrets/create", {"Name": "x" * 65, "Data": SECRET}, 400, INVALID + "invalid name"),
    (
        "POST",
        "/secrets/create",
        {"Name": "empty", "Data": ""},
        400,
        INVALID + "secret data must be larger than 0 and less than 512000 bytes",
    ),
    (
        "POST",
        "/secrets/create",
        {"Name": "big", "Data": base64.b64encode(b"x" * 512000).decode()},
        400,
        INVALID + "secret data must be larger than 0 and less than 512000 bytes",
    ),
    (
        "POST",
        "/configs/create",
        {"Name": "big", "Data": base64.b64encode(b"x" * 1024001).decode()},
        400,
        INVALID + "config data must be larger than 0 and less than",
    ),
    (
        "POST",
        "/secrets/key/update?version=VERSION",
        {"Name": "key", "Data": base64.b64encode(b"y").decode()},
        400,
        INVALID + "only updates to Labels are allowed",
    ),
    (
        "POST",
        "/configs/conf/update?version=VERSION",
        {"Name": "conf", "Data": base64.b64encode(b"y").decode()},
        400,
        INVALID + "only updates to Labels are allowed",
    ),
    ("DELETE", "/secrets/key", None, 400, INVALID + "secret 'key' is in use by the following service: web"),
    ("DELETE", "/configs/conf", None, 400, INVALID + "config 'conf' is in use by the following services: "),
    # 1.7: networks
    ("POST", "/networks/create", {"Name": "net", "Driver": "overlay"}, 409, "network with name net already exists"),
    ("POST", "/networks/create", {"Name": "in2", "Driver": "overlay", "Ingress": True}, 409, "is already present"),
    (
        "POST",
        "/networks/create",
        {"Name": "in2", "Driver": "overlay", "Ingress": True, "Attachable": True},
        400,
        "ingress network cannot be attachable",
    ),
    ("GET", "/networks/net?verbose=odd", None, 400, "invalid value for verbose: odd: strconv.ParseBool"),
    ("DELETE", "/networks/net", None, 400, "is in use by service"),
    (
        "POST",
        "/networks/create",
        {"Name": "in2", "Driver": "weave", "Ingress": True},
        501,
        "only overlay driver is currently supported for ingress network",
    ),
    ("DELETE", "/networks/ingress", None, 400, "ingress network cannot be removed because service "),
]


def _name(row: tuple[Any, ...]) -> str:
    return re.sub(r"[^\w/ .?=']+", " ", f"{row[0]} {row[1]} {row[4]}")[:120]


@pytest.mark.parametrize("row", ROWS, ids=_name)
async def test_it_is_refused_as_the_reference_says(stocked: Door, row: Row) -> None:
    """And nothing of it is left behind."""
    method, path, body, status, words = row
    if "VERSION" in path:
        _, found = await stocked.call("GET", path.partition("/update")[0])
        path = path.replace("VERSION", str(found["Version"]["Index"]))
    before = stocked.store.index
    told, answer = await stocked.call(method, path, body)
    assert (told, words in answer["message"]) == (status, True), f"{told}: {answer['message']}"
    assert stocked.store.index == before
