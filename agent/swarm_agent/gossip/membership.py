"""Who is alive: the rules of SWIM's facts with Lifeguard's suspicion, as verbs.

    alive    needs a higher incarnation than any admitted evidence → ALIVE
    suspect  needs at least that incarnation → SUSPECT with a deadline; more accusers shorten it
    dead     needs at least that incarnation → DEAD; said by its subject itself → LEFT

Only the member itself raises its incarnation, to refute. What this adds to the papers, each from a bug that others had:

- The stored incarnation is monotone over all admitted evidence, so an old `alive` cannot raise the dead.
- A suspicion at a higher incarnation is a new one with a new deadline: its subject has refuted in between.
- Whoever speaks while we hold a worse fact of it (accused, dead, or a higher incarnation) is told that fact at once
  and can refute.
- Accused below our incarnation, we announce the current one again: our refutation was lost somewhere.
- A death told by anti-entropy, or of somebody we heard just now, is taken as a suspicion only.
- A member that was wrongly accused lately is given more time (flap damping).
- A member that stops now and then says for how long, and gets that time.
- Before we declare a death we ask the subject once more ourselves, by UDP and TCP; any word from it since the
  suspicion began starts the suspicion anew.
"""

from __future__ import annotations

from collections.abc import Callable

from . import messages as m
from .kernel import Kernel
from .members import Peer
from .spread import Rank
from .suspicion import Suspicion, allowance, minimum
from .timers import Timer
from .types import Address, MemberChanged, State

TELL_GAP = 0.1  # seconds between corrections of one peer


