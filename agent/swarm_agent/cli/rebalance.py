"""`swarmctl rebalance [SERVICE]`: spread the tasks of replicated services anew, one after the other.

    swarmctl rebalance --dry-run          what would be moved, and why; nothing is changed
    swarmctl rebalance                    move it: services whose tasks keep data on their node are left alone
    swarmctl rebalance web                just this service, also when its tasks keep data on their node
    swarmctl rebalance --auto on|off      have the cluster do it by itself, gently, whenever nodes come or go

A service that updates start-first is moved start-first. `swarmctl explain SERVICE` shows how far it is.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from rich.console import Console
from rich.table import Table

from .client import Agent, CommandError

HELP = "spread tasks over the nodes anew"
LABEL = "swarm.rebalance"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to move, or the cluster's setting."""
    parser.add_argument("service", metavar="SERVICE", nargs="?", default="", help="only this one")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be moved")
    parser.add_argument("--auto", choices=("on", "off"), help="whether the cluster does it by itself")


def run(agent: Agent, arguments: argparse.Namespace, console: Console) -> None:
    """Move, or set. Raises CommandError."""
    if arguments.auto is not None:
        if arguments.service or arguments.dry_run:
            raise CommandError("--auto is a setting of the cluster; give neither a service nor --dry-run with it")
        set_auto(agent, arguments.auto == "on")
        console.print(f"rebalancing by itself is {arguments.auto}", highlight=False)
        return
    request = json.dumps({"Service": arguments.service, "DryRun": arguments.dry_run}).encode()
    show(json.loads(agent.call("POST", "/swarm-agent/v1/rebalance", request)), arguments.dry_run, console)


def set_auto(agent: Agent, on: bool) -> None:
    """Write the cluster's label; nothing else of its settings changes."""
    swarm = agent.json("/swarm")
    spec = swarm["Spec"]
    labels = {key: value for key, value in (spec.get("Labels") or {}).items() if key != LABEL}
    spec["Labels"] = {**labels, LABEL: "auto"} if on else labels
    agent.call("POST", f"/swarm/update?version={swarm['Version']['Index']}", json.dumps(spec).encode())


def show(answer: dict[str, Any], dry_run: bool, console: Console) -> None:
    """The moves, and what is left alone."""
    moves = answer["Moves"]
    if moves:
        table = Table("SERVICE", "SLOT", "FROM", "TO", "BECAUSE", box=None, pad_edge=False)
        for move in moves:
            table.add_row(move["Service"], str(move["Slot"]), move["Source"], move["Target"], move["Reason"])
        console.print(table)
    word = "would be moved" if dry_run else "are being moved, one of a service at a time"
    nothing = "nothing to move now" if answer["LeftAlone"] else "everything is even"
    console.print(f"{len(moves)} tasks {word}" if moves else nothing, highlight=False)
    for left in answer["LeftAlone"]:
        console.print(f"left alone: {left['Service']}: {left['Reason']}", highlight=False, markup=False, soft_wrap=True)
