"""Bugs that other implementations of gossip had, one scenario each, real core and packets. The docstrings say what went
wrong there."""

from __future__ import annotations

import random

import pytest

from swarm_agent.gossip import messages as m
from swarm_agent.gossip.config import Config
from swarm_agent.gossip.seal import Keyring, Sealer
from swarm_agent.gossip.types import State
from tests.sim.gossip_forger import Forger, lone
from tests.sim.gossip_world import EPOCH_BEHIND, KEY, Node, World


def test_rows_are_kept_though_their_owner_is_not_known_yet() -> None:
    """Table entries were rejected because the owner's attachment broadcast never arrived, permanently."""
    world = World(1)
    world.cluster(3)
    late = world.start("late")
    world.publish("late", "k", b"v")
    n1 = world.nodes["n1"]
    record = m.Record("late", late.core.kernel.me.epoch, 1, "t", "k", b"v")
    Forger(world, "n2").say(n1, record)
    assert ("late", "k") not in n1.rows()
    assert "not a known member" in n1.core.rows.explain("t", "k", "late")
    world.join("late", "n0")
    world.settle()
    assert n1.rows()[("late", "k")] == b"v"


def test_rows_of_a_failed_node_are_hidden_and_return_with_it() -> None:
    """On node failure entries were deleted; after the rejoin names stayed lost until the service was restarted."""
    world = World(2)
    world.cluster(4)
    world.publish("n3", "k", b"v")
    world.settle()
    n0 = world.nodes["n0"]
    world.partition(["n3"], ["n0", "n1", "n2"])
    assert world.run_until(lambda: n0.state("n3") is State.DEAD, 20)
    assert n0.rows() == {}
    assert "hidden" in n0.core.rows.explain("t", "k", "n3")
    world.publish("n3", "k2", b"meanwhile")
    world.run(600)
    world.heal()
    world.settle()
    assert n0.rows() == {("n3", "k"): b"v", ("n3", "k2"): b"meanwhile"}


def test_two_full_queues_share_one_packet() -> None:
    """Two queues each filled the whole packet budget; the tail was cut after it had been charged."""
    world = World(3)  # the world refuses packets above the budget
    nodes = world.cluster(6, settle=False)
    for node in nodes:
        for number in range(30):
            world.publish(node.id, f"k{number}", bytes(random.Random(number).randrange(20, 700)))
    world.settle()
    assert all(len(node.rows()) == 180 for node in nodes)
    assert all(
        node.core.stats()["refused_malformed"] == 0 for node in nodes if "refused_malformed" in node.core.stats()
    )


def test_a_three_node_cluster_never_picks_too_few_peers() -> None:
    """The random peer picker returned too few peers; 2.6 % misses in 3-node clusters."""
    world = World(4)
    world.cluster(3)
    members = world.nodes["n0"].core.kernel.members
    assert all({p.id for p in members.pick(3)} == {"n1", "n2"} for _ in range(500))
    assert all([p.id for p in members.pick(3, {"n1"})] == ["n2"] for _ in range(500))


def test_repairs_that_run_at_the_same_time_do_not_mix() -> None:
    """Concurrent bulk-sync acks overwrote each other: waits of 30 s."""
    world = World(5)
    world.cluster(2)
    for number in range(200):
        world.publish("n0", f"big{number}", bytes(900))
    for id in ("a", "b", "c"):
        world.start(id)
    for id in ("a", "b", "c"):
        world.join(id, "n0")
        world.join(id, "n1")
    assert world.settle() < 2.0
    assert all(len(world.nodes[id].rows()) == 200 for id in ("a", "b", "c"))


@pytest.mark.parametrize("seed", range(6))
def test_rapid_leaving_and_rejoining_leaves_neither_duplicates_nor_old_rows(seed: int) -> None:
    """Rapid leave/rejoin duplicated peers; deletes lost after failed syncs left stale entries."""
    world = World(seed, loss=0.1)
    world.cluster(4, settle=False)
    world.run(2)
    for turn in range(5):
        world.publish("n3", f"turn{turn}", b"x")
        world.run(world._net.uniform(0, 0.4))
        world.leave("n3")
        world.run(world._net.uniform(0, 0.3))
        world.kill("n3")
        world.run(world._net.uniform(0.01, 0.3))
        world.start("n3")
        world.join("n3", "n0")
        world.run(world._net.uniform(0, 0.5))
    world.publish("n3", "final", b"y")
    world.heal()
    world.settle()
    for id in ("n0", "n1", "n2"):
        assert world.nodes[id].rows() == {("n3", "final"): b"y"}
        assert sorted(peer.id for peer in world.nodes[id].core.kernel.members.live()) == sorted(
            {"n0", "n1", "n2", "n3"} - {id}
        )


