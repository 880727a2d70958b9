"""`swarmctl explain SERVICE|TASK|NODE`: why a task waits, why it was moved or replaced, why a node is empty.

swarmctl explain web                   is it as declared, what do waiting tasks wait for, what was replaced and why
swarmctl explain web.2                 the task in this slot: the last that was made for it
swarmctl explain web.2.k3jx…           one task (also by id, or the beginning of one)
swarmctl explain --kind node web       a node of that name, where a service has it too
"""

from __future__ import annotations

import argparse
import json
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.table import Table

from .client import Agent

HELP = "say why a service, task or node is as it is"

NODES = 20  # shown at most


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to explain, and how to show it."""
    parser.add_argument(
        "term", metavar="SERVICE|TASK|NODE", help="a name, an id, the beginning of an id, or SERVICE.SLOT"
    )
    parser.add_argument(
        "--kind", choices=("service", "task", "node"), default="", help="where a name is several things"
    )
    parser.add_argument("--json", action="store_true", help="the agent's answer as it is")


def run(agent: Agent, arguments: argparse.Namespace, console: Console) -> None:
    """Print the explanation. Raises CommandError."""
    kind = f"?kind={arguments.kind}" if arguments.kind else ""
    answer = agent.json(f"/swarm-agent/v1/explain/{quote(arguments.term, safe='')}{kind}")
    if arguments.json:
        console.print_json(json.dumps(answer))
        return
    show(answer, console)


def show(answer: dict[str, Any], console: Console) -> None:
    """The facts, then the nodes, then the story."""

    def line(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    line(f"{answer['Kind']} {answer['Name']} ({answer['ID'][:12]})")
    for fact in answer["Facts"]:
        line(f"  {fact}")
    if answer["Nodes"]:
        line("\nnodes for it:")
        for node in answer["Nodes"][:NODES]:
            line(f"  {node['Hostname']}: {'; '.join(node['Objections']) or 'could take it'}")
        if len(answer["Nodes"]) > NODES:
            line(f"  and {len(answer['Nodes']) - NODES} more (--json shows all)")
    if answer["Story"]:
        console.print()
        console.print(story(answer["Story"]))


def story(steps: list[dict[str, Any]]) -> Table:
    """What came in place of what, newest first."""
    table = Table(box=None, pad_edge=False)
    for name in ("MADE", "TASK", "NODE", "STATE"):
        table.add_column(name, no_wrap=True)
    table.add_column("WHY", overflow="fold")
    for step in steps:
        name, _, task_id = step["Name"].rpartition(".")
        state = (
            step["State"]
            if step["State"] == step["DesiredState"]
            else f"{step['State']}, wanted {step['DesiredState']}"
        )
        made = step["CreatedAt"][:19].replace("T", " ")
        table.add_row(made, f"{name}.{task_id[:12]}", step.get("Hostname", ""), state, step["Why"])
    return table
