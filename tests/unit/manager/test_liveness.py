"""When a node counts as dead: silence, gossip's word, and what a closed connection says."""

from swarm_agent.manager.liveness import Liveness


def alive(_: str) -> bool:
    return True


def dead(_: str) -> bool:
    return False


def unknown(_: str) -> None:
    return None


def after(seconds: float, gossip, *, closed: bool = False) -> bool:
    """Whether a node last heard at 0 counts as dead after so many seconds of regular checks."""
    liveness = Liveness()
    liveness.heard("n", 0.0)
    if closed:
        liveness.closed("n", 0.0)
    now, found = 0.0, []
    while now < seconds:
        now += liveness.interval
        found += liveness.check(now, gossip)
    return bool(found)


def test_three_silent_beats_are_death_when_gossip_does_not_object():
    assert not after(2.5, unknown)
    assert after(3.5, unknown)


def test_gossips_word_shortens_it_and_its_objection_lengthens_it():
    assert after(1.5, dead)
    assert not after(12, alive)
    assert after(16, alive)


def test_a_closed_connection_means_that_the_agent_restarts_on_a_living_host():
    assert not after(9, dead, closed=True)
    assert after(11, dead, closed=True)


def test_an_agent_that_is_back_is_judged_as_before():
    liveness = Liveness()
    liveness.heard("n", 0.0)
    liveness.closed("n", 0.0)
    liveness.heard("n", 2.0)
    assert liveness.check(3.5, dead) == [("n", "heartbeat failure")]
