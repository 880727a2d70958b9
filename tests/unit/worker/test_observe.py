"""What the engine's answers mean, what others are told, and how a host describes itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from aiohttp import web

from swarm_agent.model.objects import Endpoint, EndpointVirtualIP, Network, NetworkAttachment, Node, Task
from swarm_agent.model.rows import AddressRow, PortRow
from swarm_agent.model.specs import (
    ContainerSpec,
    Driver,
    Mount,
    NetworkAttachmentConfig,
    PortConfig,
    TaskSpec,
    VolumeOptions,
)
from swarm_agent.worker.describe import describe
from swarm_agent.worker.engine import Container, Engine
from swarm_agent.worker.observe import (
    HealthState,
    Life,
    View,
    container_status,
    default_gateway,
    endpoint_row,
    exit_text,
    port_status,
    view_of,
)
from swarm_agent.worker.templates import context, expand_spec
from swarm_agent.worker.worker import Worker

NEVER = "0001-01-01T00:00:00Z"


def inspected(state: dict[str, Any], ports: Any = None) -> View:
    answer = {"Id": "c1", "Name": "/x", "State": state, "Config": {"Labels": None}, "NetworkSettings": {"Ports": ports}}
    return view_of(msgspec.json.decode(msgspec.json.encode(answer), type=Container))


@pytest.mark.parametrize(
    ("state", "life"),
    [
        ({"Status": "created", "StartedAt": NEVER}, Life.CREATED),
        ({"Status": "running", "Running": True, "StartedAt": "2026-01-01T00:00:00Z"}, Life.RUNNING),
        ({"Status": "paused", "Running": True, "Paused": True, "StartedAt": "2026-01-01T00:00:00Z"}, Life.RUNNING),
        ({"Status": "exited", "StartedAt": "2026-01-01T00:00:00Z"}, Life.ENDED),
        ({"Status": "created", "StartedAt": NEVER, "ExitCode": 127, "Error": "no such file"}, Life.CREATED),
        ({"Status": "dead", "StartedAt": NEVER}, Life.ENDED),
    ],
)
def test_the_life_of_a_container(state: dict[str, Any], life: Life) -> None:
    assert inspected(state).life is life


@pytest.mark.parametrize(
    ("health", "state"),
    [
        (None, HealthState.NONE),
        ({"Status": "none"}, HealthState.NONE),
        ({"Status": "starting"}, HealthState.STARTING),
        ({"Status": "healthy"}, HealthState.HEALTHY),
        ({"Status": "unhealthy"}, HealthState.UNHEALTHY),
    ],
)
def test_health(health: Any, state: HealthState) -> None:
    assert inspected({"Running": True, "Health": health}).health is state


def test_a_port_is_told_once_though_bound_for_both_families() -> None:
    ports = {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}], "9/udp": None}
    view = inspected({"Running": True}, ports)
    assert port_status(view).ports == [
        PortConfig(protocol="tcp", target_port=80, published_port=8080, publish_mode="host")
    ]
    assert port_status(None).ports == []


def test_a_container_status_has_a_pid_or_an_exit_code() -> None:
    running = container_status(View("c", Life.RUNNING, pid=5, exit_code=9))
    ended = container_status(View("c", Life.ENDED, pid=5, exit_code=9))
    assert running is not None and (running.pid, running.exit_code) == (5, 0)
    assert ended is not None and (ended.pid, ended.exit_code) == (0, 9)
    assert container_status(None) is None


def test_exit_texts_are_swarms() -> None:
    assert exit_text(View("c", Life.ENDED, exit_code=1)) == "task: non-zero exit (1)"
    assert exit_text(View("c", Life.ENDED, exit_code=1, error="why")) == "task: non-zero exit (1): why"


def test_the_row_of_a_task() -> None:
    web, ingress = Network(id="n1"), Network(id="n0")
    task = Task(
        id="t",
        service_id="s",
        service_name="web",
        slot=4,
        spec=TaskSpec(networks=[NetworkAttachmentConfig(target="n1", aliases=["db", "api"])]),
        networks_attachments=[
            NetworkAttachment(network=web, addresses=["10.0.1.5/24"]),
            NetworkAttachment(network=ingress, addresses=["10.0.0.9/24"]),
        ],
        endpoint=Endpoint(
            ports=[
                PortConfig(name="http", protocol="tcp", target_port=80, published_port=8080, publish_mode="ingress"),
                PortConfig(name="adm", protocol="tcp", target_port=81, publish_mode="host"),
            ],
            virtual_ips=[EndpointVirtualIP(network_id="n1", addr="10.0.1.2/24")],
        ),
    )
    bound = PortConfig(protocol="tcp", target_port=81, published_port=32768, publish_mode="host")
    row = endpoint_row(task, View("c", Life.RUNNING, ports=(bound,)), active=True)
    assert (row.task_id, row.service_id, row.service_name, row.slot, row.container_id) == ("t", "s", "web", 4, "c")
    assert row.addresses == (
        AddressRow("n1", "10.0.1.5", "02:42:0a:00:01:05", "10.0.1.2", ("api", "db")),
        AddressRow("n0", "10.0.0.9", "02:42:0a:00:00:09"),
    )
    assert row.ports == (PortRow("tcp", 80, 8080, "ingress", "http"), PortRow("tcp", 81, 32768, "host", "adm"))
    assert row.active


def test_a_host_describes_itself_as_in_swarm() -> None:
    found = describe(
        {
            "Name": "host1",
            "Architecture": "x86_64",
            "OSType": "linux",
            "NCPU": 2,
            "MemTotal": 1024,
            "ServerVersion": "20.10",
            "Labels": ["a=1", "b"],
            "Plugins": {
                "Volume": ["local"],
                "Network": ["overlay", "bridge"],
                "Authorization": None,
                "Log": ["syslog"],
            },
            "GenericResources": [
                {"DiscreteResourceSpec": {"Kind": "ssd", "Value": 3}},
                {"NamedResourceSpec": {"Kind": "gpu", "Value": "a"}},
            ],
        }
    )
    assert (found.hostname, found.platform.architecture, found.platform.os) == ("host1", "x86_64", "linux")
    assert (found.resources.nano_cpus, found.resources.memory_bytes) == (2_000_000_000, 1024)
    assert found.engine.labels == {"a": "1", "b": ""}
    assert [(plugin.type, plugin.name) for plugin in found.engine.plugins] == [
        ("Log", "syslog"), ("Network", "bridge"), ("Network", "overlay"), ("Volume", "local"),
    ]  # fmt: skip
    ssd, gpu = found.resources.generic_resources
    assert ssd.discrete_resource_spec is not None and ssd.discrete_resource_spec.value == 3
    assert gpu.named_resource_spec is not None and gpu.named_resource_spec.value == "a"


def test_plugins_that_the_engine_manages_are_among_the_hosts() -> None:
    """Else nothing that needs one would ever be placed: /info does not name them."""

    def plugin(name: str, kind: str, enabled: bool = True) -> dict[str, Any]:
        return {"Name": name, "Enabled": enabled, "Config": {"Interface": {"Types": [kind]}}}

    managed = [
        plugin("loki:latest", "docker.logdriver/1.0"),
        plugin("vieux/sshfs:latest", "docker.volumedriver/1.0"),
        plugin("net:1", "docker.networkdriver/1.0"),
        plugin("gate:1", "docker.authz/1.0"),
        plugin("off:1", "docker.logdriver/1.0", enabled=False),
        plugin("other:1", "moby.logdriver/1.0"),
        {"Name": "bare:1", "Enabled": True},
    ]
    found = describe({"Plugins": {"Log": ["syslog"], "Volume": ["local", "vieux/sshfs:latest"]}}, managed)
    assert [(plugin.type, plugin.name) for plugin in found.engine.plugins] == [
        ("Log", "loki:latest"), ("Log", "syslog"), ("Network", "net:1"), ("Volume", "local"),
        ("Volume", "vieux/sshfs:latest"), ("authz", "gate:1"),
    ]  # fmt: skip


async def test_a_worker_asks_its_engine_for_its_plugins(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.Response:
        managed = {"Name": "loki:latest", "Enabled": True, "Config": {"Interface": {"Types": ["docker.logdriver/1.0"]}}}
        return web.json_response([managed] if request.path.endswith("/plugins") else {"Name": "host1"})

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "engine.sock")).start()
    engine, other = Engine(str(tmp_path / "engine.sock")), cast(Any, None)
    worker = Worker(
        engine=engine,
        node_id="n",
        hostname="host1",
        run_dir=tmp_path,
        state_dir=tmp_path,
        networks=other,
        endpoints=other,
        report=other,
        resolvers=other,
    )
    try:
        found = await worker.describe()
        assert found.hostname == "host1"
        assert [(plugin.type, plugin.name) for plugin in found.engine.plugins] == [("Log", "loki:latest")]
    finally:
        await engine.close()
        await runner.cleanup()


def test_an_engine_that_says_little_describes_a_small_host() -> None:
    assert describe({}).resources.nano_cpus == 0


def test_templates_reach_env_values_hostname_and_mounts_only() -> None:
    task = Task(id="t", service_id="s", service_name="web", service_labels={"tier": "front"}, slot=0, node_id="n")
    values = context(task, Node(id="n"), "host1")
    driver = Driver(name="local", options={"o": "{{.Task.Slot}}"})
    spec = ContainerSpec(
        image="{{.Task.ID}}",
        hostname="{{.Node.Hostname}}",
        env=["A={{.Service.Labels.tier}}", "{{.B}}", "C"],
        mounts=[
            Mount(
                type="volume",
                source="{{.Task.Name}}",
                target="/{{.Service.ID}}",
                volume_options=VolumeOptions(labels={"k": "{{.Node.ID}}"}, driver_config=driver),
            )
        ],
    )
    found = expand_spec(spec, values)
    assert (found.image, found.hostname, found.env) == ("{{.Task.ID}}", "host1", ["A=front", "{{.B}}", "C"])
    (mount,) = found.mounts
    assert (mount.source, mount.target) == ("web.n.t", "/s")
    assert mount.volume_options is not None and mount.volume_options.driver_config is not None
    assert mount.volume_options.labels == {"k": "n"}
    assert mount.volume_options.driver_config.options == {"o": "n"}


ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth1\t00000000\t0201000A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth1\t0001000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""


def test_the_default_gateway_is_read_from_the_kernels_table() -> None:
    assert default_gateway(ROUTES) == "10.0.1.2"
    assert default_gateway("\n".join(line for line in ROUTES.splitlines() if "0201000A" not in line)) == ""
    assert default_gateway("") == ""


def attached(*addresses: str) -> Task:
    return Task(
        id="t1",
        networks_attachments=[
            NetworkAttachment(network=Network(id=f"n{number}"), addresses=[address])
            for number, address in enumerate(addresses)
        ],
    )


def test_of_several_addresses_the_one_towards_the_default_route_is_told() -> None:
    both = attached("10.0.0.5/24", "10.0.1.7/24")
    view = View("c1", Life.RUNNING)
    assert endpoint_row(both, view, active=True, gateway="10.0.1.2").answers_from == "10.0.1.7"
    assert endpoint_row(both, view, active=True, gateway="172.18.0.1").answers_from == ""
    assert endpoint_row(both, view, active=True).answers_from == ""
    assert endpoint_row(attached("10.0.0.5/24"), view, active=True, gateway="10.0.0.1").answers_from == ""


def test_exposed_tcp_ports_are_seen() -> None:
    answer = {"Id": "c1", "Config": {"ExposedPorts": {"80/tcp": {}, "53/udp": {}, "443/tcp": {}}}}
    assert view_of(msgspec.json.decode(msgspec.json.encode(answer), type=Container)).exposed == {80, 443}
