"""Resolvers of other people for the tests: on addresses of loopback, saying what a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dnslib import RR, A, DNSRecord

Reply = Callable[[bytes], bytes | None]


class Resolver(asyncio.DatagramProtocol):
    """Answers every question with `reply(question)`; None: silence. Counts what it hears."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.heard: list[bytes] = []
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None

    def connection_made(self, transport) -> None:
        self._transport = transport

    def datagram_received(self, data, addr) -> None:
        self.heard.append(data)
        answer = self.reply(data)
        if answer is not None:
            self._transport.sendto(answer, addr)

    async def _stream(self, reader, writer) -> None:
        data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        self.heard.append(data)
        answer = self.reply(data)
        if answer is not None:
            writer.write(len(answer).to_bytes(2, "big") + answer)
        writer.close()

    async def start(self, address: str, port: int = 0) -> int:
        """Serve UDP and TCP; returns the port."""
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, local_addr=(address, port))
        port = self._transport.get_extra_info("sockname")[1]
        self._server = await asyncio.start_server(self._stream, address, port)
        return port

    def stop(self) -> None:
        self._transport.close()
        self._server.close()


def saying(ip: str, ttl: int = 30, rcode: int = 0) -> Reply:
    """A resolver that has one address for every name."""

    def reply(data: bytes) -> bytes:
        answer = DNSRecord.parse(data).reply()
        answer.header.rcode = rcode
        if not rcode:
            answer.add_answer(RR(answer.q.qname, ttl=ttl, rdata=A(ip)))
        return bytes(answer.pack())

    return reply


def silent(data: bytes) -> None:
    """A resolver that hears and says nothing."""


class Asker(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.answers: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data, addr) -> None:
        self.answers.put_nowait(data)


async def ask(server: tuple[str, int], name: str, qtype: str = "A", source: str = "127.0.0.1") -> DNSRecord:
    """Ask over UDP from a source address; waits at most 5 s."""
    loop = asyncio.get_running_loop()
    transport, asker = await loop.create_datagram_endpoint(Asker, local_addr=(source, 0), remote_addr=server)
    try:
        transport.sendto(bytes(DNSRecord.question(name, qtype).pack()))
        async with asyncio.timeout(5):
            return DNSRecord.parse(await asker.answers.get())
    finally:
        transport.close()


async def ask_stream(server: tuple[str, int], *names: str, source: str = "127.0.0.1") -> list[DNSRecord]:
    """Ask over one TCP connection, all questions at once; waits at most 5 s."""
    reader, writer = await asyncio.open_connection(*server, local_addr=(source, 0))
    try:
        for name in names:
            data = bytes(DNSRecord.question(name).pack())
            writer.write(len(data).to_bytes(2, "big") + data)
        async with asyncio.timeout(5):
            return [
                DNSRecord.parse(await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big")))
                for _ in names
            ]
    finally:
        writer.close()
