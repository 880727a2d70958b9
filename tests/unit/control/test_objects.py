"""Nodes, networks, secrets, configs and the cluster's settings."""

from __future__ import annotations

import base64
import random
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from swarm_agent.manager.control import cluster, networks, nodes, secrets
from swarm_agent.model import times
from swarm_agent.model.encryption import described, is_encrypted
from swarm_agent.model.errors import (
    AlreadyExists,
    BadRequest,
    ClusterError,
    FailedPrecondition,
    Forbidden,
    InvalidArgument,
    OutOfSequence,
    PermissionDenied,
    Unimplemented,
)
from swarm_agent.model.objects import (
    Cluster,
    Config,
    EngineDescription,
    JoinTokens,
    ManagerStatus,
    Network,
    Node,
    NodeDescription,
    NodeStatus,
    PluginDescription,
    Secret,
    Service,
    Task,
    TaskStatus,
)
from swarm_agent.model.requests import NetworkCreateRequest
from swarm_agent.model.specs import (
    CAConfig,
    ConfigSpec,
    DispatcherConfig,
    Driver,
    EncryptionConfig,
    ExternalCA,
    NetworkSpec,
    NodeSpec,
    OrchestrationConfig,
    SecretSpec,
    ServiceSpec,
    SwarmSpec,
)
from swarm_agent.model.states import TaskState
from swarm_agent.store.memory import memory_store
from swarm_agent.store.store import Store

HOUR = 3600 * times.SECOND
RNG = random.Random(7)


@pytest.fixture
def store() -> Store:
    return memory_store()


async def put(store: Store, *objects: Any) -> None:
    await store.update(lambda tx: [tx.create(obj) for obj in objects])


def node(id_: str, *, role: str = "worker", state: str = "ready", member: bool | None = None) -> Node:
    member = role == "manager" if member is None else member
    return Node(
        id=id_,
        spec=NodeSpec(role=role, availability="active"),
        description=NodeDescription(hostname=f"host-{id_}"),
        status=NodeStatus(state=state),
        manager_status=ManagerStatus(addr="10.0.0.1:2377") if member else None,
    )


# --- nodes -----------------------------------------------------------------------------------------------------------


async def test_a_node_is_drained_by_its_hostname(store: Store) -> None:
    await put(store, node("n1"))
    changed = await store.update(
        lambda tx: nodes.update_node(tx, "host-n1", 1, NodeSpec(role="worker", availability="Drain"))
    )
    assert changed.spec == NodeSpec(role="worker", availability="drain")


async def test_the_last_manager_stays(store: Store) -> None:
    await put(store, node("m1", role="manager"), node("w1"))
    with pytest.raises(FailedPrecondition, match="attempting to demote the last manager of the swarm"):
        await store.update(lambda tx: nodes.update_node(tx, "m1", 1, NodeSpec(role="worker", availability="active")))


async def test_a_manager_stays_while_the_quorum_needs_it(store: Store) -> None:
    await put(store, node("m1", role="manager"), node("m2", role="manager"))
    with pytest.raises(FailedPrecondition, match="this would result in a loss of quorum"):
        await store.update(
            lambda tx: nodes.update_node(
                tx, "m1", 1, NodeSpec(role="worker", availability="active"), can_remove=lambda node_id: False
            )
        )
    demoted = await store.update(
        lambda tx: nodes.update_node(tx, "m1", 1, NodeSpec(role="worker", availability="active"))
    )
    assert demoted.spec.role == "worker"


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (NodeSpec(role="king"), 'invalid Role: "king"'),
        (NodeSpec(), 'invalid Role: ""'),
        (NodeSpec(role="worker", availability="maybe"), 'invalid Availability: "maybe"'),
        (NodeSpec(role="worker"), 'invalid Availability: ""'),
    ],
)
async def test_unknown_words_for_nodes(store: Store, spec: NodeSpec, text: str) -> None:
    await put(store, node("n1"))
    with pytest.raises(BadRequest, match=text):
        await store.update(lambda tx: nodes.update_node(tx, "n1", 1, spec))


