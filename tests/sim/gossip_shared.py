"""A large gossip world fits into memory: what all nodes know from the first moment exists once.

A cluster of N nodes holds N² member records. Nearly all of them stay as they were at the start, the same for all nodes.
Here a core's member list begins as a view of one shared list; a record becomes the node's own when the core looks it up
to work on it. Only passes that read (`iter`, `live`) are given the shared record itself. The protocol's code is the
same: it sees a `Members` and a `Digest`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from swarm_agent.gossip.core import Core
from swarm_agent.gossip.members import Digest, Members, Peer
from swarm_agent.gossip.types import Address


class Common:
    """What everybody knows of everybody at the start."""

    def __init__(self, cores: list[Core], now: float) -> None:
        digest = Digest()
        self.peers: dict[str, Peer] = {}
        self.by_address: dict[Address, str] = {}
        for core in cores:
            me = core.kernel.me
            peer = Peer(me.id, me.host, me.port, me.incarnation, me.epoch, me.meta, now)
            peer.place = len(self.peers)
            self.peers[me.id] = peer
            self.by_address[peer.address] = me.id
            digest.put(me.id, me.incarnation, me.epoch, 0)
        self.ids = list(self.peers)
        self.parts, self.value = digest._parts, digest.value
        self._image = self._state()

    def give(self, core: Core) -> None:
        """That core knows all of it."""
        kernel = core.kernel
        kernel.members = SharedMembers(kernel.rng, self, kernel.me.id)
        kernel.digest._parts = _Parts(self.parts)
        kernel.digest.value = self.value

    def check(self) -> None:
        """No core has written into what is shared."""
        assert self._state() == self._image

    def _state(self) -> list[tuple[Any, ...]]:
        return [tuple(getattr(peer, slot) for slot in Peer.__slots__) for peer in self.peers.values()]


class _Parts(dict[str, int]):
    """A dictionary over a shared one. What was taken away is kept as 0, which is no hash that occurs."""

    __slots__ = ("_base",)

    def __init__(self, base: dict[str, int]) -> None:
        super().__init__()
        self._base = base

    def get(self, id: str, default: Any = None) -> Any:
        part = super().get(id)
        if part is None:
            part = self._base.get(id)
        return part or default

    def pop(self, id: str, default: Any = None) -> Any:
        part = self.get(id, default)
        self[id] = 0
        return part


class _Peers(dict[str, Peer]):
    """This node's own records over the shared ones."""

    __slots__ = ("base", "last", "own", "own_place", "removed")

    def __init__(self, common: Common, own: str) -> None:
        super().__init__()
        self.base = common.peers
        self.own = own
        self.own_place = common.peers[own].place
        self.last = common.ids[-1]
        self.removed: set[str] = set()

    def __missing__(self, id: str) -> Peer:
        shared = self.base.get(id)
        if shared is None or id == self.own or id in self.removed:
            raise KeyError(id)
        peer = Peer(shared.id, shared.host, shared.port, shared.incarnation, shared.epoch, shared.meta, shared.since)
        peer.place = self.own_place if id == self.last else shared.place
        self[id] = peer
        return peer

    def __contains__(self, id: object) -> bool:
        return super().__contains__(id) or (id in self.base and id != self.own and id not in self.removed)

    def get(self, id: str, default: Any = None) -> Any:
        try:
            return self[id]
        except KeyError:
            return default

    def pop(self, id: str, *default: Any) -> Peer:
        peer = self[id]
        self.removed.add(id)
        del self[id]
        return peer

    def __len__(self) -> int:
        return len(self.base) - 1 - len(self.removed) + sum(id not in self.base for id in self.changed())

    def changed(self) -> Iterator[str]:
        return super().__iter__()

    def read(self) -> Iterator[Peer]:
        """All, for reading only."""
        own = super().get
        for id, shared in self.base.items():
            if id != self.own and id not in self.removed:
                yield own(id) or shared
        for id in self.changed():
            if id not in self.base:
                yield self[id]


class SharedMembers(Members):
    """Members of a node of a large world, all of which live at the start."""

    def __init__(self, rng: random.Random, common: Common, own: str) -> None:
        super().__init__(rng)
        self._common = common
        self._mine = _Peers(common, own)
        self._peers = self._mine
        self._live = list(common.ids)
        last = self._live.pop()
        if last != own:
            self._live[self._mine.own_place] = last

    def __iter__(self) -> Iterator[Peer]:
        return self._mine.read()

    def live(self) -> Iterator[Peer]:
        return (peer for peer in self._mine.read() if peer.live)

    def changed(self) -> list[Peer]:
        """Records that this node may have changed."""
        return [self._mine[id] for id in self._mine.changed()]

    def at(self, address: Address) -> Peer | None:
        peer = self.get(self._common.by_address.get(address, ""))
        return peer if peer is not None and peer.live and peer.address == address else super().at(address)
