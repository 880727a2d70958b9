"""Majorities, windows, read rounds and the hand-over of snapshots: small rules with exact numbers."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm_agent.raft.messages import Membership, SnapshotChunk, SnapshotMeta, SnapshotReply
from swarm_agent.raft.progress import (
    MAX_INFLIGHT,
    MAX_INFLIGHT_BYTES,
    Progress,
    SendState,
    VoteResult,
    agreed,
    majority,
    tally,
)
from swarm_agent.raft.reads import Read, Reads
from swarm_agent.raft.transfer import GIVE_UP_TICKS, REPEAT_TICKS, WINDOW, Incoming, Outgoing, Verdict


@pytest.mark.parametrize(("voters", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (7, 4)])
def test_majority(voters, needed):
    assert majority(voters) == needed


@given(st.dictionaries(st.integers(1, 9), st.integers(0, 20), max_size=7), st.sets(st.integers(1, 9), max_size=7))
def test_agreed_is_the_highest_number_that_a_majority_reached(numbers, voters):
    reached = [n for n in range(21) if sum(numbers.get(v, 0) >= n for v in voters) >= majority(len(voters))]
    assert agreed(voters, numbers) == (max(reached) if voters else 0)


@given(st.sets(st.integers(1, 7), min_size=1), st.dictionaries(st.integers(1, 9), st.booleans()))
def test_tally_is_decided_only_when_no_further_vote_can_change_it(voters, votes):
    open_ = [voter for voter in voters if voter not in votes]
    outcomes = set()
    for rest in itertools.product([True, False], repeat=len(open_)):
        full = votes | dict(zip(open_, rest, strict=True))
        outcomes.add(sum(full[voter] for voter in voters) >= majority(len(voters)))
    expected = VoteResult.PENDING if len(outcomes) == 2 else VoteResult.WON if outcomes == {True} else VoteResult.LOST
    assert tally(voters, votes) is expected


def test_a_member_is_probed_with_one_append_until_it_answers():
    progress = Progress(next=5)
    progress.sent(7, 100)
    assert progress.paused and progress.next == 5
    assert progress.rejected(index=4, hint=2) and not progress.paused and progress.next == 3
    assert progress.accepted(2)
    assert (progress.state, progress.match, progress.next) == (SendState.REPLICATE, 2, 3)


def test_the_window_is_bounded_by_messages_and_by_bytes():
    many, large = Progress(next=1, state=SendState.REPLICATE), Progress(next=1, state=SendState.REPLICATE)
    for index in range(1, MAX_INFLIGHT + 1):
        assert not many.paused
        many.sent(index, 1)
    large.sent(1, MAX_INFLIGHT_BYTES)
    assert many.paused and large.paused
    many.accepted(1)
    large.accepted(1)
    assert not many.paused and not large.paused and large.inflight_bytes == 0


def test_old_rejections_are_ignored():
    progress = Progress(next=10, match=9, state=SendState.REPLICATE)
    assert not progress.rejected(index=9, hint=3)
    probe = Progress(next=10)
    assert not probe.rejected(index=4, hint=3) and probe.next == 10


def test_reads_that_come_during_a_round_wait_for_the_next_with_a_number_of_its_own():
    reads = Reads()
    reads.add(Read(1, 100))
    assert reads.begin(commit=7) and reads.round == 1
    reads.add(Read(1, 101))
    assert not reads.begin(commit=8)
    reads.echo(2, 1)
    assert reads.confirmed(1, (1, 2, 3)) == [Read(1, 100)] and reads.index == 7
    assert reads.begin(commit=9) and reads.round == 2
    reads.echo(3, 1)  # late, of the first round
    assert reads.confirmed(1, (1, 2, 3)) == []
    reads.echo(3, 2)
    assert reads.confirmed(1, (1, 2, 3)) == [Read(1, 101)] and reads.index == 9


def test_learners_do_not_confirm_reads():
    reads = Reads()
    reads.add(Read(1, 100))
    reads.begin(commit=7)
    reads.echo(9, 1)
    assert reads.confirmed(1, (1, 2, 3)) == []


META = SnapshotMeta(10, 1, Membership())


def reply(next_, done=False):
    return SnapshotReply(2, 1, 1, META.index, next_, done)


def take(outgoing):
    return list(iter(outgoing.next_part, None))


def test_a_snapshot_is_sent_in_a_window_and_parts_are_repeated_when_nothing_moves():
    outgoing = Outgoing(META)
    assert take(outgoing) == list(range(WINDOW))
    outgoing.on_reply(reply(3))
    assert take(outgoing) == [WINDOW, WINDOW + 1, WINDOW + 2]
    for _ in range(REPEAT_TICKS):
        outgoing.tick()
    assert take(outgoing) == list(range(3, 3 + WINDOW))
    outgoing.on_reply(reply(3))  # it got later parts than the one it wants
    assert take(outgoing) == list(range(3, 3 + WINDOW))
    outgoing.on_reply(reply(3))
    assert take(outgoing) == []
    outgoing.on_reply(reply(0, done=True))
    assert outgoing.ended


def test_a_receiver_that_forgot_everything_is_served_from_the_beginning():
    outgoing = Outgoing(META)
    take(outgoing)
    outgoing.on_reply(reply(5))
    outgoing.on_reply(reply(0))
    assert outgoing.next_part() == 0


def test_sending_is_given_up_when_nobody_answers():
    outgoing = Outgoing(META)
    for _ in range(GIVE_UP_TICKS):
        assert not outgoing.ended
        outgoing.tick()
    assert outgoing.ended


def test_parts_are_taken_in_order_from_one_sender_in_one_term():
    def part(number, sender=1, term=1):
        return SnapshotChunk(sender, 2, term, META, number, b"", False)

    incoming = Incoming()
    script = [
        (part(1), Verdict.SKIP, 0),
        (part(0), Verdict.BEGIN, 1),
        (part(0), Verdict.SKIP, 1),
        (part(2), Verdict.SKIP, 1),
        (part(1), Verdict.ADD, 2),
        (part(2, sender=3, term=2), Verdict.SKIP, 0),
        (part(0, sender=3, term=2), Verdict.BEGIN, 1),
        (part(1, sender=3, term=2), Verdict.ADD, 2),
    ]
    for chunk, verdict, wanted in script:
        assert (incoming.judge(chunk), incoming.wanted(chunk)) == (verdict, wanted)