async def test_removal_of_nodes(store: Store) -> None:
    await put(store, Cluster(id="c"), node("up"), node("down", state="down"), node("m", role="manager"))
    with pytest.raises(FailedPrecondition) as caught:
        await store.update(lambda tx: nodes.remove_node(tx, "up"))
    assert caught.value.description == "node up is not down and can't be removed"
    with pytest.raises(FailedPrecondition, match="It must be demoted to worker before removal"):
        await store.update(lambda tx: nodes.remove_node(tx, "m", force=True))
    await store.update(lambda tx: nodes.remove_node(tx, "down"))
    await store.update(lambda tx: nodes.remove_node(tx, "up", force=True))
    view = store.view()
    assert [item.id for item in view.all(Node)] == ["m"]
    assert set(view.all(Cluster)[0].blacklisted) == {"up", "down"}


async def test_a_removed_node_is_refused_as_long_as_its_certificate_could_live(store: Store) -> None:
    hour = SwarmSpec(ca_config=CAConfig(node_cert_expiry=3600 * 10**9))  # it was 90 days when the node joined
    await put(store, Cluster(id="c", spec=hour), node("n1", state="down"))
    await store.update(lambda tx: nodes.remove_node(tx, "n1"))
    until = times.parse_rfc3339(store.view().all(Cluster)[0].blacklisted["n1"])
    assert until >= times.parse_rfc3339(times.now()) + 89 * 24 * 3600 * times.SECOND


async def test_refused_certificates_are_forgotten_a_week_after_they_have_expired(store: Store) -> None:
    ago = {days: times.rfc3339(times.parse_rfc3339(times.now()) - days * 24 * HOUR) for days in (6, 8)}
    await put(store, Cluster(id="c", blacklisted={"six": ago[6], "eight": ago[8]}), node("n1", state="down"))
    await store.update(lambda tx: nodes.remove_node(tx, "n1"))
    assert set(store.view().all(Cluster)[0].blacklisted) == {"six", "n1"}


async def test_a_removed_node_leaves_no_task_behind_that_seems_to_run(store: Store) -> None:
    tasks = [
        Task(id=state, node_id="n1", status=TaskStatus(state=state), desired_state=TaskState.RUNNING)
        for state in (TaskState.RUNNING, TaskState.FAILED)
    ]
    await put(store, Cluster(id="c"), node("n1", state="down"), *tasks)
    await store.update(lambda tx: nodes.remove_node(tx, "n1"))
    states = {task.id: task.status.state for task in store.view().all(Task)}
    assert states == {"running": TaskState.ORPHANED, "failed": TaskState.FAILED}


# --- networks --------------------------------------------------------------------------------------------------------


async def test_an_encrypted_network_needs_one_node_that_can(store: Store) -> None:
    plugins = EngineDescription(plugins=[PluginDescription(type="Volume", name="local")])
    able = described(NodeDescription(engine=plugins), lacking="")
    await put(store, node("n1"), msgspec.structs.replace(node("n2"), description=able))
    made = await make(store, network(Options={"encrypted": ""}))
    assert is_encrypted(made)


def network(**parts: Any) -> NetworkCreateRequest:
    return msgspec.convert({"Name": "back", "Driver": "overlay", **parts}, NetworkCreateRequest)


async def make(store: Store, request: NetworkCreateRequest) -> Network:
    return await store.update(lambda tx: networks.create_network(tx, request, RNG))


