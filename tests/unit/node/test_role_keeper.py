"""What the leader makes of the nodes' specs: who leaves raft, who leads, and what node objects say."""

import pytest
from msgspec.structs import replace

from swarm_agent.model.objects import ManagerStatus, Node
from swarm_agent.model.specs import NodeSpec
from swarm_agent.node.manager_role import leave_warning
from swarm_agent.node.role_keeper import RoleKeeper, plan
from swarm_agent.raft.settings import MemberStatus, Status
from swarm_agent.store.memory import memory_store


def member(id_, *, active=True, voter=True, match=10):
    return MemberStatus(id_, f"10.0.0.{id_}:2377", voter, active, match)


def led_by_1(*members):
    return Status(id=1, term=1, leader=1, leads=True, first=1, last=10, committed=10, applied=10, members=members)


def node(id_, role="manager", availability="active", *, raft_id=None, reachability="reachable"):
    raft_id = id_ if raft_id is None else raft_id
    status = ManagerStatus(leader=id_ == 1, reachability=reachability, addr=f"10.0.0.{id_}:2377") if raft_id else None
    return Node(
        id=f"n{id_}", spec=NodeSpec(role=role, availability=availability), manager_status=status, raft_id=raft_id
    )


THREE = led_by_1(member(1), member(2), member(3))


def test_when_all_is_well_nothing_is_done():
    found = plan([node(1), node(2), node(3), node(4, "worker", raft_id=0)], THREE)
    assert (found.remove, found.successor, found.nodes) == (0, 0, ())


@pytest.mark.parametrize("nodes", [[node(1), node(2), node(3, "worker")], [node(1), node(2)]], ids=["demoted", "gone"])
def test_a_member_that_shall_not_manage_is_removed(nodes):
    assert plan(nodes, THREE).remove == 3


def test_nobody_is_removed_whom_the_quorum_needs():
    found = plan([node(1), node(2), node(3, "worker")], led_by_1(member(1), member(2, active=False), member(3)))
    assert found.remove == 0


def test_a_learner_that_is_just_joining_is_left_alone():
    assert plan([node(1)], led_by_1(member(1), member(2, voter=False))).remove == 0


def test_a_demoted_leader_hands_over_to_the_one_with_the_longest_log():
    nodes = [node(1, "worker"), node(2), node(3)]
    assert plan(nodes, led_by_1(member(1), member(2, match=9), member(3))).successor == 3
    assert plan(nodes, led_by_1(member(1), member(2, match=9), member(3, active=False))).successor == 0  # quorum


def test_a_drained_leader_hands_over_to_a_manager_that_is_not_drained():
    drained = node(1, availability="drain")
    assert plan([drained, node(2, availability="drain"), node(3)], THREE).successor == 3
    assert plan([drained, node(2), node(3)], led_by_1(member(1), member(2, active=False), member(3))).successor == 3


def test_drained_managers_lead_when_there_are_no_others():
    """Managers are often drained for good, to do nothing else than manage."""
    nodes = [node(id_, availability="drain") for id_ in (1, 2, 3)]
    assert plan(nodes, THREE).successor == 0
    assert plan([node(1, availability="drain")], led_by_1(member(1))).successor == 0
    dead = led_by_1(member(1), member(2), member(3, active=False))
    assert plan([*nodes[:2], node(3)], dead).successor == 0  # the one that is not drained does not answer


def test_members_are_removed_before_leadership_is_handed_over():
    found = plan([node(1, "worker"), node(2), node(3, "worker")], THREE)
    assert (found.remove, found.successor) == (3, 0)


def test_node_objects_tell_who_is_reachable_and_where():
    moved = MemberStatus(3, "10.9.9.9:2377", True, True, 10)
    found = plan([node(1), node(2), node(3)], led_by_1(member(1), member(2, active=False), moved))
    assert {n.id: (n.manager_status.reachability, n.manager_status.addr) for n in found.nodes} == {
        "n2": ("unreachable", "10.0.0.2:2377"),
        "n3": ("reachable", "10.9.9.9:2377"),
    }


def test_who_is_no_member_any_more_has_no_manager_status():
    found = plan([node(1), node(2), node(3, "worker")], led_by_1(member(1), member(2)))
    assert [(n.id, n.manager_status, n.raft_id) for n in found.nodes] == [("n3", None, 0)]


async def test_no_listener_is_left_of_past_leaderships():
    """A manager may lead and cease to lead for years."""
    store, raft = memory_store(), Listening()
    for _ in range(3):
        keeper = RoleKeeper(store, raft)
        await keeper.start()
        assert len(raft.listeners) == 1
        await keeper.stop()
    assert raft.listeners == []
    await store.close()


async def test_a_node_that_becomes_a_member_while_it_is_looked_at_stays_one():
    """As a restored manager does: its object has the raft id of the lost cluster until it takes over."""
    store = memory_store()
    await store.update(lambda tx: tx.create(node(1, raft_id=7)))

    class Overtaken:
        view = store.view

        async def update(self, change):
            await store.update(lambda tx: tx.update(replace(tx.get(Node, "n1"), raft_id=1)))
            return await store.update(change)

    await RoleKeeper(Overtaken(), Listening(led_by_1(member(1)))).look()
    assert store.view().get(Node, "n1").raft_id == 1
    await store.close()


class Listening:
    """Raft as far as the role keeper listens to it."""

    def __init__(self, status=THREE):
        self.listeners = []
        self._status = status

    def on_membership(self, callback):
        self.listeners.append(callback)
        return lambda: self.listeners.remove(callback)

    def status(self):
        return self._status


@pytest.mark.parametrize(
    ("reachable", "unreachable", "words"),
    [
        (1, 0, "Removing the last manager erases all current state of the swarm."),
        (2, 0, "Removing this node leaves 1 managers out of 2. Without a Raft quorum your swarm will be inaccessible."),
        (2, 1, "Removing this node leaves 1 managers out of 3. Without a Raft quorum your swarm will be inaccessible."),
        (3, 0, "The only way to restore a swarm that has lost consensus is to reinitialize it"),
    ],
)
def test_a_manager_that_leaves_is_warned_in_swarms_words(reachable, unreachable, words):
    text = leave_warning(reachable, unreachable)
    assert text.startswith(
        "You are attempting to leave the swarm on a node that is participating as a manager. " + words
    )
    assert "--force" in text