@pytest.mark.parametrize("clocks", ["right", "behind"])
def test_a_mass_restart_is_over_in_seconds(clocks: str) -> None:
    """After a mass restart nodes stayed dead for long: stale alive ignored, unknown accusations dropped, no
    refutation.
    """
    world = World(7)
    nodes = world.cluster(20)
    for node in nodes:
        world.publish(node.id, "before", b"x")
    world.run(3)
    for node in nodes[1:]:
        world.kill(node.id)
    world.run(0.3)
    for node in nodes[1:]:
        # "behind": the restarted machines' clocks are a day late, so their first word loses against what n0 remembers.
        world.start(node.id, incarnation=EPOCH_BEHIND if clocks == "behind" else None)
        world.join(node.id, "n0")
    world.publish("n5", "after", b"y")
    took = world.settle(30)
    assert took < 12.0
    assert world.nodes["n0"].rows() == {("n0", "before"): b"x", ("n5", "after"): b"y"}


def test_an_old_alive_cannot_raise_the_dead() -> None:
    """dead@10 after dead@1 did not raise the stored incarnation, so a late alive@2 resurrected."""
    world = World(8)
    node = lone(world, ("x", 1))
    world.accused["x"] = 1
    forger = Forger(world)
    forger.say(node, m.Dead("x", 1, "n9"))
    assert node.state("x") is State.DEAD
    forger.say(node, m.Dead("x", 10, "n9"))
    forger.say(node, m.Alive("x", 2, "10.8.0.1", 1000, 1, b""))
    assert node.state("x") is State.DEAD
    forger.say(node, m.Alive("x", 11, "10.8.0.1", 1000, 1, b""))
    assert node.state("x") is State.ALIVE


def test_a_suspicion_at_a_higher_incarnation_has_its_own_deadline() -> None:
    """A suspicion at a higher incarnation kept the old timer and killed a node that had refuted."""
    world = World(9)
    node = lone(world, ("x", 1), ("y", 1))
    node.core.kernel.leaving = True  # its own probes would accuse too
    forger = Forger(world)
    forger.say(node, m.Suspect("x", 1, "y"))
    first = node.core.kernel.members.get("x")
    assert first is not None and first.suspicion is not None
    low = first.suspicion.low
    world.run(low * 0.9)
    forger.say(node, m.Suspect("x", 5, "y"))
    world.run(low * 0.9)
    assert node.state("x") is State.SUSPECT
    world.run(low * 0.6)
    assert node.state("x") is State.DEAD


def test_a_lost_refutation_is_repeated() -> None:
    """Member answers pings but its refutation was lost: the stale suspicion still kills."""
    world = World(10, config=Config(sync_patience=1e6, sync_interval=1e6))  # anti-entropy would bring it
    world.cluster(3)
    n1, n2 = world.nodes["n1"], world.nodes["n2"]
    Forger(world).say(n1, m.Suspect("n2", n2.core.kernel.me.incarnation, "n0"))

    def lose_alive_of_n2(source: Node, target: Node, data: bytes) -> bytes | None:
        _, _, payload = Sealer(b"world", Keyring([KEY]), b"reader.reade").open(data)
        said = m.unpack(payload)[1]
        return None if any(isinstance(x, m.Alive) and x.id == "n2" for x in said) and target is n1 else data

    world.tamper = lose_alive_of_n2
    world.run(8)
    assert world.deaths == []
    assert n1.state("n2") is State.SUSPECT and n1.core.kernel.counters["deaths_averted"] > 0
    world.tamper = None
    world.settle(5)


def test_whoever_passes_a_suspicion_on_does_not_confirm_it() -> None:
    """Push/pull merge counted the merger as an independent confirmer."""
    world = World(11)
    node = lone(world, *((f"p{i}", 1) for i in range(8)))
    node.core.kernel.leaving = True
    world.do("n0", lambda core: core.membership.suspect("p0", 1, "p1"))
    peer = node.core.kernel.members.get("p0")
    assert peer is not None and peer.suspicion is not None
    deadline = peer.suspicion.deadline
    for merger in ("p2", "p3", "p4"):
        world.do("n0", lambda core, by=merger: core.sync.merge([m.Suspect("p0", 1, "p1"), m.Dead("p0", 1, "p1")], by))
    assert peer.suspicion.deadline == deadline and node.state("p0") is State.SUSPECT
    world.do("n0", lambda core: core.membership.suspect("p0", 1, "p2"))
    assert peer.suspicion.deadline < deadline


