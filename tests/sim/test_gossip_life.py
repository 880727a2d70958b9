"""Detection, life and death in a world of real cores: power-offs, stops, restarts, splits."""

from __future__ import annotations

import pytest

from swarm_agent.gossip import messages as m
from swarm_agent.gossip.config import Config
from swarm_agent.gossip.types import State
from tests.sim import gossip_scenarios as scenarios
from tests.sim.gossip_forger import Forger, lone
from tests.sim.gossip_world import World


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_power_off_is_known_to_all_in_about_three_seconds(count: int, seed: int) -> None:
    world = World(f"{count}/{seed}")
    nodes = world.cluster(count)
    world.run(1 + seed / 7)
    world.kill("n1")
    rest = [node for node in nodes if node.id != "n1"]
    start = world.now
    assert world.run_until(lambda: all(node.state("n1") is State.DEAD for node in rest), 10)
    assert world.now - start < 4.0
    assert {subject for _, _, subject in world.deaths} == {"n1"}


def test_a_small_group_does_not_ask_those_that_just_spoke() -> None:
    """Each pair needs one question and its answer, whoever of the two asks."""
    sent = []
    for config in (Config(skip_heard=0.0), Config()):
        sent.append(0)
        for seed in range(5):  # how much is saved depends on the phases of their timers
            world = World(seed, config=config)
            nodes = world.cluster(3)
            before = sum(node.packets_out for node in nodes)
            world.run(60)
            sent[-1] += sum(node.packets_out for node in nodes) - before
    assert sent[1] < 0.65 * sent[0]


def test_a_node_that_doubts_itself_asks_all_the_same() -> None:
    world = World(19)
    n0, *_ = world.cluster(3)
    n0.core.kernel.awareness.add(3)
    assert world.run_until(lambda: n0.core.kernel.awareness.score == 0, 10)


def test_a_frozen_process_is_noticed_though_its_host_answers_at_tcp() -> None:
    world = World(20)
    nodes = world.cluster(3)
    world.pause("n2", 60)
    assert world.run_until(lambda: all(node.state("n2") is State.DEAD for node in nodes[:2]), 10)
    world.run(60)
    world.settle(5)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("count", [3, 5])
def test_a_first_stop_of_four_seconds_is_no_death_while_the_host_takes_connections(count: int, seed: int) -> None:
    world = World(f"standing/{count}/{seed}")
    world.cluster(count)
    world.run(1 + seed / 7)
    world.pause("n2", 4.0)
    world.run(8)
    assert world.deaths == []
    assert world.nodes["n0"].state("n2") is State.ALIVE


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("count", [3, 5, 30])
def test_an_agent_that_is_away_for_some_seconds_on_a_living_host_is_no_death(count: int, seed: int) -> None:
    world = World(f"away/{count}/{seed}")
    world.cluster(count)
    world.run(1 + seed / 7)
    world.end("n2")
    world.run(8)
    assert world.deaths == []
    scenarios.restart(world, "n2")
    world.run(4)
    assert world.deaths == []
    world.settle(10)


def test_an_agent_that_does_not_come_back_is_a_death_after_a_while() -> None:
    world = World(33)
    world.cluster(3)
    world.end("n2")
    assert world.run_until(lambda: len(world.deaths) > 0, 15)
    assert {subject for _, _, subject in world.deaths} == {"n2"}


def test_a_host_that_freezes_with_its_kernel_for_four_seconds_looks_dead() -> None:
    world = World(32)
    world.cluster(3)
    world.pause("n2", 4.0, frozen=True)
    world.run(3.9)
    assert {subject for _, _, subject in world.deaths} == {"n2"}
    world.run(1)
    world.settle(5)


def test_a_host_that_freezes_again_and_again_is_given_more_time() -> None:
    world = World(26)
    world.cluster(3)
    for _ in range(12):
        world.pause("n2", 3.5)
        world.run(5)
    assert len({round(at) for at, _, _ in world.deaths}) <= 2, "the first freeze looks like a death, later ones do not"
    world.settle(5)
    world.run(600)
    world.kill("n2")
    start = world.now
    assert world.run_until(lambda: all(world.nodes[id].state("n2") is State.DEAD for id in ("n0", "n1")), 20)
    assert world.now - start < 4.0, "and after a while it is as any other"


def test_a_host_that_stops_says_for_how_long_and_is_given_that_time() -> None:
    world = World(28)
    world.cluster(5)
    world.run(5)
    for _ in range(6):
        world.pause("n2", 11.0)
        world.run(13)
    assert len({round(at) for at, _, _ in world.deaths}) <= 1, "only the first stop looks like a death"
    world.settle(5)
    assert {node.core.kernel.members.get("n2").stall for node in world.nodes.values() if node.id != "n2"} == {
        world.nodes["n2"].core.kernel.me.stall
    }
    world.run(310)
    assert world.nodes["n2"].core.kernel.me.stall == 0, "it has run well for five minutes"
    start = world.now
    world.kill("n2")
    assert world.run_until(lambda: world.nodes["n0"].state("n2") is State.DEAD, 20)
    assert world.now - start < 4.0


