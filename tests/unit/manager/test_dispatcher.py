"""The dispatcher: nodes are told what to run, their reports are written, and silence is told from death."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import msgspec
import pytest

from swarm_agent.manager.dispatcher import ORPHAN_AFTER, Dispatcher
from swarm_agent.manager.liveness import FAILED, FAILED_UNKNOWN, Liveness
from swarm_agent.manager.reports import advance
from swarm_agent.model.errors import NoLeader
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
from swarm_agent.model.session import (
    Assignments,
    Describe,
    FromNode,
    Heartbeat,
    Hello,
    ManagerPeer,
    Statuses,
    TaskStatusUpdate,
    ToNode,
    Welcome,
    decode_to_node,
    encode_message,
)
from swarm_agent.model.specs import (
    ConfigReference,
    ConfigSpec,
    ContainerSpec,
    Driver,
    NetworkSpec,
    SecretReference,
    SecretSpec,
    TaskSpec,
)
from swarm_agent.model.states import TaskState
from swarm_agent.model.times import SECOND, rfc3339
from swarm_agent.store.memory import memory_store
from swarm_agent.store.store import Store
from tests.sim import virtual_time

replace = msgspec.structs.replace


class Peer:
    """A node's end of a channel."""

    def __init__(self, dispatcher: Dispatcher, node_id: str) -> None:
        self.node_id = node_id
        self._to_leader: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._to_node: asyncio.Queue[bytes] = asyncio.Queue()
        self.served = asyncio.create_task(dispatcher.session(node_id, self))

    async def send(self, data: bytes) -> None:
        self._to_node.put_nowait(data)

    async def receive(self) -> bytes | None:
        return await self._to_leader.get()

    def say(self, message: FromNode) -> None:
        self._to_leader.put_nowait(encode_message(message))

    def say_bytes(self, data: bytes | None) -> None:
        self._to_leader.put_nowait(data)

    def hello(self, hostname: str = "host", advertise: str = "10.9.0.1") -> None:
        self.say(Hello(description=NodeDescription(hostname=hostname), advertise=advertise))

    def report(self, task_id: str, state: TaskState, **status: Any) -> None:
        self.say(Statuses(updates=[TaskStatusUpdate(task_id, TaskStatus(state=state, **status))]))

    async def next(self) -> ToNode:
        async with asyncio.timeout(5):
            return decode_to_node(await self._to_node.get())

    async def welcome(self) -> Welcome:
        message = await self.next()
        assert isinstance(message, Welcome)
        return message

    async def assignments(self) -> Assignments:
        message = await self.next()
        assert isinstance(message, Assignments)
        return message

    async def silent(self, seconds: float = 1.0) -> bool:
        """Nothing is sent to the node for a while."""
        await asyncio.sleep(seconds)
        return self._to_node.empty()

    async def closed(self) -> bool:
        async with asyncio.timeout(5):
            await self.served
        return True


class World:
    """A dispatcher on a store in virtual time, with gossip's verdicts as told."""

    def __init__(self) -> None:
        self.store: Store = memory_store(clock=lambda: rfc3339(virtual_time.clock()))
        self.gossip: dict[str, bool] = {}
        self.dispatcher = self.make()
        self.beating: set[str] = set()

    def make(self) -> Dispatcher:
        return Dispatcher(self.store, clock=virtual_time.clock, liveness=self.gossip.get)

    async def create(self, *objects: Any) -> None:
        await self.store.update(lambda tx: [tx.create(obj) for obj in objects])

    async def change(self, kind: type[Any], id_: str, **fields: Any) -> None:
        def write(tx: Any) -> None:
            tx.update(replace(tx.get(kind, id_), **fields))

        await self.store.update(write)

    async def delete(self, kind: type[Any], id_: str) -> None:
        await self.store.update(lambda tx: tx.delete(kind, id_))

    def node(self, id_: str = "n") -> Node:
        node = self.store.view().get(Node, id_)
        assert node is not None
        return node

    def status(self, task_id: str) -> TaskStatus:
        task = self.store.view().get(Task, task_id)
        assert task is not None
        return task.status

    async def join(self, node_id: str = "n") -> Peer:
        """A node that is a member, connected and told everything so far."""
        if self.store.view().get(Node, node_id) is None:
            await self.create(Node(id=node_id))
        peer = Peer(self.dispatcher, node_id)
        peer.hello(node_id)
        await peer.welcome()
        await peer.assignments()
        return peer

    async def beat(self, peer: Peer, seconds: float) -> None:
        """The node beats once a second for a time."""
        for _ in range(round(seconds)):
            peer.say(Heartbeat())
            await asyncio.sleep(1)


