"""A seeded world of real gossip cores: one heap of events, a network with faults, processes that pause, starve, die
and return.

Every packet is the sealed bytes that a socket would carry. The world checks the protocol's invariants after each
event of the node concerned; `settle()` demands the rest: after the faults end, all nodes agree.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from swarm_agent.gossip.config import Config
from swarm_agent.gossip.core import Core
from swarm_agent.gossip.members import Peer
from swarm_agent.gossip.seal import SESSION_SIZE, Keyring, Refused, StreamSealer
from swarm_agent.gossip.types import (
    AckChanged,
    Address,
    MemberChanged,
    Notice,
    OpenStream,
    RowsChanged,
    SendPacket,
    State,
)

from .gossip_rules import Touched, check, check_complete, own_records, witness
from .gossip_shared import Common

KEY = bytes(range(32))
EPOCH_MS = 1_000_000
EPOCH_BEHIND = 1000  # of a host whose clock is a day late
CONNECT_TIMEOUT = 3.0
MANY = 250


class Node:
    """One host: its present process, and what its observer saw."""

    def __init__(self, id: str, address: Address) -> None:
        self.id = id
        self.address = address
        self.core: Core
        self.touched: Touched
        self.ring = Keyring([KEY])
        self.epoch = 0
        self.up = False
        self.powered = False  # a host without its process refuses connections, one without power says nothing
        self.generation = 0
        self.paused = False
        self.frozen = False  # paused with all of its host: nobody takes a connection there
        self.inbox: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.lag = 0.0  # starved: everything received is read up to this much later, while timers run on time
        self.tick_at: float | None = None
        self.auto_apply = True
        self.dirty = False
        self.events: list[tuple[float, str, State | None, State]] = []
        self.highest: dict[str, int] = {}  # member: incarnation last stored
        self.bytes_out = 0
        self.packets_out = 0

    def state(self, id: str) -> State | None:
        peer = self.core.kernel.members.get(id)
        return None if peer is None else peer.state

    def peers(self) -> Iterable[Peer]:
        return self.core.kernel.members.live()

    def live(self) -> set[str]:
        return {self.id, *(peer.id for peer in self.peers())}

    def sequence_of(self, owner: str) -> int:
        """Up to which change of that owner's rows nothing is missing here."""
        log = self.core.rows.log(owner)
        return 0 if log is None else log.watermark

    def rows(self, table: str = "t") -> dict[tuple[str, str], bytes]:
        return {(row.owner, row.key): row.value for row in self.core.rows.rows(table)}


class _Stream(NamedTuple):
    """One TCP exchange between two processes, both ends' sealers."""

    source: Node
    source_generation: int
    target: Node
    target_generation: int
    request: OpenStream
    client: StreamSealer
    server: StreamSealer

    @property
    def source_up(self) -> bool:
        return self.source.up and self.source.generation == self.source_generation

    @property
    def target_up(self) -> bool:
        return self.target.up and self.target.generation == self.target_generation


def read_frames(sealer: StreamSealer, sealed: bytes) -> bytes:
    """The message in these frames."""
    at = 0
    while True:
        size = int.from_bytes(sealed[at : at + 4], "big")
        message = sealer.open(sealed[at + 4 : at + 4 + size])
        at += 4 + size
        if message is not None:
            return message


