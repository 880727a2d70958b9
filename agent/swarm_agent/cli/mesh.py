"""`swarmctl mesh`: what this host balances, by what, and why: every published port and VIP with the tasks behind it.

    swarmctl mesh                all
    swarmctl mesh 8080           one published port
    swarmctl mesh web            what leads to tasks of service "web"
    swarmctl mesh --json         the same for programs

Tasks that are "draining" keep the connections that they have and get no new ones: they are stopping, or not ready yet.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from rich.console import Console
from rich.table import Table

from .client import Agent, CommandError

HELP = "show published ports and VIPs as this host has programmed them"
PATH = "/swarm-agent/v1/mesh"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to show, and how."""
    parser.add_argument("what", metavar="PORT|VIP|SERVICE", nargs="?", default="", help="show only this")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(agent: Agent, arguments: argparse.Namespace, console: Console) -> None:
    """Print the report. Raises CommandError when nothing fits."""
    report = agent.json(PATH)
    shown = [item for item in report["frontends"] if fits(item, arguments.what)]
    if arguments.what and not shown:
        raise CommandError(f"no published port, VIP or service {arguments.what} is balanced on this host")
    if arguments.json:
        console.print_json(json.dumps({**report, "frontends": shown}))
        return
    console.print(heading(report), highlight=False, soft_wrap=True)
    for words, kind in ((report["failures"], "failed"), (report["problems"], "left out")):
        for word in words:
            console.print(f"{kind}: {word}", highlight=False, markup=False, soft_wrap=True)
    if shown:
        console.print(table(shown, report["balancer"]))


def fits(frontend: dict[str, Any], what: str) -> bool:
    """Whether a frontend is what was asked for: its number or address, or a service behind it."""
    name = frontend["name"]
    names = {
        name,
        name.partition("/")[0],
        name.partition(" ")[0],
        *(backend["service"] for backend in frontend["backends"]),
    }
    return not what or what in names


def heading(report: dict[str, Any]) -> str:
    """Two lines: the balancer and how much there is of it; the other hosts."""
    counts = f"{report['rules']} iptables rules"
    if report["services"]:
        counts += f", {report['services']} IPVS services with {report['destinations']} destinations"
    others = sorted(address for node, address in report["hosts"].items() if node != report["node_id"])
    return (
        f"balancer: {report['balancer']} ({report['reason']}); {counts}\n"
        f"this host: {report['underlay']}, MTU {report['mtu']}; others: {', '.join(others) or 'none'}"
    )


def table(frontends: list[dict[str, Any]], balancer: str) -> Table:
    """A line for each task; ports and VIPs are named once."""
    found = Table("port / VIP", "network", "programmed", "task", "address", "on", "state")
    if balancer == "ipvs":
        found.add_column("connections", justify="right")
    for frontend in frontends:
        head = [frontend["name"], frontend["network"], frontend["programmed"]]
        for backend in frontend["backends"]:
            place = "here" if backend["here"] else backend["host"] or backend["node_id"]
            task = f"{backend['service']}.{backend['slot']}" if backend["slot"] else backend["service"]
            cells = [*head, f"{task}  {backend['task_id'][:12]}", backend["address"], place, backend["state"]]
            if balancer == "ipvs":
                cells.append("" if backend["connections"] is None else str(backend["connections"]))
            found.add_row(*cells)
            head = ["", "", ""]
    return found
