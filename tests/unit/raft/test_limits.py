"""Everything that may pile up has an end: proposals, reads, outgoing messages, parts of a snapshot."""

import random

import pytest

from swarm_agent.raft import core as core_module
from swarm_agent.raft import leader, reads
from swarm_agent.raft.core import Core
from swarm_agent.raft.errors import ChangeRefused, ProposalDropped
from swarm_agent.raft.log import Log
from swarm_agent.raft.messages import (
    Entry,
    EntryKind,
    HardState,
    Heartbeat,
    Member,
    Membership,
    SnapshotMeta,
    VoteRequest,
    encode_membership,
)
from swarm_agent.raft.reads import Read, Reads


def member(*voters, id_=1):
    """A member of a group whose first entry, its members, is committed."""
    first = Membership(tuple(Member(voter, f"host{voter}") for voter in voters))
    log = Log(SnapshotMeta(), [Entry(1, 1, EntryKind.MEMBERSHIP, encode_membership(first))], 1)
    return Core(id_, log, HardState(1, 0, 1), random.Random(id_))


def leading_alone():
    core = member(1)
    core.campaign()
    settle(core)
    assert core.leadership is not None
    return core


def settle(core):
    while core.has_ready():
        core.advance(core.ready())


def test_proposals_beyond_the_limit_are_dropped_until_others_are_committed(monkeypatch):
    monkeypatch.setattr(leader, "MAX_UNCOMMITTED_BYTES", 1000)
    core = leading_alone()
    core.propose(b"a" * 600)
    with pytest.raises(ProposalDropped, match="too much is waiting to be committed; try again"):
        core.propose(b"b" * 600)
    settle(core)
    core.propose(b"b" * 600)


def test_one_entry_is_taken_whatever_its_size(monkeypatch):
    monkeypatch.setattr(leader, "MAX_UNCOMMITTED_BYTES", 10)
    core = leading_alone()
    core.propose(b"a" * 600)


def test_reads_beyond_the_limit_are_left_out(monkeypatch):
    monkeypatch.setattr(reads, "MAX_READS", 3)
    waiting = Reads()
    for id_ in range(10):
        waiting.add(Read(1, id_))
    assert waiting.begin(0) and [read.id for read in waiting.opened] == [0, 1, 2]


def test_messages_that_nobody_fetches_do_not_pile_up_and_the_newest_stay(monkeypatch):
    monkeypatch.setattr(core_module, "MAX_UNDELIVERED", 10)
    core = member(1, 2, 3)
    for term in range(2, 100):
        core.step(VoteRequest(2, 1, term, 1, 1, True, False))
        core.step(Heartbeat(2, 1, 1, 1, term))
    ready = core.ready()
    assert 0 < len(ready.messages) <= 10 and ready.messages[-1].round == 99


def test_members_change_one_at_a_time_and_somebody_stays():
    core = leading_alone()
    for voters in ((1, 2, 3), (), (2, 3)):
        with pytest.raises(ChangeRefused, match="one at a time, and one voter must remain"):
            core.propose_membership(Membership(tuple(Member(voter, "") for voter in voters)))


def test_other_times_count_at_once_for_who_waits_for_a_leader():
    """A wait that was drawn before would end between two of the slower heartbeats."""
    core = member(1, 2, 3)
    core.configure(election_ticks=100, heartbeat_ticks=30)
    for _ in range(99):
        core.tick()
        assert core.candidacy is None
    for _ in range(100):
        core.tick()
    assert core.candidacy is not None


def test_settings_that_stay_as_they_are_do_not_put_off_an_election():
    core = member(1, 2, 3)
    for _ in range(20):
        core.tick()
        core.configure(core.election_ticks, core.heartbeat_ticks)
    assert core.candidacy is not None
