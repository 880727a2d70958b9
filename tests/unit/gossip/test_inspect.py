"""What a node says of its members: the state, and the reason for it."""

from __future__ import annotations

from swarm_agent.gossip import inspect
from swarm_agent.gossip.types import State
from tests.sim.gossip_world import World


def said(world: World, at: str, of: str) -> str:
    return " ".join(inspect.explain_member(world.nodes[at].core, of))


def test_a_living_member_is_shown_with_what_is_applied_and_acknowledged() -> None:
    world = World(1)
    world.cluster(3)
    world.publish("n1", "task", b"v")
    world.publish("n0", "mine", b"v")
    world.settle()
    world.run(2)
    view = inspect.view(world.nodes["n0"].core)
    assert [member.id for member in view.members] == ["n0", "n1", "n2"]
    n1 = view.members[1]
    assert (n1.state, n1.rows, n1.version, n1.newest, n1.applied, n1.acked) == ("alive", 1, 1, 1, 1, 1)
    assert n1.heard is not None and n1.heard < 5
    assert view.health == 0 and sum(view.queues.values()) == 0
    assert "is alive" in said(world, "n0", "n1") and "1 rows of it are here, 1 of 1 changes." in said(world, "n0", "n1")


def test_a_suspect_has_its_accusers_and_its_time() -> None:
    world = World(2)
    world.cluster(3)
    world.kill("n2")
    n0 = world.nodes["n0"]
    assert world.run_until(lambda: n0.state("n2") is State.SUSPECT, 5)
    shown = inspect.view(n0.core).members[2]
    assert shown.accusers and shown.verdict_in is not None and 0 < shown.verdict_in < 3
    assert f"Accused by {', '.join(shown.accusers)}; declared dead in" in said(world, "n0", "n2")


def test_a_dead_and_a_departed_member_are_told_apart_and_hidden_rows_are_named() -> None:
    world = World(3)
    world.cluster(4)
    world.publish("n2", "task", b"v")
    world.settle()
    world.kill("n2")
    world.leave("n3")
    n0 = world.nodes["n0"]
    assert world.run_until(lambda: n0.state("n2") is State.DEAD and n0.state("n3") is State.LEFT, 10)
    assert "is dead" in said(world, "n0", "n2") and "hidden until it returns" in said(world, "n0", "n2")
    assert "farewell" in said(world, "n0", "n3")
    assert "hidden: n2 is dead" in " ".join(inspect.explain_key(n0.core, "t", "task"))


def test_a_host_that_stops_and_one_that_does_not_acknowledge_are_named() -> None:
    world = World(4)
    world.cluster(3)
    world.nodes["n2"].auto_apply = False
    world.pause("n1", 4.5)
    world.run(6)
    world.publish("n0", "task", b"v")
    world.run(2)
    assert "stopped for up to 4." in said(world, "n0", "n1")
    assert "has not acknowledged the last 1 changes" in said(world, "n0", "n2")
    assert "Not applied yet by n2" in " ".join(inspect.explain_key(world.nodes["n0"].core, "t", "task"))
    assert "kernel has not applied it yet" in " ".join(inspect.explain_key(world.nodes["n2"].core, "t", "task"))
    assert "refuted" in said(world, "n1", "n1")


def test_nobody_knows_a_stranger() -> None:
    world = World(5)
    world.cluster(2)
    core = world.nodes["n0"].core
    assert inspect.explain_member(core, "x") == [] and inspect.explain_key(core, "t", "x") == []
    world.publish("n1", "abc1", b"v")
    world.publish("n1", "abd", b"v")
    world.settle()
    assert inspect.keys_like(core, "t", "abc") == ["abc1"]
