"""Errors of raft. Those that a caller of the cluster may see are ClusterErrors; the others end the process."""

from __future__ import annotations

from swarm_agent.model.errors import ClusterError


class RaftError(ClusterError):
    """A request to raft that was not carried out, for a reason that is not a defect."""

    def __init__(self, description: str) -> None:
        super().__init__(f"rpc error: code = Unknown desc = {description}")


class NotLeader(RaftError):
    """Only the leader can do this. `leader`: id of the member that leads as far as known, or 0."""

    def __init__(self, leader: int) -> None:
        self.leader = leader
        super().__init__("raft: this member is not the leader" if leader else "raft: no elected cluster leader")


class ProposalDropped(RaftError):
    """Not accepted; nothing was appended, and it may be tried again."""


class LeadershipLost(RaftError):
    """This member ceased to lead while the proposal was under way. Whether it is or will be committed is unknown."""

    def __init__(self) -> None:
        super().__init__("raft: leadership was lost while the change was under way; it may or may not take effect")


class RequestTimeout(RaftError):
    """No answer in time. Whether a proposal is or will be committed is unknown."""

    def __init__(self) -> None:
        super().__init__("context deadline exceeded")


class ChangeRefused(RaftError):
    """A membership change that cannot be made, or not now."""


class Stopped(RaftError):
    """This member was stopped meanwhile; what it was asked for may be half done."""

    def __init__(self) -> None:
        super().__init__("raft: this member is being stopped")


class FatalError(Exception):
    """The process must end now: going on could break a promise given to others. The daemon turns it into an exit."""


class DiskFailed(FatalError):
    """A write or sync failed. The kernel may have dropped the data and a retry would falsely succeed, so none is
    made.
    """


REJOIN = (
    "If other managers have a quorum: remove this node from the cluster, delete the directory and join again. If it is "
    "the only manager: restore a backup"
)


class LogCorrupt(FatalError):
    """The log or a snapshot on disk cannot be trusted. The message says how to recover."""


class InvariantBroken(FatalError):
    """What Raft guarantees does not hold: a defect here or there, or a disk that lost what it had acknowledged."""
