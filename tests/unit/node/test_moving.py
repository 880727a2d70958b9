"""Managers that move to other addresses: one of two that need each other for a majority, then the other.

A manager that has moved is known to nobody: it has to be found before there can be a leader to write its address down.
"""

import msgspec
import pytest
from msgspec.structs import replace

from swarm_agent.model.objects import Cluster, Config, Node
from swarm_agent.model.session import ManagerPeer
from swarm_agent.model.specs import ConfigSpec, RaftConfig
from swarm_agent.node.leader_client import LeaderClient
from swarm_agent.node.manager_role import raft_settings
from swarm_agent.node.manager_routes import RaftJoin
from tests.unit.node.two_managers import PATIENCE, until


def members_of(manager):
    return {member.id: member.address for member in manager.role.raft.membership.members}


def told_by(manager):
    """Node id → address of its manager status, as clients see it."""
    nodes = manager.role.store.view().all(Node)
    return {node.id: node.manager_status.addr for node in nodes if node.manager_status is not None}


async def written_by(manager, name):
    await manager.role.store.update(lambda tx: tx.create(Config(id=name, spec=ConfigSpec(name=name))))


@pytest.mark.timeout(180)
async def test_managers_that_move_are_found_and_their_new_addresses_written_down(two):
    first, second = two
    await second.move("127.0.0.22")  # a follower: the leader alone is no majority
    assert second.role.has_moved
    await second.ask("/v1/raft/move", first.address)
    await until(lambda: members_of(first) == members_of(second) == {1: first.address, 2: second.address})
    assert not second.role.has_moved
    await until(lambda: any(each.role.is_leader for each in two))

    leader, follower = (first, second) if first.role.is_leader else (second, first)
    await leader.move("127.0.0.31")
    await leader.ask("/v1/raft/move", follower.address)
    await until(lambda: members_of(first) == members_of(second) == {1: first.address, 2: second.address})
    await until(lambda: told_by(first) == told_by(second) == {"node1": first.address, "node2": second.address})
    assert {peer.addr for peer in first.role.managers()} == {first.address, second.address}

    await until(lambda: any(each.role.is_leader for each in two))
    await written_by(next(each for each in two if each.role.is_leader), "after")
    for each in two:
        assert (await each.role.store.read()).get(Config, "after") is not None


@pytest.mark.timeout(180)
async def test_only_a_member_itself_may_say_where_it_is(two):
    first, second = two
    body = msgspec.json.encode(RaftJoin(raft_id=first.state.raft_id, address="127.0.0.99:1"))
    with pytest.raises(Exception, match="node node2 is not raft member 1"):
        await LeaderClient(second.holder, lambda: [first.address]).post("/v1/raft/move", body, patience=PATIENCE)
    assert ManagerPeer(first.id, first.address) in first.role.managers()
    assert members_of(first)[1] == first.address


@pytest.mark.timeout(180)
async def test_the_specs_raft_settings_count_at_once_on_every_manager_and_after_a_start(two):
    first, second = two
    wanted = RaftConfig(
        snapshot_interval=40, keep_old_snapshots=1, log_entries_for_slow_followers=3, election_tick=30, heartbeat_tick=3
    )

    def change(tx):
        (cluster,) = tx.all(Cluster)
        tx.update(replace(cluster, spec=replace(cluster.spec, raft=wanted)))

    await first.role.store.update(change)
    await until(lambda: all(each.role.raft.settings == raft_settings(wanted) for each in two))
    for n in range(100):
        await written_by(first, f"c{n}")
    await until(lambda: all(len(list(each.folder.raft.glob("*.snap"))) == 2 for each in two))
    await second.role.stop()
    await second.start()
    await until(lambda: second.role.raft.settings == raft_settings(wanted))