@pytest.mark.parametrize("seed", range(8))
def test_a_scale_down_is_not_taken_for_deaths(seed: int) -> None:
    """Leave rumours were spent on nodes that had already left, so a scale-down was reported as deaths (44 of 200
    seeds).
    """
    world = World(seed, loss=0.02)
    nodes = world.cluster(24, settle=False)
    world.run(5)
    world.deaths.clear()
    leaving = nodes[4:]
    for node in leaving:
        world.leave(node.id)
    for node in leaving:
        world.run_until(lambda node=node: node.core.left, 3)
        world.kill(node.id)
    world.run(15)
    stayed = {node.id for node in nodes[:4]}
    assert [death for death in world.deaths if death[1] in stayed] == []
    assert all(node.state(gone.id) is State.LEFT for node in nodes[:4] for gone in leaving)


@pytest.mark.parametrize("seconds", [0.7, 2.0, 6.0])
def test_a_paused_node_accuses_nobody_when_it_wakes(seconds: float) -> None:
    """A paused node fired its probe timer before it read the queued acks, and accused healthy peers."""
    world = World(13)
    world.cluster(5)
    for _ in range(10):
        world.pause("n2", seconds)
        world.run(seconds + 1.5)
        world.settle(10)
    assert [death for death in world.deaths if death[1] == "n2"] == []
    suspected_by_n2 = [e for e in world.nodes["n2"].events if e[3] is State.SUSPECT]
    assert suspected_by_n2 == []


def test_hosts_that_freeze_together_accuse_nobody_when_they_wake() -> None:
    """One hypervisor under all of them: no answer waits in any socket, so only not counting the pause helps."""
    world = World(14)
    world.cluster(5)
    for _ in range(10):
        for id in world.nodes:
            world.pause(id, 4.0)
        world.run(4.0 + world._net.uniform(1, 2))
    assert [event for node in world.nodes.values() for event in node.events if event[3] is State.SUSPECT] == []


def test_whoever_speaks_while_held_for_dead_is_told_at_once() -> None:
    slow = Config(reconnect_interval=1e6, sync_patience=1e6, contradiction=0.0)
    world = World(15, config=slow)
    world.cluster(3)
    n1, n2 = world.nodes["n1"], world.nodes["n2"]
    world.accused["n2"] = 1
    world.partition(["n1"], ["n0", "n2"])  # the rumour and its refutation stay out
    Forger(world).say(n1, m.Dead("n2", n2.core.kernel.me.incarnation, "n0"))
    world.run(0.01)
    assert n1.state("n2") is State.DEAD
    n1.core.kernel.queue.cancel_group("n2")  # nor does n1 spread it
    world.heal()
    assert world.run_until(lambda: n1.state("n2") is State.ALIVE, 2.0), (
        "n2's next probe of n1 is answered with its death"
    )


def accused_until_asked(world: World) -> tuple[Node, Node]:
    """n1 hears nothing of n2, which is accused, until it asks the last question; then all but the refutation passes."""
    world.cluster(3)
    n1, n2 = world.nodes["n1"], world.nodes["n2"]

    def lose_refutation(source: Node, target: Node, data: bytes) -> bytes | None:
        _, _, payload = Sealer(b"world", Keyring([KEY]), b"reader.reade").open(data)
        refutes = any(isinstance(x, m.Alive) and x.id == "n2" for x in m.unpack(payload)[1])
        return None if refutes and target is n1 else data

    world.tamper = lose_refutation
    world.cut("n2", "n1", both=False)
    Forger(world).say(n1, m.Suspect("n2", n2.core.kernel.me.incarnation, "n0"))
    peer = n1.core.kernel.members.get("n2")
    assert peer is not None
    assert world.run_until(lambda: peer.suspicion is not None and peer.suspicion.asked, 6)
    world.heal()
    return n1, n2


def test_an_answer_to_the_last_question_saves() -> None:
    world = World(16, config=Config(sync_patience=1e6, sync_interval=1e6, suspicion_standing=0.0))
    n1, _ = accused_until_asked(world)
    assert world.run_until(lambda: n1.core.kernel.counters["deaths_averted"] > 0, 2)
    assert world.deaths == []


def test_a_pause_before_the_verdict_does_not_shorten_the_wait_for_the_answer() -> None:
    world = World(17, config=Config(sync_patience=1e6, sync_interval=1e6, suspicion_standing=0.0))
    accused_until_asked(world)
    for id in ("n1", "n0", "n2"):
        world.pause(id, 5.0)
    world.run(5.5)
    assert [death for death in world.deaths if death[1] == "n1"] == []
