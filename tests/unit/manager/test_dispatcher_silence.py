"""The dispatcher and nodes that fall silent or go: silence is told from death, and tasks become orphans."""

from __future__ import annotations

import asyncio

import pytest

from swarm_agent.manager.liveness import FAILED, FAILED_UNKNOWN, Liveness
from swarm_agent.model.objects import Cluster, Node, NodeStatus, Task
from swarm_agent.model.specs import NodeSpec
from swarm_agent.model.states import TaskState
from swarm_agent.model.times import SECOND
from tests.unit.manager.dispatcher_world import Peer, World, large, replace, simulate, skip, task

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


def test_many_nodes_that_die_together_are_marked_in_several_entries() -> None:
    async def scenario(world: World) -> None:
        labels = {"x": "x" * 20_000}
        for number in range(150):
            await world.create(Node(id=f"n{number}", spec=NodeSpec(labels=labels), status=NodeStatus(state="ready")))
        await asyncio.sleep(12)
        assert {world.node(f"n{number}").status.state for number in range(150)} == {"down"}

    simulate(scenario)


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


def test_large_tasks_of_a_removed_node_are_orphaned_in_several_entries() -> None:
    async def scenario(world: World) -> None:
        for number in range(150):
            await world.create(task(f"t{number}", state=TaskState.RUNNING, spec=large()))
        await world.join()
        await world.delete(Node, "n")
        await asyncio.sleep(1)
        assert {world.status(f"t{number}").state for number in range(150)} == {TaskState.ORPHANED}
        assert world.status("t7").message == "Task belonged to a node that has been deleted"

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
        skip(24 * 3600 - 120)
        await asyncio.sleep(70)
        assert world.status("t").state is TaskState.RUNNING
        await asyncio.sleep(300)
        assert world.status("t").state is TaskState.ORPHANED
        back = Peer(world.dispatcher, "n")
        back.hello()
        await back.welcome()
        assert (await back.assignments()).tasks == [], "what is left of it on the node is to be removed"

    simulate(scenario)
