"""The list of members: who is known, in what state, since when; random picks from it; the digest of all that is known.

Peer is the mutable record that the protocol works on; what leaves the package are frozen `Member`s. The digest is the
sum of one hash per live member over (id, incarnation of its address and meta, version of its rows): two nodes with
equal digests know the same. It is kept up to date by difference, so reading it costs nothing. Dead members are not in
it, as nodes forget them at different times; a death that somebody missed still shows, since its subject is in one sum
and not in the other.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Container, Iterator, Sequence

from .suspicion import Suspicion
from .timers import Timer
from .types import Address, Member, State

_MASK = (1 << 63) - 1


class Peer:
    """One known member, not this node.

    `incarnation`: highest in any admitted evidence, never lowered. `info`: incarnation at which address, epoch and
    meta were learnt (≤ incarnation, as an accusation may bring a higher one without them).
    """

    __slots__ = (
        "epoch", "flapped", "flaps", "heard", "host", "id", "incarnation", "info", "meta", "port", "since", "stall",
        "state", "suspicion", "timer", "told", "turn",
    )  # fmt: skip

    def __init__(self, id: str, host: str, port: int, incarnation: int, epoch: int, meta: bytes, now: float) -> None:
        self.id = id
        self.host = host
        self.port = port
        self.incarnation = incarnation
        self.info = incarnation
        self.epoch = epoch
        self.meta = meta
        self.stall = 0  # its longest stop lately, as it says, in tenths of a second
        self.state = State.ALIVE
        self.since = now
        self.heard = -1e9  # when it last spoke to us itself
        self.told = -1e9  # when we last corrected it
        self.turn = 0  # the pass of probes in which its turn is still to come
        self.flaps = 0.0  # wrong accusations lately, as of `flapped`
        self.flapped = now
        self.suspicion: Suspicion | None = None
        self.timer: Timer | None = None

    @property
    def address(self) -> Address:
        return (self.host, self.port)

    @property
    def live(self) -> bool:
        return self.state <= State.SUSPECT

    def flapping(self, now: float, memory: float) -> float:
        """Wrong accusations that still count: each fades over `memory` seconds."""
        return self.flaps * max(0.0, 1.0 - (now - self.flapped) / memory)

    def flap(self, weight: float, now: float, most: float, memory: float) -> None:
        self.flaps = min(most, self.flapping(now, memory) + weight)
        self.flapped = now

    def public(self) -> Member:
        return Member(self.id, self.host, self.port, self.state, self.incarnation, self.meta)


class Digest:
    """Order-free sum of one 63-bit hash per fact."""

    __slots__ = ("_parts", "value")

    def __init__(self) -> None:
        self._parts: dict[str, int] = {}
        self.value = 0

    def put(self, id: str, info: int, epoch: int, sequence: int) -> bool:
        """True when that changed the digest."""
        raw = b"%d %d %d " % (info, epoch, sequence) + id.encode()
        part = int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "big")
        old = self._parts.get(id, 0)
        if part == old:
            return False
        self._parts[id] = part
        self.value = (self.value - old + part) & _MASK
        return True

    def copy(self, other: Digest) -> None:
        """Stand for what the other stands for."""
        self._parts = dict(other._parts)
        self.value = other.value

    def drop(self, id: str) -> bool:
        old = self._parts.pop(id, None)
        if old is None:
            return False
        self.value = (self.value - old) & _MASK
        return True


class Members:
    """All peers by id, the live ones also in a list for cheap random picks, and the order in which they are probed."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._peers: dict[str, Peer] = {}
        self._live: list[str] = []
        self._place: dict[str, int] = {}
        self._order: list[str] = []
        self._next = 0
        self._pass = 1

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._peers.values())

    def __len__(self) -> int:
        return len(self._peers)

    def get(self, id: str) -> Peer | None:
        return self._peers.get(id)

    @property
    def live_count(self) -> int:
        """Live members, this node included."""
        return len(self._live) + 1

    def live(self) -> Iterator[Peer]:
        return (self._peers[id] for id in self._live)

    def add(self, peer: Peer) -> None:
        self._peers[peer.id] = peer
        if peer.live:
            self._enlist(peer)

    def fill(self, peers: Sequence[Peer]) -> None:
        """Many live members at once, into an empty list."""
        self._peers = {peer.id: peer for peer in peers}
        self._live = list(self._peers)
        self._place = {id: place for place, id in enumerate(self._live)}

    def set_state(self, peer: Peer, state: State, now: float) -> State:
        """Returns the old state."""
        old = peer.state
        peer.state = state
        if old != state:
            peer.since = now
        if state.live and peer.id not in self._place:
            self._enlist(peer)
        elif not state.live and peer.id in self._place:
            self._delist(peer.id)
        return old

    def remove(self, id: str) -> None:
        if id in self._place:
            self._delist(id)
        del self._peers[id]

    def pick(self, count: int, exclude: Container[str] = ()) -> list[Peer]:
        """Up to `count` different live peers, uniformly; always that many when there are enough (no rejection
        sampling).
        """
        if len(self._live) <= 64:
            pool = [id for id in self._live if id not in exclude]
            chosen = self._rng.sample(pool, min(count, len(pool)))
        else:
            spare = 0 if exclude == () else 4
            tried = self._rng.sample(self._live, min(count + spare, len(self._live)))
            chosen = [id for id in tried if id not in exclude][:count]
            if len(chosen) < count:
                pool = [id for id in self._live if id not in exclude]
                chosen = self._rng.sample(pool, min(count, len(pool)))
        return [self._peers[id] for id in chosen]

    def next_target(self) -> Peer | None:
        """Round robin over a shuffled list: each live member once per pass, so none waits longer than two passes."""
        for _ in range(len(self._order) + 1):
            if self._next >= len(self._order):
                self._order = list(self._live)
                self._rng.shuffle(self._order)
                self._next = 0
                self._pass += 1
                if not self._order:
                    return None
                for id in self._order:
                    self._peers[id].turn = self._pass
            id = self._order[self._next]
            self._next += 1
            peer = self._peers.get(id)
            if peer is not None:
                peer.turn = 0
                if peer.live:
                    return peer
        return None

    def _enlist(self, peer: Peer) -> None:
        self._place[peer.id] = len(self._live)
        self._live.append(peer.id)
        if peer.turn == self._pass:
            return  # died and came back within this pass
        peer.turn = self._pass
        # A newcomer joins the current pass at a random place, so that joins do not bunch at its end.
        self._order.insert(self._rng.randint(self._next, len(self._order)), peer.id)

    def _delist(self, id: str) -> None:
        place = self._place.pop(id)
        last = self._live.pop()
        if last != id:
            self._live[place] = last
            self._place[last] = place
