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
from collections.abc import Container, Iterator

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
        "accepted", "away", "epoch", "flapped", "flaps", "heard", "host", "id", "incarnation", "info", "meta", "place",
        "port", "since", "stall", "state", "suspicion", "timer", "told", "turn",
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
        self.accepted = -1e9  # when its host last took a TCP connection of ours
        self.away = -1e9  # when its host last refused one
        self.told = -1e9  # when we last corrected it
        self.place = -1  # in the list of the live; -1: not there
        self.turn = 0  # the last pass of probes in which its turn came; negative: the one in which it died before that
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

    def drop(self, id: str) -> bool:
        old = self._parts.pop(id, None)
        if old is None:
            return False
        self.value = (self.value - old) & _MASK
        return True


class Members:
    """All peers by id, the live ones also in a list for cheap random picks, and the order in which they are probed.

    Nothing here walks over all members: what happens often must not grow with the cluster.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._peers: dict[str, Peer] = {}
        self._live: list[str] = []
        self._gone: dict[str, None] = {}  # not live: dead or left
        self._order: list[str] = []
        self._next = 0
        self._pass = 1

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._peers.values())

    def __len__(self) -> int:
        return len(self._peers)

    def __contains__(self, id: str) -> bool:
        return id in self._peers

    def get(self, id: str) -> Peer | None:
        return self._peers.get(id)

    @property
    def live_count(self) -> int:
        """Live members, this node included."""
        return len(self._live) + 1

    def live(self) -> Iterator[Peer]:
        return (self._peers[id] for id in self._live)

    def gone(self) -> list[Peer]:
        """The dead and those that left, the longest gone first."""
        return [self._peers[id] for id in self._gone]

    def at(self, address: Address) -> Peer | None:
        """The live member with that address. Walks over all."""
        return next((peer for peer in self.live() if peer.address == address), None)

    def add(self, peer: Peer) -> None:
        self._peers[peer.id] = peer
        if peer.live:
            self._enlist(peer)
        else:
            self._gone[peer.id] = None

    def set_state(self, peer: Peer, state: State, now: float) -> State:
        """Returns the old state."""
        old = peer.state
        peer.state = state
        if old != state:
            peer.since = now
        if state.live and peer.place < 0:
            self._enlist(peer)
        elif not state.live and peer.place >= 0:
            self._delist(peer)
        return old

    def remove(self, id: str) -> None:
        peer = self._peers.pop(id)
        if peer.place >= 0:
            self._delist(peer)
        self._gone.pop(id, None)

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
        """Round robin over a list that is shuffled as it is used up: each live member once per pass, so none waits
        longer than two passes.
        """
        order = self._order
        for _ in range(len(order) + 1):
            if self._next >= len(order):
                order = self._order = list(self._live)
                self._next = 0
                self._pass += 1
                if not order:
                    return None
            chosen = self._next + int(self._rng.random() * (len(order) - self._next))
            id = order[chosen]
            order[chosen] = order[self._next]
            self._next += 1
            peer = self._peers.get(id)
            if peer is not None:
                peer.turn = self._pass
                if peer.place >= 0:
                    return peer
        return None

    def _enlist(self, peer: Peer) -> None:
        self._gone.pop(peer.id, None)
        peer.place = len(self._live)
        self._live.append(peer.id)
        if peer.turn != -self._pass:  # else it died and came back while its turn in this pass was still to come
            self._order.append(peer.id)

    def _delist(self, peer: Peer) -> None:
        self._gone[peer.id] = None
        if peer.turn != self._pass:
            peer.turn = -self._pass
        place, peer.place = peer.place, -1
        last = self._live.pop()
        if last != peer.id:
            self._live[place] = last
            self._peers[last].place = place
