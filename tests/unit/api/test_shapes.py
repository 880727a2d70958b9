"""Which members of objects are there even when empty, and which are not (swarm.md §1.9): clients compare literally.

The objects are written into the store as they are, so nothing is filled in by those who make them.
"""

from __future__ import annotations

from typing import Any

import pytest

from swarm_agent.model.objects import (
    Config,
    ContainerStatus,
    Endpoint,
    ManagerStatus,
    Network,
    NetworkAttachment,
    NetworkDriverState,
    Node,
    NodeDescription,
    PortStatus,
    Secret,
    Service,
    Stored,
    Task,
    TaskStatus,
    Version,
)
from swarm_agent.model.specs import (
    ContainerSpec,
    DiscreteGenericResource,
    EndpointSpec,
    GenericResource,
    HealthConfig,
    NetworkSpec,
    PortConfig,
    SecretSpec,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from swarm_agent.model.states import TaskState
from tests.unit.api.kit import Door

META = ("ID", "Version", "CreatedAt", "UpdatedAt")
NETWORK = Network(
    id="net1",
    spec=NetworkSpec(name="net", scope="swarm"),
    driver_state=NetworkDriverState(name="overlay"),
)
RUNNING = Task(
    id="full",
    spec=TaskSpec(container_spec=ContainerSpec(image="alpine"), force_update=2),
    service_id="s1",
    slot=3,
    node_id="n1",
    status=TaskStatus(
        timestamp="now",
        state=TaskState.RUNNING,
        message="started",
        container_status=ContainerStatus(),
        port_status=PortStatus(ports=[PortConfig(protocol="tcp", target_port=80, published_port=81)]),
    ),
    desired_state=TaskState.RUNNING,
    networks_attachments=[NetworkAttachment(network=NETWORK, addresses=["10.0.1.3/24"])],
    generic_resources=[GenericResource(discrete_resource_spec=DiscreteGenericResource(kind="gpu", value=1))],
    job_iteration=Version(),
)

ROWS: list[tuple[Stored, dict[str, Any]]] = [
    (
        Node(id="empty"),
        {
            "Spec": {"Labels": {}},
            "Description": {"Platform": {}, "Resources": {}, "Engine": {}, "TLSInfo": {}},
            "Status": {},
        },
    ),
    (
        Node(
            id="manager",
            description=NodeDescription(hostname="h"),
            manager_status=ManagerStatus(leader=False, reachability="reachable", addr="10.1.1.1:2377"),
        ),
        {
            "Spec": {"Labels": {}},
            "Description": {"Hostname": "h", "Platform": {}, "Resources": {}, "Engine": {}, "TLSInfo": {}},
            "Status": {},
            "ManagerStatus": {"Reachability": "reachable", "Addr": "10.1.1.1:2377"},
        },
    ),
    (
        Task(id="empty", status=TaskStatus(timestamp="now")),
        {
            "Labels": {},
            "Spec": {"ForceUpdate": 0},
            "Status": {"Timestamp": "now", "State": "new", "PortStatus": {}},
            "DesiredState": "new",
            "Volumes": None,
        },
    ),
    (
        RUNNING,
        {
            "Labels": {},
            "Spec": {"ContainerSpec": {"Image": "alpine"}, "ForceUpdate": 2},
            "ServiceID": "s1",
            "Slot": 3,
            "NodeID": "n1",
            "Status": {
                "Timestamp": "now",
                "State": "running",
                "Message": "started",
                "ContainerStatus": {"ContainerID": "", "PID": 0, "ExitCode": 0},
                "PortStatus": {"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 81}]},
            },
            "DesiredState": "running",
            "NetworksAttachments": [
                {
                    "Network": {
                        "ID": "net1",
                        "Version": {},
                        "CreatedAt": "0001-01-01T00:00:00Z",
                        "UpdatedAt": "0001-01-01T00:00:00Z",
                        "Spec": {"Name": "net", "Labels": {}, "Scope": "swarm"},
                        "DriverState": {"Name": "overlay"},
                    },
                    "Addresses": ["10.0.1.3/24"],
                }
            ],
            "GenericResources": [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 1}}],
            "JobIteration": {},
            "Volumes": None,
        },
    ),
    (
        Service(id="empty"),
        {"Spec": {"Labels": {}, "TaskTemplate": {"ForceUpdate": 0}, "Mode": {}}, "Endpoint": {"Spec": {}}},
    ),
    (
        Service(
            id="full",
            spec=ServiceSpec(
                name="full",
                task_template=TaskSpec(container_spec=ContainerSpec(healthcheck=HealthConfig())),
                update_config=UpdateConfig(),
                endpoint_spec=EndpointSpec(),
            ),
            endpoint=Endpoint(spec=EndpointSpec(mode="vip")),
        ),
        {
            "Spec": {
                "Name": "full",
                "Labels": {},
                "TaskTemplate": {"ContainerSpec": {"Healthcheck": {}}, "ForceUpdate": 0},
                "Mode": {},
                "UpdateConfig": {"Parallelism": 0, "MaxFailureRatio": 0, "Order": ""},
                "EndpointSpec": {},
            },
            "Endpoint": {"Spec": {"Mode": "vip"}},
        },
    ),
    (Secret(id="empty", spec=SecretSpec(name="s", data="YQ==")), {"Spec": {"Name": "s", "Labels": {}}}),
    (Config(id="empty"), {"Spec": {"Labels": {}}}),
]


@pytest.mark.parametrize(("obj", "members"), ROWS, ids=lambda value: getattr(value, "KIND", ""))
async def test_empty_members_are_there_or_not_as_in_swarm(swarm: Door, obj: Stored, members: dict[str, Any]) -> None:
    await swarm.store.update(lambda tx: tx.create(obj))
    status, shown = await swarm.call("GET", f"/{obj.KIND}s/{obj.id}")
    assert status == 200 and tuple(shown)[:4] == META
    assert {name: value for name, value in shown.items() if name not in META} == members
    listed = (await swarm.call("GET", f"/{obj.KIND}s"))[1]
    assert next(item for item in listed if item["ID"] == obj.id) == shown


async def test_an_overlay_that_is_not_allocated_yet(swarm: Door) -> None:
    network = Network(id="net1", spec=NetworkSpec(name="net", ipam_options=None, scope="swarm"))
    await swarm.store.update(lambda tx: tx.create(network))
    _, shown = await swarm.call("GET", "/networks/net1")
    assert {name: value for name, value in shown.items() if name not in ("Created", "Driver")} == {
        "Name": "net",
        "Id": "net1",
        "Scope": "swarm",
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": []},
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": None,
        "Options": None,
        "Labels": None,
    }


@pytest.mark.parametrize("path", ["/services", "/tasks", "/secrets", "/configs", '/nodes?filters={"id":["x"]}'])
async def test_lists_of_nothing_are_lists(swarm: Door, path: str) -> None:
    assert await swarm.call("GET", path) == (200, [])


async def test_answers_to_creation(swarm: Door) -> None:
    service = {"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "alpine"}}}
    _, answer = await swarm.call("POST", "/services/create", service)
    assert set(answer) == {"ID", "Warnings"} and answer["Warnings"] is None
    for kind in ("secret", "config"):
        status, answer = await swarm.call("POST", f"/{kind}s/create", {"Name": "x", "Data": "YQ=="})
        assert (status, set(answer)) == (201, {"ID"})
    status, answer = await swarm.call("POST", "/networks/create", {"Name": "net", "Driver": "overlay"})
    assert (status, set(answer), answer["Warning"]) == (201, {"Id", "Warning"}, "")
