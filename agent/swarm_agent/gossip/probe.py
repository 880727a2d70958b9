"""Failure detection: one round per interval against one member, in shuffled order (SWIM §4.3, Lifeguard §IV-A).

    0 ──────────── timeout ───────────────────── interval
    ping           relays ping it, and we by TCP  no answer by any way: suspected
                   (a relay says so when it too gets none: a nack)

All times stretch with our health score. Missing nacks count against ourselves: if even the relays are silent, it is
probably us. An answer by TCP only means that UDP is broken on the way: noted, not punished. Asking the target's
process for an answer, not its kernel, is what finds a frozen host whose TCP connections look alive.
"""

from __future__ import annotations

from collections.abc import Callable

from . import messages as m
from .kernel import Kernel
from .members import Peer
from .timers import Timer
from .types import Address, State, StreamKind

MAX_SKIPS = 8  # members passed over in one round


class Round:
    """One question to one member. `verdict`: whether silence leads to a suspicion (else it is a mere call)."""

    __slots__ = ("nacks", "relays", "target", "timer", "verdict")

    def __init__(self, target: Peer, verdict: bool) -> None:
        self.target = target
        self.verdict = verdict
        self.relays = 0
        self.nacks = 0
        self.timer: Timer | None = None


class Relay:
    """A ping made for somebody else."""

    __slots__ = ("asker", "seq", "timer")

    def __init__(self, asker: Address, seq: int) -> None:
        self.asker = asker
        self.seq = seq
        self.timer: Timer | None = None


class Prober:
    def __init__(self, kernel: Kernel, on_failed: Callable[[Peer], None]) -> None:
        self.kernel = kernel
        self._on_failed = on_failed
        self._rounds: dict[int, Round] = {}
        self._relays: dict[int, Relay] = {}
        self._urgent: list[str] = []

    def start(self) -> None:
        # Nodes started together should not probe in step.
        self.kernel.timers.after(self.kernel.rng.random() * self.kernel.config.probe_interval, self._next)

    def prefer(self, peer: Peer) -> None:
        """Probe this one next: about five of all who hear of a suspicion do, to confirm it or to carry it to its
        subject.
        """
        chance = 5 / max(1, self.kernel.members.live_count)
        if len(self._urgent) < 3 and peer.id not in self._urgent and self.kernel.rng.random() < chance:
            self._urgent.append(peer.id)

    def _next(self) -> None:
        kernel = self.kernel
        if kernel.leaving:
            return
        target = None
        while self._urgent and target is None:
            urgent = kernel.members.get(self._urgent.pop(0))
            if urgent is not None and urgent.live:
                target = urgent
        target = target or self._next_due()
        if target is not None:
            self._begin(target)
        kernel.timers.after(kernel.awareness.scale(kernel.config.probe_interval), self._next)

    def _next_due(self) -> Peer | None:
        """The next in turn of whom we do not know already that it lives, as it has just spoken to us. A node that has
        reason to doubt itself asks all the same: the answers tell it that it is well.
        """
        kernel = self.kernel
        others = kernel.members.live_count - 1
        recent = kernel.config.skip_heard * min(2, others) * kernel.config.probe_interval
        if kernel.awareness.score:
            recent = 0.0
        for _ in range(min(others, MAX_SKIPS)):
            target = kernel.members.next_target()
            if target is None or target.state != State.ALIVE or kernel.timers.now - target.heard >= recent:
                return target
        return None

    def _begin(self, target: Peer) -> None:
        kernel = self.kernel
        seq = kernel.next_seq()
        round = self._rounds[seq] = Round(target, True)
        kernel.counters["probes"] += 1
        self._ping(target, seq)
        round.timer = kernel.timers.after(
            kernel.awareness.scale(kernel.config.probe_timeout), self._indirect, seq, round
        )

    def _ping(self, target: Peer, seq: int) -> None:
        ping = m.Ping(seq, target.id)
        if target.suspicion is not None or not target.live:
            # Buddy rule: whoever is accused hears it with the question.
            accusation: m.Message
            if target.live:
                accusation = m.Suspect(target.id, target.incarnation, "")
            else:
                accusation = m.Dead(target.id, target.incarnation, "")
            self.kernel.tell(target, ping, accusation)
        else:
            self.kernel.tell(target, ping)

    def _indirect(self, seq: int, round: Round) -> None:
        kernel = self.kernel
        config = kernel.config
        target = round.target
        kernel.counters["probes_indirect"] += 1
        helpers = kernel.members.pick(config.indirect_checks, {target.id})
        round.relays = len(helpers)
        for helper in helpers:
            kernel.tell(helper, m.PingReq(seq, target.id, target.host, target.port))
        kernel.open_stream(StreamKind.PING, target.address, target.id, [m.Ping(seq, target.id)], seq)
        rest = kernel.awareness.scale(config.probe_interval - config.probe_timeout)
        round.timer = kernel.timers.after(rest, self._end, seq, round)

    def _end(self, seq: int, round: Round) -> None:
        kernel = self.kernel
        del self._rounds[seq]
        if not round.verdict:
            return
        kernel.counters["probes_failed"] += 1
        kernel.awareness.add(max(0, round.relays - round.nacks) if round.relays else 1)
        if round.target.live:
            self._on_failed(round.target)

    def call(self, peer: Peer, stream: bool) -> None:
        """Ask a suspect or dead member directly; whatever it answers counts as hearing it."""
        kernel = self.kernel
        seq = kernel.next_seq()
        round = self._rounds[seq] = Round(peer, False)
        self._ping(peer, seq)
        if stream:
            kernel.open_stream(StreamKind.PING, peer.address, peer.id, [m.Ping(seq, peer.id)], seq)
        round.timer = kernel.timers.after(kernel.awareness.scale(kernel.config.probe_interval), self._end, seq, round)

    # -- answers

    def ack(self, seq: int, sender: str, stream: bool = False) -> None:
        kernel = self.kernel
        relay = self._relays.pop(seq, None)
        if relay is not None:
            if relay.timer is not None:
                relay.timer.cancel()
            kernel.send(relay.asker, m.Ack(relay.seq))
            return
        round = self._rounds.pop(seq, None)
        if round is None:
            return
        if round.timer is not None:
            round.timer.cancel()
        if sender == round.target.id:
            round.target.heard = kernel.timers.now
        if round.verdict:
            kernel.awareness.add(-1)
            if stream:
                kernel.counters["probes_tcp_only"] += 1

    def nack(self, seq: int) -> None:
        round = self._rounds.get(seq)
        if round is not None and round.nacks < round.relays:
            round.nacks += 1

    # -- being a relay

    def relay(self, request: m.PingReq, asker: Address) -> None:
        kernel = self.kernel
        if len(self._relays) >= kernel.config.relays_limit:
            kernel.counters["relays_refused"] += 1
            return
        seq = kernel.next_seq()
        relay = self._relays[seq] = Relay(asker, request.seq)
        kernel.send((request.host, request.port), m.Ping(seq, request.target))
        relay.timer = kernel.timers.after(kernel.config.probe_timeout * 0.8, self._silent, seq, relay)

    def _silent(self, seq: int, relay: Relay) -> None:
        self.kernel.send(relay.asker, m.Nack(relay.seq))
        relay.timer = self.kernel.timers.after(self.kernel.config.probe_interval * 2, self._forget, seq)

    def _forget(self, seq: int) -> None:
        self._relays.pop(seq, None)
