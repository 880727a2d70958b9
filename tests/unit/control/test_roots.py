"""Which root an update asks for, and the way from one to the next, with certificates that OpenSSL itself judges."""

import asyncio
import datetime
import random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from msgspec.structs import replace

from swarm_agent.manager.control import roots
from swarm_agent.model.errors import InvalidArgument
from swarm_agent.model.objects import Cluster, JoinTokens, Node, NodeDescription, NodeTLSInfo
from swarm_agent.model.specs import CAConfig, ExternalCA, SwarmSpec
from swarm_agent.node import signing
from swarm_agent.pki import authority, tls
from swarm_agent.pki.authority import Authority, Identity
from swarm_agent.pki.files import NodeCertificate
from swarm_agent.pki.tokens import new_token, parse_token

NOW = datetime.datetime.now(datetime.UTC)
YEAR = datetime.timedelta(days=366)
IDENTITY = Identity("n", "worker", "c")


def cluster_of(root: Authority) -> Cluster:
    rng = random.Random(1)
    return Cluster(
        id="c",
        spec=SwarmSpec(ca_config=CAConfig(node_cert_expiry=90 * 86400 * 10**9)),
        ca_cert=root.cert,
        ca_key=root.key,
        tls_info=roots.tls_info(root.cert, root.cert),
        join_tokens=JoinTokens(worker=new_token(root.cert, rng), manager=new_token(root.cert, rng)),
    )


def brought(root: Authority, **more) -> CAConfig:
    return CAConfig(signing_ca_cert=root.cert, signing_ca_key=root.key, **more)


@pytest.fixture(scope="module")
def old() -> Authority:
    return Authority.create(NOW)


@pytest.fixture(scope="module")
def new() -> Authority:
    return Authority.create(NOW)


def reporting(issuer: str) -> Node:
    return Node(id="n", description=NodeDescription(tls_info=NodeTLSInfo(cert_issuer_public_key=issuer)))


def test_an_update_that_says_nothing_of_roots_changes_none(old):
    cluster = cluster_of(old)
    assert roots.with_root_of(cluster, cluster.spec.ca_config, NOW) is cluster


def test_force_rotate_makes_a_new_root_and_tokens_wait_for_it(old):
    before = cluster_of(old)
    during = roots.with_root_of(before, CAConfig(force_rotate=1), NOW)
    assert during.root_rotation_in_progress
    assert (during.ca_cert, during.join_tokens) == (before.ca_cert, before.join_tokens)
    assert during.tls_info.trust_root == before.ca_cert
    assert during.tls_info.cert_issuer_public_key != before.tls_info.cert_issuer_public_key
    assert authority.signed_by(during.cross_signed, old.cert)


def test_it_ends_when_every_node_reports_the_new_issuer(old, new):
    during = roots.with_root_of(cluster_of(old), brought(new), NOW)
    ours = reporting(during.tls_info.cert_issuer_public_key)
    late = reporting(roots.tls_info(old.cert, old.cert).cert_issuer_public_key)
    assert not roots.is_complete(during, [ours, late])
    assert roots.is_complete(during, [ours])
    after = roots.completed(during, random.Random(2))
    assert (after.ca_cert, after.ca_key, after.next_ca_key, after.cross_signed) == (new.cert, new.key, "", "")
    assert not after.root_rotation_in_progress and after.tls_info.trust_root == new.cert
    assert not roots.is_complete(after, [ours])
    assert parse_token(after.join_tokens.worker).matches(new.cert)
    assert parse_token(after.join_tokens.worker).secret != parse_token(during.join_tokens.worker).secret


def test_bringing_the_present_root_takes_a_change_back(old, new):
    during = roots.with_root_of(cluster_of(old), brought(new), NOW)
    assert roots.with_root_of(during, brought(old), NOW) == cluster_of(old)


