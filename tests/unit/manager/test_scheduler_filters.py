"""The scheduler's filters: which nodes a task can have, and Swarm's words while it waits for one."""

from __future__ import annotations

import itertools

import pytest

from swarm_agent.model.encryption import WIREGUARD
from swarm_agent.model.objects import EngineDescription, Network, NetworkAttachment, Node, PluginDescription, TaskStatus
from swarm_agent.model.specs import (
    ContainerSpec,
    DiscreteGenericResource,
    Driver,
    GenericResource,
    Mount,
    NamedGenericResource,
    NetworkSpec,
    Placement,
    Platform,
    Resources,
    TaskSpec,
    VolumeOptions,
)
from swarm_agent.model.states import TaskState
from tests.unit.manager.scheduler_world import GIB, World, host_port, node, placed, replace, reserving, running, task


@pytest.mark.parametrize(
    ("nodes", "spec", "reason"),
    [
        ([node("a", state="down")], None, "1 node not available for new tasks"),
        (
            [node("a", availability="drain"), node("b", availability="pause")],
            None,
            "2 nodes not available for new tasks",
        ),
        ([node("a")], reserving(cpus=4.5), "insufficient resources on 1 node"),
        ([node("a"), node("b")], reserving(memory=9 * GIB), "insufficient resources on 2 nodes"),
        ([node("a")], reserving(gpu=1), "insufficient resources on 1 node"),
        (
            [node("a"), node("b"), node("c")],
            placed("node.hostname==zebra"),
            "scheduling constraints not satisfied on 3 nodes",
        ),
        ([node("a")], placed("node.hostname==zebra"), "scheduling constraints not satisfied on 1 node"),
        (
            [node("a")],
            TaskSpec(placement=Placement(platforms=[Platform(architecture="arm64", os="linux")])),
            "unsupported platform on 1 node",
        ),
        (
            [node("a", plugins=[PluginDescription(type="Log", name="json-file")])],
            TaskSpec(log_driver=Driver(name="fluentd")),
            "missing plugin on 1 node",
        ),
        (
            [node("a"), node("b"), node("c", state="down"), node("d", labels={"k": "v"})],
            placed("node.labels.k!=v", max_replicas=0),
            "",
        ),
    ],
)
def test_a_task_that_fits_nowhere_says_why_in_swarms_words(
    nodes: list[Node], spec: TaskSpec | None, reason: str
) -> None:
    wanted = task(spec=spec)
    world = World(*nodes, wanted)
    world.plan()
    status = world.task(wanted).status
    if reason:
        assert status.state is TaskState.PENDING
        assert status.err == f"no suitable node ({reason})"
        assert status.message == "pending task scheduling"
    else:
        assert status.state is TaskState.ASSIGNED


def test_of_several_reasons_on_a_node_the_first_in_swarms_order_is_given() -> None:
    texts = [
        "1 node not available for new tasks",
        "insufficient resources on 1 node",
        "missing plugin on 1 node",
        "scheduling constraints not satisfied on 1 node",
        "unsupported platform on 1 node",
        "host-mode port already in use on 1 node",
        "max replicas per node limit exceed",
    ]
    reserved = reserving(cpus=5)
    assert reserved.resources is not None
    log, platform = Driver(name="fluentd"), Platform(architecture="arm64")
    strict = Placement(constraints=["node.hostname==zebra"], platforms=[platform], max_replicas=1)
    spec = replace(reserved, log_driver=log, placement=strict)
    place = node("a", state="down", plugins=[PluginDescription(type="Log", name="json-file")])
    cures = [
        lambda: replace(place, status=replace(place.status, state="ready")),
        lambda: replace(place, description=replace(place.description, resources=Resources(nano_cpus=10**10))),
        lambda: replace(place, description=replace(place.description, engine=EngineDescription())),
        lambda: replace(place, description=replace(place.description, hostname="zebra")),
        lambda: replace(place, description=replace(place.description, platform=platform)),
    ]
    there = running("web", "a", endpoint=host_port(8080))
    wanted = task(spec=spec, endpoint=host_port(8080))
    world = World(place, there, wanted)
    for text, cure in itertools.zip_longest(texts, cures):
        world.plan()
        assert world.task(wanted).status.err == f"no suitable node ({text})"
        if cure is not None:
            place = cure()
            world.put(place)
        elif there.id in world.objects:
            world.drop(there)
            world.put(running("web", "a"))


