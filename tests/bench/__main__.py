"""`make bench`: this project and Docker Swarm, round by round on the same lab hosts; writes docs/benchmarks.md.

    python -m tests.bench [--rounds 3] [--only one|three] [--systems ours] [--cases NAME …] [--out docs/benchmarks.md]

Nothing here passes or fails by its times. LAB_DEPLOYED=1 takes the agent that is on the hosts.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import time
from pathlib import Path

from tests.lab.clusterkit import with_agents
from tests.lab.labkit import ROOT, Lab

from . import cases, report, systems

PHASES = {"one": cases.one_manager, "three": cases.three_managers}


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=tuple(PHASES), help="one manager or three, instead of both")
    parser.add_argument("--systems", nargs="+", choices=("ours", "swarm"), default=["ours", "swarm"])
    parser.add_argument("--cases", nargs="+", default=[], metavar="NAME", help="these alone, by their functions' names")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md")
    options = parser.parse_args()
    lab = with_agents(Lab.up(3))
    systems.depart(lab)
    chosen = [system for system in (systems.OURS, systems.SWARM) if system.name.lower() in options.systems]
    phases = [options.only] if options.only else list(PHASES)
    figures, load = report.Figures(), []
    raw = ROOT / ".cache" / "bench.json"
    try:
        for number in range(options.rounds):
            load.append((os.getloadavg()[0], time.time()))
            for system in chosen:
                print(f"round {number + 1} of {options.rounds}: {system.name}", flush=True)
                asyncio.run(measure(systems.Stage(lab, system, only=frozenset(options.cases)), phases, figures))
                figures.save(raw)
    finally:
        systems.depart(lab)
        systems.restore(lab)
    engine = lab.host("host1").engine("version --format {{.Server.Version}}").out
    date = datetime.date.today().isoformat()
    text = report.document(figures, rounds=options.rounds, engine=f"dockerd {engine}", load=load, date=date)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text + report.by_hand(options.out))
    options.out.with_suffix(".svg").write_text(report.picture(figures))
    print(report.table(figures))


async def measure(stage: systems.Stage, phases: list[str], figures: report.Figures) -> None:
    name = stage.system.name

    def record(case: str, value: float) -> None:
        figures.add(case, name, value)
        print(f"    {name:6} {case}: {value:.3f} {report.unit(case)}", flush=True)

    async with stage:
        for phase in phases:
            await PHASES[phase](stage, record)


if __name__ == "__main__":
    main()
