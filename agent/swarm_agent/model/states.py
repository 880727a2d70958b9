"""Task states in order (reference/swarm.md §3.1). Observed state and desired state only ever rise."""

from __future__ import annotations

import enum


class TaskState(enum.StrEnum):
    """A task's state; compare with `rank`, not with the strings."""

    NEW = "new"
    PENDING = "pending"
    ASSIGNED = "assigned"
    ACCEPTED = "accepted"
    PREPARING = "preparing"
    READY = "ready"
    STARTING = "starting"
    RUNNING = "running"
    COMPLETE = "complete"
    SHUTDOWN = "shutdown"
    FAILED = "failed"
    REJECTED = "rejected"
    REMOVE = "remove"
    ORPHANED = "orphaned"

    @property
    def rank(self) -> int:
        """Position in the life cycle, with SwarmKit's numbers (gaps of 64)."""
        return _RANKS[self]

    @property
    def is_terminal(self) -> bool:
        """True when the task will never run again."""
        return self.rank > TaskState.RUNNING.rank


_RANKS = {
    TaskState.NEW: 0,
    TaskState.PENDING: 64,
    TaskState.ASSIGNED: 192,
    TaskState.ACCEPTED: 256,
    TaskState.PREPARING: 320,
    TaskState.READY: 384,
    TaskState.STARTING: 448,
    TaskState.RUNNING: 512,
    TaskState.COMPLETE: 576,
    TaskState.SHUTDOWN: 640,
    TaskState.FAILED: 704,
    TaskState.REJECTED: 768,
    TaskState.REMOVE: 800,
    TaskState.ORPHANED: 832,
}
