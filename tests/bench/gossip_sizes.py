"""The gossip from 3 to 5,000 nodes in virtual time: real core, codec and encryption, invariants after every event.

    .venv/bin/python -m tests.bench.gossip_sizes [--sizes 3,5,10,50,200,1000,5000] [--thorough]

5,000 is not among the default sizes: minutes of CPU, 1.4 GB of memory. What costs N² is smaller in large clusters, or
left out: see PLANS; with --thorough less of it (THOROUGH): half an hour of CPU for 1,000 nodes.

Per size: bytes per node and second when quiet; a new row on all nodes; a power-off known to the first and to all;
living nodes declared dead in 30 s at 10, 20 and 30 % loss, and with a twentieth of the nodes reading up to 1 s late and
as many stopping for up to 2 s; agreement after half of all nodes restarted at once, after a rolling restart, and after
a split of 20 s into halves.
"""

from __future__ import annotations

import argparse
import functools
import gc
import os
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "agent")]

from swarm_agent.gossip import seal  # noqa: E402
from tests.sim import gossip_scenarios as scenarios  # noqa: E402

COLUMNS = (
    "nodes", "B/s/node", "row p50", "row p99", "kill first", "kill all", "dead 10%", "dead 20%", "dead 30%",
    "starved", "mass", "rolling", "split", "Mevents", "CPU s",
)  # fmt: skip


class Plan(NamedTuple):
    """How much of what for a size. `lossy`: seconds of loss and of starvation; `starved`, `mass`, `part`: shares of
    nodes that read late or stop, that restart, that are split off; 0 or nothing: not tried.
    """

    quiet: float
    rows: int
    kills: int
    lossy: float
    losses: tuple[float, ...]
    starved: float
    mass: float
    rolling: int
    part: float


PLANS = {
    200: Plan(60, 20, 3, 30, (0.1, 0.2, 0.3), 0.05, 0.5, 20, 0.5),
    1000: Plan(20, 8, 2, 12, (0.1,), 0.002, 0.05, 4, 0),
    5000: Plan(5, 4, 1, 12, (), 0, 0.004, 0, 0),
}
THOROUGH = {
    1000: PLANS[1000]._replace(losses=(0.1, 0.2, 0.3), part=0.5),
    5000: PLANS[5000]._replace(losses=(0.1,)),
}


def measure(count: int, plans: dict[int, Plan]) -> Iterator[str]:
    """The cells of one line of the table, as they are found."""
    began = time.process_time()
    plan = next(plan for size, plan in plans.items() if count <= size)
    yield str(count)
    world = scenarios.formed(count, "sizes")
    yield f"{scenarios.quiet(world, plan.quiet):.0f}"
    times = sorted(scenarios.row_times(world, plan.rows, gap=1.5 if count <= 200 else 0.3))
    yield f"{statistics.median(times):.2f}"
    yield f"{times[min(len(times) - 1, int(len(times) * 0.99))]:.2f}"
    kills = [scenarios.kill_times(world, f"n{number + 1}") for number in range(1 if count < 5 else plan.kills)]
    yield f"{statistics.median(first for first, _ in kills):.2f}"
    yield f"{max(last for _, last in kills):.2f}"
    events = world.events
    del world
    for loss in (0.1, 0.2, 0.3):
        if loss not in plan.losses:
            yield "-"
            continue
        world = scenarios.formed(count, f"loss{loss}")
        yield str(scenarios.false_deaths_under_loss(world, loss, plan.lossy))
        events += world.events
        del world
    if plan.starved:
        world = scenarios.formed(count, "starved")
        yield str(scenarios.false_deaths_of_starved(world, max(1, int(count * plan.starved)), plan.lossy))
        events += world.events
        del world
    else:
        yield "-"
    world = scenarios.formed(count, "restarts")
    yield f"{scenarios.mass_restart(world, plan.mass):.1f}"
    if plan.rolling:
        took, deaths = scenarios.rolling_restart(world, min(count - 1, plan.rolling), 0.3)
        yield f"{took:.1f}" + (f" ({deaths} deaths)" if deaths else "")
    else:
        yield "-"
    yield f"{scenarios.split(world, 20.0, plan.part):.1f}" if plan.part else "-"
    events += world.events
    yield f"{events / 1e6:.1f}"
    yield f"{time.process_time() - began:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="3,5,10,50,200,1000")
    parser.add_argument("--thorough", action="store_true", help="leave out less in large clusters")
    options = parser.parse_args()
    plans = PLANS | THOROUGH if options.thorough else PLANS
    # All nodes live in this process: they may share what each would derive for itself.
    seal._derive = functools.lru_cache(maxsize=1 << 16)(seal._derive)
    sizes = [int(size) for size in options.sizes.split(",") if size]
    print("| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS))
    for size in sizes:
        gc.collect()
        gc.freeze()
        gc.disable()  # millions of objects that all live: looking for cycles would take most of the time
        for cell in measure(size, plans):
            print(f"| {cell} ", end="", flush=True)
        print("|", flush=True)
        gc.enable()
        gc.unfreeze()
    print(
        f"\n{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB at most; load {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    main()
