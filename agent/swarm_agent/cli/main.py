"""Entry point of `swarmctl`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import ModuleType
from typing import TextIO

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

UNFOLDED = 400
"""Columns of an output that nobody looks at directly: more than any row has."""


def build_parser() -> argparse.ArgumentParser:
    """The command line: `swarmctl [--socket PATH] VERB …`."""
    parser = argparse.ArgumentParser(prog="swarmctl", description="Asks the cluster agent on this host.")
    parser.add_argument("--socket", type=Path, default=DEFAULT_SOCKET, help="the agent's socket (default: %(default)s)")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, module in VERBS.items():
        verb = verbs.add_parser(name, help=module.HELP, description=module.__doc__)
        module.add_arguments(verb)
    return parser


def console_for(stream: TextIO) -> Console:
    """A terminal gets lines of its width; a file or another program (grep, awk) gets each row on one line."""
    return Console(file=stream) if stream.isatty() else Console(file=stream, width=UNFOLDED)


def main(argv: list[str] | None = None) -> None:
    """Run one command; failures are one line on standard error and exit code 1."""
    arguments = build_parser().parse_args(argv)
    try:
        VERBS[arguments.verb].run(Agent(arguments.socket), arguments, console_for(sys.stdout))
    except CommandError as error:
        sys.exit(f"swarmctl: {error}")


if __name__ == "__main__":
    main()
