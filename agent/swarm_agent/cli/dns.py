"""`swarmctl dns NAME`: what a name of the cluster resolves to on this host, asked of the agent's own server.

    swarmctl dns web                     the name on every network that has it
    swarmctl dns tasks.web.front         on network "front" only
    swarmctl dns _http._tcp.web --type SRV
    swarmctl dns 10.0.1.5                the names of an address

A host sees the networks that its tasks are on; ask on another host for others.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass

from dnslib import QTYPE, DNSError, DNSRecord
from rich.console import Console
from rich.table import Table

from swarm_agent.node.settings import SettingsError, load

from .client import Agent, CommandError

HELP = "look up a name as containers see it"
TYPES = ("A", "AAAA", "SRV", "PTR", "ANY")
SERVER = "127.0.0.1"
TIMEOUT = 3.0  # seconds


@dataclass(frozen=True, slots=True)
class Line:
    """One record of an answer."""

    name: str
    kind: str
    ttl: int
    data: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The name and the type of records."""
    parser.add_argument("name", metavar="NAME", help="a name, with or without its network, or an address")
    parser.add_argument("--type", choices=TYPES, default="A", help="type of records (default: %(default)s)")


def run(agent: Agent, arguments: argparse.Namespace, console: Console) -> None:
    """Print the records. Raises CommandError when there are none."""
    try:
        port = load().dns_port
    except SettingsError as error:
        raise CommandError(str(error)) from None
    if not port:
        raise CommandError("names are not served to this host: dns_port is 0 in the agent's settings")
    name, kind = question_for(arguments.name, arguments.type)
    lines = [line for one in candidates(name, kind, networks(agent)) for line in ask(one, kind, port)]
    if not lines:
        raise CommandError(f"no {kind} record of {arguments.name} on this host's networks")
    table = Table("NAME", "TYPE", "TTL", "DATA", box=None, pad_edge=False)
    for line in lines:
        table.add_row(line.name, line.kind, str(line.ttl), line.data)
    console.print(table)


def question_for(text: str, kind: str) -> tuple[str, str]:
    """The name and type to ask for; an address asks for its names."""
    try:
        return ipaddress.ip_address(text).reverse_pointer, "PTR"
    except ValueError:
        return text.rstrip("."), kind


def candidates(name: str, kind: str, known: Sequence[str]) -> list[str]:
    """The full names that may be meant: as it is when it ends with a network or is an address, else on each network."""
    if kind == "PTR" or any(name.lower().endswith(f".{network.lower()}") for network in known):
        return [name]
    return [f"{name}.{network}" for network in known]


def networks(agent: Agent) -> list[str]:
    """The names of the cluster's networks, as the front door lists them."""
    found = json.loads(agent.call("GET", "/networks"))
    return sorted(one["Name"] for one in found if one.get("Scope") == "swarm" and not one.get("Ingress"))


def ask(name: str, kind: str, port: int) -> list[Line]:
    """The records of one full name; none when it does not exist. Raises CommandError when the agent does not answer."""
    try:
        packet = DNSRecord.question(name, kind).send(SERVER, port, tcp=True, timeout=TIMEOUT)
        answer = DNSRecord.parse(packet)
    except (OSError, DNSError) as error:
        raise CommandError(
            f"no answer from {SERVER} port {port}: {error}; is this host in a cluster, and the agent running?"
        ) from None
    return [Line(str(one.rname).rstrip("."), QTYPE[one.rtype], one.ttl, str(one.rdata)) for one in answer.rr]
