"""Anti-entropy: two nodes tell each other in short what they know, then exchange exactly what one of them lacks.

    A → B   Sync(all entries of A)
    B → A   facts and rows that A lacks; Want(entries in which A is ahead)
    A → B   facts and rows for those

An entry is (member, incarnation, incarnation of its address, state, version of its rows), so the exchange carries
every kind of fact, the preconditions first: a member before its rows. It runs over TCP, on join, whenever the digest
in a peer's packets has differed from ours for a while during which we learnt nothing new, and each sync_interval as a
backstop.

A death told here is hearsay and becomes a suspicion at most; that is what lets the two halves of a healed split find
together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from . import messages as m
from .kernel import Kernel
from .members import Peer
from .membership import Membership
from .rows import Rows
from .tables import Log
from .types import Address, OpenStream, State, StreamKind


class AntiEntropy:
    def __init__(self, kernel: Kernel, membership: Membership, rows: Rows) -> None:
        self.kernel = kernel
        self.membership = membership
        self.rows = rows
        self.on_done: Callable[[Address, bool], None] = lambda to, ok: None
        self._differs: dict[str, tuple[int, float]] = {}  # peer: (our digest, since when it differs)
        self._running = 0
        self._last = kernel.timers.now - kernel.config.sync_gap

    def start(self) -> None:
        config = self.kernel.config
        self.kernel.timers.after(config.sync_interval * (0.5 + self.kernel.rng.random() / 2), self._periodic)

    # -- when

    def note_digest(self, peer: Peer, digest: int) -> None:
        """A packet of that live peer carried this digest."""
        kernel = self.kernel
        own = kernel.digest.value
        if digest == own:
            self._differs.pop(peer.id, None)
            return
        now = kernel.timers.now
        seen = self._differs.get(peer.id)
        if seen is None or seen[0] != own:
            self._differs[peer.id] = (own, now)
        elif now - seen[1] >= kernel.config.sync_patience and self._free():
            del self._differs[peer.id]
            kernel.counters["digest_syncs"] += 1
            self.begin(peer.address, peer.id)

    def unknown(self, sender: str) -> None:
        """The sender speaks of a member that we do not know."""
        peer = self.kernel.members.get(sender)
        if peer is not None and peer.live and self._free():
            self.begin(peer.address, peer.id)

    def _free(self) -> bool:
        return self._running == 0 and self.kernel.timers.now - self._last >= self.kernel.config.sync_gap

    def _periodic(self) -> None:
        kernel = self.kernel
        if kernel.leaving:
            return
        for peer in kernel.members.pick(1):
            self.begin(peer.address, peer.id)
        scale = 1 + max(0, math.ceil(math.log2(kernel.members.live_count) - 5))
        kernel.timers.after(kernel.config.sync_interval * scale, self._periodic)

    def begin(self, to: Address, peer: str = "") -> None:
        self._running += 1
        self._last = self.kernel.timers.now
        self.kernel.open_stream(StreamKind.SYNC, to, peer, self.opening())

    # -- the exchange

    def opening(self) -> list[m.Message]:
        return [self.kernel.me.alive(), m.Sync(tuple(self._entries()))]

    def answer(self, sync: m.Sync) -> list[m.Message]:
        """As the one asked: the news for the asker, then what we want of it."""
        theirs = {entry.id: entry for entry in sync.entries}
        news, more = self._news(theirs, None)
        wants = tuple(entry for entry in self._entries() if self._ahead(theirs.get(entry.id), entry))
        known = {entry.id for entry in wants}
        unknown = tuple(
            m.SyncEntry(entry.id, 0, 0, 0, 0, 0)
            for entry in sync.entries
            if entry.id not in known and not self._known(entry.id) and entry.state != State.LEFT
        )
        return [*news, m.Want(wants + unknown, more)]

    def closing(self, want: m.Want) -> list[m.Message]:
        """As the one who began: what the other wants."""
        asked = {entry.id: entry for entry in want.entries}
        news, _ = self._news(asked, asked)
        return news

    def ended(self, request: OpenStream, ok: bool, more: bool) -> None:
        self._running = max(0, self._running - 1)
        if not ok:
            self.kernel.counters["syncs_failed"] += 1
        elif more:
            self.begin(request.to, request.peer)
        self.on_done(request.to, ok)

    # -- what

    def _known(self, id: str) -> bool:
        return id == self.kernel.me.id or id in self.kernel.members

    def _entry(self, peer: Peer) -> m.SyncEntry:
        log = self.rows.log(peer.id)
        epoch, sequence = log.version if log is not None else (peer.epoch, 0)
        return m.SyncEntry(peer.id, peer.incarnation, peer.info, int(peer.state), epoch, sequence)

    def _entries(self) -> list[m.SyncEntry]:
        me = self.kernel.me
        own = m.SyncEntry(me.id, me.incarnation, me.incarnation, int(State.ALIVE), me.epoch, self.rows.own.watermark)
        return [own, *(self._entry(peer) for peer in self.kernel.members)][: m.MAX_ENTRIES]

    @staticmethod
    def _ahead(theirs: m.SyncEntry | None, ours: m.SyncEntry) -> bool:
        """They know something of this member that we do not."""
        if theirs is None:
            return False
        return (
            (theirs.incarnation, theirs.state) > (ours.incarnation, ours.state)
            or theirs.info > ours.info
            or (theirs.epoch, theirs.seq) > (ours.epoch, ours.seq)
        )

    def _news(
        self, theirs: dict[str, m.SyncEntry], only: dict[str, m.SyncEntry] | None
    ) -> tuple[list[m.Message], bool]:
        """Facts, then rows, that one with these entries lacks; whether rows were left out for size."""
        facts: list[m.Message] = []
        rows: list[m.Message] = []
        left = self.kernel.config.sync_bytes
        more = False
        me = self.kernel.me
        for peer in self._subjects(only):
            entry = theirs.get(me.id if peer is None else peer.id)
            log: Log | None
            if peer is None:
                if entry is None or entry.info < me.incarnation:
                    facts.append(me.alive())
                log = self.rows.own
            else:
                facts.extend(self._facts(peer, entry))
                log = self.rows.log(peer.id) if peer.state != State.LEFT else None
            epoch, sequence = (entry.epoch, entry.seq) if entry is not None else (0, 0)
            if log is not None and log.watermark > 0 and log.version > (epoch, sequence):
                if left <= 0:
                    more = True
                    continue
                rows.append(log.delta_since(epoch, sequence))
                left -= log.size
        return [*facts, *rows], more

    def _subjects(self, only: dict[str, m.SyncEntry] | None) -> Iterator[Peer | None]:
        """Whom to speak of; None is this node."""
        members, me = self.kernel.members, self.kernel.me.id
        if only is None:
            yield None
            yield from members
            return
        for id in only:
            if id == me:
                yield None
            elif (peer := members.get(id)) is not None:
                yield peer

    def _facts(self, peer: Peer, entry: m.SyncEntry | None) -> list[m.Message]:
        if entry is None and peer.state == State.LEFT:
            return []
        facts: list[m.Message] = []
        if entry is None or entry.info < peer.info:
            facts.append(self.membership.info(peer))
        known = (entry.incarnation, entry.state) if entry is not None else (-1, 0)
        if peer.state != State.ALIVE and (peer.incarnation, int(peer.state)) > known:
            facts.append(self.membership.fact(peer))
        return facts

    def merge(self, messages: list[m.Message], sender: str) -> None:
        """Take in what the other side sent."""
        ends = {f.id: f for f in messages if isinstance(f, m.Dead)}
        for message in messages:
            if isinstance(message, m.Alive):
                end = ends.get(message.id)
                if end is not None and end.incarnation >= message.incarnation and not self._known(message.id):
                    state = State.LEFT if end.by == end.id else State.DEAD
                    self.membership.learn_dead(message, end.incarnation, state)
                else:
                    self.membership.alive(message, sender)
            elif isinstance(message, m.Suspect):
                self.membership.suspect(message.id, message.incarnation, "", sender)
            elif isinstance(message, m.Dead):
                self.membership.dead(message.id, message.incarnation, message.by, sender, hearsay=True)
            elif isinstance(message, m.Delta):
                self.rows.on_delta(message)
