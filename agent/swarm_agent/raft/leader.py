"""What only a leader does: replicate, count, confirm reads, hand over. The object lives as long as the leadership.

An entry is committed when a majority of voters has it on disk *and* it is of this leader's term; earlier entries are
committed with it (Raft §5.4.2: counting copies of an old entry proves nothing). The leader's own copy counts by the
same kind of message as all others, sent to itself after its own disk write: so it may send entries to others while it
still writes them.

CheckQuorum: once per election timeout the leader counts whom it has heard of, and steps down without a majority. So a
leader that is cut off stops by itself, and callers do not wait for it forever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import ChangeRefused, ProposalDropped
from .log import entry_size
from .messages import (
    NOBODY,
    Append,
    AppendReply,
    Entry,
    EntryKind,
    Heartbeat,
    HeartbeatReply,
    Membership,
    ReadReply,
    ReadRequest,
    TimeoutNow,
    encode_membership,
)
from .progress import Progress, SendState, agreed, majority
from .reads import Read, Reads

if TYPE_CHECKING:
    from .core import Core

MAX_UNCOMMITTED_BYTES = 16 * 1024 * 1024
"""Proposals beyond it are dropped: without it a leader that lost its quorum would fill its memory."""


class Leadership:
    """The leader's state for one term. `start`: index of its first entry, an empty one."""

    __slots__ = (
        "_core",
        "_departed",
        "_heartbeat_elapsed",
        "_quorum_elapsed",
        "_reads",
        "_transfer_elapsed",
        "_uncommitted",
        "progress",
        "start",
        "transferee",
    )

    def __init__(self, core: Core) -> None:
        self._core = core
        self._heartbeat_elapsed = 0
        self._quorum_elapsed = 0
        self._transfer_elapsed = 0
        self.transferee = NOBODY
        self._reads = Reads()
        self._uncommitted = sum(
            map(entry_size, core.log.slice(core.log.committed + 1, core.log.last, MAX_UNCOMMITTED_BYTES * 4))
        )
        self.progress: dict[int, Progress] = {}
        # Members that a change has removed. They are told until it is committed, so that they learn it.
        self._departed: set[int] = set()
        self.start = core.log.last + 1
        self._sync_progress()
        for progress in self.progress.values():
            progress.active = False  # new members begin as active, those of the election have to be heard

    def begin(self) -> None:
        """Append the first entry of the term: only with it can older ones be committed."""
        self._append(EntryKind.DATA, b"")

    @property
    def established(self) -> bool:
        """An entry of this term is committed: the leader knows everything that was ever committed."""
        return self._core.log.committed >= self.start

    # --- requests ----------------------------------------------------------------------------------------------------

    def propose(self, data: bytes) -> int:
        """Append an entry and send it to all; its index is returned. Raises ProposalDropped."""
        if self.transferee:
            raise ProposalDropped("raft: leadership is being handed over; try again")
        if self._uncommitted and self._uncommitted + len(data) > MAX_UNCOMMITTED_BYTES:
            raise ProposalDropped("raft: too much is waiting to be committed; try again")
        return self._append(EntryKind.DATA, data)

    def propose_membership(self, membership: Membership) -> int:
        """Append a change of membership. Raises ChangeRefused unless the last one and an entry of this term are
        committed.

        Both conditions are needed: two uncommitted changes, or one on top of another term's, can make majorities that
        do not overlap (Ongaro, raft-dev 2015).
        """
        log = self._core.log
        if self.transferee:
            raise ChangeRefused("raft: leadership is being handed over; try again")
        if not self.established or log.membership_index > log.committed:
            raise ChangeRefused("raft: another change of the members is under way; try again")
        before, after = set(log.membership.voters), set(membership.voters)
        if not after or len(before ^ after) > 1:
            raise ChangeRefused("raft: members can only be changed one at a time, and one voter must remain")
        return self._append(EntryKind.MEMBERSHIP, encode_membership(membership))

    def read(self, read: Read) -> None:
        """Begin to confirm a read; the answer comes as a `ReadReply` or, for an own read, in `Ready.reads`."""
        self._reads.add(read)
        self._advance_reads()

    def transfer(self, to: int) -> None:
        """Hand leadership to a voter as soon as its log is complete. Given up after an election timeout."""
        if to not in self._core.log.membership.voters or to == self._core.id:
            raise ChangeRefused(f"raft: leadership can only be handed to another voter, not to member {to:x}")
        self.transferee = to
        self._transfer_elapsed = 0
        self._quorum_elapsed = 0
        if self.progress[to].match == self._core.log.last:
            self._core.send(TimeoutNow(self._core.id, to, self._core.term))
        else:
            self._send_append(to, empty=True)

    # --- time --------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """One tick of the clock."""
        self._heartbeat_elapsed += 1
        self._quorum_elapsed += 1
        if self.transferee:
            self._transfer_elapsed += 1
            if self._transfer_elapsed >= self._core.election_ticks:
                self.transferee = NOBODY
        if self._quorum_elapsed >= self._core.election_ticks:
            self._quorum_elapsed = 0
            if not self._quorum_active():
                self._core.become_follower(self._core.term, NOBODY)
                return
        if self._heartbeat_elapsed >= self._core.heartbeat_ticks:
            self._heartbeat()

    def _quorum_active(self) -> bool:
        voters = self._core.log.membership.voters
        heard = sum(1 for id_ in voters if id_ == self._core.id or self.progress[id_].active)
        for progress in self.progress.values():
            progress.active = False
        # While a leader removes itself it leads voters of whom it is none.
        return heard >= majority(len(voters))

    def _heartbeat(self) -> None:
        self._heartbeat_elapsed = 0
        core = self._core
        for to, progress in self._others():
            # Never beyond what that member has: its log may hold other entries there.
            commit = min(progress.match, core.log.committed)
            core.send(Heartbeat(core.id, to, core.term, commit, self._reads.round))

    # --- answers -----------------------------------------------------------------------------------------------------

    def on_append_reply(self, reply: AppendReply) -> None:
        """A member accepted or rejected entries."""
        core = self._core
        progress = self.progress.get(reply.sender)
        if progress is None:
            return
        progress.active = True
        if reply.rejected:
            hint = reply.hint_index
            if reply.hint_term:
                hint = core.log.agreement(reply.hint_index, reply.hint_term)[0]
            if progress.rejected(reply.index, hint):
                self._send_append(reply.sender, empty=True)
            return
        if reply.index > core.log.last:
            return  # only a member of another history could say so; its next rejection tells
        was_paused = progress.paused
        news = progress.accepted(reply.index)
        if progress.state is SendState.SNAPSHOT and reply.index + 1 >= core.log.first:
            progress.become_probe()
        if news:
            if self._commit():
                if core.leadership is not self:
                    return
                self._advance_reads()
                self._broadcast(empty=True)
            elif was_paused and reply.sender != core.id:
                self._send_append(reply.sender, empty=True)
        while reply.sender != core.id and self._send_append(reply.sender, empty=False):
            pass
        if reply.sender == self.transferee and progress.match == core.log.last:
            core.send(TimeoutNow(core.id, reply.sender, core.term))

    def on_heartbeat_reply(self, reply: HeartbeatReply) -> None:
        """A member is alive and follows this leader."""
        progress = self.progress.get(reply.sender)
        if progress is None:
            return
        progress.active = True
        progress.probing = False
        if progress.match < self._core.log.last:
            # Something may have been lost. An append without entries finds out, also when the window is full.
            self._send_append(reply.sender, empty=True, probe=True)
        self._reads.echo(reply.sender, reply.round)
        self._advance_reads()

    def on_read_request(self, request: ReadRequest) -> None:
        """A follower wants to answer a read."""
        self.read(Read(request.sender, request.id))

    # --- snapshots ---------------------------------------------------------------------------------------------------

    def heard(self, member: int) -> None:
        """A member answered something that raft itself does not see (parts of a snapshot)."""
        progress = self.progress.get(member)
        if progress is not None:
            progress.active = True

    def snapshot_ended(self, member: int, index: int) -> None:
        """The sending of a snapshot to a member ended: find out what it has, beginning at what it was given."""
        progress = self.progress.get(member)
        if progress is not None and progress.state is SendState.SNAPSHOT:
            progress.become_probe(index)
            self._send_append(member, empty=True)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _others(self) -> list[tuple[int, Progress]]:
        return [(id_, progress) for id_, progress in self.progress.items() if id_ != self._core.id]

    def _append(self, kind: EntryKind, data: bytes) -> int:
        core = self._core
        entry = Entry(core.log.last + 1, core.term, kind, data)
        core.log.append(entry)
        self._uncommitted += entry_size(entry)
        if kind is EntryKind.MEMBERSHIP:
            self._sync_progress()
        # Counted when it comes back, which is after the entry was written to this member's disk.
        core.send(AppendReply(core.id, core.id, core.term, entry.index))
        self._broadcast(empty=True)
        return entry.index

    def _sync_progress(self) -> None:
        log = self._core.log
        ids = {member.id for member in log.membership.members}
        self._departed = {member.id for member in log.committed_membership.members} - ids
        wanted = ids | self._departed | {self._core.id}
        self.progress = {
            id_: self.progress.get(id_) or Progress(next=log.last + 1, active=True) for id_ in sorted(wanted)
        }

    def _commit(self) -> bool:
        core = self._core
        matches = {id_: progress.match for id_, progress in self.progress.items()}
        index = agreed(core.log.membership.voters, matches)
        before = core.log.committed
        if index <= before or not self._may_commit(index):
            return False
        core.log.commit_to(index)
        committed = core.log.slice(before + 1, index, MAX_UNCOMMITTED_BYTES * 4)
        self._uncommitted = max(0, self._uncommitted - sum(map(entry_size, committed)))
        if before < core.log.membership_index <= index:
            self._membership_committed()
        return True

    def _may_commit(self, index: int) -> bool:
        return self._core.log.term(index) == self._core.term

    def _membership_committed(self) -> None:
        core = self._core
        for id_ in sorted(self._departed - {core.id}):
            self._send_append(id_, empty=True, probe=True)  # a last word: you are out
        if core.log.membership.get(core.id) is None or core.id not in core.log.membership.voters:
            self._broadcast(empty=True)
            core.become_follower(core.term, NOBODY)
            return
        self._sync_progress()
        if self.transferee and self.transferee not in core.log.membership.voters:
            self.transferee = NOBODY

    def _broadcast(self, *, empty: bool) -> None:
        for id_, _ in self._others():
            self._send_append(id_, empty=empty)

    def _send_append(self, to: int, *, empty: bool, probe: bool = False) -> bool:
        """Send what the member lacks, as far as its window allows. `empty`: also if there is nothing but the commit
        index. `probe`: although it is paused, but then without entries. True: something was sent."""
        core = self._core
        progress = self.progress[to]
        paused = progress.paused
        if paused and not (probe and progress.state is not SendState.SNAPSHOT):
            return False
        previous = progress.next - 1
        term = core.log.term(previous)
        if term is None:
            if not progress.active:
                return False
            progress.become_snapshot()
            core.want_snapshot(to)
            return False
        entries = [] if paused else core.log.slice(progress.next, core.log.last, core.max_append_bytes)
        if not entries and not empty:
            return False
        core.send(Append(core.id, to, core.term, previous, term, entries, core.log.committed))
        progress.sent(previous + len(entries), sum(map(entry_size, entries)))
        return True

    def _advance_reads(self) -> None:
        """Open a round if none is open, and answer what is confirmed. Alone a leader confirms its rounds at once."""
        core = self._core
        if not self.established:
            return
        if self._reads.begin(core.log.committed):
            self._heartbeat()
        confirmed = self._reads.confirmed(core.id, core.log.membership.voters)
        for read in confirmed:
            if read.member == core.id:
                core.read_confirmed(read.id, self._reads.index)
            else:
                core.send(ReadReply(core.id, read.member, core.term, read.id, self._reads.index))
        if confirmed:
            self._advance_reads()
