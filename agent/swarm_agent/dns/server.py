"""Sockets on one address: UDP read in batches, TCP with limits. What to say comes from a `Desk` for each asker.

IP_FREEBIND lets the sockets exist before their bridge does, and outlive it: when the engine or somebody deletes the
bridge and it comes back, they work on. A packet that was asked before is answered from the desk's table by its bytes
behind the id, so the usual question costs one look-up and one send.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import struct
from collections.abc import Callable

from .answers import View
from .forward import Forwarder
from .wire import (
    REFUSED,
    STREAM_SIZE,
    Answer,
    Malformed,
    Question,
    make_answer,
    read_question,
)

log = logging.getLogger("swarm.dns")

IP_FREEBIND = 15  # <linux/in.h>; the socket module has no name for it
LARGEST_QUESTION = 4096
DRAIN = 64  # datagrams per wake-up
RECEIVE_BUFFER = 1 << 20
MOST_ANSWERS = 4096  # kept per desk
MOST_ASKERS = 4096  # remembered per listener
MOST_FORWARDED = 512  # questions of one listener that wait for resolvers outside
MOST_STREAMS = 128
IDLE_STREAM = 5.0  # seconds

UDP, TCP = 0, 1


class Desk:
    """Answers askers who see the same zones. `view` None: they see nothing and are refused.

    Without a `forwarder`, names that are not the cluster's are refused too.
    """

    def __init__(self, view: View | None, forwarder: Forwarder | None = None) -> None:
        self.view = view
        self.forwarder = forwarder
        self.packed: tuple[dict[bytes, Answer], dict[bytes, Answer]] = ({}, {})

    def answer(self, data: bytes, transport: int) -> Answer | Question | None:
        """The answer, or the question when resolvers outside must be asked; None: say nothing."""
        try:
            question = read_question(data)
        except Malformed:
            return None
        limit = question.limit if transport == UDP else STREAM_SIZE
        found = self.view.answer(question, limit) if self.view is not None else None
        if found is None:
            if self.forwarder is not None and self.view is not None:
                return question
            found = make_answer(question, limit, rcode=REFUSED)
        packed = self.packed[transport]
        if len(packed) >= MOST_ANSWERS:
            packed.clear()
        packed[data[2:]] = found
        return found


class Listener:
    """Port `port` of one address of this host. `desk_for(source address)` finds who answers; see `forget`."""

    def __init__(self, address: str, port: int, desk_for: Callable[[str], Desk], rng: random.Random) -> None:
        self.address = address
        self.port = port
        self._desk_for = desk_for
        self._rng = rng
        self._desks: dict[str, Desk] = {}
        self._packets: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._forwarding: set[asyncio.Task[None]] = set()
        self._streams: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Bind both. Raises OSError that names the address."""
        try:
            self._packets = _bound(self.address, self.port, socket.SOCK_DGRAM)
            self.port = self._packets.getsockname()[1]
            streams = _bound(self.address, self.port, socket.SOCK_STREAM)
        except OSError as error:
            await self.stop()
            raise OSError(error.errno, f"{self.address} port {self.port}: {error.strerror}") from None
        asyncio.get_running_loop().add_reader(self._packets, self._readable)
        # Serving begins in a step of its own: whoever is cancelled there has the server in hand, to close it.
        self._server = await asyncio.start_server(
            self._stream, sock=streams, limit=LARGEST_QUESTION * 2, start_serving=False
        )
        await self._server.start_serving()

    async def stop(self) -> None:
        if self._packets is not None:
            asyncio.get_running_loop().remove_reader(self._packets)
            self._packets.close()
            self._packets = None
        if self._server is not None:
            self._server.close()
        tasks = [*self._forwarding, *self._streams]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def forget(self) -> None:
        """The zones changed: who sees what is asked anew."""
        self._desks.clear()

    def _desk(self, source: str) -> Desk:
        desk = self._desks.get(source)
        if desk is None:
            if len(self._desks) >= MOST_ASKERS:
                self._desks.clear()
            desk = self._desks[source] = self._desk_for(source)
        return desk

    # --- UDP ---------------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        packets = self._packets
        for _ in range(DRAIN):
            if packets is None:
                return
            try:
                data, peer = packets.recvfrom(LARGEST_QUESTION)
            except BlockingIOError:
                return
            except OSError:
                continue  # a delayed ICMP error of an earlier answer
            desk = self._desk(peer[0])
            answer = desk.packed[UDP].get(data[2:]) or desk.answer(data, UDP)
            if isinstance(answer, Answer):
                self._send(answer.packet(data[:2], self._rng), peer)
            elif answer is not None:
                self._forward(desk, data, answer, peer)

    def _send(self, packet: bytes, peer: tuple[str, int]) -> None:
        if self._packets is not None:
            with contextlib.suppress(OSError):  # the asker is gone or floods: it asks again
                self._packets.sendto(packet, peer)

    def _forward(self, desk: Desk, data: bytes, question: Question, peer: tuple[str, int]) -> None:
        assert desk.forwarder is not None
        known = desk.forwarder.kept(data, stream=False)
        if known is not None:
            self._send(known, peer)
        elif len(self._forwarding) < MOST_FORWARDED:
            task = asyncio.create_task(self._forwarded(desk.forwarder, data, question, peer))
            self._forwarding.add(task)
            task.add_done_callback(self._forwarding.discard)

    async def _forwarded(self, forwarder: Forwarder, data: bytes, question: Question, peer: tuple[str, int]) -> None:
        answer = await forwarder.ask(data, question, stream=False)
        self._send(_finished(answer, data, question, question.limit, self._rng), peer)

    # --- TCP ---------------------------------------------------------------------------------------------------------

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._streams) >= MOST_STREAMS:
            writer.close()
            return
        self._streams.add(task)
        try:
            source = writer.get_extra_info("peername")[0]
            while (packet := await self._next_answer(reader, source)) is not None:
                writer.write(struct.pack(">H", len(packet)) + packet)
                async with asyncio.timeout(IDLE_STREAM):
                    await writer.drain()
        except (OSError, EOFError, TimeoutError):
            pass  # the asker is gone, silent or does not read
        finally:
            self._streams.discard(task)
            writer.close()

    async def _next_answer(self, reader: asyncio.StreamReader, source: str) -> bytes | None:
        async with asyncio.timeout(IDLE_STREAM):
            length = int.from_bytes(await reader.readexactly(2), "big")
            if length > LARGEST_QUESTION:
                return None
            data = await reader.readexactly(length)
        desk = self._desk(source)
        answer = desk.packed[TCP].get(data[2:]) or desk.answer(data, TCP)
        if answer is None:
            return None
        if isinstance(answer, Answer):
            return answer.packet(data[:2], self._rng)
        assert desk.forwarder is not None
        found = await desk.forwarder.ask(data, answer, stream=True)
        return _finished(found, data, answer, STREAM_SIZE, self._rng)


def _finished(found: bytes | int, data: bytes, question: Question, limit: int, rng: random.Random) -> bytes:
    """What the forwarder found as a message: its answer, or one that says the rcode."""
    if isinstance(found, bytes):
        return found
    return make_answer(question, limit, rcode=found).packet(data[:2], rng)


def _bound(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    try:
        bound.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        if kind is socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        bound.bind((address, port))
    except OSError:
        bound.close()
        raise
    return bound