@pytest.mark.parametrize("who", ["old", "new", "both"])
async def test_while_it_changes_everybody_trusts_everybody(old, new, who):
    """A node with a new certificate meets nodes that trust the old root, the new one, or both. TLS decides."""
    during = roots.with_root_of(cluster_of(old), brought(new), NOW)
    key = authority.new_key()
    cert = await signing.sign(during, authority.new_signing_request(key), IDENTITY, NOW)
    bundle = {"old": old.cert, "new": new.cert, "both": during.trust_bundle}[who]
    assert authority.trusted(cert, bundle)
    assert authority.issuer_of(cert, bundle) == authority.issuer_info(new.cert)
    server = tls.server_context(NodeCertificate(during.trust_bundle, cert, key))
    assert await _meet(server, tls.client_context(_member(old if who == "old" else new, bundle)))
    assert await _meet(
        tls.server_context(_member(old if who == "old" else new, bundle)),
        tls.client_context(NodeCertificate(during.trust_bundle, cert, key)),
    )


async def test_afterwards_the_old_root_opens_nothing(old, new):
    server = tls.server_context(_member(new, new.cert))
    assert not await _meet(server, tls.client_context(_member(old, old.cert + new.cert)))


def _member(root: Authority, bundle: str) -> NodeCertificate:
    key = authority.new_key()
    cert = root.issue(authority.new_signing_request(key), IDENTITY, NOW, YEAR)
    return NodeCertificate(bundle, cert, key)


async def _meet(server, client) -> bool:
    """Whether both sides accept each other, and data passes."""

    async def serve(reader, writer):
        try:
            writer.write(await reader.readexactly(2))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
            writer.write(b"hi")
            answer = await reader.read(2)
            writer.close()
        except OSError:
            return False
    return answer == b"hi"


def expiring(days: int) -> Authority:
    return Authority.create(NOW + datetime.timedelta(days=days - 20 * 365))


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (lambda old, new: CAConfig(signing_ca_key=new.key), "the signing CA cert must also be provided"),
        (lambda old, new: CAConfig(signing_ca_cert=new.cert), "at least one valid, reachable external CA"),
        (lambda old, new: CAConfig(signing_ca_cert="x", signing_ca_key=new.key), "could not parse"),
        (lambda old, new: CAConfig(signing_ca_cert=new.cert, signing_ca_key="x"), "key cannot be read"),
        (lambda old, new: CAConfig(signing_ca_cert=new.cert, signing_ca_key=old.key), "does not match"),
        (lambda old, new: CAConfig(signing_ca_cert=new.cert + old.cert, signing_ca_key=new.key), "multiple"),
        (lambda old, new: CAConfig(signing_ca_cert=_member(new, "").cert, signing_ca_key=new.key), "not one of a cert"),
        (lambda old, new: brought(expiring(364)), "expires too soon"),
        (lambda old, new: CAConfig(signing_ca_cert=old.cross_sign(old.cert), signing_ca_key=old.key), "identical key"),
    ],
)
def test_roots_that_are_refused(old, new, config, text):
    with pytest.raises(InvalidArgument, match=text):
        roots.with_root_of(cluster_of(old), config(old, new), NOW)


def test_a_root_that_is_good_for_another_year_is_taken(old):
    assert roots.with_root_of(cluster_of(old), brought(expiring(366)), NOW).root_rotation_in_progress


def test_from_a_root_without_its_key_there_is_no_way_but_with_it(old, new):
    keyless = replace(cluster_of(old), ca_key="")
    elsewhere = CAConfig(
        signing_ca_cert=new.cert, external_cas=[ExternalCA(protocol="cfssl", url="https://new", ca_cert=new.cert)]
    )
    with pytest.raises(InvalidArgument, match="from one external CA to a different external CA is not supported"):
        roots.with_root_of(keyless, elsewhere, NOW)
    with pytest.raises(InvalidArgument, match="provide the present certificate with its key first"):
        roots.with_root_of(keyless, brought(new), NOW)
    with_key = roots.with_root_of(keyless, brought(old), NOW)
    assert roots.with_root_of(with_key, brought(new), NOW).root_rotation_in_progress