class Membership:
    """Applies facts to kernel.members and spreads them. Hooks are set by Core."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.on_visibility: Callable[[str], None] = lambda id: None  # a member became live or ceased to be
        self.on_process: Callable[[str, int], None] = lambda id, epoch: None  # (another) process of a member
        self.on_own_epoch: Callable[[int], None] = lambda epoch: None  # somebody remembers a later process of ours
        self.on_unknown: Callable[[str], None] = lambda sender: None  # sender knows somebody that we do not
        self.on_last_check: Callable[[Peer], None] = lambda peer: None  # ask the suspect directly, now
        self.on_suspect: Callable[[Peer], None] = lambda peer: None  # a suspicion began
        self.on_death: Callable[[], None] = lambda: None  # a dead member is known now
        self._announced = -1e9
        self._stall_over: Timer | None = None

    # -- facts

    def alive(self, fact: m.Alive, sender: str = "") -> None:
        kernel = self.kernel
        if fact.id == kernel.me.id:
            self._alive_self(fact)
            return
        peer = kernel.members.get(fact.id)
        if peer is None:
            peer = self._new_peer(fact)
            kernel.members.add(peer)
            self._spread(fact)
            self.on_process(peer.id, peer.epoch)
            self._changed(peer, None)
            return
        moved = False
        if fact.incarnation > peer.incarnation:
            old = peer.state
            if fact.epoch == peer.epoch:
                self._note_flap(peer)
            moved = self._take_info(peer, fact)
            self._end_suspicion(peer)
            kernel.queue.cancel_group(peer.id)
            kernel.members.set_state(peer, State.ALIVE, kernel.timers.now)
            self._spread(fact)
            if old != State.ALIVE or moved:
                self._changed(peer, old)
            else:
                self.on_visibility(peer.id)
        elif fact.incarnation == peer.incarnation and (fact.incarnation, fact.epoch) > (peer.info, peer.epoch):
            # An accusation brought this incarnation before its owner's word did, or a process whose clock is behind
            # uses it again: address, epoch and meta still count, the state does not.
            moved = self._take_info(peer, fact)
            if peer.suspicion is not None:
                self._lengthen(peer, peer.suspicion)
            self._spread(fact)
            self._changed(peer, peer.state)

    def suspect(self, id: str, incarnation: int, by: str, sender: str = "") -> None:
        kernel = self.kernel
        now = kernel.timers.now
        if id == kernel.me.id:
            self._accused(incarnation)
            return
        peer = kernel.members.get(id)
        if peer is None:
            self.on_unknown(sender)
            return
        if incarnation < peer.incarnation:
            return
        if not peer.live:
            peer.incarnation = incarnation
            return
        if peer.suspicion is not None and incarnation == peer.incarnation:
            if peer.suspicion.confirm(by):
                self._schedule(peer)
                self._spread(m.Suspect(id, incarnation, by))
            return
        old = peer.state
        peer.incarnation = incarnation
        size = kernel.members.live_count
        low = minimum(kernel.config, size)
        low *= (1 + kernel.awareness.score / 2) * (1 + peer.flapping(now, kernel.config.flap_memory))
        wanted = kernel.config.confirmations if size - 2 >= kernel.config.confirmations else 0
        self._end_suspicion(peer)
        high = low * kernel.config.suspicion_max_mult
        low = max(low, self._patience(peer))
        peer.suspicion = Suspicion(now, low, max(low, high), wanted, by)
        kernel.members.set_state(peer, State.SUSPECT, now)
        kernel.counters["suspicions"] += 1
        self._schedule(peer)
        self._spread(m.Suspect(id, incarnation, by))
        if old != State.SUSPECT:
            self._changed(peer, old)
        self.on_suspect(peer)

    def dead(self, id: str, incarnation: int, by: str, sender: str = "", hearsay: bool = False) -> None:
        """`hearsay`: told by anti-entropy."""
        kernel = self.kernel
        if id == kernel.me.id:
            if by != id:
                self._accused(incarnation)
            elif not kernel.leaving:
                self._accused(incarnation)  # the farewell of an earlier process of ours
            return
        peer = kernel.members.get(id)
        if peer is None:
            if by != id:
                self.on_unknown(sender)
            return
        if incarnation < peer.incarnation:
            return
        if by == id:
            if peer.state != State.LEFT:
                self._bury(peer, incarnation, State.LEFT, by)
            peer.incarnation = incarnation
        elif not peer.live:
            peer.incarnation = incarnation
        elif hearsay or kernel.timers.now - peer.heard < kernel.config.contradiction:
            kernel.counters["deaths_doubted"] += not hearsay
            self.suspect(id, incarnation, "" if hearsay else by, sender)
        else:
            self._bury(peer, incarnation, State.DEAD, by)

    def learn_dead(self, fact: m.Alive, incarnation: int, state: State) -> None:
        """Anti-entropy tells of a member that we never knew and that is gone: remember it, say nothing."""
        kernel = self.kernel
        if fact.id == kernel.me.id or kernel.members.get(fact.id) is not None:
            return
        peer = self._new_peer(fact)
        peer.incarnation = max(incarnation, fact.incarnation)
        peer.state = state
        kernel.members.add(peer)
        if state == State.DEAD:
            self.on_death()
        kernel.effects.append(MemberChanged(peer.public(), None))

    # -- what we hear of ourselves

    def announce(self) -> None:
        """Spread our own alive."""
        self.kernel.update_own_digest()
        self._spread(self.kernel.me.alive())

    def _alive_self(self, fact: m.Alive) -> None:
        me = self.kernel.me
        if self.kernel.leaving:
            return
        if fact.epoch > me.epoch:
            me.incarnation = max(me.incarnation, fact.incarnation)
            self.on_own_epoch(fact.epoch + 1)
        same = (fact.host, fact.port, fact.meta) == (me.host, me.port, me.meta)
        if fact.incarnation > me.incarnation or (fact.incarnation == me.incarnation and not same):
            if not same:
                self.kernel.counters["identity_conflicts"] += 1
                self.kernel.notice(
                    f"{fact.host}:{fact.port} is known as node {me.id}, which is this node at {me.host}:{me.port}; "
                    "if this message repeats, two hosts run with the same node id"
                )
            self._refute(fact.incarnation)

    def _accused(self, incarnation: int) -> None:
        if self.kernel.leaving:
            return
        if incarnation >= self.kernel.me.incarnation:
            self._refute(incarnation)
        elif self.kernel.timers.now - self._announced > TELL_GAP:
            self._announced = self.kernel.timers.now
            self._spread(self.kernel.me.alive())

    def _refute(self, incarnation: int) -> None:
        kernel = self.kernel
        kernel.me.incarnation = max(kernel.me.incarnation, incarnation) + 1
        kernel.awareness.add(1)
        kernel.counters["refutations"] += 1
        self._announced = kernel.timers.now
        self.announce()

    def set_meta(self, meta: bytes) -> None:
        me = self.kernel.me
        me.meta = meta
        me.incarnation += 1
        self.announce()

    def stalled(self, seconds: float) -> None:
        """This process did not run for that long: tell the others, so that they wait that long the next time."""
        kernel, config = self.kernel, self.kernel.config
        if not config.stall_min <= seconds <= config.stall_max or kernel.leaving:
            return
        if self._stall_over is not None:
            self._stall_over.cancel()
        self._stall_over = kernel.timers.after(config.stall_memory, self._runs_well)
        if seconds * 10 > kernel.me.stall * 1.1:
            self._set_stall(round(seconds * 10))

    def _runs_well(self) -> None:
        if not self.kernel.leaving:
            self._set_stall(0)

    def _set_stall(self, tenths: int) -> None:
        me = self.kernel.me
        me.stall = tenths
        me.incarnation += 1
        self.announce()

    def leave(self) -> None:
        kernel = self.kernel
        kernel.leaving = True
        kernel.queue.cancel_group(kernel.me.id)
        self._spread(m.Dead(kernel.me.id, kernel.me.incarnation, kernel.me.id))

    # -- hearing somebody

    def heard(self, header: m.Header, address: Address | None) -> Peer | None:
        """A packet of that sender arrived: correct it, or ask it, when its word and our knowledge differ."""
        kernel = self.kernel
        now = kernel.timers.now
        peer = kernel.members.get(header.sender)
        if peer is None:
            if address is not None and not kernel.leaving:
                kernel.send(address, m.Who())
            return None
        peer.heard = now
        if now - peer.told < TELL_GAP or kernel.leaving:
            return peer
        to = address or peer.address
        if (header.incarnation, header.epoch) > (peer.info, peer.epoch) and header.incarnation >= peer.incarnation:
            peer.told = now
            kernel.send(to, m.Who())
        elif header.epoch < peer.epoch:
            peer.told = now
            kernel.send(to, self.info(peer))
        elif header.incarnation < peer.incarnation or peer.state in (State.SUSPECT, State.DEAD):
            peer.told = now
            kernel.send(to, self.fact(peer))
        return peer

    def fact(self, peer: Peer) -> m.Message:
        """The strongest thing we know of that member."""
        if peer.state == State.SUSPECT:
            return m.Suspect(peer.id, peer.incarnation, "")
        if peer.state == State.DEAD:
            return m.Dead(peer.id, peer.incarnation, "")
        if peer.state == State.LEFT:
            return m.Dead(peer.id, peer.incarnation, peer.id)
        return self.info(peer)

    @staticmethod
    def info(peer: Peer) -> m.Alive:
        return m.Alive(peer.id, peer.info, peer.host, peer.port, peer.epoch, peer.meta, peer.stall)

    # -- suspicion

    def _schedule(self, peer: Peer) -> None:
        """(Re)start the clock of this suspicion: the last check, then the verdict."""
        kernel = self.kernel
        suspicion = peer.suspicion
        assert suspicion is not None
        if peer.timer is not None:
            peer.timer.cancel()
        deadline = suspicion.deadline
        if kernel.me.id not in suspicion.accusers and kernel.members.live_count > 3:
            # Not our accusation: its makers go first, and all of a large group need not check at the same moment.
            deadline += kernel.config.probe_interval * (1 + kernel.rng.random())
        if suspicion.asked:
            peer.timer = kernel.timers.at(deadline, self._verdict, peer, suspicion)
        else:
            check = max(kernel.timers.now, deadline - kernel.awareness.scale(kernel.config.probe_timeout))
            peer.timer = kernel.timers.at(check, self._last_check, peer, suspicion)

    def accepted(self, peer: Peer) -> None:
        """Its host took a TCP connection: it has power, whatever its process does."""
        peer.accepted = self.kernel.timers.now
        if peer.suspicion is not None:
            self._lengthen(peer, peer.suspicion)

    def refused(self, peer: Peer) -> None:
        """Its host refused a TCP connection: it has power, and its agent does not run."""
        peer.away = self.kernel.timers.now
        if peer.suspicion is not None:
            self._lengthen(peer, peer.suspicion)

    def _patience(self, peer: Peer) -> float:
        """Shortest suspicion of this member for what is known of its stops, in seconds."""
        kernel = self.kernel
        low = allowance(peer.stall / 10)
        lately = kernel.timers.now - kernel.awareness.scale(kernel.config.probe_interval)
        if peer.accepted >= lately:
            low = max(low, kernel.config.suspicion_standing)
        if peer.away >= lately:
            low = max(low, kernel.config.suspicion_away)
        return low

    def _lengthen(self, peer: Peer, suspicion: Suspicion) -> None:
        """Only now we learn that this member may be silent for long: the suspicion began too short."""
        low = self._patience(peer)
        if low > suspicion.low:
            suspicion.low = low
            suspicion.high = max(suspicion.high, low)
            suspicion.asked = False
            self._schedule(peer)

    def _last_check(self, peer: Peer, suspicion: Suspicion) -> None:
        kernel = self.kernel
        if peer.suspicion is not suspicion:
            return
        if peer.heard > suspicion.start:
            self._renew(peer, suspicion)
            return
        suspicion.asked = True
        self.on_last_check(peer)
        wait = max(suspicion.deadline - kernel.timers.now, kernel.awareness.scale(kernel.config.probe_timeout))
        peer.timer = kernel.timers.after(wait, self._verdict, peer, suspicion)

    def _verdict(self, peer: Peer, suspicion: Suspicion) -> None:
        if peer.suspicion is not suspicion:
            return
        if peer.heard > suspicion.start:
            self._renew(peer, suspicion)
        else:
            self._bury(peer, peer.incarnation, State.DEAD, self.kernel.me.id)

    def _renew(self, peer: Peer, suspicion: Suspicion) -> None:
        """It spoke to us, so it lives, but its refutation did not come: tell it again and wait again."""
        kernel = self.kernel
        kernel.counters["deaths_averted"] += 1
        suspicion.start = kernel.timers.now
        suspicion.asked = False
        suspicion.accusers &= {kernel.me.id}
        kernel.tell(peer, self.fact(peer))
        self._schedule(peer)

    def _note_flap(self, peer: Peer) -> None:
        """The same process refutes: was it declared dead, or close to it?"""
        config = self.kernel.config
        now = self.kernel.timers.now
        if peer.state is State.DEAD:
            peer.flap(1.0, now, config.flap_max, config.flap_memory)
        elif peer.suspicion is not None and now - peer.suspicion.start > peer.suspicion.low / 2:
            peer.flap(0.5, now, config.flap_max, config.flap_memory)

    def _end_suspicion(self, peer: Peer) -> None:
        peer.suspicion = None
        if peer.timer is not None:
            peer.timer.cancel()
            peer.timer = None

    # -- inner

    def _new_peer(self, fact: m.Alive) -> Peer:
        peer = Peer(fact.id, fact.host, fact.port, fact.incarnation, fact.epoch, fact.meta, self.kernel.timers.now)
        peer.stall = fact.stall
        return peer

    def _bury(self, peer: Peer, incarnation: int, state: State, by: str) -> None:
        kernel = self.kernel
        peer.incarnation = incarnation
        self._end_suspicion(peer)
        old = kernel.members.set_state(peer, state, kernel.timers.now)
        kernel.queue.cancel_group(peer.id)
        self._spread(m.Dead(peer.id, incarnation, by))
        if state == State.DEAD:
            kernel.counters["deaths"] += 1
            self.on_death()
            kernel.tell(peer, m.Dead(peer.id, incarnation, by))  # should it live, it can say so at once
        self._changed(peer, old)

    def _take_info(self, peer: Peer, fact: m.Alive) -> bool:
        before = (peer.host, peer.port, peer.meta, peer.epoch)
        epoch = peer.epoch
        peer.host, peer.port, peer.meta, peer.stall = fact.host, fact.port, fact.meta, fact.stall
        peer.epoch = max(peer.epoch, fact.epoch)
        peer.info = peer.incarnation = fact.incarnation
        if peer.epoch > epoch:
            self.on_process(peer.id, peer.epoch)
        return before != (peer.host, peer.port, peer.meta, peer.epoch)

    def _spread(self, fact: m.Alive | m.Suspect | m.Dead) -> None:
        kind: tuple[str, ...]
        if isinstance(fact, m.Suspect):
            kind = ("suspect", fact.id, fact.by)
        else:
            kind = ("state", fact.id)
        self.kernel.broadcast(kind, fact.id, Rank.MEMBERSHIP, fact)

    def _changed(self, peer: Peer, old: State | None) -> None:
        self.on_visibility(peer.id)
        self.kernel.effects.append(MemberChanged(peer.public(), old))
