"""The simulation is worth something only if it notices bugs: each of these is put into the real code, and must be
caught.
"""

import dataclasses
import itertools

import msgspec
import pytest

from swarm_agent.raft.core import Core
from swarm_agent.raft.leader import Leadership
from swarm_agent.raft.log import Log
from swarm_agent.raft.messages import AppendReply
from swarm_agent.raft.reads import Reads

from .raft_oracle import Violation
from .raft_world import World

LIMIT = 400
"""Seeds within which each bug has to be found."""


def vote_is_not_persisted(patch):
    ready = Core.ready

    def forgetful(self):
        result = ready(self)
        if result.hard_state is None:
            return result
        return dataclasses.replace(result, hard_state=msgspec.structs.replace(result.hard_state, vote=0))

    patch.setattr(Core, "ready", forgetful)


def entries_of_old_terms_are_committed_by_counting(patch):
    patch.setattr(Leadership, "_may_commit", lambda self, index: True)


def read_rounds_reuse_their_number(patch):
    begin = Reads.begin

    def reusing(self, commit):
        before = self.round
        begun = begin(self, commit)
        self.round = max(before, 1)
        return begun

    patch.setattr(Reads, "begin", reusing)


def reads_are_answered_without_a_round(patch):
    patch.setattr(Reads, "confirmed", lambda self, leader, voters: [self.opened.pop() for _ in tuple(self.opened)])


def entries_are_acknowledged_before_the_sync(patch):
    promises = Core._promises
    patch.setattr(
        Core,
        "_promises",
        lambda self, message: (
            promises(self, message) and not (isinstance(message, AppendReply) and message.to != self.id)
        ),
    )


def votes_go_to_any_log(patch):
    patch.setattr(Log, "up_to_date", lambda self, index, term: True)


def followers_commit_what_the_leader_has_committed_whatever_they_have(patch):
    on_append = Core._HANDLERS
    handler = next(call for kind, call in on_append.items() if kind.__name__ == "Append")

    def eager(self, append):
        handler(self, append)
        self.log.commit_to(append.commit)

    kind = next(kind for kind in on_append if kind.__name__ == "Append")
    patch.setitem(on_append, kind, eager)


def cut_entries_count_as_written(patch):
    cut = Log._cut

    def careless(self, index):
        in_flight = dict(self._in_flight)
        cut(self, index)
        self._in_flight = in_flight

    patch.setattr(Log, "_cut", careless)


USUAL = {"faults": ("crash", "cut", "cut one way", "isolate leader", "pause", "transfer", "slow disk")}
# Rare sequences of events need more of what leads to them.
FIGURE_8 = {"faults": ("churn", "isolate leader"), "members": 3, "max_append_bytes": 1, "fault_interval": 1000.0}
REWRITES = {"faults": ("slow disk", "isolate leader"), "members": 3}

BUGS = [
    (vote_is_not_persisted, USUAL, 20_000),
    (entries_of_old_terms_are_committed_by_counting, FIGURE_8, 60_000),
    (read_rounds_reuse_their_number, USUAL, 20_000),
    (reads_are_answered_without_a_round, USUAL, 20_000),
    (entries_are_acknowledged_before_the_sync, USUAL, 20_000),
    (votes_go_to_any_log, USUAL, 20_000),
    (followers_commit_what_the_leader_has_committed_whatever_they_have, USUAL, 20_000),
    (cut_entries_count_as_written, REWRITES, 20_000),
]


def simulate(seed, options, time):
    world = World(seed, **{"fault_interval": 300.0, **options})
    world.play(time)
    world.heal()
    world.demand_progress(20_000, 20_000)


@pytest.mark.parametrize(("bug", "options", "time"), BUGS, ids=[bug.__name__ for bug, _, _ in BUGS])
def test_the_simulation_catches(bug, options, time, monkeypatch):
    bug(monkeypatch)
    for seed in itertools.count(1):
        assert seed <= LIMIT, f"{bug.__name__} was not noticed in {LIMIT} simulations"
        try:
            simulate(seed, options, time)
        except Violation:
            return


@pytest.mark.parametrize("options", [USUAL, FIGURE_8, REWRITES], ids=["usual", "figure 8", "rewrites"])
def test_without_a_bug_it_finds_nothing(options):
    for seed in range(1, 16):
        simulate(seed, options, 20_000)