def test_reasons_are_joined_most_frequent_first() -> None:
    wanted = task(spec=placed("node.labels.disk==ssd"))
    world = World(node("a"), node("b"), node("c", state="down"), wanted)
    world.plan()
    assert world.task(wanted).status.err == (
        "no suitable node (scheduling constraints not satisfied on 2 nodes; 1 node not available for new tasks)"
    )


def test_without_any_node_there_is_no_reason_to_give() -> None:
    wanted = task()
    world = World(wanted)
    world.plan()
    assert world.task(wanted).status.err == "no suitable node"


def test_max_replicas_per_node_is_kept_within_one_pass_and_over_passes() -> None:
    spec = placed(max_replicas=2)
    tasks = [task(spec=spec) for _ in range(5)]
    world = World(node("a"), node("b"), *tasks)
    world.plan()
    assert world.where(tasks) == {"a": 2, "b": 2, "": 1}
    (waiting,) = [each for each in tasks if not world.task(each).node_id]
    assert world.task(waiting).status.err == "no suitable node (max replicas per node limit exceed)"
    stopping = next(each for each in tasks if world.task(each).node_id == "b")
    world.put(replace(world.task(stopping), desired_state=TaskState.SHUTDOWN))
    world.plan()
    assert world.task(waiting).node_id == "b"
    assert world.task(waiting).status.err == ""


def test_reservations_are_summed_up_and_given_back_when_a_task_has_ended() -> None:
    spec = reserving(cpus=1.5)
    tasks = [task(spec=spec) for _ in range(3)]
    world = World(node("a"), *tasks)
    world.plan()
    assert world.where(tasks) == {"a": 2, "": 1}
    (waiting,) = [each for each in tasks if not world.task(each).node_id]
    ending = world.task(next(each for each in tasks if each is not waiting))
    world.put(replace(ending, desired_state=TaskState.SHUTDOWN))
    world.plan()
    assert not world.task(waiting).node_id, "a container that is being stopped still has its memory"
    world.put(replace(ending, status=TaskStatus(state=TaskState.SHUTDOWN)))
    world.plan()
    assert world.task(waiting).node_id == "a"


def test_more_room_on_a_node_places_what_waited() -> None:
    wanted = task(spec=reserving(cpus=6))
    small = node("a")
    world = World(small, wanted)
    world.plan()
    assert not world.task(wanted).node_id
    world.put(replace(small, description=replace(small.description, resources=Resources(nano_cpus=8_000_000_000))))
    world.plan()
    assert world.task(wanted).node_id == "a"


def test_a_blocked_task_is_not_decided_again_while_nothing_changes() -> None:
    wanted = task(spec=placed("node.hostname==later"))
    world = World(node("a"), wanted)
    assert len(world.plan()) == 1
    assert world.plan() == []
    world.put(running("other", "a"))
    assert world.plan() == []
    world.put(node("later"))
    assert [each.node_id for each in world.plan()] == ["later"]


def test_a_host_port_is_used_once_per_node_until_its_task_has_ended() -> None:
    tasks = [task(endpoint=host_port(8080)) for _ in range(3)]
    world = World(node("a"), node("b"), *tasks)
    world.plan()
    assert world.where(tasks) == {"a": 1, "b": 1, "": 1}
    (waiting,) = [each for each in tasks if not world.task(each).node_id]
    assert world.task(waiting).status.err == "no suitable node (host-mode port already in use on 2 nodes)"
    world.drop(world.task(next(each for each in tasks if world.task(each).node_id == "b")))
    world.plan()
    assert world.task(waiting).node_id == "b"


