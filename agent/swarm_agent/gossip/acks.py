"""Acknowledgement: which members have applied which version of our rows to their kernel and DNS.

A host that has applied what it saw calls mark_applied; its version goes straight to each owner it concerns, one small
packet. That packet may be lost, so nothing depends on it: an owner that waits asks those it has not heard from,
directly and, from the third time on, through another member too. The question names the version, so a host that lacks
rows starts their repair at once. Cost grows with the number of hosts per change, not with its square as spreading
acknowledgements to all would.
"""

from __future__ import annotations

from . import messages as m
from .kernel import Kernel
from .tables import Log
from .timers import Timer
from .types import AckChanged, Address, Version

MAX_ASKED = 64  # members asked per turn


class Acks:
    def __init__(self, kernel: Kernel, own: Log) -> None:
        self.kernel = kernel
        self._own = own
        self._acked: dict[str, int] = {}  # member: sequence of ours it has applied, for our present epoch
        self._applied: dict[str, Version] = {}  # owner: what this host has applied
        self._waits: dict[int, int] = {}
        self._next_wait = 0
        self._turns = 0
        self._timer: Timer | None = None

    # -- as owner

    def missing(self, sequence: int) -> set[str]:
        """Live members that have not applied this change of ours."""
        return {peer.id for peer in self.kernel.members.live() if self._acked.get(peer.id, 0) < sequence}

    def acked(self) -> dict[str, int]:
        return dict(self._acked)

    def wait(self, sequence: int) -> int:
        """Start asking for it; returns a handle for end_wait."""
        self._next_wait += 1
        self._waits[self._next_wait] = sequence
        if self._timer is None:
            self._turns = 0
            self._timer = self.kernel.timers.after(self.kernel.config.ask_interval, self._ask)
        return self._next_wait

    def end_wait(self, handle: int) -> None:
        self._waits.pop(handle, None)

    def _ask(self) -> None:
        kernel = self.kernel
        self._timer = None
        if not self._waits:
            return
        wanted = max(self._waits.values())
        late = sorted(self.missing(wanted))
        if len(late) > MAX_ASKED:
            late = kernel.rng.sample(late, MAX_ASKED)
        self._turns += 1
        for id in late:
            peer = kernel.members.get(id)
            if peer is None:
                continue
            question = m.AskApplied(id, self._own.owner, self._own.epoch, wanted)
            kernel.tell(peer, question)
            if self._turns >= 3:
                for helper in kernel.members.pick(1, {id}):
                    kernel.tell(helper, question)
        self._timer = kernel.timers.after(kernel.config.ask_interval, self._ask)

    def on_applied(self, ack: m.Applied, sender: str) -> None:
        """An acknowledgement, ours or to be passed on: once, so that wrong addresses cannot make it run in circles."""
        kernel = self.kernel
        if ack.owner != self._own.owner:
            owner = kernel.members.get(ack.owner)
            if owner is not None and owner.live and sender == ack.node:
                kernel.tell(owner, ack)
            return
        if ack.epoch != self._own.epoch or ack.seq > self._own.watermark or kernel.members.get(ack.node) is None:
            return
        if ack.seq > self._acked.get(ack.node, 0):
            self._acked[ack.node] = ack.seq
            kernel.effects.append(AckChanged())

    def forget_peer(self, id: str) -> None:
        """Another process runs there now: what its host has applied is unknown."""
        self._acked.pop(id, None)

    def members_changed(self) -> None:
        if self._waits:
            self.kernel.effects.append(AckChanged())

    def reset(self) -> None:
        self._acked.clear()

    # -- as one who applies

    def applied(self, owner: str) -> Version | None:
        return self._applied.get(owner)

    def mark(self, versions: dict[str, Version]) -> None:
        """This host has applied these versions: tell the owners of those that moved."""
        kernel = self.kernel
        for owner, version in versions.items():
            old = self._applied.get(owner)
            if version.sequence == 0 or (old is not None and old >= version):
                continue
            self._applied[owner] = version
            peer = kernel.members.get(owner)
            if peer is not None and peer.live:
                kernel.tell(peer, m.Applied(kernel.me.id, owner, *version))

    def on_ask(self, question: m.AskApplied, sender: str, back: Address) -> bool:
        """True when the question was ours to answer; else it is passed on, once only."""
        kernel = self.kernel
        if question.target != kernel.me.id:
            target = kernel.members.get(question.target)
            if target is not None and target.live and sender == question.owner:
                kernel.tell(target, question)
            return False
        done = self._applied.get(question.owner)
        if done is not None and done >= (question.epoch, question.seq):
            kernel.send(back, m.Applied(kernel.me.id, question.owner, *done))
        return True

    def forget_owner(self, id: str) -> None:
        self._applied.pop(id, None)
        self._acked.pop(id, None)
