"""What the parts of the protocol share: this node's identity, timers, members, the broadcast queue, and the way out.

Nothing here decides anything about others. `send` packs messages, fills the rest of the packet with queued facts,
seals it and appends it to `effects`, where the driver finds it. The gossip tick runs only while there is something to
spread.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable

from . import messages as m
from .awareness import Awareness
from .config import Config
from .members import Digest, Members, Peer
from .seal import OVERHEAD, Keyring, Sealer
from .spread import Queue, Rank, sends
from .timers import ROUNDING, Timer, Timers
from .types import Address, Effect, Notice, OpenStream, SendPacket, StreamKind


class Identity:
    """This node. `epoch` names this process in row versions; `incarnation` starts there and grows with each
    refutation. `stall`: longest time lately in which this process did not run, in tenths of a second.
    """

    __slots__ = ("epoch", "host", "id", "incarnation", "meta", "port", "stall")

    def __init__(self, id: str, host: str, port: int, incarnation: int, meta: bytes) -> None:
        self.id = id
        self.host = host
        self.port = port
        self.incarnation = incarnation
        self.epoch = incarnation
        self.meta = meta
        self.stall = 0

    def alive(self) -> m.Alive:
        return m.Alive(self.id, self.incarnation, self.host, self.port, self.epoch, self.meta, self.stall)


class Kernel:
    """Shared state of one node."""

    def __init__(
        self, me: Identity, config: Config, rng: random.Random, ring: Keyring, label: bytes, session: bytes, now: float
    ) -> None:
        self.me = me
        self.config = config
        self.rng = rng
        self.timers = Timers(now, config.stall)
        self.members = Members(rng)
        self.awareness = Awareness(config.awareness_max)
        self.queue = Queue(config.queue_limit, m.PACKET_FRAME)
        self.digest = Digest()
        self.sealer = Sealer(label, ring, session)
        self.counters: Counter[str] = Counter()
        self.effects: list[Effect] = []
        self.row_sequence = 0  # our own rows' version, for the header
        self.leaving = False
        self._tick: Timer | None = None
        self._last_tick = now - 1.0
        self._last_regular = now - 1.0
        self._announce = False
        self._seq = rng.getrandbits(32)
        self._header: tuple[tuple[int, int, int, int], bytes] = ((-1, 0, 0, 0), b"")  # what it says, encoded
        self._limit = (-1, 0)  # live members, sends per fact

    # -- identity and versions

    def next_seq(self) -> int:
        """Number of a question; starts at random, so that an answer cannot be guessed or be an old one."""
        self._seq += 1
        return self._seq

    def update_own_digest(self) -> None:
        self.digest.put(self.me.id, self.me.incarnation, self.me.epoch, self.row_sequence)

    def header(self) -> bytes:
        me = self.me
        said = (me.incarnation, me.epoch, self.row_sequence, self.digest.value)
        if self._header[0] != said:
            self._header = (said, m.begin(m.Header(me.id, *said)))
        return self._header[1]

    @property
    def limit(self) -> int:
        """Sends per fact at the present size."""
        count = self.members.live_count
        if self._limit[0] != count:
            self._limit = (count, sends(count, self.config.spread_margin, self.config.sends_per_peer))
        return self._limit[1]

    # -- out

    def send(self, to: Address, *messages: m.Message, peer: Peer | None = None) -> None:
        """Send now. With a live `peer`, queued facts use what is left of the packet."""
        self._emit(to, [m.encode(message) for message in messages], peer)

    def tell(self, peer: Peer, *messages: m.Message) -> None:
        self.send(peer.address, *messages, peer=peer if peer.live else None)

    def room(self) -> int:
        """Bytes for framed messages in one packet."""
        return self.config.packet_size - OVERHEAD - len(self.header())

    def _emit(self, to: Address, encoded: list[bytes], peer: Peer | None, facts: bool = False) -> None:
        start = self.header()
        budget = self.config.packet_size - OVERHEAD - len(start)
        body: list[bytes] = []
        left = budget
        for message in encoded:
            cost = len(message) + m.PACKET_FRAME
            if cost > budget:
                self.counters["oversized"] += 1
                continue
            if cost > left or len(body) >= m.MAX_MESSAGES:
                self._seal(to, m.pack(start, body))
                body, left = [], budget
            body.append(message)
            left -= cost
        if peer is not None and not facts and len(body) < 64 and self.queue:
            body += self.queue.fill(peer.id, left, self.limit)[: m.MAX_MESSAGES - len(body)]
        self._seal(to, m.pack(start, body))

    def _seal(self, to: Address, payload: bytes) -> None:
        data = self.sealer.seal(payload)
        self.counters["packets_sent"] += 1
        self.counters["bytes_sent"] += len(data)
        self.effects.append(SendPacket(to, data))

    def open_stream(self, kind: StreamKind, to: Address, peer: str, messages: list[m.Message], seq: int = 0) -> None:
        self.counters[f"streams_{kind.value}"] += 1
        self.effects.append(OpenStream(kind, to, peer, self.stream_payload(messages), seq))

    def stream_payload(self, messages: list[m.Message]) -> bytes:
        return m.pack(self.header(), [m.encode(message) for message in messages], m.STREAM_FRAME)

    def notice(self, text: str) -> None:
        self.effects.append(Notice(text))

    # -- spreading

    def broadcast(
        self, subject: Hashable, group: str, rank: Rank, message: m.Message, skip: frozenset[str] = frozenset()
    ) -> bool:
        """Queue a fact for everybody. False when it is too large for a packet or nobody is left to hear it."""
        data = m.encode(message)
        if len(data) + m.PACKET_FRAME > self.room():
            return False
        others = self.members.live_count - 1
        if others <= 0 or (len(skip) >= others and all(peer.id in skip for peer in self.members.live())):
            self.queue.cancel(subject)
            return False
        self.queue.put(subject, group, rank, data, skip)
        self.flush_soon()
        return True

    def flush_soon(self) -> None:
        """Fresh facts leave within flush_delay, unless the last tick was just now."""
        earliest = self._last_tick + 4 * self.config.flush_delay
        when = max(self.timers.now + self.config.flush_delay, earliest)
        if self._tick is not None and self._tick.call is not None:
            if self._tick.at <= when:
                return
            self._tick.cancel()
        self._tick = self.timers.at(when, self._gossip)

    def announce(self) -> None:
        """Let some peers see our header although there is no fact that fits a packet."""
        self._announce = True
        self.flush_soon()

    def _gossip(self) -> None:
        self._tick = None
        now = self.timers.now
        # A tick before the interval is over is for fresh facts only: sends spread in time survive a burst of loss.
        fresh_only = now < self._last_regular + self.config.gossip_interval - ROUNDING
        limit = self.limit
        for peer in self.members.pick(self.config.gossip_nodes):
            facts = self.queue.fill(peer.id, self.room(), limit, fresh_only)
            if facts or self._announce:
                self.counters["facts_sent"] += len(facts)
                self._emit(peer.address, facts, peer, facts=True)
        self._announce = False
        self._last_tick = now
        if not fresh_only:
            self._last_regular = now
            self.queue.end_round(limit)
        if self.queue.fresh():
            self.flush_soon()
        elif len(self.queue):
            self._tick = self.timers.at(self._last_regular + self.config.gossip_interval, self._gossip)
