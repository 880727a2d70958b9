"""Certificates of a running node: renewed in time, swapped under a listener, old roots forgotten."""

import asyncio
import datetime
import random
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest

from swarm_agent.model.objects import Cluster, JoinTokens, Node
from swarm_agent.model.session import ManagerPeer
from swarm_agent.model.specs import CAConfig, NodeSpec, SwarmSpec
from swarm_agent.node.certificates import CertificateHolder, renewal_time
from swarm_agent.node.keys import NodeKeys
from swarm_agent.node.management import ManagementServer
from swarm_agent.node.membership import Membership
from swarm_agent.node.settings import Settings
from swarm_agent.node.state import SavedState, StateFolder
from swarm_agent.pki import authority, tls, tokens
from swarm_agent.pki.authority import Authority, Identity
from swarm_agent.pki.files import NodeCertificate
from swarm_agent.store.memory import memory_store
from swarm_agent.worker.engine import Engine

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
HOUR = datetime.timedelta(hours=1)


def issued(root: Authority, node_id: str = "n", role: str = "worker", *, at=NOW, life=9 * HOUR) -> NodeCertificate:
    key = authority.new_key()
    cert = root.issue(authority.new_signing_request(key), Identity(node_id, role, "cluster1"), at, life)
    return NodeCertificate(root.cert, cert, key)


@pytest.mark.parametrize("seed", range(20))
def test_renewal_is_between_half_and_four_fifths_of_a_life(seed):
    cert = issued(Authority.create(NOW)).cert  # back-dated by an hour: a life of ten
    assert NOW + 4 * HOUR <= renewal_time(cert, random.Random(seed)) <= NOW + 7 * HOUR


def test_hosts_that_were_made_together_do_not_renew_together():
    cert = issued(Authority.create(NOW)).cert
    assert len({renewal_time(cert, random.Random(seed)) for seed in range(20)}) == 20


async def test_a_listener_shows_the_newest_certificate_and_forgets_old_roots(tmp_path):
    old, new = Authority.create(NOW), Authority.create(NOW)
    holder = CertificateHolder(issued(old, "m", "manager"), NodeKeys(StateFolder(tmp_path)))
    before, after = issued(old), issued(new)
    listener = await asyncio.start_server(_greet, "127.0.0.1", 0, ssl=holder.server_context())
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        assert (await _greeted(port, before))[1] == holder.present.cert
        with pytest.raises(ssl.SSLCertVerificationError):
            await _greeted(port, after)
        renewed = issued(new, "m", "manager")
        await holder.replace(NodeCertificate(new.cert, renewed.cert, renewed.key))
        assert (await _greeted(port, after))[1] == renewed.cert
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await _greeted(port, NodeCertificate(new.cert, before.cert, before.key))
        await holder.trust(old.cert + new.cert)
        assert (await _greeted(port, NodeCertificate(new.cert, before.cert, before.key)))[0] == b"hello"
    assert NodeCertificate.load(tmp_path / "certificates") == holder.present


async def _greet(reader, writer):
    writer.write(b"hello")
    try:
        await writer.drain()
        await reader.read()
    except OSError:
        pass
    finally:
        writer.close()


async def _greeted(port: int, certificate: NodeCertificate) -> tuple[bytes, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls.client_context(certificate))
    try:
        seen = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        data = await reader.read(5)
        if not data:
            raise ConnectionError("refused")
        return data, ssl.DER_cert_to_PEM_cert(seen)
    finally:
        writer.close()


@dataclass
class Manager:
    """What the management plane asks of a manager."""

    store: object
    dispatcher: object
    leader_addr: str = ""
    cluster_id: str = "cluster1"
    external_context: object = None


@pytest.fixture
async def member(tmp_path):
    """Makes a worker with a given certificate, before a management plane that renews it."""
    root = Authority.create(NOW - 100 * HOUR)
    store = memory_store()
    token = tokens.new_token(root.cert, random.Random(1))
    cluster = Cluster(
        id="cluster1",
        spec=SwarmSpec(ca_config=CAConfig(node_cert_expiry=3600 * 10**9)),
        join_tokens=JoinTokens(worker=token, manager=token),
        ca_cert=root.cert,
        ca_key=root.key,
    )
    node = Node(id="n", spec=NodeSpec(role="worker"))
    await store.update(lambda tx: [tx.create(obj) for obj in (cluster, node)])
    server = ManagementServer(Manager(store, object()))
    await server.start("127.0.0.1", 0, tls.server_context(issued(root, "m", "manager")))
    engine = Engine(str(tmp_path / "no.sock"))

    def make(at: datetime.datetime, life: datetime.timedelta) -> Membership:
        state = SavedState(
            node_id="n",
            cluster_id="cluster1",
            role="worker",
            listen="127.0.0.1",
            listen_port=0,
            advertise="127.0.0.1",
            advertise_port=0,
            data_path="127.0.0.1",
            managers=[ManagerPeer("m", f"127.0.0.1:{server.port}")],
        )
        settings = Settings(run_dir=Path(tmp_path / "run"), state_dir=tmp_path)
        certificate = issued(root, at=at, life=life)
        return Membership(
            settings, StateFolder(tmp_path), state, certificate, engine, lambda role: None, on_fatal=lambda error: None
        )

    yield make
    await server.stop()
    await engine.close()
    await store.close()


async def _renewed(membership: Membership, first: str, seconds: float) -> bool:
    keeping = asyncio.create_task(membership._keep_role())
    try:
        async with asyncio.timeout(seconds):
            while membership.certificates.present.cert == first:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    except TimeoutError:
        return False
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    return True


async def test_a_certificate_at_nine_tenths_of_its_life_is_renewed(member):
    membership = member(NOW - 9 * HOUR, 10 * HOUR)
    old = membership.certificates.present
    assert await _renewed(membership, old.cert, 10)
    present = membership.certificates.present
    assert present.key != old.key and authority.identity_of_pem(present.cert) == Identity("n", "worker", "cluster1")
    assert authority.validity(present.cert)[1] > NOW + HOUR / 2


async def test_a_young_certificate_is_kept(member):
    membership = member(NOW, 10 * HOUR)
    assert not await _renewed(membership, membership.certificates.present.cert, 0.3)
