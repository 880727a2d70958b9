"""Seeded simulations of whole raft clusters: safety after every event, progress after healing.

SEEDS=N runs more of them, FIRST_SEED=N begins elsewhere. A failing seed prints its story and is reproduced by
FIRST_SEED=n SEEDS=1.
"""

import os

import pytest

from .raft_world import World

SEEDS = int(os.environ.get("SEEDS", "300"))
FIRST = int(os.environ.get("FIRST_SEED", "1"))
GROUP = 20


def simulate(seed, **options):
    world = World(seed, **options)
    try:
        world.play(30_000)
        world.heal()
        world.demand_progress(election=20_000, convergence=20_000)
    except Exception as error:
        error.add_note(f"seed {seed}, faults {world.faults}\n" + "\n".join(world.story[-40:]))
        raise
    return world


@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, GROUP))
def test_clusters_stay_safe_and_recover(first):
    worlds = [simulate(seed) for seed in range(first, min(first + GROUP, FIRST + SEEDS))]
    # The runs are about something: there were leaders, writes and reads.
    assert sum(world.oracle.elections for world in worlds) >= len(worlds)
    assert sum(len(world.oracle.acknowledged) for world in worlds) > 20 * len(worlds)
    assert sum(world.oracle.reads for world in worlds) > 10 * len(worlds)