REFUSED_NETWORKS: list[tuple[dict[str, Any], type[ClusterError], str]] = [
    ({"Name": "host"}, Forbidden, "operation is not permitted on predefined host network "),
    ({"Name": ""}, InvalidArgument, "meta: name must be provided"),
    ({"Ingress": True, "Attachable": True}, InvalidArgument, "ingress network cannot be attachable"),
    ({"Labels": {"com.docker.swarm.predefined": "true"}}, PermissionDenied, "cannot be applied by users"),
    ({"Driver": "macvlan", "Scope": "swarm"}, Unimplemented, "cannot span hosts"),
    ({"Options": {"encrypted": ""}}, Unimplemented, "no node of this cluster has it"),
    ({"EnableIPv4": False}, Unimplemented, "networks without IPv4 are not supported"),
    ({"EnableIPv6": True, "Ingress": True}, Unimplemented, "published ports are reached by IPv4"),
    ({"IPAM": {"Config": [{"Subnet": "fd00::/64"}]}}, InvalidArgument, "subnet fd00::/64 is of use only with --ipv6"),
    (
        {"EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "fd00::/64"}, {"Subnet": "fd01::/64"}]}},
        Unimplemented,
        "subnet fd01::/64: a network has one IPv6 subnet at most",
    ),
    (
        {"EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "10.9.0.0/16"}, {"Subnet": "fd00::/120"}]}},
        InvalidArgument,
        "subnet fd00::/120: it must have room for as many addresses as 10.9.0.0/16, so at most /112",
    ),
    (
        {"EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "fd00::/121"}]}},
        InvalidArgument,
        "it must have room for as many addresses as 0.0.0.0/24, so at most /120",
    ),
    (
        {"EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "fd00::/64", "IPRange": "fd00::/80"}]}},
        Unimplemented,
        "range fd00::/80: IPv6 addresses follow from the IPv4 addresses",
    ),
    ({"IPAM": {"Driver": "dhcp"}}, InvalidArgument, "error during lookup of plugin dhcp"),
    ({"IPAM": {"Config": [{"Subnet": "10.0.0"}]}}, InvalidArgument, "invalid subnet 10.0.0"),
    (
        {"IPAM": {"Config": [{"Subnet": "10.0.0.0/24", "Gateway": "10.0.1.1"}]}},
        InvalidArgument,
        "subnet 10.0.0.0/24 does not contain gateway 10.0.1.1",
    ),
    (
        {"IPAM": {"Config": [{"Subnet": "10.0.0.0/24", "IPRange": "10.0.1.0/25"}]}},
        InvalidArgument,
        "subnet 10.0.0.0/24 does not contain range 10.0.1.0/25",
    ),
]


@pytest.mark.parametrize(("parts", "error", "text"), REFUSED_NETWORKS)
async def test_refused_networks(store: Store, parts: dict[str, Any], error: type[ClusterError], text: str) -> None:
    with pytest.raises(error, match=text):
        await make(store, network(**parts))
    assert store.view().all(Network) == []


async def test_ipv6_subnets_of_two_networks_do_not_overlap(store: Store) -> None:
    def dual(name: str, subnet: str) -> NetworkCreateRequest:
        return network(Name=name, EnableIPv6=True, IPAM={"Config": [{"Subnet": "10.9.0.0/24"}, {"Subnet": subnet}]})

    first = await make(store, dual("first", "fd00:9::/48"))
    await store.update(lambda tx: tx.update(msgspec.structs.replace(first, ipam_options=first.spec.ipam_options)))
    with pytest.raises(InvalidArgument, match="subnet fd00:9:0:1::/64 overlaps fd00:9::/48 of network first"):
        await make(store, dual("second", "fd00:9:0:1::/64"))
    await make(store, dual("third", "fd00:a::/48"))


async def test_network_names_and_the_ingress_network_are_unique(store: Store) -> None:
    await make(store, network())
    with pytest.raises(AlreadyExists, match="network with name back already exists"):
        await make(store, network())
    ingress = await make(store, network(Name="in", Ingress=True))
    with pytest.raises(AlreadyExists) as caught:
        await make(store, network(Name="in2", Ingress=True))
    assert caught.value.description == f"ingress network ({ingress.id}) is already present"


async def test_a_network_in_use_stays(store: Store) -> None:
    made = await make(store, network())
    template = {"Networks": [{"Target": made.id}]}
    service = Service(id="s1", spec=msgspec.convert({"Name": "web", "TaskTemplate": template}, ServiceSpec))
    await put(store, service)
    with pytest.raises(FailedPrecondition, match=f"network {made.id} is in use by service s1"):
        await store.update(lambda tx: networks.remove_network(tx, "back"))
    running = Task(
        id="t1",
        spec=service.spec.task_template,
        desired_state=TaskState.RUNNING,
        status=TaskStatus(state=TaskState.RUNNING),
    )
    await put(store, running)
    await store.update(lambda tx: tx.delete(Service, "s1"))
    with pytest.raises(FailedPrecondition, match=f"network {made.id} is in use by task t1"):
        await store.update(lambda tx: networks.remove_network(tx, "back"))
    task = store.view().all(Task)[0]
    await store.update(lambda tx: tx.update(replace(task, desired_state=TaskState.REMOVE)))
    await store.update(lambda tx: networks.remove_network(tx, "back"))


async def test_the_ingress_network_stays_while_a_service_publishes(store: Store) -> None:
    await put(store, Network(id="i", spec=NetworkSpec(name="ingress", ingress=True)))
    document = {"Name": "web", "EndpointSpec": {"Ports": [{"PublishedPort": 80, "PublishMode": "ingress"}]}}
    await put(store, Service(id="s1", spec=msgspec.convert(document, ServiceSpec)))
    with pytest.raises(FailedPrecondition, match="ingress network cannot be removed because service s1 depends on it"):
        await store.update(lambda tx: networks.remove_network(tx, "ingress"))
    await store.update(lambda tx: tx.delete(Service, "s1"))
    await store.update(lambda tx: networks.remove_network(tx, "ingress"))


# --- secrets and configs ---------------------------------------------------------------------------------------------


def encoded(size: int) -> str:
    return base64.b64encode(b"x" * size).decode()


async def new_secret(store: Store, name: str = "s", data: str = "aGk=", **parts: Any) -> Secret:
    return await store.update(lambda tx: secrets.create_secret(tx, SecretSpec(name=name, data=data, **parts), RNG))


async def new_config(store: Store, name: str = "c", data: str = "aGk=") -> Config:
    return await store.update(lambda tx: secrets.create_config(tx, ConfigSpec(name=name, data=data), RNG))


async def test_sizes_of_secrets_and_configs(store: Store) -> None:
    text = "secret data must be larger than 0 and less than 512000 bytes"
    for size in (0, 512_000):
        with pytest.raises(InvalidArgument, match=text):
            await new_secret(store, data=encoded(size))
    await new_secret(store, data=encoded(511_999))
    with pytest.raises(InvalidArgument, match="config data must be larger than 0 and less than 1024000 bytes"):
        await new_config(store, data=encoded(1_024_000))
    await new_config(store, data=encoded(1_023_999))


@pytest.mark.parametrize("name", ["-a", "a b", "a" * 65, "é"])
async def test_names_of_secrets(store: Store, name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"only 64 \[a-zA-Z0-9-_.\] characters allowed"):
        await new_secret(store, name)


async def test_a_taken_name_and_bad_base64(store: Store) -> None:
    await new_secret(store)
    with pytest.raises(AlreadyExists) as caught:
        await new_secret(store)
    assert str(caught.value) == "rpc error: code = AlreadyExists desc = secret s already exists"
    with pytest.raises(BadRequest, match="illegal base64"):
        await new_secret(store, "other", "???")


async def test_there_are_no_secret_drivers(store: Store) -> None:
    for name, text in (("vault", 'plugin "vault" not found'), ("", "secret driver must have a name")):
        with pytest.raises(ClusterError, match=text):
            await new_secret(store, data="", driver=Driver(name=name))


async def test_only_labels_of_a_secret_change(store: Store) -> None:
    secret = await new_secret(store)

    async def change(**parts: Any) -> Secret:
        spec = SecretSpec(**{"name": "s", "labels": {"a": "b"}, **parts})
        return await store.update(lambda tx: secrets.update_secret(tx, "s", secret.version.index, spec))

    for parts in ({"name": "t"}, {"data": "b3RoZXI="}):
        with pytest.raises(InvalidArgument, match="only updates to Labels are allowed"):
            await change(**parts)
    changed = await change()
    assert (changed.spec.labels, changed.spec.data) == ({"a": "b"}, "aGk=")
    with pytest.raises(OutOfSequence):
        await change()


async def test_a_config_in_use_stays_and_its_users_are_named(store: Store) -> None:
    config = await new_config(store)
    container = {"Configs": [{"ConfigID": config.id, "ConfigName": "c", "File": {"Name": "/c"}}]}
    for name in ("one", "two"):
        spec = msgspec.convert({"Name": name, "TaskTemplate": {"ContainerSpec": container}}, ServiceSpec)
        await put(store, Service(id=name, spec=spec))
    with pytest.raises(InvalidArgument, match="config 'c' is in use by the following services: one, two"):
        await store.update(lambda tx: secrets.remove_config(tx, "c"))
    await store.update(lambda tx: tx.delete(Service, "one"))
    with pytest.raises(InvalidArgument, match="config 'c' is in use by the following service: two"):
        await store.update(lambda tx: secrets.remove_config(tx, "c"))
    await store.update(lambda tx: tx.delete(Service, "two"))
    await store.update(lambda tx: secrets.remove_config(tx, "c"))


# --- the cluster -----------------------------------------------------------------------------------------------------


def test_a_new_cluster_has_swarms_defaults() -> None:
    spec = cluster.complete_spec(SwarmSpec())
    assert spec.name == "default"
    assert spec.orchestration.task_history_retention_limit == 5
    assert (spec.raft.snapshot_interval, spec.raft.keep_old_snapshots) == (10_000, 0)
    assert (spec.raft.log_entries_for_slow_followers, spec.raft.election_tick, spec.raft.heartbeat_tick) == (500, 10, 1)
    assert spec.dispatcher.heartbeat_period == 5_000_000_000
    assert spec.ca_config.node_cert_expiry == 7_776_000_000_000_000


def test_zero_is_a_history_limit_of_its_own() -> None:
    spec = SwarmSpec(orchestration=OrchestrationConfig(task_history_retention_limit=0))
    assert cluster.complete_spec(spec).orchestration.task_history_retention_limit == 0


@pytest.mark.parametrize(
    ("spec", "error", "text"),
    [
        (SwarmSpec(name="other"), BadRequest, 'swarm spec must be named "default"'),
        (
            SwarmSpec(ca_config=CAConfig(node_cert_expiry=HOUR - 1)),
            InvalidArgument,
            "minimum certificate expiry time is: 1h0m0s",
        ),
        (
            SwarmSpec(dispatcher=DispatcherConfig(heartbeat_period=-1)),
            InvalidArgument,
            "heartbeat time period cannot be a negative duration",
        ),
        (
            SwarmSpec(ca_config=CAConfig(external_cas=[ExternalCA(protocol="acme", url="https://ca")])),
            BadRequest,
            'invalid protocol: "acme"',
        ),
    ],
)
def test_refused_settings(spec: SwarmSpec, error: type[ClusterError], text: str) -> None:
    with pytest.raises(error, match=text):
        cluster.complete_spec(spec)


def test_certificates_may_live_for_an_hour() -> None:
    spec = cluster.complete_spec(SwarmSpec(ca_config=CAConfig(node_cert_expiry=HOUR)))
    assert spec.ca_config.node_cert_expiry == HOUR


async def test_tokens_rotate_one_by_one(store: Store) -> None:
    before = JoinTokens(worker="w", manager="m")
    await put(store, Cluster(id="c", spec=cluster.complete_spec(SwarmSpec()), join_tokens=before, ca_cert="root"))
    changed = await store.update(lambda tx: cluster.update_cluster(tx, 1, SwarmSpec(), RNG, rotate_worker_token=True))
    assert changed.join_tokens is not None
    assert changed.join_tokens.manager == "m"
    first = changed.join_tokens.worker
    assert first.startswith("SWMTKN-1-")
    again = await store.update(lambda tx: cluster.update_cluster(tx, 2, SwarmSpec(), RNG, rotate_worker_token=True))
    assert again.join_tokens is not None
    second = again.join_tokens.worker
    assert second != first and second.rpartition("-")[0] == first.rpartition("-")[0], "the root is the same"
    with pytest.raises(OutOfSequence):
        await store.update(lambda tx: cluster.update_cluster(tx, 1, SwarmSpec(), RNG))


async def test_an_unlock_key_comes_with_the_lock_stays_rotates_and_goes_with_it(store: Store) -> None:
    await put(store, Cluster(id="c", spec=cluster.complete_spec(SwarmSpec()), join_tokens=JoinTokens(), ca_cert="root"))
    locked = SwarmSpec(encryption_config=EncryptionConfig(auto_lock_managers=True))

    async def key(spec: SwarmSpec, *, rotate: bool = False) -> str:
        version = store.view().all(Cluster)[0].version.index
        changed = await store.update(
            lambda tx: cluster.update_cluster(tx, version, spec, RNG, rotate_unlock_key=rotate)
        )
        return changed.unlock_key

    first = await key(locked)
    assert first.startswith("SWMKEY-1-")
    assert await key(locked) == first
    second = await key(locked, rotate=True)
    assert second.startswith("SWMKEY-1-") and second != first
    assert await key(SwarmSpec(), rotate=True) == ""
    assert await key(locked) not in (first, second)