def simulate(scenario: Any) -> None:
    """Run `scenario(world)` with a dispatcher in virtual time."""

    async def main() -> None:
        world = World()
        await world.create(Cluster(id="cluster", ca_cert="PEM", gossip_keys=["k1"]))
        await world.dispatcher.start()
        try:
            await scenario(world)
        finally:
            await world.dispatcher.stop()

    work: Coroutine[Any, Any, None] = main()
    virtual_time.run(work)


def skip(seconds: float) -> None:
    """Let the clock leap, as on a machine that was suspended."""
    asyncio.get_running_loop()._virtual.now += seconds  # type: ignore[attr-defined]


def task(id_: str, node_id: str = "n", state: TaskState = TaskState.ASSIGNED, **fields: Any) -> Task:
    return Task(
        **{
            "id": id_,
            "node_id": node_id,
            "status": TaskStatus(state=state),
            "desired_state": TaskState.RUNNING,
            **fields,
        }
    )


def using(secrets: tuple[str, ...] = (), configs: tuple[str, ...] = ()) -> TaskSpec:
    return TaskSpec(
        container_spec=ContainerSpec(
            secrets=[SecretReference(secret_id=each) for each in secrets],
            configs=[ConfigReference(config_id=each) for each in configs],
        )
    )


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


# --- reports ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "accepted"),
    [
        (TaskState.ASSIGNED, TaskState.ACCEPTED, True),
        (TaskState.ASSIGNED, TaskState.REJECTED, True),
        (TaskState.RUNNING, TaskState.STARTING, False),
        (TaskState.FAILED, TaskState.RUNNING, False),
        (TaskState.SHUTDOWN, TaskState.COMPLETE, False),
        (TaskState.PENDING, TaskState.RUNNING, False),
        (TaskState.RUNNING, TaskState.ORPHANED, False),
        (TaskState.RUNNING, TaskState.REMOVE, False),
    ],
)
def test_observed_states_only_rise_and_only_to_what_a_node_can_see(
    old: TaskState, new: TaskState, accepted: bool
) -> None:
    found = advance(task("t", state=old), "n", TaskStatus(state=new))
    assert (found is not None) is accepted


def test_a_node_speaks_only_for_its_own_tasks() -> None:
    assert advance(task("t", "n"), "intruder", TaskStatus(state=TaskState.FAILED)) is None


def test_details_may_change_within_a_state_until_the_task_has_ended() -> None:
    preparing = task("t", state=TaskState.PREPARING)
    retrying = TaskStatus(state=TaskState.PREPARING, err="no route to host", timestamp="2024-01-01T00:00:00Z")
    updated = advance(preparing, "n", retrying)
    assert updated is not None
    assert updated.status == retrying
    assert advance(updated, "n", replace(retrying, timestamp="2024-01-02T00:00:00Z")) is None
    assert advance(task("t", state=TaskState.FAILED), "n", TaskStatus(state=TaskState.FAILED, err="again")) is None


