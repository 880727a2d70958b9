"""From figures to docs/benchmarks.md: medians with their spread, the ratio, and a picture of the ratios."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

OURS, SWARM = "ours", "Swarm"
ENGINES_ALONE = "engines alone"  # in the name of a case whose figure is no system's, but the limit of both


@dataclass
class Figures:
    """Every measurement, by case (in the order first seen) and system. Kept in a file after each round, so that a
    broken run is not lost."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, case: str, system: str, value: float) -> None:
        self.values.setdefault(case, {}).setdefault(system, []).append(value)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.values, indent=1))

    @classmethod
    def load(cls, path: Path) -> Figures:
        return cls(json.loads(path.read_text()))

    def ratio(self, case: str) -> float | None:
        """Median of ours by median of Swarm's."""
        both = self.values[case]
        if OURS not in both or SWARM not in both:
            return None
        ours, swarm = statistics.median(both[OURS]), statistics.median(both[SWARM])
        return ours / swarm if swarm else None


def unit(case: str) -> str:
    if "per second" in case:
        return "/s"
    if case.startswith("throughput"):
        return "Gbit/s"
    if case.startswith("latency"):
        return "µs"
    if case.startswith("GET"):
        return "ms"
    if "processor" in case:
        return "%"
    return "MiB" if "memory" in case else "s"


def cell(values: list[float] | None, of: str) -> str:
    """Median (least-most)."""
    if not values:
        return "–"
    digits = {"/s": 0, "MiB": 0, "µs": 0, "%": 1}.get(of, 2)
    middle, low, high = (f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return f"{middle} {of}" if len(values) == 1 else f"{middle} {of} ({low}–{high})"


def table(figures: Figures) -> str:
    lines = ["| Case | this project | Docker Swarm | ratio |", "| --- | --- | --- | --- |"]
    for case, by_system in figures.values.items():
        ratio = figures.ratio(case) if ENGINES_ALONE not in case else None
        columns = [cell(by_system.get(name), unit(case)) for name in (OURS, SWARM)]
        lines.append(f"| {case} | {columns[0]} | {columns[1]} | {f'{ratio:.2f}' if ratio is not None else ''} |")
    return "\n".join(lines)


def picture(figures: Figures) -> str:
    """Bars of the ratio for all that is measured in time: left of the line is faster than Swarm. Logarithmic."""
    timed = (case for case in figures.values if unit(case) in ("s", "ms", "µs") and ENGINES_ALONE not in case)
    rows = [(case, ratio) for case in timed if (ratio := figures.ratio(case))]
    height, left, width, middle = 22 * len(rows) + 50, 380, 900, 640
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{middle}" y="18" text-anchor="middle" font-weight="bold">time compared with Docker Swarm</text>',
    ]
    scale = (middle - left - 40) / math.log(16)
    for number, (case, ratio) in enumerate(rows):
        y = 34 + 22 * number
        end = middle + scale * max(-math.log(16), min(math.log(16), math.log(ratio)))
        colour = "#2a9d5c" if ratio <= 1 else "#c8553d"
        anchor, offset = ("end", -4) if ratio <= 1 else ("start", 4)
        parts += [
            f'<text x="{left - 10}" y="{y + 12}" text-anchor="end">{escape(case)}</text>',
            f'<rect x="{min(end, middle):.1f}" y="{y}" width="{abs(end - middle):.1f}" height="16" fill="{colour}"/>',
            f'<text x="{end + offset:.1f}" y="{y + 12}" text-anchor="{anchor}">{ratio:.2f}×</text>',
        ]
    parts += [f'<line x1="{middle}" y1="28" x2="{middle}" y2="{height - 12}" stroke="black"/>', "</svg>"]
    return "\n".join(parts) + "\n"


def over_the_limit(figures: Figures, created: str = "create 30, all RUNNING") -> str:
    """How far both systems are from what the engines alone can do; "" when that was not measured."""
    alone = next((by_system for case, by_system in figures.values.items() if ENGINES_ALONE in case), None)
    if alone is None or created not in figures.values:
        return ""
    limit = statistics.median([value for values in alone.values() for value in values])
    told = (f"{name} {statistics.median(v) / limit:.2f}" for name, v in figures.values[created].items())
    return f"\n{created}, over the same by the {ENGINES_ALONE} ({limit:.2f} s): {', '.join(told)}.\n"


def machine() -> str:
    """What it was measured on."""
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
    return f"{os.cpu_count()} cores ({cpu}), {memory:.0f} GiB, Linux {platform.release()}"


def by_hand(path: Path) -> str:
    """What people wrote at the end of an earlier document: it is kept, and has to say of which run it speaks."""
    begins = "\n## What falls short"
    text = path.read_text() if path.exists() else ""
    return text[text.index(begins) :] if begins in text else ""


def document(figures: Figures, *, rounds: int, engine: str, load: list[tuple[float, float]], date: str) -> str:
    loads = ", ".join(f"{before:.1f}" for before, _ in load)
    return f"""# Beside Docker Swarm

Made by `make bench` on {date}: {rounds} rounds, in each of them this project and Docker Swarm ({engine}) one after the
other on the same three lab hosts, driven by the same client through the Engine API. Medians, and the least and the most
in brackets; the ratio is that of the medians (below 1 is faster, but for
rates and throughput, where above 1 is).

Machine: {machine()}. All three hosts, both systems and the client share it.
Load average of the machine when each round began: {loads}.

{table(figures)}
{over_the_limit(figures)}
![Ratios of time](benchmarks.svg)

How to read it:

- Times run from just before the request or the accident to the moment when the API tells of the end, asked every 20 ms.
- `ours` runs beside the engine (agent and dockerd are two processes), Swarm inside it: the idle figures of `agent` come
  on top of an engine's, those of `dockerd` contain it.
- Services restart without delay, update by two with the default monitor, and use an image that ends at once when told.
- Rates are of services with replicas 0, through the socket of the leader, with a client of prepared bytes.
- Throughput, connects and latency: one client on host2, one server on host3, in Python; through the mesh host1 is the
  entry. "host to host" is the way without any of it. Swarm's VIPs and mesh need IPVS, which lab hosts lack.
- Names: 100 questions outstanding. Behind the engine's resolver dnsmasq is measured too: it shows that resolver's part.
- Losing power takes a host's link first, as pulling the plug does; the time to kill it is in both figures.
"""
