"""Seeded simulations of the asyncio driver (driver_world.py), and bugs put into it that they must catch.

SEEDS=N runs more of them, FIRST_SEED=N begins elsewhere.
"""

import contextlib
import itertools
import os

import pytest

from swarm_agent.raft.driver import RaftNode
from swarm_agent.raft.errors import DiskFailed
from swarm_agent.raft.storage import Storage
from swarm_agent.raft.waiting import Waiting
from swarm_agent.raft.wal import Batch
from swarm_agent.raft.writing import Writer

from .driver_world import simulate
from .raft_oracle import Violation

SEEDS = int(os.environ.get("SEEDS", "300")) // 5
FIRST = int(os.environ.get("FIRST_SEED", "1"))
GROUP = 20
LIMIT = 150


@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, GROUP))
def test_the_driver_keeps_what_it_acknowledged(first):
    worlds = [simulate(seed) for seed in range(first, min(first + GROUP, FIRST + SEEDS))]
    assert sum(len(world.acknowledged) for world in worlds) > 20 * len(worlds)
    assert sum(world.reads for world in worlds) > 20 * len(worlds)


def answers_do_not_wait_for_the_disk(patch):
    def hasty(self, ready):
        batches = [Batch(ready.hard_state, ready.snapshot, tuple(ready.entries))] if ready.persists else []
        self._worker.submit(lambda: self._storage.write(batches), lambda _, error: error and self._failed(error))
        self._on_written((ready,))

    patch.setattr(Writer, "add", hasty)


def a_failed_sync_is_passed_over(patch):
    write = Storage.write

    def careless(self, batches):
        with contextlib.suppress(DiskFailed):
            write(self, batches)

    patch.setattr(Storage, "write", careless)


def any_entry_at_the_index_is_the_answer(patch):
    def trusting(self, entry):
        _, future = self._proposals.pop(entry.index, (0, None))
        if future is not None and not future.done():
            future.set_result(entry.index)

    patch.setattr(Waiting, "entry_applied", trusting)
    patch.setattr(Waiting, "leadership_lost", lambda self: None)


def reads_do_not_wait_until_they_are_applied(patch):
    async def at_once(self, index, deadline):
        return None

    patch.setattr(RaftNode, "_wait_applied", at_once)


def turning_keys_forgets_the_open_entries(patch):
    rotate = Storage.rotate
    patch.setattr(Storage, "rotate", lambda self, keys, rest: rotate(self, keys, []))


def callers_are_forgotten_when_the_node_stops(patch):
    patch.setattr(Waiting, "leadership_lost", lambda self: None)


BUGS = [
    answers_do_not_wait_for_the_disk,
    a_failed_sync_is_passed_over,
    any_entry_at_the_index_is_the_answer,
    reads_do_not_wait_until_they_are_applied,
    turning_keys_forgets_the_open_entries,
    callers_are_forgotten_when_the_node_stops,
]


@pytest.mark.parametrize("bug", BUGS)
def test_the_simulation_catches(bug, monkeypatch):
    bug(monkeypatch)
    for seed in itertools.count(1):
        assert seed <= LIMIT, f"{bug.__name__} was not noticed in {LIMIT} simulations"
        try:
            simulate(seed)
        except Violation:
            return
