"""Entry point of `swarmctl`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import ModuleType

from rich.console import Console

from . import dns, explain, members, mesh, rebalance, snapshot, status
from .client import Agent, CommandError

VERBS: dict[str, ModuleType] = {
    "status": status,
    "explain": explain,
    "rebalance": rebalance,
    "members": members,
    "snapshot": snapshot,
    "dns": dns,
    "mesh": mesh,
}
"""Verb → module with HELP, add_arguments(parser) and run(agent, arguments, console)."""

DEFAULT_SOCKET = Path("/run/swarm-agent/docker.sock")


def build_parser() -> argparse.ArgumentParser:
    """The command line: `swarmctl [--socket PATH] VERB …`."""
    parser = argparse.ArgumentParser(prog="swarmctl", description="Asks the cluster agent on this host.")
    parser.add_argument("--socket", type=Path, default=DEFAULT_SOCKET, help="the agent's socket (default: %(default)s)")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, module in VERBS.items():
        verb = verbs.add_parser(name, help=module.HELP, description=module.__doc__)
        module.add_arguments(verb)
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run one command; failures are one line on standard error and exit code 1."""
    arguments = build_parser().parse_args(argv)
    try:
        VERBS[arguments.verb].run(Agent(arguments.socket), arguments, Console())
    except CommandError as error:
        sys.exit(f"swarmctl: {error}")


if __name__ == "__main__":
    main()
