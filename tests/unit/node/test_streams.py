"""Byte streams to nodes' engines, over real TLS on loopback: leader, follower, worker, and who may not."""

from __future__ import annotations

import asyncio
import datetime
import socket
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from swarm_agent.model.errors import Unavailable
from swarm_agent.model.objects import Cluster, Node
from swarm_agent.model.session import OpenStream
from swarm_agent.model.specs import NodeSpec
from swarm_agent.node import streams
from swarm_agent.node.management import ManagementServer
from swarm_agent.node.streams import EngineStreams
from swarm_agent.pki import authority, tls
from swarm_agent.pki.authority import Authority, Identity
from swarm_agent.pki.files import NodeCertificate
from swarm_agent.store.memory import memory_store

NOW = datetime.datetime.now(datetime.UTC)


class World:
    """A leader "m1" that serves the management plane, and members that hear it as in a session."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = Authority.create(NOW)
        self.store = memory_store()
        self.cluster_id = "cluster1"
        self.leader_addr = ""
        self.api = None
        self.dispatcher = self
        self.server = ManagementServer(self)
        self.address = ""
        self.members: dict[str, EngineStreams] = {}
        self.asked: list[tuple[str, OpenStream]] = []

    def tell(self, node_id: str, message: OpenStream) -> bool:
        self.asked.append((node_id, message))
        if node_id in self.members:
            self.members[node_id].wanted(message, self.address)
        return node_id in self.members

    def certificate(self, node_id: str, role: str) -> NodeCertificate:
        key = authority.new_key()
        request = authority.new_signing_request(key)
        cert = self.root.issue(request, Identity(node_id, role, "cluster1"), NOW, datetime.timedelta(days=1))
        return NodeCertificate(self.root.cert, cert, key)

    def context(self, node_id: str, role: str):
        return tls.client_context(self.certificate(node_id, role))

    def member(self, node_id: str, role: str = "worker") -> EngineStreams:
        context = self.context(node_id, role)
        self.members[node_id] = EngineStreams(node_id, self.folder / f"{node_id}.sock", lambda: context)
        return self.members[node_id]

    async def status(self, path: str, node_id: str, role: str) -> int:
        """What the management plane answers to this member."""
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"https://{self.address}{path}", ssl=self.context(node_id, role)) as reply,
        ):
            return reply.status


@pytest.fixture
async def world(tmp_path):
    world = World(tmp_path)
    cluster = Cluster(id="cluster1", ca_cert=world.root.cert, ca_key=world.root.key)
    managers = [Node(id=f"m{number}", spec=NodeSpec(role="manager")) for number in (1, 2, 3)]
    await world.store.update(lambda tx: [tx.create(obj) for obj in (cluster, *managers)])
    await world.server.start("127.0.0.1", 0, tls.server_context(world.certificate("m1", "manager")))
    world.address = f"127.0.0.1:{world.server.port}"
    yield world
    for member in world.members.values():
        await member.stop()
    await world.server.stop()
    await world.store.close()


@asynccontextmanager
async def engine(world: World, node_id: str, talk):
    """Something that listens where the node's engine does."""
    server = await asyncio.start_unix_server(talk, str(world.folder / f"{node_id}.sock"))
    try:
        yield
    finally:
        server.close()


async def echo(reader, writer):
    """Answers in capital letters, at the end of what it was told."""
    writer.write((await reader.read()).upper())
    writer.close()


async def talk(sock: socket.socket, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(sock=sock)
    writer.write(data)
    await writer.drain()
    writer.write_eof()
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


async def test_the_leader_reaches_a_workers_engine_and_each_direction_ends_by_itself(world):
    world.member("w1")
    async with engine(world, "w1", echo):
        assert await talk(await world.server.streams.open("w1", lambda: world), b"hello") == b"HELLO"


async def test_a_follower_reaches_it_through_the_leader(world):
    world.member("w1")
    follower = world.member("m2", "manager")
    async with engine(world, "w1", echo):
        assert await talk(await follower.through(world.address, "w1"), b"hello") == b"HELLO"


async def test_megabytes_pass_unharmed(world):
    world.member("w1")
    follower = world.member("m2", "manager")
    data = bytes(range(256)) * 20_000
    async with engine(world, "w1", echo):
        assert await talk(await follower.through(world.address, "w1"), data) == data.upper()


async def test_an_answer_arrives_although_the_engine_did_not_take_the_whole_upload(world):
    async def refuse(reader, writer):
        await reader.read(10)
        writer.write(b"too much")
        writer.close()

    world.member("w1")
    async with engine(world, "w1", refuse):
        near = await world.server.streams.open("w1", lambda: world)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(near, bytes(10_000))
        async with asyncio.timeout(10):
            assert await loop.sock_recv(near, 100) == b"too much"
            assert await loop.sock_recv(near, 100) == b""
        near.close()


async def test_the_engine_is_let_go_when_the_client_leaves(world):
    left = asyncio.Event()

    async def wait(reader, writer):
        await reader.read()
        left.set()
        writer.close()

    world.member("w1")
    follower = world.member("m2", "manager")
    async with engine(world, "w1", wait):
        near = await follower.through(world.address, "w1")
        near.close()
        async with asyncio.timeout(10):
            await left.wait()


async def test_a_node_without_a_session_is_not_available(world, monkeypatch):
    monkeypatch.setattr(streams, "OPEN_TIMEOUT", 0.3)
    with pytest.raises(Unavailable, match="node w9 is not available"):
        await world.server.streams.open("w9", lambda: world)
    follower = world.member("m2", "manager")
    with pytest.raises(Unavailable, match="node w9 is not available"):
        await follower.through(world.address, "w9")


async def test_a_worker_may_not_ask_for_streams(world):
    assert await world.status("/v1/engine/m1", "w1", "worker") == 403


async def test_a_stream_is_only_for_the_node_that_was_asked(world):
    world.members["w1"] = None  # told, but it does not come
    world.tell = lambda node_id, message: world.asked.append((node_id, message)) or True
    waiting = asyncio.create_task(world.server.streams.open("w1", lambda: world))
    await asyncio.sleep(0)
    stream_id = world.asked[0][1].id
    assert await world.status(f"/v1/stream/{stream_id}", "w2", "worker") == 403
    assert await world.status("/v1/stream/guessed", "w1", "worker") == 404
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    world.members.clear()
    assert await world.status(f"/v1/stream/{stream_id}", "w1", "worker") == 404
