"""The gossip from 3 to 5,000 nodes in virtual time: real core, codec and encryption, invariants after every event.

    .venv/bin/python -m tests.bench.gossip_sizes [--sizes 3,5,10,50,200,1000] [--rows 20] [--large]

Per size: bytes per node and second when quiet; a new row on all nodes; a power-off known to the first and to all;
living nodes declared dead in 30 s at 10, 20 and 30 % loss; agreement after half of all nodes restarted at once, after
a rolling restart, and after a split of 20 s. `--large` adds 5,000 nodes, without the restarts (some 10 GB of memory).
"""

from __future__ import annotations

import argparse
import functools
import gc
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "agent")]

from swarm_agent.gossip import seal  # noqa: E402
from tests.sim import gossip_scenarios as scenarios  # noqa: E402

LARGE = 5000
COLUMNS = (
    "nodes", "B/s/node", "row p50", "row p99", "kill first", "kill all", "dead 10%", "dead 20%", "dead 30%",
    "mass", "rolling", "split", "Mevents", "wall s",
)  # fmt: skip


def measure(count: int, rows: int) -> Iterator[str]:
    """The cells of one line of the table, as they are found."""
    began = time.monotonic()
    large = count >= LARGE
    yield str(count)
    world = scenarios.formed(count, "sizes")
    yield f"{scenarios.quiet(world, 5 if large else 20 if count >= 1000 else 60):.0f}"
    times = sorted(scenarios.row_times(world, max(3, rows // 5) if large else rows, gap=0.5 if large else 1.5))
    yield f"{statistics.median(times):.2f}"
    yield f"{times[min(len(times) - 1, int(len(times) * 0.99))]:.2f}"
    kills = [scenarios.kill_times(world, f"n{number + 1}") for number in range(1 if count < 5 or large else 3)]
    yield f"{statistics.median(first for first, _ in kills):.2f}"
    yield f"{max(last for _, last in kills):.2f}"
    events = world.events
    del world
    if large:
        yield from ["-"] * 6
    else:
        for loss in (0.1, 0.2, 0.3):
            world = scenarios.formed(count, f"loss{loss}")
            yield str(scenarios.false_deaths_under_loss(world, loss, 30.0 if count < 1000 else 10.0))
            events += world.events
        world = scenarios.formed(count, "restarts")
        yield f"{scenarios.mass_restart(world, 0.5 if count < 1000 else 0.1):.1f}"
        took, deaths = scenarios.rolling_restart(world, min(count - 1, 20 if count < 1000 else 5), 0.3)
        yield f"{took:.1f}" + (f" ({deaths} deaths)" if deaths else "")
        yield f"{scenarios.split(world, 20.0):.1f}" if count < 1000 else "-"
        events += world.events
    yield f"{events / 1e6:.1f}"
    yield f"{time.monotonic() - began:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="3,5,10,50,200,1000")
    parser.add_argument("--rows", type=int, default=20, help="rows published per size")
    parser.add_argument("--large", action="store_true", help=f"also {LARGE} nodes")
    options = parser.parse_args()
    # All nodes live in this process: they may share what each would derive for itself.
    seal._derive = functools.lru_cache(maxsize=1 << 16)(seal._derive)
    sizes = [int(size) for size in options.sizes.split(",") if size] + ([LARGE] if options.large else [])
    print("| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS))
    for size in sizes:
        gc.collect()
        gc.freeze()
        gc.disable()  # millions of objects that all live: looking for cycles would take most of the time
        for cell in measure(size, options.rows):
            print(f"| {cell} ", end="", flush=True)
        print("|", flush=True)
        gc.enable()
        gc.unfreeze()


if __name__ == "__main__":
    main()