def test_named_and_counted_generic_resources_are_handed_out_once() -> None:
    gpus = [
        GenericResource(named_resource_spec=NamedGenericResource(kind="gpu", value=name)) for name in ("g1", "g2", "g3")
    ]
    ssd = GenericResource(discrete_resource_spec=DiscreteGenericResource(kind="ssd", value=3))
    two, one = task("a", spec=reserving(gpu=2, ssd=1)), task("b", spec=reserving(gpu=1, ssd=2))
    none = task("c", spec=reserving(gpu=1))
    world = World(node("a", generic=[*gpus, ssd]))
    for each in (two, one, none):
        world.put(each)
        world.plan()
    names = [
        resource.named_resource_spec.value
        for each in (two, one)
        for resource in world.task(each).generic_resources
        if resource.named_resource_spec is not None
    ]
    assert sorted(names) == ["g1", "g2", "g3"]
    counts = [
        resource.discrete_resource_spec.value
        for each in (two, one)
        for resource in world.task(each).generic_resources
        if resource.discrete_resource_spec is not None
    ]
    assert counts == [1, 2]
    assert world.task(none).status.err == "no suitable node (insufficient resources on 1 node)"


LOCAL = PluginDescription(type="Volume", name="local")  # an engine that tells of its plugins


@pytest.mark.parametrize(
    ("plugins", "reason"),
    [
        ([LOCAL, WIREGUARD], ""),
        ([LOCAL], "no suitable node (no WireGuard for the encrypted network on 1 node)"),
        ([], ""),  # not known: the host itself says so if it cannot
    ],
    ids=["has it", "has it not", "not known"],
)
def test_an_encrypted_network_takes_a_node_whose_kernel_can(plugins: list[PluginDescription], reason: str) -> None:
    spec = NetworkSpec(name="secret", driver_configuration=Driver(name="overlay", options={"encrypted": ""}))
    attachment = NetworkAttachment(network=Network(id="n", spec=spec), addresses=["10.0.1.5/24"])
    wanted, other = task(networks_attachments=[attachment]), task("open")
    world = World(node("a", plugins=plugins), wanted, other)
    world.plan()
    assert world.task(wanted).status.err == reason
    assert world.task(other).node_id == "a"


@pytest.mark.parametrize(
    ("plugin", "fits"), [("nfs", True), ("nfs:latest", True), ("nfs2", False)], ids=["exact", "latest", "another"]
)
def test_a_volume_driver_must_be_on_the_node(plugin: str, fits: bool) -> None:
    options = VolumeOptions(driver_config=Driver(name="nfs"))
    spec = TaskSpec(container_spec=ContainerSpec(mounts=[Mount(type="volume", target="/d", volume_options=options)]))
    wanted = task(spec=spec)
    world = World(node("a", plugins=[PluginDescription(type="Volume", name=plugin)]), wanted)
    world.plan()
    assert bool(world.task(wanted).node_id) is fits


@pytest.mark.parametrize("network", ["macvlan", "overlay", "weave"])
def test_a_network_driver_must_be_on_the_node_unless_it_is_our_own(network: str) -> None:
    attachment = NetworkAttachment(network=Network(id="n", driver_state=Driver(name=network)))
    wanted = task(networks_attachments=[attachment])
    world = World(node("a", plugins=[PluginDescription(type="Network", name="macvlan")]), wanted)
    world.plan()
    assert world.task(wanted).status.err == (
        "no suitable node (missing plugin on 1 node)" if network == "weave" else ""
    )


@pytest.mark.parametrize(
    ("architecture", "kernel"), [("amd64", "x86_64"), ("x86_64", "x86_64"), ("", "x86_64"), ("arm64", "aarch64")]
)
def test_platform_names_of_images_and_kernels_are_the_same(architecture: str, kernel: str) -> None:
    wanted = task(spec=TaskSpec(placement=Placement(platforms=[Platform(architecture=architecture, os="linux")])))
    place = node("a")
    platform = Platform(architecture=kernel, os="linux")
    world = World(replace(place, description=replace(place.description, platform=platform)), wanted)
    world.plan()
    assert world.task(wanted).node_id == "a"
