"""One gossip node without I/O: datagrams, stream messages, time and commands in; effects out.

The caller passes the time with each call and does what `take()` returns (types.Effect). Between calls it must call
`tick` at `next_deadline()`, after it has read the socket dry. Same inputs, same seed, same outputs: the simulator
(tests/sim) runs many of these in one thread.

Parts: kernel (shared state, sending), membership (facts), probe (failure detection), rows and acks (endpoint tables),
sync (anti-entropy). This file wires them, dispatches messages and runs the slow housekeeping: calling dead members
and seeds, forgetting.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from . import messages as m
from .config import Config
from .kernel import Identity, Kernel
from .members import Peer
from .membership import Membership
from .probe import Prober
from .rows import Rows
from .seal import Keyring, Refused, ReplayGuard
from .sync import AntiEntropy
from .types import Address, Effect, Member, OpenStream, State, StreamKind

HOUSEKEEPING = 5.0  # seconds


class Core:
    """`incarnation`: wall-clock milliseconds at start, so that a restarted process is ahead of its predecessor.

    `session`: seal.SESSION_SIZE random bytes that no other process ever had (packet keys are derived from it).
    """

    def __init__(
        self,
        id: str,
        host: str,
        port: int,
        *,
        label: bytes,
        ring: Keyring,
        rng: random.Random,
        now: float,
        incarnation: int,
        session: bytes,
        meta: bytes = b"",
        config: Config | None = None,
    ) -> None:
        config = config or Config()
        me = Identity(id, host, port, incarnation, meta)
        self.kernel = Kernel(me, config, rng, ring, label, session, now)
        self.membership = Membership(self.kernel)
        self.rows = Rows(self.kernel)
        self.prober = Prober(self.kernel, self._probe_failed)
        self.sync = AntiEntropy(self.kernel, self.membership, self.rows)
        self.seeds: tuple[Address, ...] = ()
        self._seed_peers: dict[Address, str] = {}  # who was last seen there
        self._calling = False  # dead members are called one by one
        self._guard = ReplayGuard()
        membership = self.membership
        membership.on_visibility = self.rows.member_changed
        membership.on_process = self.rows.process
        membership.on_own_epoch = self.rows.restamp
        self.rows.on_identity = membership.announce
        membership.on_unknown = self.sync.unknown
        membership.on_last_check = lambda peer: self.prober.call(peer, True)
        membership.on_suspect = self.prober.prefer
        membership.on_death = self._death
        # (message, sender's id, its address). Stream-only messages are handled in serve() and stream_reply().
        self._handlers: dict[type, Callable[..., None]] = {
            m.Ping: self._on_ping,
            m.PingReq: lambda msg, sender, addr: self.prober.relay(msg, addr),
            m.Ack: lambda msg, sender, addr: self.prober.ack(msg.seq, sender),
            m.Nack: lambda msg, sender, addr: self.prober.nack(msg.seq),
            m.Alive: lambda msg, sender, addr: self.membership.alive(msg, sender),
            m.Suspect: lambda msg, sender, addr: self.membership.suspect(msg.id, msg.incarnation, msg.by, sender),
            m.Dead: lambda msg, sender, addr: self.membership.dead(msg.id, msg.incarnation, msg.by, sender),
            m.Record: lambda msg, sender, addr: self.rows.on_record(msg, sender),
            m.Applied: lambda msg, sender, addr: self.rows.acks.on_applied(msg, sender),
            m.AskApplied: self._on_ask,
            m.Pull: self._on_pull,
            m.Delta: lambda msg, sender, addr: self.rows.on_delta(msg),
            m.TooBig: self._on_too_big,
            m.Who: lambda msg, sender, addr: self.kernel.send(addr, me.alive()),
        }
        self.kernel.update_own_digest()

    # -- time

    def start(self, now: float) -> None:
        kernel = self.kernel
        kernel.timers.wake(now)
        self.prober.start()
        self.sync.start()
        kernel.timers.after(kernel.config.seed_interval, self._call_seed)
        kernel.timers.after(HOUSEKEEPING, self._housekeeping)
        self.membership.announce()

    def next_deadline(self) -> float | None:
        return self.kernel.timers.next()

    def tick(self, now: float) -> None:
        self._wake(now)
        self.kernel.timers.fire()

    def take(self) -> list[Effect]:
        """What to do now; empties the list."""
        effects = self.kernel.effects
        self.kernel.effects = []
        return effects

    def _wake(self, now: float) -> None:
        pause = self.kernel.timers.wake(now)
        if pause:
            self.kernel.counters["pauses"] += 1
            self.kernel.awareness.add(1)
            self.membership.stalled(pause)

    # -- datagrams

    def receive(self, now: float, address: Address, datagram: bytes) -> None:
        """One datagram from the socket. Never raises; what cannot be used is counted."""
        self._wake(now)
        kernel = self.kernel
        counters = kernel.counters
        counters["packets_received"] += 1
        counters["bytes_received"] += len(datagram)
        try:
            session, sequence, payload = kernel.sealer.open(datagram)
            header, messages, skipped = m.unpack(payload)
            if header.sender == kernel.me.id:
                raise Refused("own_id")
            self._guard.check(session, sequence, header.sender)
        except Refused as refused:
            counters[f"refused_{refused.reason}"] += 1
            return
        except m.Malformed:
            counters["refused_malformed"] += 1
            return
        counters["messages_skipped"] += skipped
        peer = self.membership.heard(header, address)
        for message in messages:
            handler = self._handlers.get(type(message))
            if handler is not None:
                handler(message, header.sender, address)
        self._after_header(header, peer)

    def _after_header(self, header: m.Header, peer: Peer | None) -> None:
        """After the messages, which may have brought what the header speaks of."""
        if peer is None:
            return
        if header.epoch >= peer.epoch:
            self.rows.heard_version(header.sender, header.epoch, header.sequence)
        if peer.live:
            self.sync.note_digest(peer, header.digest)

    def _on_ping(self, ping: m.Ping, sender: str, address: Address) -> None:
        if ping.target == self.kernel.me.id:
            self.kernel.send(address, m.Ack(ping.seq), peer=self._live(sender))
        else:
            self.kernel.counters["pings_misaddressed"] += 1

    def _on_ask(self, question: m.AskApplied, sender: str, address: Address) -> None:
        if self.rows.acks.on_ask(question, sender, address):
            self.rows.heard_version(question.owner, question.epoch, question.seq)

    def _on_pull(self, pull: m.Pull, sender: str, address: Address) -> None:
        self.rows.on_pull(pull, address)

    def _on_too_big(self, message: m.TooBig, sender: str, address: Address) -> None:
        peer = self._live(sender)
        if peer is not None:
            self.rows.on_too_big(message.owner, peer)

    def _live(self, id: str) -> Peer | None:
        peer = self.kernel.members.get(id)
        return peer if peer is not None and peer.live else None

    def _probe_failed(self, peer: Peer) -> None:
        self.membership.suspect(peer.id, peer.incarnation, self.kernel.me.id)

    # -- streams

    def serve(self, now: float, payload: bytes) -> bytes:
        """One message of a TCP connection that a peer opened; returns the answer, empty for none. Raises Malformed."""
        self._wake(now)
        header, messages, skipped = m.unpack(payload, m.STREAM_FRAME)
        self.kernel.counters["messages_skipped"] += skipped
        answer: list[m.Message] = []
        for message in messages:
            if isinstance(message, m.Ping):
                if message.target == self.kernel.me.id:
                    answer.append(m.Ack(message.seq))
            elif isinstance(message, m.Pull):
                answer += self.rows.on_pull(message, None)
        self.sync.merge(messages, header.sender)
        for message in messages:
            if isinstance(message, m.Sync):
                answer += self.sync.answer(message)
        peer = self.membership.heard(header, None)
        if peer is not None and header.epoch >= peer.epoch:
            self.rows.heard_version(header.sender, header.epoch, header.sequence)
        return self.kernel.stream_payload(answer) if answer else b""

    def stream_reply(self, now: float, request: OpenStream, payload: bytes) -> bytes:
        """The peer's answer to a stream that we opened; returns what to write before closing, empty for nothing."""
        self._wake(now)
        header, messages, _ = m.unpack(payload, m.STREAM_FRAME)
        final: list[m.Message] = []
        if request.kind is StreamKind.PING:
            for message in messages:
                if isinstance(message, m.Ack):
                    self.prober.ack(message.seq, header.sender, stream=True)
        self.sync.merge(messages, header.sender)
        more = False
        for message in messages:
            if isinstance(message, m.Want):
                final += self.sync.closing(message)
                more = message.more
        self._stream_over(request, True, more)
        self.membership.heard(header, None)
        return self.kernel.stream_payload(final) if final else b""

    def stream_connected(self, now: float, request: OpenStream) -> None:
        """The peer's host took the connection; whether its process answers is another matter."""
        self._wake(now)
        peer = self._live(request.peer)
        if peer is not None:
            self.membership.accepted(peer)

    def stream_refused(self, now: float, request: OpenStream) -> None:
        """The peer's host answered that nobody listens there: its agent is away. To be followed by stream_failed()."""
        self._wake(now)
        peer = self._live(request.peer)
        if peer is not None:
            self.membership.refused(peer)

    def stream_failed(self, now: float, request: OpenStream) -> None:
        self._wake(now)
        self.kernel.counters["streams_failed"] += 1
        self._stream_over(request, False, False)

    def _stream_over(self, request: OpenStream, ok: bool, more: bool) -> None:
        if request.kind is StreamKind.SYNC:
            self.sync.ended(request, ok, more)
        elif request.kind is StreamKind.PULL:
            self.rows.pull_ended(request.request)

    # -- commands

    def join(self, now: float, address: Address) -> None:
        """Exchange all with the node there."""
        self._wake(now)
        if address != (self.kernel.me.host, self.kernel.me.port):
            self.sync.begin(address)

    def leave(self, now: float) -> None:
        self._wake(now)
        self.membership.leave()

    @property
    def left(self) -> bool:
        """The farewell has been sent as often as it should."""
        return self.kernel.leaving and ("state", self.kernel.me.id) not in self.kernel.queue

    def members(self) -> list[Member]:
        """All known members, this one first."""
        return [self._own(), *(peer.public() for peer in sorted(self.kernel.members, key=lambda peer: peer.id))]

    def member(self, id: str) -> Member | None:
        """One member by its id, this one too; None when it is not known."""
        if id == self.kernel.me.id:
            return self._own()
        peer = self.kernel.members.get(id)
        return None if peer is None else peer.public()

    def _own(self) -> Member:
        me = self.kernel.me
        state = State.LEFT if self.kernel.leaving else State.ALIVE
        return Member(me.id, me.host, me.port, state, me.incarnation, me.meta)

    def stats(self) -> dict[str, int]:
        """Counters since start and gauges of now, by name."""
        kernel = self.kernel
        membership, own, relayed = kernel.queue.lengths()
        gauges = {
            "health": kernel.awareness.score,
            "queue_membership": membership,
            "queue_own": own,
            "queue_relayed": relayed,
            "queue_dropped": kernel.queue.dropped,
            "packets_secondary_key": kernel.sealer.secondary,
            **self.rows.held(),
        }
        for state in State:
            gauges[f"members_{state.name.lower()}"] = sum(peer.state == state for peer in kernel.members)
        return {**kernel.counters, **gauges}

    # -- housekeeping

    def _death(self) -> None:
        if not self._calling:
            self._calling = True
            self.kernel.timers.after(self.kernel.config.reconnect_interval, self._reconnect)

    def _reconnect(self) -> None:
        """Call one dead member, so that a split heals from both sides however long it lasted."""
        kernel = self.kernel
        dead = [peer for peer in kernel.members.gone() if peer.state == State.DEAD]
        self._calling = bool(dead) and not kernel.leaving
        if self._calling:
            self.prober.call(kernel.rng.choice(dead), False)
            kernel.timers.after(kernel.config.reconnect_interval, self._reconnect)

    def _call_seed(self) -> None:
        kernel = self.kernel
        if kernel.leaving:
            return
        absent = [seed for seed in self.seeds if not self._is_here(seed)]
        if absent:
            self.sync.begin(kernel.rng.choice(absent))
        kernel.timers.after(kernel.config.seed_interval, self._call_seed)

    def _is_here(self, seed: Address) -> bool:
        """Whether a live member has that address; a walk over all only when it is not who it was the last time."""
        kernel = self.kernel
        if seed == (kernel.me.host, kernel.me.port):
            return True
        peer = self._live(self._seed_peers.get(seed, ""))
        if peer is None or peer.address != seed:
            peer = kernel.members.at(seed)
            if peer is not None:
                self._seed_peers = {**{s: id for s, id in self._seed_peers.items() if s in self.seeds}, seed: peer.id}
        return peer is not None

    def _housekeeping(self) -> None:
        kernel = self.kernel
        config = kernel.config
        now = kernel.timers.now
        for peer in kernel.members.gone():
            keep = config.left_retention if peer.state == State.LEFT else config.dead_retention
            if now - peer.since > keep:
                kernel.members.remove(peer.id)
                self.rows.forget(peer.id)
        for owner in self.rows.orphans():
            self.rows.forget(owner)
        kernel.timers.after(HOUSEKEEPING, self._housekeeping)
