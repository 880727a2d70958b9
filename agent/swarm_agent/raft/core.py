"""Raft without I/O: events come in as calls, and everything to be done comes out as one `Ready`.

    tick() step(message) propose(data) …  →  ready() → Ready  →  the driver writes, sends, applies  →  advance(ready)

The driver's whole contract:

1. Send `messages` at once. 2. Write `snapshot`, `hard_state` and `entries` to disk, Readys in their order. Several may
be under way. 3. When that is synced, send `after_persist` and call `advance`. 4. Apply `snapshot` and then
`committed`, in order. They are on this member's disk already.

No clock, socket, thread or own randomness in here: the same calls give the same results, which is what the simulation
(tests/sim) lives on. A member is in one of three roles, and what belongs to a role is an object that exists as long as
it: nothing for a follower, `Candidacy`, `Leadership` (leader.py).

Three rules beyond the paper keep a cluster calm (as in etcd): a candidate first asks whether it would win (PreVote),
so a member that comes back does not depose a leader by its mere term; votes are refused while a leader is heard; a
leader that does not hear a majority steps down (CheckQuorum).

Trap: a vote request goes out only after the write, like votes and acknowledgements. If it went before, a candidate
that crashed could lose both its term and entries not yet synced, come back, ask in the same term with the shorter log,
and win with old answers given to the longer one.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .errors import InvariantBroken, NotLeader
from .leader import Leadership
from .log import Log
from .messages import (
    NOBODY,
    Append,
    AppendReply,
    Entry,
    HardState,
    Heartbeat,
    HeartbeatReply,
    Membership,
    Message,
    ReadReply,
    ReadRequest,
    SnapshotChunk,
    SnapshotMeta,
    SnapshotReply,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from .progress import VoteResult, tally
from .reads import Read

MAX_APPEND_BYTES = 512 * 1024
"""Entries of one append. Larger ones would hold up heartbeats behind them in the same stream."""

MAX_APPLY_BYTES = 1024 * 1024
"""Entries handed out for applying in one Ready, so that applying never holds the event loop for long."""

MAX_UNDELIVERED = 4096
"""Outgoing messages that wait for the driver; older ones are dropped, as a network would. Raft repeats what matters."""


@dataclass(slots=True)
class Candidacy:
    """A campaign, or (`pre`) the question whether one would succeed."""

    pre: bool
    votes: dict[int, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ready:
    """What the driver has to do; see the contract above. `number` rises by one with each."""

    number: int
    hard_state: HardState | None
    entries: list[Entry]
    snapshot: SnapshotMeta | None
    messages: list[Message]
    after_persist: list[Message]
    committed: list[Entry]
    reads: list[tuple[int, int]]
    """Own reads that may be answered: (id, index that must be applied before)."""
    snapshots_wanted: list[int]
    """Members that need a snapshot."""
    chunks: list[SnapshotChunk]
    """Parts of a snapshot that came from the leader."""
    snapshot_replies: list[SnapshotReply]
    """Answers to parts of a snapshot that this member sends."""

    @property
    def persists(self) -> bool:
        """There is something to write."""
        return self.hard_state is not None or bool(self.entries) or self.snapshot is not None


class Core:
    """One member. `log` and `hard_state` are as loaded from disk. An election timeout is 1-2 times `election_ticks`."""

    def __init__(
        self,
        id_: int,
        log: Log,
        hard_state: HardState,
        rng: random.Random,
        *,
        election_ticks: int = 10,
        heartbeat_ticks: int = 1,
        max_append_bytes: int = MAX_APPEND_BYTES,
    ) -> None:
        self.id = id_
        self.log = log
        self.election_ticks = election_ticks
        self.heartbeat_ticks = heartbeat_ticks
        self.max_append_bytes = max_append_bytes
        self._rng = rng
        # A snapshot may be from a term whose hard state was never written. No vote was given in it.
        self.term = max(hard_state.term, log.last_term)
        self.vote = hard_state.vote if self.term == hard_state.term else NOBODY
        self.leader = NOBODY
        self.candidacy: Candidacy | None = None
        self.leadership: Leadership | None = None
        self._elapsed = 0
        self._timeout = 0
        self._number = 0
        self._handed_state = (hard_state.term, hard_state.vote)
        self._messages: list[Message] = []
        self._after_persist: list[Message] = []
        self._durable_term = hard_state.term
        self._snapshot: SnapshotMeta | None = None
        self._reads: list[tuple[int, int]] = []
        self._snapshots_wanted: list[int] = []
        self._chunks: list[SnapshotChunk] = []
        self._snapshot_replies: list[SnapshotReply] = []
        self._reset_timer()

    # --- what a driver may ask ---------------------------------------------------------------------------------------

    @property
    def promotable(self) -> bool:
        """May campaign: a voter, or one whose removal is not committed (nobody else might be able to commit it)."""
        return self.id in self.log.membership.voters or self.id in self.log.committed_membership.voters

    @property
    def removed(self) -> bool:
        """Known to be out: the committed membership exists and does not name this member."""
        membership = self.log.committed_membership
        return bool(membership.members) and membership.get(self.id) is None and not self.promotable

    @property
    def leads(self) -> bool:
        """Leads, and has applied everything that was committed before it did."""
        return self.leadership is not None and self.log.applied >= self.leadership.start

    # --- inputs ------------------------------------------------------------------------------------------------------

    def configure(self, election_ticks: int, heartbeat_ticks: int) -> None:
        """Use other times from now on. The present wait for a leader is drawn anew: one that was drawn for shorter
        times could end between two of its heartbeats.
        """
        if (election_ticks, heartbeat_ticks) != (self.election_ticks, self.heartbeat_ticks):
            self.election_ticks, self.heartbeat_ticks = election_ticks, heartbeat_ticks
            self._reset_timer()

    def tick(self) -> None:
        """A tick of the clock (100 ms in production)."""
        if self.leadership is not None:
            self.leadership.tick()
            return
        self._elapsed += 1
        if self._elapsed >= self._timeout and self.promotable:
            self.campaign()

    def campaign(self) -> None:
        """Try to become leader now. Alone there is nobody to ask first."""
        if self.leadership is None and self.promotable:
            self._campaign(pre=self.log.membership.voters != (self.id,))

    def propose(self, data: bytes) -> int:
        """Append an entry; its index is returned. Raises NotLeader, ProposalDropped."""
        return self._leading().propose(data)

    def propose_membership(self, membership: Membership) -> int:
        """Change the members by one voter at most; the entry's index is returned. Raises NotLeader, ChangeRefused."""
        return self._leading().propose_membership(membership)

    def transfer(self, to: int) -> None:
        """Hand leadership to another voter. Raises NotLeader, ChangeRefused."""
        self._leading().transfer(to)

    def read(self, id_: int) -> None:
        """Ask for a linearizable read under an id that was never used before. Raises NotLeader if none is known."""
        if self.leadership is not None:
            self.leadership.read(Read(self.id, id_))
        elif self.leader != NOBODY:
            self.send(ReadRequest(self.id, self.leader, self.term, id_))
        else:
            raise NotLeader(NOBODY)

    def snapshot_ended(self, member: int, index: int) -> None:
        """The sending of a snapshot to a member ended. `index`: what that stood for if it was received, else 0."""
        if self.leadership is not None:
            self.leadership.snapshot_ended(member, index)

    def install(self, meta: SnapshotMeta) -> bool:
        """A snapshot from the leader is complete and on disk: put it in place of the log. False: it is not needed."""
        if meta.index <= self.log.committed or self.leadership is not None:
            return False
        if self.log.term(meta.index) == meta.term:
            self.log.commit_to(meta.index)  # all of it is here, only not known to be committed
            return False
        self.log.restore(meta)
        self._snapshot = meta
        self._reply_append(self.leader, meta.index)
        return True

    def compact(self, index: int) -> None:
        """Forget entries up to an index that a snapshot on disk stands for."""
        self.log.compact(index)

    def step(self, message: Message) -> None:
        """A message from a member."""
        if message.to != self.id:
            return
        if message.term > self.term:
            if not self._newer_term(message):
                return
        elif message.term < self.term:
            self._older_term(message)
            return
        self._HANDLERS[type(message)](self, message)

    # --- outputs -----------------------------------------------------------------------------------------------------

    def has_ready(self) -> bool:
        """Whether `ready` would tell anything."""
        return bool(
            self._messages
            or self._after_persist
            or self._snapshot
            or self._reads
            or self._snapshots_wanted
            or self._chunks
            or self._snapshot_replies
            or self.log.handed < self.log.last
            or (self.term, self.vote) != self._handed_state
            or self.log.applied < min(self.log.committed, self.log.stable)
        )

    def ready(self) -> Ready:
        """Everything to be done since the last one."""
        self._number += 1
        changed = (self.term, self.vote) != self._handed_state
        entries = self.log.hand_out(self._number)
        hard_state = self.log.hard_state(self.term, self.vote) if changed or entries or self._snapshot else None
        self._handed_state = (self.term, self.vote)
        ready = Ready(
            self._number,
            hard_state,
            entries,
            self._snapshot,
            self._messages,
            self._after_persist,
            self.log.take_committed(MAX_APPLY_BYTES),
            self._reads,
            self._snapshots_wanted,
            self._chunks,
            self._snapshot_replies,
        )
        self._messages, self._after_persist, self._snapshot = [], [], None
        self._reads, self._snapshots_wanted, self._chunks, self._snapshot_replies = [], [], [], []
        return ready

    def advance(self, ready: Ready) -> None:
        """What this Ready wanted written is on disk, and so is that of all before it. Readys come back in order."""
        self.log.written(ready.number)
        if ready.hard_state is not None:
            self._durable_term = ready.hard_state.term
        for message in ready.after_persist:
            if message.to == self.id:
                self.step(message)

    # --- used by the roles -------------------------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Put a message into the right outbox: promises wait for the disk, all else goes at once."""
        if self._promises(message):
            self._after_persist.append(message)
        else:
            self._messages.append(message)
            if len(self._messages) > MAX_UNDELIVERED:
                del self._messages[: MAX_UNDELIVERED // 2]

    def _promises(self, message: Message) -> bool:
        """Whether a message says something that must survive a crash of the sender."""
        if isinstance(message, VoteRequest | VoteReply):
            return not message.pre
        if isinstance(message, HeartbeatReply):
            # It recognises the leader's term, so that must be on disk; a slow write of entries does not hold it up.
            return self.term != self._durable_term
        return isinstance(message, AppendReply)

    def want_snapshot(self, member: int) -> None:
        """A member needs a snapshot; the driver sends it."""
        self._snapshots_wanted.append(member)

    def read_confirmed(self, id_: int, index: int) -> None:
        """An own read may be answered once `index` is applied."""
        self._reads.append((id_, index))

    def become_follower(self, term: int, leader: int) -> None:
        """Follow a leader, or wait for one."""
        if term != self.term:
            self.term, self.vote = term, NOBODY
        self.leader = leader
        self.candidacy = None
        self.leadership = None
        self._reset_timer()

    # --- terms -------------------------------------------------------------------------------------------------------

    def _newer_term(self, message: Message) -> bool:
        """Handle that a message is from a later term; False: ignore the message."""
        if isinstance(message, VoteRequest):
            if not message.transfer and self._hears_leader():
                return False
            if message.pre:
                return True  # a question about that term, not a message from it
        elif isinstance(message, VoteReply) and message.pre and message.granted:
            return True  # "in that term, yes"
        from_leader = isinstance(message, Append | Heartbeat | SnapshotChunk | TimeoutNow | ReadReply)
        self.become_follower(message.term, message.sender if from_leader else NOBODY)
        return True

    def _older_term(self, message: Message) -> None:
        if isinstance(message, Append | Heartbeat | SnapshotChunk):
            # A leader that was deposed, or one whose term this member went past while cut off: tell it the term.
            self.send(AppendReply(self.id, message.sender, self.term, 0))
        elif isinstance(message, VoteRequest) and message.pre:
            self.send(VoteReply(self.id, message.sender, self.term, True, False))

    def _hears_leader(self) -> bool:
        return self.leadership is not None or (self.leader != NOBODY and self._elapsed < self.election_ticks)

    # --- elections ---------------------------------------------------------------------------------------------------

    def _campaign(self, *, pre: bool, transfer: bool = False) -> None:
        self.leader = NOBODY
        self._reset_timer()
        self.candidacy = Candidacy(pre)
        term = self.term + 1
        if not pre:
            self.term, self.vote = term, self.id
        log = self.log
        voters = log.membership.voters
        for voter in voters:
            if voter != self.id:
                self.send(VoteRequest(self.id, voter, term, log.last, log.last_term, pre, transfer))
            elif not pre:
                self.send(VoteReply(self.id, self.id, term, False, True))  # counts once it is on disk
        if pre and self.id in voters:
            self._poll(self.id, True)

    def _poll(self, voter: int, granted: bool) -> None:
        assert self.candidacy is not None
        self.candidacy.votes.setdefault(voter, granted)
        result = tally(self.log.membership.voters, self.candidacy.votes)
        if result is VoteResult.WON:
            if self.candidacy.pre:
                self._campaign(pre=False)
            else:
                self._become_leader()
        elif result is VoteResult.LOST:
            self.become_follower(self.term, NOBODY)

    def _become_leader(self) -> None:
        self.candidacy = None
        self.leader = self.id
        self.leadership = Leadership(self)
        self.leadership.begin()

    def _on_vote_request(self, request: VoteRequest) -> None:
        free = (
            self.vote == request.sender
            or (self.vote == NOBODY and self.leader == NOBODY)
            or (request.pre and request.term > self.term)
        )
        granted = free and self.log.up_to_date(request.last_index, request.last_term)
        # A granted pre-vote speaks of the term asked for, which is not this member's.
        term = request.term if granted else self.term
        self.send(VoteReply(self.id, request.sender, term, request.pre, granted))
        if granted and not request.pre:
            self.vote = request.sender
            self._elapsed = 0

    def _on_vote_reply(self, reply: VoteReply) -> None:
        if self.candidacy is None or self.candidacy.pre != reply.pre:
            return
        if reply.pre and reply.granted and reply.term != self.term + 1:
            return
        self._poll(reply.sender, reply.granted)

    def _on_timeout_now(self, message: TimeoutNow) -> None:
        if self.leadership is None and self.promotable:
            self._campaign(pre=False, transfer=True)

    # --- following ---------------------------------------------------------------------------------------------------

    def _follow(self, leader: int) -> None:
        """A message that only this term's leader can have sent."""
        if self.leadership is not None:
            raise InvariantBroken(f"raft: member {leader:x} leads in term {self.term} and so does this member")
        if self.candidacy is not None or self.leader != leader:
            if self.leader not in (NOBODY, leader):
                raise InvariantBroken(f"raft: members {self.leader:x} and {leader:x} both lead in term {self.term}")
            self.become_follower(self.term, leader)
        self._elapsed = 0

    def _on_append(self, append: Append) -> None:
        self._follow(append.sender)
        log = self.log
        if append.prev_index < log.committed:
            self._reply_append(append.sender, log.committed)
        elif log.term(append.prev_index) == append.prev_term:
            log.merge(append.entries)
            agreed = append.prev_index + len(append.entries)
            log.commit_to(min(append.commit, agreed))
            self._reply_append(append.sender, agreed)
        else:
            hint_index, hint_term = log.agreement(min(append.prev_index, log.last), append.prev_term)
            self.send(AppendReply(self.id, append.sender, self.term, append.prev_index, True, hint_index, hint_term))

    def _on_heartbeat(self, heartbeat: Heartbeat) -> None:
        self._follow(heartbeat.sender)
        self.log.commit_to(heartbeat.commit)
        self.send(HeartbeatReply(self.id, heartbeat.sender, self.term, heartbeat.round))

    def _on_chunk(self, chunk: SnapshotChunk) -> None:
        self._follow(chunk.sender)
        if chunk.meta.index <= self.log.committed:
            self.send(SnapshotReply(self.id, chunk.sender, self.term, chunk.meta.index, 0, True))
            self._reply_append(chunk.sender, self.log.committed)
        else:
            self._chunks.append(chunk)

    def _on_read_reply(self, reply: ReadReply) -> None:
        self._reads.append((reply.id, reply.index))

    def _reply_append(self, to: int, index: int) -> None:
        if to != NOBODY:
            self.send(AppendReply(self.id, to, self.term, index))

    # --- leading -----------------------------------------------------------------------------------------------------

    def _leading(self) -> Leadership:
        if self.leadership is None:
            raise NotLeader(self.leader)
        return self.leadership

    def _on_append_reply(self, reply: AppendReply) -> None:
        if self.leadership is not None:
            self.leadership.on_append_reply(reply)

    def _on_heartbeat_reply(self, reply: HeartbeatReply) -> None:
        if self.leadership is not None:
            self.leadership.on_heartbeat_reply(reply)

    def _on_read_request(self, request: ReadRequest) -> None:
        if self.leadership is not None:
            self.leadership.on_read_request(request)

    def _on_snapshot_reply(self, reply: SnapshotReply) -> None:
        if self.leadership is not None:
            self.leadership.heard(reply.sender)
            self._snapshot_replies.append(reply)

    def _reset_timer(self) -> None:
        self._elapsed = 0
        self._timeout = self.election_ticks + self._rng.randrange(self.election_ticks)

    _HANDLERS: dict[type[Any], Callable[[Core, Any], None]] = {
        VoteRequest: _on_vote_request,
        VoteReply: _on_vote_reply,
        TimeoutNow: _on_timeout_now,
        Append: _on_append,
        AppendReply: _on_append_reply,
        Heartbeat: _on_heartbeat,
        HeartbeatReply: _on_heartbeat_reply,
        ReadRequest: _on_read_request,
        ReadReply: _on_read_reply,
        SnapshotChunk: _on_chunk,
        SnapshotReply: _on_snapshot_reply,
    }
