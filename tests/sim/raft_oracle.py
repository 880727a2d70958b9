"""What must hold in a raft cluster, checked from outside while it runs. It knows everything and changes nothing.

Names follow the Raft paper, figure 3. Log matching is checked as its inductive step: an entry is identified by
(index, term), so wherever it appears its data and the term of the entry before it are the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from swarm_agent.raft.core import Core
from swarm_agent.raft.log import Log
from swarm_agent.raft.messages import (
    AppendReply,
    Entry,
    EntryKind,
    HardState,
    HeartbeatReply,
    Message,
    SnapshotMeta,
    VoteReply,
    VoteRequest,
)
from swarm_agent.raft.wal import Batch


class Violation(AssertionError):
    """A guarantee of raft was broken."""


def _require(fact: bool, text: str) -> None:
    if not fact:
        raise Violation(text)


class DiskShadow:
    """What one member's disk must hold, as far as syncs were reported: independent of core and log code."""

    def __init__(self) -> None:
        self.hard_state = HardState()
        self.terms: dict[int, int] = {}
        self.snapshot = SnapshotMeta()

    def synced(self, batches: Iterable[Batch]) -> None:
        for batch in batches:
            if batch.hard_state is not None:
                self.hard_state = batch.hard_state
            if batch.snapshot is not None:
                self.terms.clear()
                self.snapshot = batch.snapshot
            if batch.entries:
                first = batch.entries[0].index
                self.terms = {index: term for index, term in self.terms.items() if index < first}
                self.terms.update((entry.index, entry.term) for entry in batch.entries)

    def holds(self, index: int, term: int | None) -> bool:
        return index <= self.snapshot.index or (index in self.terms and self.terms[index] == term)


class Oracle:
    """The facts of one simulated cluster."""

    def __init__(self) -> None:
        self.leaders: dict[int, int] = {}
        self.votes: dict[tuple[int, int], int] = {}
        self.entries: dict[tuple[int, int], tuple[bytes, int]] = {}
        self.committed: dict[int, int] = {}
        self.commit_term: dict[int, int] = {}
        self.highest_committed = 0
        self.chains: dict[int, bytes] = {}
        self.acknowledged: dict[int, str] = {}
        self.highest_acknowledged = 0
        self.highest_read = 0
        self.elections = 0
        self.reads = 0

    # --- logs --------------------------------------------------------------------------------------------------------

    def wrote(self, log: Log, entries: Sequence[Entry]) -> None:
        """Log matching: a member hands these entries to its disk."""
        for entry in entries:
            before = log.term(entry.index - 1)
            if before is None:
                continue
            key = (entry.index, entry.term)
            known = self.entries.setdefault(key, (entry.data, before))
            _require(known == (entry.data, before), f"log matching: entry {key} is {known} and {(entry.data, before)}")

    def observe(self, member: int, core: Core, checked: int) -> int:
        """After any event on a member. `checked`: its commit index when last seen; the new one is returned."""
        if core.leadership is not None:
            self._leads(member, core)
        log = core.log
        for index in range(checked + 1, log.committed + 1):
            term = log.term(index)
            if term is None:
                continue
            known = self.committed.setdefault(index, term)
            _require(
                known == term, f"state machine safety: entry {index} committed with term {known}, on {member} {term}"
            )
            self.commit_term.setdefault(index, core.term)
            self.highest_committed = max(self.highest_committed, index)
        uncommitted = [
            entry
            for entry in log.slice(log.committed + 1, log.last, 1 << 40)
            if core.leadership is not None and entry.term == core.term and entry.kind is EntryKind.MEMBERSHIP
        ]
        _require(len(uncommitted) <= 1, f"two changes of membership are under way on leader {member}")
        return log.committed

    def _leads(self, member: int, core: Core) -> None:
        known = self.leaders.get(core.term)
        if known is None:
            self.leaders[core.term] = member
            self.elections += 1
            for index, term in self.committed.items():
                if index < core.log.first or self.commit_term[index] > core.term:
                    continue
                has = core.log.term(index)
                _require(
                    has == term,
                    f"leader completeness: {member} leads term {core.term} with term {has} at {index}, "
                    f"where term {term} is committed",
                )
        else:
            _require(known == member, f"election safety: {known} and {member} both lead in term {core.term}")

    # --- promises ----------------------------------------------------------------------------------------------------

    def sends(self, core: Core, message: Message, disk: DiskShadow) -> None:
        """What a message promises is on the sender's disk, and no promise contradicts an earlier one."""
        durable = disk.hard_state
        who = f"member {core.id} sends {message} with {durable} on disk"
        if isinstance(message, VoteRequest) and not message.pre:
            _require(durable.term >= message.term, f"candidate's term is not durable: {who}")
        if isinstance(message, VoteReply) and message.granted and not message.pre:
            _require(
                durable.term > message.term or (durable.term == message.term and durable.vote == message.to),
                f"vote is not durable: {who}",
            )
            voted = self.votes.setdefault((message.term, core.id), message.to)
            _require(voted == message.to, f"two votes in term {message.term}: for {voted} and {message.to}")
        if isinstance(message, HeartbeatReply):
            _require(durable.term >= message.term, f"follower's term is not durable: {who}")
        if isinstance(message, AppendReply) and not message.rejected and message.term == core.term and message.index:
            _require(durable.term >= message.term, f"follower's term is not durable: {who}")
            if message.index >= core.log.first:
                term = core.log.term(message.index)
                _require(disk.holds(message.index, term), f"acknowledged entry is not durable: {who}, log term {term}")

    # --- the state machine and clients -------------------------------------------------------------------------------

    def applies(self, member: int, entry: Entry, disk: DiskShadow) -> None:
        """A member applies only what it would still know after a crash."""
        _require(disk.holds(entry.index, entry.term), f"member {member} applies entry {entry.index}, not on its disk")

    def applied(self, member: int, index: int, chain: bytes) -> None:
        """All members pass through the same states."""
        known = self.chains.setdefault(index, chain)
        _require(known == chain, f"member {member} is in another state than others after entry {index}")

    def acknowledge(self, index: int, value: str) -> None:
        """A client was told that its write is done."""
        self.acknowledged[index] = value
        self.highest_acknowledged = max(self.highest_acknowledged, index)

    def read_begins(self) -> int:
        """A client asks to read; what it is given must be at least so new."""
        return max(self.highest_acknowledged, self.highest_read)

    def read_ends(self, member: int, at_least: int, index: int) -> None:
        """A client is given the state as of `index`."""
        self.reads += 1
        _require(index >= at_least, f"stale read on member {member}: state {index}, while {at_least} was known before")
        self.highest_read = max(self.highest_read, index)


def chain(before: bytes, index: int, data: bytes) -> bytes:
    """The fingerprint of a history."""
    return hashlib.blake2b(before + index.to_bytes(8, "big") + data, digest_size=16).digest()
