"""Asking the host's resolvers for names that are not the cluster's.

The question is passed on as it came, with an id and a port of its own. The resolvers are asked in order, each the
moment its forerunner failed, or FAILOVER after that was asked without an answer; the first usable answer counts. After
DEADLINE it is over: the asker hears SERVFAIL instead of waiting (the engine's resolver alone takes 8 s). A resolver
that was silent SUSPECT times in a row is asked last for a while, and when all are like that nobody waits longer than
SHORT_DEADLINE.

Answers are kept for as long as they allow, up to a minute; the same question asked by many at once is passed on once.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from .wire import HEADER, NOERROR, NXDOMAIN, REFUSED, SERVFAIL, TC, Malformed, Question, aged, lifetimes

PORT = 53
FAILOVER = 0.25  # seconds
DEADLINE = 1.8  # seconds for all of it; askers are promised 2
SHORT_DEADLINE = 0.5
SUSPECT = 2
REST = 10.0  # seconds that a silent resolver counts as such
LONGEST_KEPT = 60  # seconds
LONGEST_DENIAL_KEPT = 10
MOST_KEPT = 4096
MOST_WAITING = 1024  # questions under way; more are refused at once
SIZE = 65535

Key = tuple[bool, bytes]


@dataclass(frozen=True, slots=True)
class _Kept:
    packet: bytes
    places: list[int]  # of the TTLs
    since: float
    until: float


class Forwarder:
    """`resolvers` names the addresses to ask now; it is called for each question that is passed on."""

    def __init__(
        self,
        resolvers: Callable[[], list[str]],
        *,
        rng: random.Random,
        port: int = PORT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resolvers = resolvers
        self._rng = rng
        self._port = port
        self._clock = clock
        self._kept: dict[Key, _Kept] = {}
        self._under_way: dict[Key, asyncio.Task[bytes | None]] = {}
        self._silent: dict[str, tuple[int, float]] = {}  # resolver → silences in a row, until when that counts

    async def close(self) -> None:
        """End everything that is under way."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def kept(self, data: bytes, *, stream: bool) -> bytes | None:
        """The answer to a question if it is known already."""
        key = (stream, data[2:])
        kept = self._kept.get(key)
        if kept is None:
            return None
        now = self._clock()
        if now >= kept.until:
            del self._kept[key]
            return None
        return data[:2] + aged(kept.packet, kept.places, int(now - kept.since))[2:]

    async def ask(self, data: bytes, question: Question, *, stream: bool) -> bytes | int:
        """The answer to a question, or the rcode to answer with: NXDOMAIN where nobody can be asked, SERVFAIL when
        nobody answered in time.
        """
        if (known := self.kept(data, stream=stream)) is not None:
            return known
        servers = self._resolvers()
        if not servers:
            return NXDOMAIN
        key = (stream, data[2:])
        task = self._under_way.get(key)
        if task is None:
            if len(self._under_way) >= MOST_WAITING:
                return SERVFAIL
            task = asyncio.create_task(self._find(data, question, servers, key), name="dns-forward")
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._under_way.pop(key, None))
        # The work is shared by all who ask: one of them going away must not end it.
        packet = await asyncio.shield(task)
        return SERVFAIL if packet is None else data[:2] + packet[2:]

    async def _find(self, data: bytes, question: Question, servers: list[str], key: Key) -> bytes | None:
        packet = await self._race(data, question, servers, stream=key[0])
        if packet is not None:
            self._keep(key, packet)
        return packet

    # --- whom to ask -------------------------------------------------------------------------------------------------

    def _suspect(self, server: str) -> bool:
        count, until = self._silent.get(server, (0, 0.0))
        return count >= SUSPECT and self._clock() < until

    def _heard(self, server: str, *, answered: bool) -> None:
        if answered:
            self._silent.pop(server, None)
        else:
            self._silent[server] = (self._silent.get(server, (0, 0.0))[0] + 1, self._clock() + REST)

    async def _race(self, data: bytes, question: Question, servers: list[str], *, stream: bool) -> bytes | None:
        loop = asyncio.get_running_loop()
        waiting = sorted(servers, key=self._suspect)
        all_silent = self._suspect(waiting[0])
        deadline = loop.time() + (SHORT_DEADLINE if all_silent else DEADLINE)
        asked: dict[asyncio.Task[bytes], tuple[str, float]] = {}
        refusal: bytes | None = None
        try:
            while waiting or asked:
                if waiting:
                    server = waiting.pop(0)
                    ask = self._ask_stream if stream else self._ask_packet
                    asked[asyncio.create_task(ask(server, data, question))] = (server, loop.time())
                pause = deadline - loop.time()
                if waiting:
                    pause = 0 if all_silent else min(pause, FAILOVER)
                if pause <= 0 and not waiting:
                    break
                done, _ = await asyncio.wait(asked, timeout=max(0.0, pause), return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    server, _ = asked.pop(task)
                    if task.exception() is not None:  # refused, unreachable, nonsense: the next one is asked at once
                        continue
                    self._heard(server, answered=True)
                    packet = task.result()
                    if packet[3] & 15 not in (SERVFAIL, REFUSED):
                        return packet
                    refusal = refusal or packet
            return refusal
        finally:
            for task, (server, since) in asked.items():
                task.cancel()
                if loop.time() - since >= FAILOVER:
                    self._heard(server, answered=False)
            await asyncio.gather(*asked, return_exceptions=True)

    async def _ask_packet(self, server: str, data: bytes, question: Question) -> bytes:
        loop = asyncio.get_running_loop()
        own_id = self._rng.getrandbits(16).to_bytes(2, "big")
        with socket.socket(_family(server), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as asker:
            asker.connect((server, self._port))
            asker.send(own_id + data[2:])
            while True:
                packet = await loop.sock_recv(asker, SIZE)
                if _answers(packet, own_id, question):
                    return packet

    async def _ask_stream(self, server: str, data: bytes, question: Question) -> bytes:
        own_id = self._rng.getrandbits(16).to_bytes(2, "big")
        reader, writer = await asyncio.open_connection(server, self._port)
        try:
            writer.write(struct.pack(">H", len(data)) + own_id + data[2:])
            packet = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        finally:
            writer.close()
        if not _answers(packet, own_id, question):
            raise Malformed(f"resolver {server} answered something else")
        return packet

    # --- what is kept ------------------------------------------------------------------------------------------------

    def _keep(self, key: Key, packet: bytes) -> None:
        seconds, places = _keepable(packet)
        if seconds <= 0:
            return
        while len(self._kept) >= MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        now = self._clock()
        self._kept[key] = _Kept(packet, places, now, now + seconds)


def _keepable(packet: bytes) -> tuple[int, list[int]]:
    """For how many seconds an answer may be kept, and where its TTLs stand."""
    rcode, answers = packet[3] & 15, int.from_bytes(packet[6:8], "big")
    if rcode not in (NOERROR, NXDOMAIN) or int.from_bytes(packet[2:4], "big") & TC:
        return 0, []
    try:
        places = lifetimes(packet)
    except Malformed:
        return 0, []
    if not places:
        return 0, []
    shortest = min(int.from_bytes(packet[at : at + 4], "big") for at in places)
    denial = rcode == NXDOMAIN or not answers
    return min(shortest, LONGEST_DENIAL_KEPT if denial else LONGEST_KEPT), places


def _answers(packet: bytes, message_id: bytes, question: Question) -> bool:
    """Whether it is the answer to our question: strays and forgeries are not."""
    if len(packet) < HEADER or packet[:2] != message_id or not packet[2] & 0x80:
        return False
    asked = packet[HEADER : HEADER + len(question.raw)]
    return asked.lower() == question.raw.lower() or (packet[4:6] == b"\0\0" and packet[3] & 15 != NOERROR)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
