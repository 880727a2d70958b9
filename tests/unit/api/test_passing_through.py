"""Requests of the engine's, on the wire: what the engine gets and what the client gets."""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket as sockets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from swarm_agent.api import http1, splice
from tests.unit.api.kit import Door, http_engine, open_door, raw_engine


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the engine gets it: its head, and the reader for what follows."""

    head: bytes
    reader: asyncio.StreamReader


Talk = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


async def head_of(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


async def connect(door: Door) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_unix_connection(str(door.path))


async def through(tmp_path: Path, talk: Talk, client: Callable[[Door], Awaitable[None]]) -> None:
    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The front door's own look at the engine when it opens.
        head = await head_of(reader)
        if b"/_ping" in head:
            writer.write(OK)
            return
        await talk(Asked(head, reader), writer)

    async with raw_engine(tmp_path / "engine.sock", engine), open_door(tmp_path, tmp_path / "engine.sock") as door:
        async with asyncio.timeout(30):
            await client(door)


async def test_bytes_arrive_as_they_were_sent(tmp_path: Path) -> None:
    seen = []

    async def talk(request: Asked, writer: asyncio.StreamWriter) -> None:
        seen.append(request.head + await request.reader.readexactly(7))
        writer.write(OK)

    async def client(door: Door) -> None:
        head = b"POST /v1.41/images/create?a=%2Fb HTTP/1.1\r\nHost: x\r\nX-CaSe:  y\r\nContent-Length: 7\r\n\r\n"
        sent = head + b"abc\r\n\0\xff"
        assert await door.raw(sent) == OK
        assert seen == [sent.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)]

    await through(tmp_path, talk, client)


async def test_an_upgraded_stream_is_carried_both_ways_and_may_end_one_way(tmp_path: Path) -> None:
    async def talk(request: Asked, writer: asyncio.StreamWriter) -> None:
        assert b"Connection: close" not in request.head
        writer.write(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        while data := await request.reader.read(100):
            writer.write(data.upper())
        writer.write(b"input ended")

    async def client(door: Door) -> None:
        reader, writer = await connect(door)
        writer.write(b"POST /v1.41/exec/e/start HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        assert (await head_of(reader)).startswith(b"HTTP/1.1 101")
        for word in (b"one", b"two"):
            writer.write(word)
            assert await reader.readexactly(3) == word.upper()
        writer.write_eof()
        assert await reader.read() == b"input ended"
        writer.close()

    await through(tmp_path, talk, client)


async def test_a_large_upload_arrives_whole_while_the_engine_is_slow(tmp_path: Path) -> None:
    size, digests = 30_000_000, []

    async def talk(request: Asked, writer: asyncio.StreamWriter) -> None:
        digest, left = hashlib.sha256(), size
        while left:
            data = await request.reader.read(65536)
            digest.update(data)
            left -= len(data)
            await asyncio.sleep(0)
        digests.append(digest.digest())
        writer.write(OK)

    async def client(door: Door) -> None:
        body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        reader, writer = await connect(door)
        writer.write(b"POST /build HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size)
        for start in range(0, size, 1 << 20):
            writer.write(body[start : start + (1 << 20)])
            await writer.drain()
        assert await reader.read() == OK
        assert digests == [hashlib.sha256(body).digest()]
        writer.close()

    await through(tmp_path, talk, client)


async def test_an_engine_that_does_not_read_holds_the_client_back(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def talk(request: Asked, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(OK)

    async def client(door: Door) -> None:
        _, writer = await connect(door)
        writer.write(b"POST /build HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n")
        sent = 0
        try:
            async with asyncio.timeout(0.5):
                while sent < 50_000_000:
                    writer.write(b"x" * 1_000_000)
                    await writer.drain()
                    sent += 1_000_000
        except TimeoutError:
            pass
        assert sent < 20_000_000
        release.set()
        writer.transport.abort()

    await through(tmp_path, talk, client)


async def test_an_answer_that_comes_before_the_upload_ends_reaches_the_client(tmp_path: Path) -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    async def talk(request: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(refusal)

    async def client(door: Door) -> None:
        reader, writer = await connect(door)
        writer.write(b"POST /build HTTP/1.1\r\nContent-Length: 50000000\r\n\r\n" + b"x" * 5_000_000)
        assert await reader.read() == refusal
        writer.close()

    await through(tmp_path, talk, client)


async def test_a_client_that_goes_away_ends_the_engines_stream(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def talk(request: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nfirst line\n")
        await request.reader.read()
        ended.set()

    async def client(door: Door) -> None:
        reader, writer = await connect(door)
        writer.write(b"GET /containers/c/logs?follow=1 HTTP/1.1\r\n\r\n")
        await reader.readuntil(b"first line\n")
        writer.close()
        await ended.wait()

    await through(tmp_path, talk, client)


async def test_a_client_that_only_ends_its_input_still_gets_the_output(tmp_path: Path) -> None:
    async def talk(request: Asked, writer: asyncio.StreamWriter) -> None:
        assert await request.reader.read() == b"question"
        writer.write(b"answer")

    async def client(door: Door) -> None:
        request = b"POST /attach HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nquestion"
        assert await door.raw(request, end=True) == b"answer"

    await through(tmp_path, talk, client)


@pytest.mark.parametrize("leftover", [False, True])
async def test_without_an_engine_the_answer_says_so(tmp_path: Path, leftover: bool) -> None:
    socket = tmp_path / "engine.sock"
    if leftover:  # the socket file of an engine that was killed
        socket.unlink(missing_ok=True)
        with sockets.socket(sockets.AF_UNIX) as dead:
            dead.bind(str(socket))
    async with open_door(tmp_path, socket) as door:
        status, answer = await door.call("GET", "/v1.41/containers/json")
        assert status == 503
        assert answer["message"].startswith(f"cannot reach the engine at unix://{socket}: ")
        upload = b"POST /build HTTP/1.1\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 5_000_000
        assert (await door.raw(upload, end=True)).startswith(b"HTTP/1.1 503 ")


async def test_one_connection_carries_the_clusters_calls_and_then_an_engines(tmp_path: Path) -> None:
    async with http_engine(tmp_path / "engine.sock"), open_door(tmp_path, tmp_path / "engine.sock") as door:
        await door.call("POST", "/swarm/init", {})
        create = b'{"Name":"a","TaskTemplate":{"ContainerSpec":{"Image":"x"}}}'
        chunked = b"%x\r\n%s\r\n%x;ext=1\r\n%s\r\n0\r\nTrailer: x\r\n\r\n" % (
            10,
            create[:10],
            len(create) - 10,
            create[10:],
        )
        sent = (
            b"GET /v1.41/services HTTP/1.1\r\n\r\n"
            b"POST /services/create HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            + chunked
            + b"\r\nGET /v1.41/services/a HTTP/1.1\r\n\r\n"
            b"GET /v1.41/containers/json HTTP/1.1\r\nHost: docker\r\n\r\n"
        )
        answer = await door.raw(sent)
        assert re.findall(rb"HTTP/1\.1 (\d+) ", answer) == [b"200", b"201", b"200", b"200"]
        assert b'{"engine": "/containers/json"}' in answer, "and the connection ends with the engine's answer"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /info HTTP/1.1\r\nA: " + b"a" * http1.MAX_HEAD + b"\r\n\r\n", b"431"),
        (b"POST /services/create HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", b"413"),
        (b"POST /services/create HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n", b"413"),
        (b"POST /services/create HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", b"400"),
        (b"POST /services/create HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", b"400"),
        (b"POST /services/create HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"GET /info HT", b"400"),
    ],
)
async def test_requests_that_cannot_be_read(door: Door, sent: bytes, status: bytes) -> None:
    answer = await door.raw(sent, end=True)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1] == status
    assert b"Connection: close" in head
    assert body.startswith(b'{"message":"')


async def test_a_client_that_waits_to_be_told_may_go_on(swarm: Door) -> None:
    reader, writer = await connect(swarm)
    body = b'{"Name":"a","Data":"aGk="}'
    writer.write(
        b"POST /secrets/create HTTP/1.1\r\nExpect: 100-continue\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    assert await head_of(reader) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await head_of(reader)).startswith(b"HTTP/1.1 201 ")
    writer.close()


async def test_the_end_of_a_request_cut_short_is_silent(swarm: Door) -> None:
    assert await swarm.raw(b"POST /secrets/create HTTP/1.1\r\nContent-Length: 10\r\n\r\nab", end=True) == b""


async def test_old_clients_get_their_connection_closed(swarm: Door) -> None:
    answer = await swarm.raw(b"GET /nodes HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"]\n")


async def test_linger_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splice, "LINGER", 0.05)
    await asyncio.wait_for(splice.linger(asyncio.StreamReader()), 10)
