"""The dispatcher's sessions: who is let in, and what nodes are told."""

from __future__ import annotations

import asyncio

import pytest

from swarm_agent.model.objects import (
    Cluster,
    Config,
    ContainerStatus,
    ManagerStatus,
    Network,
    NetworkAttachment,
    Node,
    NodeDescription,
    NodeStatus,
    Secret,
    Task,
    TaskStatus,
)
from swarm_agent.model.session import Assignments, Describe, Heartbeat, ManagerPeer, encode_message
from swarm_agent.model.specs import ConfigSpec, Driver, NetworkSpec, SecretSpec
from swarm_agent.model.states import TaskState
from tests.unit.manager.dispatcher_world import Peer, World, replace, simulate, task, using

# --- sessions --------------------------------------------------------------------------------------------------------


def test_a_node_that_reports_becomes_ready_and_is_told_of_the_cluster() -> None:
    async def scenario(world: World) -> None:
        ingress = Network(id="ing", spec=NetworkSpec(name="ingress", ingress=True))
        manager = Node(
            id="m",
            status=NodeStatus(state="ready", addr="10.9.0.7"),
            manager_status=ManagerStatus(leader=True, reachability="reachable", addr="10.9.0.7:2377"),
        )
        await world.create(ingress, Network(id="other", spec=NetworkSpec(name="other")), manager, Node(id="n"))
        peer = Peer(world.dispatcher, "n")
        peer.hello("web-1", "10.9.0.1")
        welcome = await peer.welcome()
        assert world.node().status == NodeStatus(state="ready", addr="10.9.0.1")
        assert world.node().description.hostname == "web-1"
        assert welcome.node == world.node()
        assert welcome.cluster_id == "cluster"
        assert welcome.heartbeat == 1.0
        assert welcome.managers == [ManagerPeer("m", "10.9.0.7:2377")]
        assert welcome.gossip_keys == ["k1"]
        assert welcome.gossip_seeds == ["10.9.0.7:7946"]
        assert welcome.root_ca == "PEM"
        assert welcome.data_path_port == 4789
        assert [network.id for network in welcome.networks] == ["ing"]
        assert (await peer.assignments()).complete

    simulate(scenario)


def test_someone_who_is_no_member_is_turned_away() -> None:
    async def scenario(world: World) -> None:
        peer = Peer(world.dispatcher, "stranger")
        peer.hello()
        assert await peer.closed()
        assert world.store.view().get(Node, "stranger") is None

    simulate(scenario)


@pytest.mark.parametrize("first", [b"\xff\x00", encode_message(Heartbeat()), None], ids=["noise", "beat", "closed"])
def test_a_session_that_does_not_begin_with_hello_ends_and_disturbs_nobody(first: bytes | None) -> None:
    async def scenario(world: World) -> None:
        good = await world.join("good")
        await world.create(Node(id="bad"))
        bad = Peer(world.dispatcher, "bad")
        bad.say_bytes(first)
        assert await bad.closed()
        assert world.node("bad").status.state != "ready"
        await world.create(task("t", "good"))
        assert [each.id for each in (await good.assignments()).tasks] == ["t"]

    simulate(scenario)


def test_noise_within_a_session_ends_it() -> None:
    async def scenario(world: World) -> None:
        peer = await world.join()
        peer.say_bytes(b"\x81\xa4type\xa4beep")
        assert await peer.closed()

    simulate(scenario)


def test_a_silent_connection_is_not_kept() -> None:
    async def scenario(world: World) -> None:
        await world.create(Node(id="n"))
        peer = Peer(world.dispatcher, "n")
        await asyncio.sleep(11)
        assert peer.served.done()

    simulate(scenario)


def test_a_newer_session_of_a_node_ends_the_older() -> None:
    async def scenario(world: World) -> None:
        old = await world.join()
        new = await world.join()
        assert await old.closed()
        await world.create(task("t"))
        assert (await new.assignments()).tasks

    simulate(scenario)


def test_a_changed_description_is_stored() -> None:
    async def scenario(world: World) -> None:
        peer = await world.join()
        peer.say(Describe(description=NodeDescription(hostname="renamed")))
        await asyncio.sleep(0.1)
        assert world.node().description.hostname == "renamed"

    simulate(scenario)


def test_stopping_ends_all_sessions_and_takes_no_new_ones() -> None:
    async def scenario(world: World) -> None:
        peer = await world.join()
        await world.dispatcher.stop()
        assert await peer.closed()
        late = Peer(world.dispatcher, "n")
        assert await late.closed()

    simulate(scenario)


# --- what nodes are told ---------------------------------------------------------------------------------------------


def test_a_node_is_first_told_all_its_tasks_from_assigned_on() -> None:
    async def scenario(world: World) -> None:
        await world.create(
            Node(id="n"),
            task("assigned"),
            task("running", state=TaskState.RUNNING),
            task("stopping", state=TaskState.RUNNING, desired_state=TaskState.SHUTDOWN),
            task("ended", state=TaskState.FAILED, desired_state=TaskState.SHUTDOWN),
            task("waiting", state=TaskState.PENDING),
            task("orphaned", state=TaskState.ORPHANED),
            task("elsewhere", "other"),
        )
        peer = Peer(world.dispatcher, "n")
        peer.hello()
        await peer.welcome()
        told = await peer.assignments()
        assert told.complete
        assert {each.id for each in told.tasks} == {"assigned", "running", "stopping", "ended"}

    simulate(scenario)