def test_external_authorities_count_for_their_own_root_only(old, new):
    config = CAConfig(
        external_cas=[
            ExternalCA(protocol="cfssl", url="https://for-old"),
            ExternalCA(protocol="cfssl", url="https://for-new", ca_cert=new.cert),
        ]
    )
    assert roots.external_urls(config, old.cert, old.cert) == ["https://for-old"]
    assert roots.external_urls(config, new.cert, old.cert) == ["https://for-new"]
    during = roots.with_root_of(cluster_of(old), replace(config, signing_ca_cert=new.cert), NOW)
    assert (during.next_ca_cert, during.next_ca_key) == (new.cert, "")


def test_an_update_needs_the_external_authorities_that_it_makes_the_cluster_rely_on(old, new):
    def outside(url: str, root: str = "") -> CAConfig:
        return CAConfig(external_cas=[ExternalCA(protocol="cfssl", url=url, ca_cert=root)])

    def needed(cluster: Cluster, ca: CAConfig) -> roots.Reliance | None:
        return roots.new_reliance(cluster, ca, NOW)

    cluster = cluster_of(old)
    desired = replace(outside("https://new", new.cert), signing_ca_cert=new.cert)
    assert needed(cluster, desired) == roots.Reliance(new.cert, ["https://new"], "desired")
    assert needed(cluster, replace(desired, signing_ca_key=new.key)) is None
    assert needed(cluster, outside("https://old")) is None, "the cluster signs itself"

    keyless = replace(cluster, ca_key="", spec=SwarmSpec(ca_config=outside("https://old")))
    assert needed(keyless, outside("https://old")) is None, "nothing new"
    assert needed(keyless, outside("https://other")) == roots.Reliance(old.cert, ["https://other"], "current")
    assert needed(keyless, brought(old)) is None
    during = replace(keyless, next_ca_cert=new.cert)
    assert needed(during, outside("https://x", new.cert)) == roots.Reliance(new.cert, ["https://x"], "next")


def test_the_only_external_authority_cannot_be_taken_away(old):
    config = CAConfig(external_cas=[ExternalCA(protocol="cfssl", url="https://ca")])
    alone = replace(cluster_of(old), ca_key="", spec=SwarmSpec(ca_config=config))
    assert roots.with_root_of(alone, config, NOW) is alone
    with pytest.raises(InvalidArgument, match="at least one valid, reachable external CA"):
        roots.with_root_of(alone, CAConfig(), NOW)


def nameless(root: Authority, csr: str) -> str:
    """What an authority signs that copies the subject and forgets the host names."""
    cert = x509.load_pem_x509_certificate(root.issue(csr, IDENTITY, NOW, YEAR).encode())
    issuer = serialization.load_pem_private_key(root.key.encode(), None)
    builder = x509.CertificateBuilder(
        cert.issuer,
        cert.subject,
        cert.public_key(),
        cert.serial_number,
        cert.not_valid_before_utc,
        cert.not_valid_after_utc,
    )
    return builder.sign(issuer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def test_what_an_external_authority_answers_is_checked(old, new):
    key = authority.new_key()
    csr = authority.new_signing_request(key)
    good = new.issue(csr, IDENTITY, NOW, YEAR)
    assert signing.check_external(good, new.cert, csr, IDENTITY) == good
    for bad, text in [
        (new.issue(csr, replace_role(IDENTITY, "manager"), NOW, YEAR), "other names"),
        (old.issue(csr, IDENTITY, NOW, YEAR), "not signed by the cluster's root"),
        (_member(new, "").cert, "another key"),
        ("nonsense", "cannot be used"),
        (nameless(new, csr), "left out the host name swarm-"),
    ]:
        with pytest.raises(signing.SigningFailed, match=text):
            signing.check_external(bad, new.cert, csr, IDENTITY)


def replace_role(identity: Identity, role: str) -> Identity:
    return Identity(identity.node_id, role, identity.cluster_id)