def test_an_intruders_report_does_not_displace_the_true_one() -> None:
    async def scenario(world: World) -> None:
        await world.create(task("t"))
        peer, intruder = await world.join("n"), await world.join("x")
        peer.report("t", TaskState.RUNNING)
        intruder.report("t", TaskState.FAILED)
        await asyncio.sleep(0.1)
        assert world.status("t").state is TaskState.RUNNING

    simulate(scenario)


def test_reports_are_batched_into_few_log_entries() -> None:
    async def scenario(world: World) -> None:
        await world.create(*(task(f"t{number}") for number in range(190)))
        peer = await world.join()
        before = len(world.store.proposer.entries)  # type: ignore[union-attr]
        for number in range(190):
            peer.report(f"t{number}", TaskState.RUNNING)
        await asyncio.sleep(0.1)
        assert all(world.status(f"t{number}").state is TaskState.RUNNING for number in range(190))
        assert len(world.store.proposer.entries) - before <= 3  # type: ignore[union-attr]

    simulate(scenario)


def test_reports_wait_for_a_quorum() -> None:
    async def scenario(world: World) -> None:
        await world.create(task("t"))
        peer = await world.join()
        world.store.proposer.refusal = NoLeader()  # type: ignore[union-attr]
        peer.report("t", TaskState.ACCEPTED)
        await asyncio.sleep(0.3)
        peer.report("t", TaskState.RUNNING)
        await asyncio.sleep(0.3)
        world.store.proposer.refusal = None  # type: ignore[union-attr]
        await asyncio.sleep(1)
        assert world.status("t").state is TaskState.RUNNING

    simulate(scenario)


# --- life and death --------------------------------------------------------------------------------------------------


def test_a_node_that_beats_stays_ready_whatever_gossip_says() -> None:
    async def scenario(world: World) -> None:
        peer = await world.join()
        world.gossip["n"] = False
        await world.beat(peer, 60)
        assert world.node().status.state == "ready"

    simulate(scenario)


@pytest.mark.parametrize(
    ("gossip", "ready_at", "down_at"), [(None, 2.5, 3.6), (False, 0.9, 1.6), (True, 14.5, 15.6)], ids=str
)
def test_a_silent_node_is_down_as_soon_as_the_witnesses_agree(
    gossip: bool | None, ready_at: float, down_at: float
) -> None:
    async def scenario(world: World) -> None:
        peer = await world.join()
        if gossip is not None:
            world.gossip["n"] = gossip
        await asyncio.sleep(ready_at)
        assert world.node().status.state == "ready"
        await asyncio.sleep(down_at - ready_at)
        assert world.node().status == NodeStatus(state="down", message="heartbeat failure", addr="10.9.0.1")
        assert await peer.closed()

    simulate(scenario)


def test_a_closed_connection_is_not_yet_death() -> None:
    async def scenario(world: World) -> None:
        peer = await world.join()
        peer.say_bytes(None)
        assert await peer.closed()
        await asyncio.sleep(2)
        assert world.node().status.state == "ready"
        again = await world.join()
        await world.beat(again, 5)
        assert world.node().status.state == "ready"

    simulate(scenario)


def test_a_node_that_was_down_is_ready_when_it_reports_again_and_gets_its_assignments() -> None:
    async def scenario(world: World) -> None:
        await world.create(task("t", state=TaskState.RUNNING))
        await world.join()
        await asyncio.sleep(5)
        assert world.node().status.state == "down"
        await world.change(Task, "t", desired_state=TaskState.SHUTDOWN)
        back = Peer(world.dispatcher, "n")
        back.hello()
        await back.welcome()
        assert [each.desired_state for each in (await back.assignments()).tasks] == [TaskState.SHUTDOWN]
        assert world.node().status == NodeStatus(state="ready", addr="10.9.0.1")

    simulate(scenario)


