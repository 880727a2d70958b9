"""Joining over real TLS on loopback: what a token opens, and every way in which it does not."""

import asyncio
import datetime
import random
import ssl
from dataclasses import dataclass

import aiohttp
import msgspec
import pytest

from swarm_agent.model.errors import BadRequest, ClusterError, Unavailable
from swarm_agent.model.objects import Cluster, JoinTokens, Node
from swarm_agent.model.specs import CAConfig, SwarmSpec
from swarm_agent.node.admission import request_admission
from swarm_agent.node.certificates import CertificateHolder
from swarm_agent.node.keys import NodeKeys
from swarm_agent.node.leader_client import LeaderClient
from swarm_agent.node.management import ManagementServer
from swarm_agent.node.state import StateFolder
from swarm_agent.pki import authority, tls, tokens
from swarm_agent.pki.authority import Authority, Identity
from swarm_agent.pki.files import NodeCertificate
from swarm_agent.store.memory import memory_store

NOW = datetime.datetime.now(datetime.UTC)


class RecordingDispatcher:
    """Takes sessions and remembers whose they were."""

    def __init__(self):
        self.seen: list[str] = []

    async def session(self, node_id, channel):
        self.seen.append(node_id)
        data = await channel.receive()
        await channel.send(data)


@dataclass
class Manager:
    """What the management plane asks of a manager."""

    store: object
    dispatcher: object
    leader_addr: str = ""
    root: Authority = None
    address: str = ""
    folder: object = None
    cluster_id: str = "cluster1"
    external_context: object = None
    api: object = None

    @property
    def cluster(self):
        return self.store.view().all(Cluster)[0]


@pytest.fixture
async def manager(tmp_path):
    root = Authority.create(NOW)
    rng = random.Random(7)
    store = memory_store()
    cluster = Cluster(
        id="cluster1",
        spec=SwarmSpec(ca_config=CAConfig(node_cert_expiry=90 * 86400 * 10**9)),
        join_tokens=JoinTokens(worker=tokens.new_token(root.cert, rng), manager=tokens.new_token(root.cert, rng)),
        ca_cert=root.cert,
        ca_key=root.key,
    )
    await store.update(lambda tx: tx.create(cluster))
    key = authority.new_key()
    cert = root.issue(
        authority.new_signing_request(key), Identity("m1", "manager", "cluster1"), NOW, datetime.timedelta(days=1)
    )
    certificate = NodeCertificate(root.cert, cert, key)
    certificate.save(tmp_path / "m1")
    manager = Manager(store, RecordingDispatcher(), root=root, folder=tmp_path)
    server = ManagementServer(manager)
    await server.start("127.0.0.1", 0, tls.server_context(certificate))
    manager.address = f"127.0.0.1:{server.port}"
    yield manager
    await server.stop()
    await store.close()


async def test_a_worker_token_admits_a_worker(manager):
    found = await request_admission(manager.address, manager.cluster.join_tokens.worker, "pause", "host7")
    identity = authority.identity_of_pem(found.certificate.cert)
    assert identity == Identity(found.node_id, "worker", "cluster1")
    node = manager.store.view().get(Node, found.node_id)
    assert (node.spec.role, node.spec.availability, node.description.hostname) == ("worker", "pause", "host7")


async def test_a_manager_token_admits_a_manager(manager):
    found = await request_admission(manager.address, manager.cluster.join_tokens.manager, "active", "host7")
    assert found.role == authority.identity_of_pem(found.certificate.cert).role == "manager"


async def test_a_wrong_secret_is_refused_with_swarms_text_and_leaves_no_node(manager):
    other = tokens.new_token(manager.root.cert, random.Random(99))
    with pytest.raises(ClusterError, match="A valid join token is necessary to join this cluster") as refusal:
        await request_admission(manager.address, other, "active", "host7")
    assert refusal.value.status == 400
    assert manager.store.view().all(Node) == []


async def test_another_clusters_token_is_noticed_before_its_secret_is_shown(manager):
    foreign = tokens.new_token(Authority.create(NOW).cert, random.Random(1))
    with pytest.raises(BadRequest, match="remote CA does not match fingerprint"):
        await request_admission(manager.address, foreign, "active", "host7")


async def test_no_token_at_all(manager):
    with pytest.raises(BadRequest, match=r"^invalid join token$"):
        await request_admission(manager.address, "SWMTKN-nonsense", "active", "host7")


async def test_nobody_at_the_address(manager):
    with pytest.raises(Unavailable, match=r"dial tcp 127\.0\.0\.1:1: connect: connection refused"):
        await request_admission("127.0.0.1:1", manager.cluster.join_tokens.worker, "active", "host7")


