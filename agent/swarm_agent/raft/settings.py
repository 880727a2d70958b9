"""What can be set of a raft member, and what it reports of itself."""

from __future__ import annotations

from dataclasses import dataclass

from .core import Core
from .wal import SEGMENT_SIZE


@dataclass(frozen=True, slots=True)
class Settings:
    """What the cluster's spec may set (API: Spec.Raft), and the length of a tick.

    With ticks of 100 ms a dead leader is noticed after 1-2 s. Shorter ones find it sooner and pay with false alarms
    when a host is slow. `snapshot_interval`, `keep_entries`: entries. `snapshot_bytes`: a snapshot is also made
    after so much log, which bounds memory and the time to start. `stall`: seconds that a write may hang before
    leadership is given up.
    """

    tick: float = 0.1
    election_ticks: int = 10
    heartbeat_ticks: int = 1
    snapshot_interval: int = 10_000
    snapshot_bytes: int = 64 * 1024 * 1024
    keep_entries: int = 500
    keep_snapshots: int = 0
    segment_size: int = SEGMENT_SIZE
    stall: float = 10.0


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """A member as the leader sees it. `active`: heard of lately."""

    id: int
    address: str
    voter: bool
    active: bool
    match: int


@dataclass(frozen=True, slots=True)
class Status:
    """What a member knows of itself and the cluster. `members` have `active` and `match` only on the leader."""

    id: int
    term: int
    leader: int
    leads: bool
    first: int
    last: int
    committed: int
    applied: int
    members: tuple[MemberStatus, ...]


def status_of(core: Core, leads: bool) -> Status:
    """What a member's core knows."""
    progress = core.leadership.progress if core.leadership is not None else {}
    members = tuple(
        MemberStatus(
            member.id,
            member.address,
            member.voter,
            member.id == core.id or (member.id in progress and progress[member.id].active),
            progress[member.id].match if member.id in progress else 0,
        )
        for member in core.log.membership.members
    )
    log = core.log
    return Status(core.id, core.term, core.leader, leads, log.first, log.last, log.committed, log.applied, members)
