"""Errors of the store that are not about one object (those are in model.errors)."""

from __future__ import annotations

from swarm_agent.model.errors import ClusterError


class StoreError(ClusterError):
    """A write could not be carried out; nothing of it was. Text as gRPC's Unknown, which is what Swarm answers with."""

    def __init__(self, description: str) -> None:
        super().__init__(f"rpc error: code = Unknown desc = {description}")


class TooLarge(StoreError):
    """One transaction does not fit into a log entry. The caller has to split it."""

    def __init__(self) -> None:
        super().__init__("raft: raft message is too large and can't be sent")


class WatchLagged(Exception):
    """A watcher did not keep up. It has to read the whole state again and watch anew."""
