"""`swarmctl status`: the cluster in one screen, as this host sees it."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from .client import Agent

HELP = "show this host's part, the nodes and the services"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None: the command shows all."""


def run(agent: Agent, arguments: argparse.Namespace, console: Console) -> None:
    """Print the status. Raises CommandError."""
    swarm = agent.json("/info")["Swarm"]
    console.print(f"this host: {swarm['LocalNodeState']}", highlight=False)
    if swarm.get("Error"):
        console.print(f"error: {swarm['Error']}", highlight=False)
    if not swarm.get("NodeID"):
        return
    console.print(f"node {swarm['NodeID']} at {swarm['NodeAddr']}", highlight=False)
    if not swarm.get("ControlAvailable"):
        managers = ", ".join(peer["Addr"] for peer in swarm.get("RemoteManagers") or [])
        console.print(f"a worker; managers: {managers}", highlight=False)
        return
    console.print(nodes_table(agent))
    console.print(services_table(agent))


def nodes_table(agent: Agent) -> Table:
    """All nodes, managers first."""
    table = Table("node", "address", "state", "availability", "manager", title="nodes", title_justify="left")
    for node in sorted(agent.json("/nodes"), key=lambda node: ("ManagerStatus" not in node, _hostname(node))):
        manager = node.get("ManagerStatus", {})
        role = "leader" if manager.get("Leader") else manager.get("Reachability", "")
        status, spec = node["Status"], node["Spec"]
        table.add_row(_hostname(node), status.get("Addr", ""), status["State"], spec.get("Availability", ""), role)
    return table


def services_table(agent: Agent) -> Table:
    """All services with how many of their tasks run, and what an update says."""
    table = Table("service", "mode", "running", "image", "update", title="services", title_justify="left")
    for service in sorted(agent.json("/v1.41/services?status=true"), key=lambda service: service["Spec"]["Name"]):
        spec, status = service["Spec"], service.get("ServiceStatus", {})
        mode = next(iter(spec["Mode"]), "")
        counts = f"{status.get('RunningTasks', 0)}/{status.get('DesiredTasks', 0)}"
        image = spec["TaskTemplate"].get("ContainerSpec", {}).get("Image", "")
        update = service.get("UpdateStatus", {})
        told = ": ".join(part for part in (update.get("State", ""), update.get("Message", "")) if part)
        table.add_row(spec["Name"], mode, counts, image, told)
    return table


def _hostname(node: dict[str, dict[str, str]]) -> str:
    return node["Description"].get("Hostname", "")
