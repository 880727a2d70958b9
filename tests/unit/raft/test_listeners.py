"""Who listens to raft can cease to: parts that live as long as a leadership come and go many times."""

from swarm_agent.raft.listeners import Listeners
from swarm_agent.raft.messages import Member, Membership

ONE = Membership((Member(1, "host1:2377"),))


def test_who_has_ceased_to_listen_is_told_nothing():
    listeners, seen = Listeners(), []
    end_members = listeners.on_membership(seen.append, ONE)
    end_leading = listeners.on_leadership(seen.append)
    listeners.tell_membership(ONE)
    listeners.tell_leadership(True)
    end_members()
    end_leading()
    end_members()  # once more is harmless
    listeners.tell_membership(ONE)
    listeners.tell_leadership(False)
    assert seen == [ONE, ONE, True]


def test_a_broken_listener_harms_nobody(caplog):
    listeners, seen = Listeners(), []

    def broken(leads):
        raise ValueError("a defect")

    listeners.on_leadership(broken)
    listeners.on_leadership(seen.append)
    listeners.tell_leadership(True)
    assert seen == [True] and "a listener to raft leadership failed" in caplog.text
