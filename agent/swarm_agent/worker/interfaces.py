"""What the worker needs from the parts beside it; the network and the gossip implement these."""

from __future__ import annotations

from typing import Protocol

from swarm_agent.model.rows import EndpointRow


class TaskNetworks(Protocol):
    """The host's side of cluster networks."""

    async def attach(self, network_id: str) -> str:
        """The name of the engine network that stands for this cluster network, once the host has it.

        Waits a bounded time; raises an error whose text says what is missing.
        """
        ...


class Endpoints(Protocol):
    """Which tasks of this host receive traffic, told to all hosts."""

    async def activate(self, row: EndpointRow) -> None:
        """Publish the row, or replace it. One with `active=False` comes before the container starts: the other hosts
        learn where the task's addresses are, so that it can talk while it is not yet chosen for traffic."""
        ...

    async def deactivate(self, task_id: str) -> None:
        """Make the row inactive: nobody chooses the task for new traffic, but its connections go on. Returns when every
        live host applied that, or after a bounded wait. Fine when there is no row."""
        ...

    async def withdraw(self, task_id: str) -> None:
        """The container ended: forget the row. Nothing is waited for; fine when there is no row."""
        ...