def test_a_stop_that_nobody_noticed_is_told_too_before_the_first_death() -> None:
    world = World(29)
    world.cluster(3)
    for seconds in (1.5, 2.5, 3.3, 4.0, 4.8):
        world.pause("n1", seconds)
        world.run(seconds + 2)
    assert world.deaths == []


def test_a_suspicion_that_came_before_the_word_of_a_stop_gets_the_longer_time() -> None:
    """The accusation of an incarnation may come before the word that the incarnation began with."""
    world = World(31)
    node = lone(world, ("x", 1))
    node.core.kernel.leaving = True  # no probes of its own
    forger = Forger(world)
    forger.say(node, m.Suspect("x", 2, "y"))
    forger.say(node, m.Alive("x", 2, "10.8.0.1", 1000, 1, b"", 80))
    world.run(12)
    assert node.state("x") is State.SUSPECT
    world.run(3)
    assert node.state("x") is State.DEAD


def test_a_stop_of_minutes_is_an_outage_that_nobody_waits_for_again() -> None:
    world = World(30)
    world.cluster(3)
    world.pause("n1", 200.0)
    world.run(210)
    world.settle(5)
    assert world.nodes["n1"].core.kernel.me.stall == 0
    world.run(301)  # flap damping is over too
    _, last = scenarios.kill_times(world, "n1")
    assert last < 4.0


def test_rows_from_before_a_reboot_do_not_come_back_with_the_host() -> None:
    world = World(27)
    world.cluster(3)
    world.publish("n2", "old", b"1")
    world.settle()
    n0 = world.nodes["n0"]
    world.kill("n2")
    assert world.run_until(lambda: n0.state("n2") is State.DEAD, 10)
    world.start("n2")
    world.join("n2", "n0")
    assert world.run_until(lambda: n0.state("n2") is State.ALIVE, 10)
    assert n0.rows() == {}
    world.settle()


def test_a_restart_under_another_name_does_not_answer_for_the_old_one() -> None:
    world = World(21)
    nodes = world.cluster(3)
    world.kill("n2")
    world.start("other", address=nodes[2].address)
    world.join("other", "n0")
    assert world.run_until(lambda: nodes[0].state("n2") is State.DEAD, 10)
    world.settle()


def test_a_member_may_come_back_at_another_address_with_other_meta() -> None:
    world = World(22)
    world.cluster(4)
    world.publish("n3", "k", b"v")
    world.settle()
    world.kill("n3")
    world.run(0.2)
    world.start("n3", address=("10.7.7.7", 7946), meta=b"new")
    world.join("n3", "n0")
    world.publish("n3", "k", b"w")
    world.settle()
    seen = next(member for member in world.nodes["n1"].core.members() if member.id == "n3")
    assert (seen.host, seen.meta, seen.state) == ("10.7.7.7", b"new", State.ALIVE)


def test_rows_stay_visible_while_their_owner_restarts() -> None:
    world = World(23)
    world.cluster(3)
    world.publish("n2", "kept", b"1")
    world.publish("n2", "gone", b"1")
    world.settle()
    n0 = world.nodes["n0"]
    world.kill("n2")
    world.run(0.3)
    world.start("n2")
    world.join("n2", "n0")
    world.run(1)
    assert set(n0.rows()) == {("n2", "kept"), ("n2", "gone")}
    world.publish("n2", "kept", b"2")
    world.run(0.5)
    assert n0.rows() == {("n2", "kept"): b"2", ("n2", "gone"): b"1"}
    world.do("n2", lambda core: core.rows.baseline())
    world.run(0.5)
    assert n0.rows() == {("n2", "kept"): b"2"}


def test_a_split_heals_however_long_it_lasted() -> None:
    config = Config(dead_retention=60.0)  # they forget each other; only the seeds' addresses remain
    world = World(24, config=config)
    nodes = world.cluster(6)
    for node in nodes:
        world.publish(node.id, "k", node.id.encode())
    world.settle()
    world.partition(["n0", "n1", "n2"], ["n3", "n4", "n5"])
    world.run(200)
    assert world.nodes["n0"].live() == {"n0", "n1", "n2"}
    assert world.nodes["n0"].state("n4") is None
    world.heal()
    world.settle(40)


def test_one_way_silence_is_bridged_by_relays() -> None:
    world = World(25)
    world.cluster(5)
    world.cut("n1", "n2")
    world.run(30)
    assert world.deaths == []
    world.publish("n1", "k", b"v")
    assert world.run_until(lambda: ("n1", "k") in world.nodes["n2"].rows(), 3)
    sequence = world.nodes["n1"].core.rows.own.watermark
    acks = world.nodes["n1"].core.rows.acks
    handle = world.do("n1", lambda core: core.rows.acks.wait(sequence))
    assert world.run_until(lambda: not acks.missing(sequence), 5), "the acknowledgement takes the way around"
    acks.end_wait(handle)