async def test_a_manager_that_does_not_lead_sends_the_joiner_to_the_leader(manager):
    follower = Manager(manager.store, None, leader_addr=manager.address)
    server = ManagementServer(follower)
    certificate = NodeCertificate.load(manager.folder / "m1")
    await server.start("127.0.0.1", 0, tls.server_context(certificate))
    try:
        token = manager.cluster.join_tokens.worker
        found = await request_admission(f"127.0.0.1:{server.port}", token, "active", "host7")
    finally:
        await server.stop()
    assert found.manager == manager.address


async def _open_session(manager: Manager, context: ssl.SSLContext) -> bytes:
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(f"wss://{manager.address}/v1/session", ssl=context) as socket,
    ):
        await socket.send_bytes(b"hello")
        return (await socket.receive()).data


async def test_a_members_session_reaches_the_dispatcher_under_its_own_id(manager):
    found = await request_admission(manager.address, manager.cluster.join_tokens.worker, "active", "host7")
    found.certificate.save(manager.folder / "w")
    assert await _open_session(manager, tls.client_context(found.certificate)) == b"hello"
    assert manager.dispatcher.seen == [found.node_id]


async def test_a_worker_cannot_pose_as_a_manager(manager):
    """Its certificate is of the same root. It must be told neither the token nor what a member asks of the leader."""
    key = authority.new_key()
    request = authority.new_signing_request(key)
    cert = manager.root.issue(request, Identity("w1", "worker", "cluster1"), NOW, datetime.timedelta(days=1))
    worker = NodeCertificate(manager.root.cert, cert, key)
    said = []

    async def pose(reader, writer):
        while line := await reader.readline():
            said.append(line)
            if line == b"\r\n" and b"GET /v1/root" in said[0]:
                root = manager.root.cert.encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(root) + root)
                break
        writer.close()

    server = await asyncio.start_server(pose, "127.0.0.1", 0, ssl=tls.server_context(worker))
    async with server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(Unavailable, match="swarm-manager"):
            await request_admission(address, manager.cluster.join_tokens.manager, "active", "host7")
        holder = CertificateHolder(worker, NodeKeys(StateFolder(manager.folder)))
        with pytest.raises(Unavailable, match="swarm-manager"):
            await LeaderClient(holder, lambda: [address]).post("/v1/api", b"a secret", patience=0)
    assert said[0].startswith(b"GET /v1/root") and not any(b"POST" in line for line in said)


async def test_nobody_without_a_certificate_gets_a_session(manager):
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await _open_session(manager, tls.root_only_context(manager.root.cert))
    assert refusal.value.status == 403


async def test_a_removed_node_gets_no_session(manager):
    found = await request_admission(manager.address, manager.cluster.join_tokens.worker, "active", "host7")
    found.certificate.save(manager.folder / "w")
    cluster = manager.cluster

    def blacklist(tx):
        tx.update(msgspec.structs.replace(cluster, blacklisted={found.node_id: "2100-01-01T00:00:00Z"}))

    await manager.store.update(blacklist)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await _open_session(manager, tls.client_context(found.certificate))
    assert refusal.value.status == 403
    assert manager.dispatcher.seen == []


async def test_a_managers_certificate_from_before_its_demotion_opens_nothing(manager):
    found = await request_admission(manager.address, manager.cluster.join_tokens.manager, "active", "host7")
    found.certificate.save(manager.folder / "m")

    async def ask(path):
        context = tls.client_context(found.certificate)
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"https://{manager.address}{path}", ssl=context) as response,
        ):
            return response.status, (await response.json())["message"]

    assert await ask("/v1/api") == (500, "this manager does not serve the cluster's API yet")

    def demote(tx):
        node = tx.get(Node, found.node_id)
        tx.update(msgspec.structs.replace(node, spec=msgspec.structs.replace(node.spec, role="worker")))

    await manager.store.update(demote)
    for path in ("/v1/api", "/v1/raft/join", "/v1/raft/move", "/v1/raft/leave"):
        assert await ask(path) == (403, f"node {found.node_id} is no manager any more; this is for managers")


async def test_garbage_is_answered_with_400(manager):
    async with aiohttp.ClientSession() as http:
        for body in (b"", b"{", b"[]", b'{"token": 3}', b"\xff" * 100):
            async with http.post(
                f"https://{manager.address}/v1/certificate", data=body, ssl=tls.root_only_context(manager.root.cert)
            ) as response:
                assert response.status == 400, body
        async with http.post(
            f"https://{manager.address}/v1/certificate",
            data=b"x" * 200_000,
            ssl=tls.root_only_context(manager.root.cert),
        ) as response:
            assert response.status == 400
            assert "larger than" in (await response.json())["message"]


async def test_a_connection_costs_a_manager_little_memory(manager):
    """asyncio's own default is 256 KiB a connection; a thousand nodes would take a quarter of a gigabyte."""
    context = tls.root_only_context(manager.root.cert)
    host, port = manager.address.split(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    protocol = writer.transport._ssl_protocol
    assert len(protocol._ssl_buffer) <= 64 * 1024
    writer.close()