def test_changes_follow_and_what_the_node_said_itself_is_not_repeated() -> None:
    async def scenario(world: World) -> None:
        peer = await world.join()
        await world.create(task("t", "", TaskState.PENDING))
        assert await peer.silent()
        await world.change(Task, "t", node_id="n", status=TaskStatus(state=TaskState.ASSIGNED))
        told = await peer.assignments()
        assert not told.complete
        assert [each.id for each in told.tasks] == ["t"]
        peer.report("t", TaskState.RUNNING, container_status=ContainerStatus(container_id="c1"))
        assert await peer.silent()
        assert world.status("t").state is TaskState.RUNNING
        await world.change(Task, "t", desired_state=TaskState.SHUTDOWN)
        (stopping,) = (await peer.assignments()).tasks
        assert stopping.desired_state is TaskState.SHUTDOWN
        peer.report("t", TaskState.SHUTDOWN)
        await asyncio.sleep(0.1)
        await world.delete(Task, "t")
        assert await peer.assignments() == Assignments(gone_tasks=["t"])

    simulate(scenario)


def test_many_changes_at_once_are_told_in_one_message() -> None:
    async def scenario(world: World) -> None:
        peer = await world.join()
        await world.create(*(task(f"t{number}") for number in range(50)))
        assert len((await peer.assignments()).tasks) == 50
        assert await peer.silent()

    simulate(scenario)


def test_secrets_and_configs_go_only_where_an_unfinished_task_names_them() -> None:
    async def scenario(world: World) -> None:
        await world.create(
            *(Secret(id=each, spec=SecretSpec(name=each, data="czNjcmV0")) for each in ("s1", "s2")),
            Config(id="c1", spec=ConfigSpec(name="c1")),
        )
        peer, other = await world.join("n"), await world.join("other")
        await world.create(task("a", spec=using(("s1",), ("c1",))), task("b", spec=using(("s1",))))
        told = await peer.assignments()
        assert [secret.id for secret in told.secrets] == ["s1"]
        assert [config.id for config in told.configs] == ["c1"]
        assert await other.silent()
        peer.report("a", TaskState.FAILED)
        gone = await peer.assignments()
        assert (gone.gone_secrets, gone.gone_configs, gone.tasks) == ([], ["c1"], [])
        peer.report("b", TaskState.COMPLETE)
        assert (await peer.assignments()).gone_secrets == ["s1"]

    simulate(scenario)


def test_a_changed_secret_is_told_again() -> None:
    async def scenario(world: World) -> None:
        await world.create(Secret(id="s", spec=SecretSpec(name="s")), Secret(id="unused", spec=SecretSpec(name="u")))
        peer = await world.join()
        await world.create(task("t", spec=using(("s",))))
        await peer.assignments()
        await world.change(Secret, "s", spec=SecretSpec(name="s", labels={"k": "v"}))
        told = await peer.assignments()
        assert [secret.spec.labels for secret in told.secrets] == [{"k": "v"}]
        assert told.tasks == []
        await world.change(Secret, "unused", spec=SecretSpec(name="u", labels={"k": "v"}))
        assert await peer.silent()

    simulate(scenario)


def test_the_welcome_is_repeated_when_something_in_it_changes_and_only_then() -> None:
    async def scenario(world: World) -> None:
        peer = await world.join()
        node = world.node()
        await world.change(Node, "n", spec=replace(node.spec, labels={"disk": "ssd"}))
        assert (await peer.welcome()).node.spec.labels == {"disk": "ssd"}
        await world.change(Node, "n", attachments={"ing": "10.0.0.2/24"})
        assert (await peer.welcome()).node.attachments == {"ing": "10.0.0.2/24"}
        await world.change(Cluster, "cluster", gossip_keys=["k2", "k1"])
        assert (await peer.welcome()).gossip_keys == ["k2", "k1"]
        await world.create(Node(id="m", manager_status=ManagerStatus(addr="10.9.0.7:2377")))
        assert [manager.node_id for manager in (await peer.welcome()).managers] == ["m"]
        await world.create(Node(id="worker"))
        await world.change(Node, "m", status=NodeStatus(state="down", addr="10.9.0.7"))
        await world.change(Cluster, "cluster", join_tokens=None)
        assert await peer.silent()

    simulate(scenario)


def test_a_node_knows_the_networks_of_its_tasks_before_the_tasks() -> None:
    async def scenario(world: World) -> None:
        peer = await world.join()
        front = Network(id="front", spec=NetworkSpec(name="front"))
        host = Network(id="host", spec=NetworkSpec(name="host", driver_configuration=Driver(name="host")))
        await world.create(front, host)
        stored = world.store.view().get(Network, "front")
        assert stored is not None
        attached = [NetworkAttachment(network=stored, addresses=["10.0.1.5/24"]), NetworkAttachment(network=host)]
        await world.create(task("t", networks_attachments=attached))
        assert [network.id for network in (await peer.welcome()).networks] == ["front"]
        assert [each.id for each in (await peer.assignments()).tasks] == ["t"]
        await world.delete(Network, "front")
        assert await peer.silent(), "the task still runs on it"
        peer.report("t", TaskState.FAILED)
        assert (await peer.welcome()).networks == []

    simulate(scenario)