class World:
    def __init__(
        self,
        seed: int | str = 0,
        *,
        config: Config | None = None,
        core: type[Core] = Core,
        loss: float = 0.0,
        delay: tuple[float, float] = (0.0002, 0.002),
        duplicate: float = 0.0,
        check: bool = True,
    ) -> None:
        self.seed = seed
        self.config = config or Config()
        self.core_type = core
        self.loss = loss
        self.delay = delay
        self.duplicate = duplicate
        self.check = check
        self.now = 0.0
        self.nodes: dict[str, Node] = {}
        self.common: Common | None = None
        self.by_address: dict[Address, Node] = {}
        self.cuts: set[tuple[str, str]] = set()  # (from, to)
        self._sides: dict[str, int] = {}
        self.tamper: Callable[[Node, Node, bytes], bytes | None] | None = None
        self._net = random.Random(f"{seed}/net")
        self._session = random.Random(f"{seed}/session")
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        self.events = 0
        # What truly happened, for the invariants.
        self.true_incarnation: dict[str, int] = {}
        self.accused: dict[str, int] = {}
        self.said_farewell: set[str] = set()
        self.history: dict[str, dict[tuple[int, int], tuple[str, str, bytes | None]]] = {}
        self.deaths: list[tuple[float, str, str]] = []  # (time, observer, subject)
        self.verdicts: dict[tuple[str, int], float] = {}  # (subject, incarnation): when it was first declared dead

    # -- building

    def start(
        self, id: str, *, incarnation: int | None = None, address: Address | None = None, meta: bytes = b""
    ) -> Node:
        """A process for that node: the first, or another after kill()."""
        node = self.nodes.get(id)
        if node is None:
            number = len(self.nodes) + 1
            node = self.nodes[id] = Node(id, address or (f"10.0.{number // 250}.{number % 250 + 1}", 7946))
        elif address is not None:
            self.by_address.pop(node.address, None)
            node.address = address
        assert not node.up
        self.by_address[node.address] = node
        node.generation += 1
        node.powered = True
        node.up, node.paused, node.frozen, node.lag = True, False, False, 0.0
        node.inbox, node.highest, node.tick_at, node.dirty = [], {}, None, False
        node.core = self.core_type(
            id,
            *node.address,
            label=b"world",
            ring=node.ring,
            rng=random.Random(f"{self.seed}/{id}/{node.generation}"),
            now=self.now,
            incarnation=EPOCH_MS + int(self.now * 1000) if incarnation is None else incarnation,
            session=self._session.randbytes(SESSION_SIZE),
            meta=meta,
            config=self.config,
        )
        node.epoch = node.core.kernel.me.epoch
        node.touched = Touched(node.core)
        node.core.start(self.now)
        self._after(node)
        return node

    def cluster(self, count: int, settle: bool = True) -> list[Node]:
        """Nodes n0 ... joined to n0, in agreement."""
        nodes = [self.start(f"n{i}") for i in range(count)]
        for node in nodes[1:]:
            self.join(node.id, nodes[0].id)
        if settle:
            self.settle()
        return nodes

    def formed(self, count: int) -> list[Node]:
        """Nodes n0 ... that know each other from the first moment. What a large cluster does is cheap to simulate, how
        it came about is not: joining costs N² facts."""
        nodes = [self.start(f"n{i}") for i in range(count)]
        self.common = Common([node.core for node in nodes], self.now)
        for node in nodes:
            node.core.kernel.queue.cancel_group(node.id)
            node.core.seeds = (nodes[0].address,)
            self.common.give(node.core)
            node.touched = Touched(node.core)
        return nodes

    def join(self, id: str, seed: str) -> None:
        node = self.nodes[id]
        node.core.seeds = (self.nodes[seed].address,)
        self.do(id, lambda core: core.join(self.now, self.nodes[seed].address))

    def do(self, id: str, call: Callable[[Core], Any]) -> Any:
        """Call the core of that node as its driver would."""
        node = self.nodes[id]
        result = call(node.core)
        self._after(node)
        return result

    def publish(self, id: str, key: str, value: bytes | None, table: str = "t") -> int:
        node = self.nodes[id]
        before = node.core.rows.own.watermark
        node.core.kernel.timers.wake(self.now)
        version = node.core.rows.publish(table, key, value)
        if node.core.rows.own.watermark > before:
            self.history.setdefault(id, {})[version] = (table, key, value)
        self._after(node)
        return version.sequence

    # -- faults

    def kill(self, id: str) -> None:
        """Power off: no packet, no farewell."""
        self.end(id)
        self.nodes[id].powered = False

    def end(self, id: str) -> None:
        """The process ends without a farewell; its host has power."""
        node = self.nodes[id]
        node.up = False
        node.generation += 1
        node.inbox = []

    def leave(self, id: str) -> None:
        self.said_farewell.add(id)
        self.do(id, lambda core: core.leave(self.now))

    def pause(self, id: str, seconds: float, frozen: bool = False) -> None:
        """The process does not run; what arrives waits in its socket. `frozen`: nor does its kernel."""
        node = self.nodes[id]
        node.paused, node.frozen = True, frozen
        self.at(seconds, self._resume, node, node.generation)

    def _resume(self, node: Node, generation: int) -> None:
        if not node.up or node.generation != generation:
            return
        node.paused = node.frozen = False
        waiting, node.inbox = node.inbox, []
        for call, args in waiting:  # the driver reads the socket dry before it runs timers
            call(*args)
        node.core.tick(self.now)
        self._after(node)

    def partition(self, *groups: Iterable[str]) -> None:
        sides = {id: number for number, group in enumerate(groups) for id in group}
        self._sides = {id: sides.get(id, -1) for id in self.nodes}

    def cut(self, a: str, b: str, both: bool = True) -> None:
        self.cuts.add((a, b))
        if both:
            self.cuts.add((b, a))

    def heal(self) -> None:
        self.cuts.clear()
        self._sides = {}
        self.loss = 0.0
        self.duplicate = 0.0
        for node in self.nodes.values():
            node.lag = 0.0

    # -- time

    def at(self, seconds: float, call: Callable[..., None], *args: Any) -> None:
        self._order += 1
        heapq.heappush(self._heap, (self.now + seconds, self._order, call, args))

    def run(self, seconds: float) -> None:
        self.run_until(lambda: False, seconds)

    def run_until(self, fact: Callable[[], bool], limit: float, step: float = 0.0) -> bool:
        """Run until the fact holds (looked at after each event, or each `step`) or the time is over."""
        end = self.now + limit
        look = self.now
        if fact():
            return True
        while self._heap and self._heap[0][0] <= end:
            self.now, _, call, args = heapq.heappop(self._heap)
            self.events += 1
            call(*args)
            if self.now >= look:
                look = self.now + step
                if fact():
                    return True
        self.now = end
        return fact()

    # -- running a node

    def _after(self, node: Node) -> None:
        core = node.core
        if core.kernel.me.epoch != node.epoch:  # restamped: the same history under a later epoch
            told = self.history.get(node.id, {})
            told.update({(core.kernel.me.epoch, n): row for (e, n), row in told.items() if e == node.epoch})
            node.epoch = core.kernel.me.epoch
        for effect in core.take():
            match effect:
                case SendPacket(to, data):
                    self._send(node, to, data)
                case OpenStream():
                    self._open(node, effect)
                case MemberChanged(member, old):
                    node.events.append((self.now, member.id, old, member.state))
                    witness(self, node, member.id, old, member.state)
                case RowsChanged():
                    if node.auto_apply and not node.dirty:
                        node.dirty = True
                        self.at(0.005, self._apply, node, node.generation)
                case AckChanged() | Notice():
                    pass
        deadline = core.next_deadline()
        if deadline is not None and (node.tick_at is None or deadline < node.tick_at):
            node.tick_at = deadline
            self.at(max(0.0, deadline - self.now), self._tick, node, node.generation, deadline)
        if self.check:
            check(self, node)

    def _tick(self, node: Node, generation: int, planned: float) -> None:
        if node.generation != generation or not node.up or node.tick_at != planned:
            return
        node.tick_at = None
        if node.paused:
            return  # _resume ticks
        deadline = node.core.next_deadline()
        if deadline is not None and deadline <= self.now + 1e-6:
            node.core.tick(self.now)
        self._after(node)

    def _apply(self, node: Node, generation: int) -> None:
        if node.generation == generation and node.up:
            node.dirty = False
            if not node.paused:
                node.core.rows.acks.mark(node.core.rows.snapshot())
                self._after(node)

    # -- datagrams

    def _blocked(self, source: Node, target: Node) -> bool:
        sides = self._sides
        if sides and source.id in sides and target.id in sides and sides[source.id] != sides[target.id]:
            return True
        return (source.id, target.id) in self.cuts

    def _send(self, source: Node, to: Address, data: bytes) -> None:
        if self.check:
            assert len(data) <= self.config.packet_size, f"a packet of {len(data)} bytes"
        source.bytes_out += len(data)
        source.packets_out += 1
        target = self.by_address.get(to)
        if target is None:
            return
        for _ in range(1 + (self._net.random() < self.duplicate)):
            if self._blocked(source, target) or self._net.random() < self.loss:
                continue
            packet: bytes | None = data
            if self.tamper is not None:
                packet = self.tamper(source, target, data)
                if packet is None:
                    continue
            self.at(self._net.uniform(*self.delay), self._arrive, target, target.generation, source.address, packet)

    def _arrive(self, target: Node, generation: int, source: Address, data: bytes) -> None:
        if target.generation != generation or not target.up:
            return
        if target.lag:
            self.at(self._net.uniform(0, target.lag), self._read, target, generation, source, data)
        else:
            self._read(target, generation, source, data)

    def _read(self, target: Node, generation: int, source: Address, data: bytes) -> None:
        if target.generation != generation or not target.up:
            return
        if target.paused:
            target.inbox.append((self._read, (target, generation, source, data)))
            return
        target.core.receive(self.now, source, data)
        self._after(target)

    # -- streams: request, answer, final; TCP repeats what is lost, so loss is delay

    def _hop(self) -> float:
        delay = self._net.uniform(*self.delay)
        while self._net.random() < self.loss:
            delay += 0.2
        return delay

    def _connected(self, a: Node, b: Node) -> bool:
        return not self._blocked(a, b) and not self._blocked(b, a)

    def _open(self, source: Node, request: OpenStream) -> None:
        target = self.by_address.get(request.to)
        if target is not None and target.powered and not target.up and self._connected(source, target):
            self.at(2 * self._hop(), self._stream_refused, source, source.generation, request)
            return
        if target is None or not target.up or target.frozen or not self._connected(source, target):
            self.at(CONNECT_TIMEOUT, self._stream_fails, source, source.generation, request)
            return
        client = StreamSealer(b"world", source.ring, True, self._session.randbytes(16))
        server = StreamSealer(b"world", target.ring, False, self._session.randbytes(16))
        client.greet(server.hello)
        server.greet(client.hello)
        sealed = client.seal(request.request)
        stream = _Stream(source, source.generation, target, target.generation, request, client, server)
        hop = self._hop()
        self.at(2 * hop, self._stream_connected, stream)
        self.at(3 * hop, self._stream_serve, stream, sealed)

    def _stream_connected(self, stream: _Stream) -> None:
        source = stream.source
        if not stream.source_up:
            return
        if source.paused:
            source.inbox.append((self._stream_connected, (stream,)))
            return
        source.core.stream_connected(self.now, stream.request)
        self._after(source)

    def _stream_refused(self, source: Node, generation: int, request: OpenStream) -> None:
        if source.generation != generation or not source.up:
            return
        if source.paused:
            source.inbox.append((self._stream_refused, (source, generation, request)))
            return
        source.core.stream_refused(self.now, request)
        self._stream_fails(source, generation, request)

    def _stream_fails(self, source: Node, generation: int, request: OpenStream) -> None:
        if source.generation == generation and source.up:
            if source.paused:
                source.inbox.append((self._stream_fails, (source, generation, request)))
                return
            source.core.stream_failed(self.now, request)
            self._after(source)

    def _stream_serve(self, stream: _Stream, sealed: bytes) -> None:
        source, target = stream.source, stream.target
        if not stream.target_up or not self._connected(source, target):
            self.at(CONNECT_TIMEOUT, self._stream_fails, source, stream.source_generation, stream.request)
            return
        if target.paused:
            target.inbox.append((self._stream_serve, (stream, sealed)))
            return
        try:
            message = read_frames(stream.server, sealed)
        except Refused:
            self._stream_fails(source, stream.source_generation, stream.request)
            return
        answer = target.core.serve(self.now, message)
        self._after(target)
        if not answer:
            self._stream_fails(source, stream.source_generation, stream.request)
            return
        lag = self._net.uniform(0, source.lag) if source.lag else 0.0
        self.at(self._hop() + lag, self._stream_answer, stream, stream.server.seal(answer))

    def _stream_answer(self, stream: _Stream, sealed: bytes) -> None:
        source = stream.source
        if not stream.source_up:
            return
        if source.paused:
            source.inbox.append((self._stream_answer, (stream, sealed)))
            return
        final = source.core.stream_reply(self.now, stream.request, read_frames(stream.client, sealed))
        self._after(source)
        if final:
            self.at(self._hop(), self._stream_final, stream, stream.client.seal(final))

    def _stream_final(self, stream: _Stream, sealed: bytes) -> None:
        target = stream.target
        if not stream.target_up:
            return
        if target.paused:
            target.inbox.append((self._stream_final, (stream, sealed)))
            return
        target.core.serve(self.now, read_frames(stream.server, sealed))
        self._after(target)

    # -- agreement

    def agreed(self) -> bool:
        """All running nodes see exactly each other and the same rows. Of more than MANY nodes, all must have the same
        digest and number of members and no suspects; who these members are is compared for MANY of them.
        """
        up = [node for node in self.nodes.values() if node.up and not node.core.kernel.leaving]
        if len({(node.core.kernel.digest.value, node.core.kernel.members.live_count) for node in up}) > 1:
            return False
        if any(peer.state is State.SUSPECT for node in up for peer in own_records(node)):
            return False
        ids = {node.id for node in up}
        sample = up if len(up) <= MANY else random.Random(self.events).sample(up, MANY)
        if any(node.live() != ids for node in sample):
            return False
        truth = up[0].rows() if up else {}
        own = {(n.id, r.key): r.value for n in up for r in n.core.rows.own.rows("t")}
        return truth == own and all(node.rows() == truth for node in sample)

    def settle(self, limit: float = 60.0) -> float:
        """Run until all agree; returns how long that took. Fails with the differences when it does not happen."""
        start = self.now
        if not self.run_until(self.agreed, limit, step=0.05):
            views = {
                node.id: (sorted(node.live()), node.core.kernel.digest.value, len(node.rows()))
                for node in self.nodes.values()
                if node.up
            }
            raise AssertionError(f"seed {self.seed}: no agreement after {limit} s: {views}")
        for node in self.nodes.values():
            if node.up:
                check_complete(self, node)
        if self.common is not None:
            self.common.check()
        return self.now - start
