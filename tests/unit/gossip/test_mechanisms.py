"""The small parts, with exact numbers: awareness, suspicion, timers, the broadcast queue, the member list."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm_agent.gossip.awareness import Awareness
from swarm_agent.gossip.config import Config
from swarm_agent.gossip.members import Digest, Members, Peer
from swarm_agent.gossip.spread import Queue, Rank, sends
from swarm_agent.gossip.suspicion import Suspicion, allowance, minimum, timeout
from swarm_agent.gossip.timers import Timers
from swarm_agent.gossip.types import State


def test_awareness_stays_between_zero_and_its_limit() -> None:
    awareness = Awareness(8)
    awareness.add(-1)
    assert (awareness.score, awareness.scale(0.5)) == (0, 0.5)
    awareness.add(3)
    assert awareness.scale(0.5) == 2.0
    awareness.add(100)
    assert awareness.scale(1.0) == 8.0


@pytest.mark.parametrize(
    ("members", "seconds"),
    [
        (1, 1.5),
        (3, 1.5),
        (10, 1.95),
        (50, 3.9 * math.log10(50) * 0.5),
        (100, 3.9),
        (1000, 5.85),
        (5000, 3.9 * math.log10(5000) * 0.5),
    ],
)
def test_shortest_suspicion_grows_with_the_logarithm_of_the_group(members: int, seconds: float) -> None:
    assert minimum(Config(), members) == pytest.approx(seconds)


def test_suspicion_shrinks_with_each_independent_accuser() -> None:
    """Lifeguard: max − (max − min) · ln(C+1)/ln(K+1), never under min."""
    assert [round(timeout(2, 12, c, 3), 3) for c in range(5)] == [12.0, 7.0, 4.075, 2.0, 2.0]
    assert timeout(2, 12, 0, 0) == 2


def test_who_stops_now_and_then_is_given_half_as_much_again() -> None:
    assert [allowance(stall) for stall in (0.0, 1.0, 4.0, 15.0)] == [0.0, 2.0, 6.5, 20.0]


def test_an_accuser_counts_once_and_the_unknown_never() -> None:
    suspicion = Suspicion(100.0, 2.0, 12.0, 3, "a")
    assert not suspicion.confirm("a")
    assert not suspicion.confirm("")
    assert suspicion.deadline == 112.0
    assert [suspicion.confirm(by) for by in "bcde"] == [True, True, True, False]
    assert suspicion.deadline == 102.0


def test_timers_fire_in_order_and_not_when_cancelled() -> None:
    timers = Timers(10.0, stall=0.2)
    fired: list[str] = []
    timers.after(0.2, fired.append, "b")
    timers.after(0.1, fired.append, "a")
    timers.after(0.15, fired.append, "never").cancel()
    timers.wake(10.25)
    timers.fire()
    assert fired == ["a", "b"]
    assert timers.next() is None


def test_a_pause_does_not_count_for_any_deadline() -> None:
    timers = Timers(0.0, stall=0.2)
    fired: list[str] = []
    timers.after(1.0, fired.append, "probe over")
    timers.after(3.0, fired.append, "suspicion over")
    assert timers.wake(0.9) == 0
    assert timers.wake(61.0) == pytest.approx(60.0)
    timers.fire()
    assert fired == [], "peers that were paused with us get a moment to answer"
    assert timers.wake(61.21) == 0
    timers.fire()
    assert fired == ["probe over"]
    assert timers.next() == pytest.approx(63.2)


def test_a_process_that_is_always_late_still_acts() -> None:
    timers = Timers(0.0, stall=0.2)
    fired: list[float] = []

    def again() -> None:
        fired.append(timers.now)
        timers.after(0.1, again)

    timers.after(0.1, again)
    for turn in range(1, 21):
        timers.wake(turn * 1.0)
        timers.fire()
    assert len(fired) == 10


@pytest.mark.parametrize(
    ("members", "count"), [(1, 0), (2, 6), (3, 12), (4, 13), (10, 14), (50, 16), (200, 17), (5000, 21)]
)
def test_sends_per_fact(members: int, count: int) -> None:
    assert sends(members, 11.5, 6) == count


def test_membership_goes_before_own_rows_and_these_before_relayed_ones() -> None:
    queue = Queue(100, 2)
    queue.put("relayed", "", Rank.RELAYED, b"r" * 10)
    queue.put("own", "", Rank.OWN, b"o" * 10)
    queue.put("dead", "x", Rank.MEMBERSHIP, b"m" * 10)
    assert queue.fill("p", 24, 5) == [b"m" * 10, b"o" * 10]
    assert queue.fill("p", 1000, 5)[2] == b"r" * 10


def test_least_sent_first_and_retired_after_its_sends() -> None:
    queue = Queue(100, 2)
    queue.put("a", "", Rank.OWN, b"a")
    assert queue.fill("p", 3, 3) == [b"a"]
    queue.put("b", "", Rank.OWN, b"b")
    assert [queue.fill("p", 3, 3)[0] for _ in range(5)] == [b"b", b"b", b"a", b"b", b"a"]
    assert len(queue) == 0


def test_a_newer_fact_replaces_the_older_of_its_subject_and_a_group_can_be_dropped() -> None:
    queue = Queue(100, 2)
    queue.put(("suspect", "x", "a"), "x", Rank.MEMBERSHIP, b"1")
    queue.put(("suspect", "x", "b"), "x", Rank.MEMBERSHIP, b"2")
    queue.put(("suspect", "x", "a"), "x", Rank.MEMBERSHIP, b"3")
    assert sorted(queue.fill("p", 100, 9)) == [b"2", b"3"]
    queue.cancel_group("x")
    assert len(queue) == 0


def test_a_fact_that_nobody_may_get_does_not_stay() -> None:
    queue = Queue(100, 2)
    queue.put("row", "", Rank.RELAYED, b"x", frozenset({"p"}))
    for _ in range(30):
        assert queue.fill("p", 100, 6) == []
        queue.end_round(6)
    assert len(queue) == 0


def test_a_full_queue_drops_what_was_sent_most() -> None:
    queue = Queue(2, 2)
    queue.put("old", "", Rank.OWN, b"1")
    queue.fill("p", 100, 9)
    queue.put("new", "", Rank.OWN, b"2")
    queue.put("newest", "", Rank.OWN, b"3")
    assert "old" not in queue and "new" in queue and queue.dropped == 1


@given(st.lists(st.tuples(st.sampled_from(list(Rank)), st.integers(1, 400)), max_size=60), st.integers(0, 1400))
def test_a_packet_is_never_over_budget_and_only_what_is_in_it_is_charged(
    items: list[tuple[Rank, int]], budget: int
) -> None:
    queue = Queue(100, 2)
    for number, (rank, size) in enumerate(items):
        queue.put(number, "", rank, bytes([rank]) * size)
    picked = queue.fill("p", budget, 5)
    assert sum(len(data) + 2 for data in picked) <= budget
    charged = sum(entry.sent for entries in queue._entries for entry in entries.values())
    assert charged == len(picked)


def peers(count: int, rng: random.Random) -> Members:
    members = Members(rng)
    for number in range(count):
        members.add(Peer(f"p{number}", "10.0.0.1", 1000 + number, 1, 1, b"", 0.0))
    return members


@given(st.integers(0, 90), st.integers(0, 8), st.sets(st.integers(0, 99), max_size=12), st.integers())
def test_picks_are_different_allowed_and_as_many_as_there_are(
    count: int, wanted: int, excluded: set[int], seed: int
) -> None:
    members = peers(count, random.Random(seed))
    exclude = {f"p{n}" for n in excluded}
    picked = [peer.id for peer in members.pick(wanted, exclude)]
    assert len(set(picked)) == len(picked) == min(wanted, len({f"p{n}" for n in range(count)} - exclude))
    assert not exclude & set(picked)


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(list(State))), max_size=60), st.integers(0, 1000))
def test_the_live_list_follows_the_states_and_every_member_is_probed_once_per_pass(
    changes: list[tuple[int, State]], seed: int
) -> None:
    members = peers(10, random.Random(seed))
    for number, state in changes:
        peer = members.get(f"p{number}")
        assert peer is not None
        members.set_state(peer, state, 1.0)
        members.next_target()
    live = {peer.id for peer in members if peer.live}
    assert {peer.id for peer in members.live()} == live
    assert members.live_count == len(live) + 1
    assert {peer.id for peer in members.gone()} == {peer.id for peer in members} - live
    members._next = len(members._order)  # a new pass
    turn = [members.next_target() for _ in live]
    assert {peer.id for peer in turn if peer is not None} == live


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.booleans())))
def test_the_digest_depends_on_what_is_known_not_on_its_order(steps: list[tuple[int, int, bool]]) -> None:
    digest, known = Digest(), {}
    for number, value, keep in steps:
        if keep:
            digest.put(f"p{number}", value, 1, 1)
            known[number] = value
        else:
            digest.drop(f"p{number}")
            known.pop(number, None)
    fresh = Digest()
    for number in sorted(known, reverse=True):
        fresh.put(f"p{number}", known[number], 1, 1)
    assert digest.value == fresh.value
