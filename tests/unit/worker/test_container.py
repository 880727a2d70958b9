"""Specs to the engine's create body."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from swarm_agent.model.objects import Endpoint, Network, NetworkAttachment, Task
from swarm_agent.model.specs import (
    AppArmorOpts,
    BindOptions,
    ContainerSpec,
    CredentialSpec,
    DiscreteGenericResource,
    DNSConfig,
    Driver,
    EndpointSpec,
    GenericResource,
    HealthConfig,
    Limits,
    Mount,
    NamedGenericResource,
    NetworkAttachmentConfig,
    NetworkSpec,
    PortConfig,
    Privileges,
    ResourceRequirements,
    Resources,
    SeccompOpts,
    SELinuxContext,
    TaskSpec,
    Ulimit,
    VolumeOptions,
)
from swarm_agent.worker.container import (
    EngineNetwork,
    FileMount,
    attaches,
    engine_network,
    image_reference,
    is_digest,
    plan,
    registry_host,
    stop_grace_seconds,
    wishes,
)


def a_task(spec: ContainerSpec | None = None, **changes: Any) -> Task:
    template = TaskSpec(container_spec=spec or ContainerSpec(image="redis"), **changes.pop("template", {}))
    return Task(
        id="t1", service_id="s1", service_name="web", slot=2, node_id="n1", spec=template, **changes
    )  # fmt: skip


def made(task: Task, api: tuple[int, int] = (1, 41), **more: Any) -> dict[str, Any]:
    assert task.spec.container_spec is not None
    return plan(task, task.spec.container_spec, api_version=api, **more).body


def test_the_least_spec_leaves_everything_to_image_and_engine() -> None:
    body = made(a_task())
    assert body == {
        "Image": "redis:latest",
        "Labels": {
            "com.docker.swarm.task": "",
            "com.docker.swarm.task.id": "t1",
            "com.docker.swarm.task.name": "web.2.t1",
            "com.docker.swarm.node.id": "n1",
            "com.docker.swarm.service.id": "s1",
            "com.docker.swarm.service.name": "web",
        },
        "HostConfig": {"RestartPolicy": {"Name": "no"}},
    }


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        (["a", "b"], [], {"Entrypoint": ["a", "b"]}),
        (["a"], ["c"], {"Entrypoint": ["a"], "Cmd": ["c"]}),
        ([], ["c", "d"], {"Cmd": ["c", "d"]}),
        ([], [], {}),
    ],
)
def test_command_replaces_the_entrypoint_and_args_the_command(
    command: list[str], args: list[str], expected: dict[str, Any]
) -> None:
    body = made(a_task(ContainerSpec(image="x", command=command, args=args)))
    assert {key: body[key] for key in ("Entrypoint", "Cmd") if key in body} == expected


def test_every_container_field_arrives() -> None:
    bind = Mount(type="bind", source="/s", target="/t", read_only=True, bind_options=BindOptions(propagation="rslave"))
    driver = Driver(name="local", options={"o": "x"})
    volume = Mount(
        type="volume", source="v", target="/v", volume_options=VolumeOptions(no_copy=True, driver_config=driver)
    )
    spec = ContainerSpec(
        image="x",
        labels={"own": "1", "com.docker.swarm.task.id": "forged"},
        hostname="h",
        env=["A=1"],
        dir="/w",
        user="u",
        groups=["g"],
        init=False,
        stop_signal="SIGQUIT",
        tty=True,
        open_stdin=True,
        read_only=True,
        healthcheck=HealthConfig(test=["CMD", "true"], interval=5, retries=2),
        hosts=["1.2.3.4 name other", "", "5.6.7.8"],
        dns_config=DNSConfig(nameservers=["9.9.9.9"], search=["s"], options=["ndots:1"]),
        sysctls={"a.b": "1"},
        capability_add=["CAP_A"],
        capability_drop=["ALL"],
        ulimits=[Ulimit(name="nofile", soft=1, hard=2)],
        oom_score_adj=5,
        mounts=[bind, volume],
    )
    task = a_task(
        spec,
        template={
            "resources": ResourceRequirements(
                limits=Limits(nano_cpus=5, memory_bytes=600, pids=7), reservations=Resources(memory_bytes=300)
            ),
            "log_driver": Driver(name="json-file", options={"max-size": "1m"}),
        },
        generic_resources=[
            GenericResource(named_resource_spec=NamedGenericResource(kind="gpu", value="a")),
            GenericResource(named_resource_spec=NamedGenericResource(kind="gpu", value="b")),
            GenericResource(discrete_resource_spec=DiscreteGenericResource(kind="ssd", value=3)),
        ],
    )
    body = made(task, resolvers=["10.0.0.1"])
    host = body.pop("HostConfig")
    labels = body.pop("Labels")
    assert labels["own"] == "1" and labels["com.docker.swarm.task.id"] == "t1"
    assert body == {
        "Image": "x:latest",
        "Hostname": "h",
        "Env": ["A=1", "DOCKER_RESOURCE_GPU=a,b", "DOCKER_RESOURCE_SSD=3"],
        "WorkingDir": "/w",
        "User": "u",
        "Tty": True,
        "OpenStdin": True,
        "StopSignal": "SIGQUIT",
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5, "Retries": 2},
    }
    assert host == {
        "NanoCpus": 5,
        "Memory": 600,
        "PidsLimit": 7,
        "MemoryReservation": 300,
        "Mounts": [
            {"Type": "bind", "Source": "/s", "Target": "/t", "ReadOnly": True,
             "BindOptions": {"Propagation": "rslave"}},
            {"Type": "volume", "Source": "v", "Target": "/v",
             "VolumeOptions": {"NoCopy": True, "DriverConfig": {"Name": "local", "Options": {"o": "x"}}}},
        ],
        "GroupAdd": ["g"],
        "ReadonlyRootfs": True,
        "Sysctls": {"a.b": "1"},
        "CapAdd": ["CAP_A"],
        "CapDrop": ["ALL"],
        "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
        "OomScoreAdj": 5,
        "ExtraHosts": ["name:1.2.3.4", "other:1.2.3.4"],
        "Dns": ["9.9.9.9"],
        "DnsSearch": ["s"],
        "DnsOptions": ["ndots:1"],
        "Init": False,
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
        "RestartPolicy": {"Name": "no"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("own", "default", "wanted"),
    [
        (None, None, None),
        (None, Driver("syslog"), {"Type": "syslog", "Config": {}}),
        (Driver("local"), Driver("syslog"), {"Type": "local", "Config": {}}),
        (Driver("", {"max-size": "1m"}), None, {"Type": "", "Config": {"max-size": "1m"}}),  # of the engine's default
        (Driver(), Driver("syslog"), None),  # nothing of the cluster's: the engine's default
    ],
)
def test_where_a_container_logs_to(own: Driver | None, default: Driver | None, wanted: dict[str, Any] | None) -> None:
    assert made(a_task(template={"log_driver": own}, log_driver=default))["HostConfig"].get("LogConfig") == wanted


def test_labels_of_the_service_ask_for_what_its_spec_cannot_say() -> None:
    labels = {
        "swarm.task.devices": "/dev/fuse,/dev/kvm:/dev/kvm:rw",
        "swarm.task.privileged": "true",
        "swarm.task.shm_size": "128m",
        "swarm.task.runtime": "nvidia",
        "swarm.task.gpus": "2",
    }
    host = made(a_task(service_labels=labels))["HostConfig"]
    assert host == {
        "Devices": [
            {"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse", "CgroupPermissions": "rwm"},
            {"PathOnHost": "/dev/kvm", "PathInContainer": "/dev/kvm", "CgroupPermissions": "rw"},
        ],
        "Privileged": True,
        "ShmSize": 128 << 20,
        "Runtime": "nvidia",
        "DeviceRequests": [{"Driver": "", "Count": 2, "DeviceIDs": [], "Capabilities": [["gpu"]]}],
        "RestartPolicy": {"Name": "no"},
    }
    only = made(a_task(service_labels={"swarm.task.gpus": "device=0,1"}))["HostConfig"]
    assert only["DeviceRequests"][0] == {
        "Driver": "", "Count": 0, "DeviceIDs": ["0", "1"], "Capabilities": [["gpu"]]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("requirements", "expected"),
    [
        (ResourceRequirements(limits=Limits(memory_bytes=100), swap_bytes=50), {"Memory": 100, "MemorySwap": 150}),
        (ResourceRequirements(limits=Limits(memory_bytes=100), swap_bytes=-1), {"Memory": 100, "MemorySwap": -1}),
        (ResourceRequirements(memory_swappiness=0), {"MemorySwappiness": 0}),
    ],
)
def test_swap(requirements: ResourceRequirements, expected: dict[str, int]) -> None:
    host = made(a_task(template={"resources": requirements}))["HostConfig"]
    assert host == {**expected, "RestartPolicy": {"Name": "no"}}


def test_privileges_become_security_options() -> None:
    privileges = Privileges(
        selinux_context=SELinuxContext(user="u", type="t"),
        seccomp=SeccompOpts(mode="custom", profile=base64.b64encode(b'{"a":1}').decode()),
        app_armor=AppArmorOpts(mode="disabled"),
        no_new_privileges=True,
    )
    host = made(a_task(ContainerSpec(image="x", privileges=privileges)))["HostConfig"]
    assert host["SecurityOpt"] == [
        "label=user:u", "label=type:t", "no-new-privileges=true", "apparmor=unconfined", 'seccomp={"a":1}',
    ]  # fmt: skip


def test_only_host_mode_ports_are_bound() -> None:
    ports = [
        PortConfig(protocol="tcp", target_port=80, published_port=8080, publish_mode="host"),
        PortConfig(protocol="udp", target_port=53, publish_mode="host"),
        PortConfig(protocol="tcp", target_port=90, published_port=9090, publish_mode="ingress"),
    ]
    body = made(a_task(endpoint=Endpoint(spec=EndpointSpec(ports=ports), ports=ports)))
    assert body["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}}
    assert body["HostConfig"]["PortBindings"] == {"80/tcp": [{"HostPort": "8080"}], "53/udp": [{"HostPort": ""}]}


NETWORKS = [EngineNetwork("one", "10.0.1.3", "02:42:0a:00:01:03"), EngineNetwork("in", "10.0.0.4", "02:42:0a:00:00:04")]


def test_old_engines_take_one_network_at_create_and_the_others_after() -> None:
    result = plan(a_task(), ContainerSpec(image="x"), api_version=(1, 43), networks=NETWORKS, resolvers=["10.0.1.1"])
    assert result.body["HostConfig"]["NetworkMode"] == "one"
    assert result.body["HostConfig"]["Dns"] == ["10.0.1.1"]
    assert result.body["MacAddress"] == "02:42:0a:00:01:03"
    assert result.body["NetworkingConfig"] == {"EndpointsConfig": {"one": {"IPAMConfig": {"IPv4Address": "10.0.1.3"}}}}
    assert result.connects == [("in", {"IPAMConfig": {"IPv4Address": "10.0.0.4"}})]


def test_new_engines_take_all_networks_with_their_macs() -> None:
    result = plan(a_task(), ContainerSpec(image="x"), api_version=(1, 44), networks=NETWORKS)
    assert "MacAddress" not in result.body
    assert result.body["NetworkingConfig"]["EndpointsConfig"] == {
        "one": {"IPAMConfig": {"IPv4Address": "10.0.1.3"}, "MacAddress": "02:42:0a:00:01:03"},
        "in": {"IPAMConfig": {"IPv4Address": "10.0.0.4"}, "MacAddress": "02:42:0a:00:00:04"},
    }
    assert result.connects == []


def test_the_engines_own_networks_are_used_by_name() -> None:
    predefined = Network(id="h", spec=NetworkSpec(name="host", labels={"com.docker.swarm.predefined": "true"}))
    macvlan = Network(id="m", spec=NetworkSpec(name="lan", driver_configuration=Driver(name="macvlan")))
    for network in (predefined, macvlan):
        task = a_task(networks_attachments=[NetworkAttachment(network=network)])
        assert not attaches(task)
        body = made(task, networks=[engine_network(network.spec.name, [])])
        assert body["HostConfig"]["NetworkMode"] == network.spec.name
        assert "NetworkingConfig" not in body and "MacAddress" not in body
    assert attaches(a_task(networks_attachments=[NetworkAttachment(network=Network(id="o"))]))


def test_options_for_a_networks_driver_are_handed_to_the_engine() -> None:
    options = {"com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.forwarding=1"}
    given = [engine_network("one", ["10.0.1.3/24"], options), engine_network("lan", [], {"a": "b"})]
    old, new = (plan(a_task(), ContainerSpec(image="x"), api_version=api, networks=given) for api in ((1, 41), (1, 44)))
    endpoints = new.body["NetworkingConfig"]["EndpointsConfig"]
    assert endpoints["one"]["DriverOpts"] == options and endpoints["lan"] == {"DriverOpts": {"a": "b"}}
    assert old.body["NetworkingConfig"]["EndpointsConfig"]["one"]["DriverOpts"] == options
    assert old.connects == [("lan", {"DriverOpts": {"a": "b"}})]


def test_what_a_task_wishes_of_a_network_is_named_by_id_or_by_name() -> None:
    by_name, by_id = NetworkAttachmentConfig("front", aliases=["a"]), NetworkAttachmentConfig("n1")
    task = a_task(template={"networks": [by_name, NetworkAttachmentConfig("other"), by_id]})
    assert wishes(task, Network(id="n1", spec=NetworkSpec(name="front"))) == [by_name, by_id]


def test_the_mac_follows_from_the_address() -> None:
    assert engine_network("n", ["10.0.1.3/24"]) == EngineNetwork("n", "10.0.1.3", "02:42:0a:00:01:03")
    assert engine_network("n", []) == EngineNetwork("n", "", "")
    both = engine_network("n", ["10.0.1.3/24", "fd00:1::3/64"])
    assert both == EngineNetwork("n", "10.0.1.3", "02:42:0a:00:01:03", "fd00:1::3")


def test_files_are_mounted_read_only() -> None:
    host = made(a_task(), files=[FileMount("/run/x/0", "/run/secrets/a")])["HostConfig"]
    assert host["Mounts"] == [{"Type": "bind", "Source": "/run/x/0", "Target": "/run/secrets/a", "ReadOnly": True}]


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ("alpine", "alpine:latest"),
        ("docker.io/library/alpine:3", "alpine:3"),
        ("docker.io/me/app", "me/app:latest"),
        ("reg.local:5000/app", "reg.local:5000/app:latest"),
        ("reg.local:5000/app:1", "reg.local:5000/app:1"),
        ("app@sha256:abc", "app@sha256:abc"),
        ("app:1@sha256:abc", "app:1@sha256:abc"),
    ],
)
def test_image_references(image: str, reference: str) -> None:
    assert image_reference(image) == reference
    assert is_digest(reference) == ("@" in image)


@pytest.mark.parametrize(
    ("reference", "host"),
    [("alpine:1", "docker.io"), ("me/app:1", "docker.io"), ("localhost/a:1", "localhost"), ("r:5000/a:1", "r:5000")],
)
def test_registry_of_a_reference(reference: str, host: str) -> None:
    assert registry_host(reference) == host


@pytest.mark.parametrize(("grace", "seconds"), [(None, 10), (0, 0), (1, 1), (1_500_000_000, 2)])
def test_stop_grace_in_whole_seconds(grace: int | None, seconds: int) -> None:
    assert stop_grace_seconds(ContainerSpec(stop_grace_period=grace)) == seconds


@pytest.mark.parametrize(
    ("credential", "option"),
    [
        (CredentialSpec(config="c1"), "credentialspec=config://c1"),
        (CredentialSpec(file="f.json"), "credentialspec=file://f.json"),
        (CredentialSpec(registry="r"), "credentialspec=registry://r"),
    ],
)
def test_credential_specs_are_handed_to_the_engine_which_refuses_them_where_it_has_none(
    credential: CredentialSpec, option: str
) -> None:
    host = made(a_task(ContainerSpec(image="x", privileges=Privileges(credential_spec=credential))))["HostConfig"]
    assert host["SecurityOpt"] == [option]
