"""`swarmctl members`: which hosts live, as this host's gossip sees it, and why.

    swarmctl members                      all members, their rows, and how this host fares
    swarmctl members --explain NODE       why a node is in its state (id, beginning of an id, or name on a manager)
    swarmctl members --explain TASK       where a task's row is, and why it is missing or hidden
    swarmctl members --json               everything, counters too

Columns: HEARD, seconds since the member itself spoke to this host. ROWS, rows held of it. VERSION, changes of its rows
that this host has applied / that exist. ACKED, how many changes of this host's rows it has applied.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.table import Table

from .client import Agent, CommandError

HELP = "show which hosts live, as gossip sees it, and why"
RATES = ("packets_sent", "packets_received", "bytes_sent", "bytes_received", "probes")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Explain one thing, or show all."""
    parser.add_argument("--explain", metavar="NODE|TASK", help="say why that node or task is seen as it is")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="measure rates over this time; 0: none (default: %(default)s)"
    )


def run(agent: Agent, arguments: argparse.Namespace, console: Console) -> None:
    """Print what was asked for. Raises CommandError."""
    if arguments.explain is not None:
        if not arguments.explain.strip():
            raise CommandError("--explain needs a node or a task: an id, its beginning, or a node's name")
        for line in agent.json(f"/swarm-agent/v1/explain?term={quote(arguments.explain.strip())}")["Lines"]:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        return
    first = agent.json("/swarm-agent/v1/members")
    if arguments.json:
        console.print_json(json.dumps(first))
        return
    rates: dict[str, float] = {}
    if arguments.seconds > 0:
        began = time.monotonic()
        time.sleep(arguments.seconds)
        second = agent.json("/swarm-agent/v1/members")
        rates = rates_between(first["Counters"], second["Counters"], time.monotonic() - began)
        first = second
    console.print(summary(first, rates), highlight=False, markup=False, soft_wrap=True)
    console.print(members_table(first["Members"], hostnames(agent)))


def rates_between(before: Mapping[str, int], after: Mapping[str, int], seconds: float) -> dict[str, float]:
    """Counts per second."""
    return {name: (after.get(name, 0) - before.get(name, 0)) / seconds for name in RATES}


def hostnames(agent: Agent) -> dict[str, str]:
    """Names by node id. Only managers know them; on a worker, none."""
    try:
        return {node["ID"]: node["Description"].get("Hostname", "") for node in agent.json("/nodes")}
    except CommandError:
        return {}


def summary(view: Mapping[str, Any], rates: Mapping[str, float]) -> str:
    """How this host fares, in a few lines."""
    counters = view["Counters"]
    health = (
        "0 (well)" if not view["Health"] else f"{view['Health']} of 7 (its own packets go missing, or it is starved)"
    )
    queues = ", ".join(f"{name} {length}" for name, length in view["Queues"].items())
    lines = [f"this node: {view['Id']}", f"health: {health}", f"queues: {queues}"]
    if rates:
        lines.append(
            f"rates: {rates['packets_sent']:.1f} packets/s out ({rates['bytes_sent']:.0f} B/s), "
            f"{rates['packets_received']:.1f} in ({rates['bytes_received']:.0f} B/s), {rates['probes']:.1f} probes/s"
        )
    told = {
        "suspicions": "suspicions",
        "deaths": "deaths declared",
        "deaths_averted": "averted",
        "refutations": "accusations refuted",
        "pauses": "stops of this process",
    }
    lines.append("since start: " + ", ".join(f"{counters.get(name, 0)} {text}" for name, text in told.items()))
    refused = {name.removeprefix("refused_"): n for name, n in counters.items() if name.startswith("refused_") and n}
    if refused:
        lines.append("packets refused: " + ", ".join(f"{n} {name}" for name, n in sorted(refused.items())))
    return "\n".join(lines)


def members_table(members: list[dict[str, Any]], names: Mapping[str, str]) -> Table:
    """All members, this host first."""
    headings = ("ID", "NAME", "ADDRESS", "STATE", "INCARNATION", "HEARD", "ROWS", "VERSION", "ACKED", "NOTES")
    table = Table(*headings, box=None, pad_edge=False)
    for place, member in enumerate(members):
        heard = "this" if place == 0 else f"{member['Heard']:.1f} s" if member["Heard"] is not None else "never"
        table.add_row(
            member["Id"],
            names.get(member["Id"], ""),
            member["Address"],
            member["State"],
            str(member["Incarnation"]),
            heard,
            str(member["Rows"]),
            f"{member['Applied']}/{member['Newest']}",
            str(member["Acked"]),
            notes(member),
        )
    return table


def notes(member: Mapping[str, Any]) -> str:
    """What is unusual about it."""
    said = []
    if member["VerdictIn"] is not None:
        by = ", ".join(accuser or "hearsay" for accuser in member["Accusers"]) or "hearsay"
        said.append(f"accused by {by}, dead in {member['VerdictIn']:.1f} s")
    if member["State"] in ("dead", "left"):
        said.append(f"for {member['Since']:.0f} s")
    if member["Stall"]:
        said.append(f"stopped up to {member['Stall']:.1f} s")
    if member["Flaps"] >= 0.1:
        said.append(f"wrongly accused lately ({member['Flaps']:.1f})")
    if member["Version"] < member["Newest"]:
        said.append(f"{member['Newest'] - member['Version']} changes missing here")
    return "; ".join(said)