def test_after_a_change_of_leader_nodes_have_time_to_report() -> None:
    async def scenario(world: World) -> None:
        await world.join("comes")
        await world.join("lost")
        await world.dispatcher.stop()
        world.dispatcher = world.make()
        await world.dispatcher.start()
        await asyncio.sleep(8)
        assert {world.node(each).status.state for each in ("comes", "lost")} == {"ready"}
        peer = await world.join("comes")
        await world.beat(peer, 4)
        assert world.node("comes").status.state == "ready"
        assert world.node("lost").status.state == "down"
        assert world.node("lost").status.message == 'heartbeat failure for node in "unknown" state'

    simulate(scenario)


def test_a_longer_heartbeat_period_is_told_and_kept() -> None:
    async def scenario(world: World) -> None:
        peer = await world.join()
        cluster = world.store.view().get(Cluster, "cluster")
        assert cluster is not None
        dispatcher = replace(cluster.spec.dispatcher, heartbeat_period=50 * SECOND)
        await world.change(Cluster, "cluster", spec=replace(cluster.spec, dispatcher=dispatcher))
        assert (await peer.welcome()).heartbeat == 10.0
        await asyncio.sleep(25)
        assert world.node().status.state == "ready"
        await asyncio.sleep(10)
        assert world.node().status.state == "down"

    simulate(scenario)


def test_time_in_which_the_leader_itself_was_asleep_counts_for_nobody() -> None:
    nodes = Liveness(5.0)
    nodes.heard("n", 0.0)
    assert nodes.check(0.2, lambda _: None) == []
    assert nodes.check(100.0, lambda _: None) == []
    nodes.heard("n", 100.1)
    assert nodes.check(100.3, lambda _: None) == []
    for step in range(1, 20):
        dead = nodes.check(100.3 + step * 0.25, lambda _: None)
        if dead:
            break
    assert dead == [("n", FAILED)]


def test_a_node_that_never_reported_is_given_up_with_swarms_words() -> None:
    nodes = Liveness(5.0)
    nodes.expect("n", 0.0)
    found = [(time, dead) for time in range(40) for dead in nodes.check(float(time) / 2, lambda _: None)]
    assert found == [(20, ("n", FAILED_UNKNOWN))]


# --- orphans ---------------------------------------------------------------------------------------------------------


def test_removing_a_node_ends_its_session_and_orphans_its_unfinished_tasks() -> None:
    async def scenario(world: World) -> None:
        tasks = [task(f"t{number}", state=TaskState.RUNNING) for number in range(450)]
        ended = task("ended", state=TaskState.COMPLETE)
        await world.create(*tasks, ended)
        peer = await world.join()
        await world.delete(Node, "n")
        assert await peer.closed()
        await asyncio.sleep(0.1)
        assert {world.status(each.id).state for each in tasks} == {TaskState.ORPHANED}
        assert world.status("ended").state is TaskState.COMPLETE

    simulate(scenario)


def test_tasks_of_a_node_removed_under_the_last_leader_are_orphaned_by_the_next() -> None:
    async def scenario(world: World) -> None:
        await world.dispatcher.stop()
        await world.create(task("t", "gone", TaskState.RUNNING))
        await world.dispatcher.start()
        await asyncio.sleep(0.1)
        assert world.status("t").state is TaskState.ORPHANED

    simulate(scenario)


def test_tasks_of_a_node_that_stays_down_are_orphaned_after_a_day() -> None:
    async def scenario(world: World) -> None:
        await world.create(task("t", state=TaskState.RUNNING, desired_state=TaskState.SHUTDOWN))
        await world.join()
        await asyncio.sleep(5)
        assert world.node().status.state == "down"
        skip(ORPHAN_AFTER / SECOND - 120)
        await asyncio.sleep(70)
        assert world.status("t").state is TaskState.RUNNING
        await asyncio.sleep(300)
        assert world.status("t").state is TaskState.ORPHANED
        back = Peer(world.dispatcher, "n")
        back.hello()
        await back.welcome()
        assert (await back.assignments()).tasks == [], "what is left of it on the node is to be removed"

    simulate(scenario)
