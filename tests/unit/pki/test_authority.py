"""The root signs node certificates that say who the node is, and TLS between members works with nothing else."""

import asyncio
import datetime
import random
import ssl

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from swarm_agent.model.errors import BadRequest, InvalidArgument
from swarm_agent.pki import authority, tls, tokens
from swarm_agent.pki.authority import Authority, Identity
from swarm_agent.pki.files import NodeCertificate

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def member(root: Authority, node_id: str, role: str) -> NodeCertificate:
    key = authority.new_key()
    cert = root.issue(authority.new_signing_request(key), Identity(node_id, role, "cluster1"), NOW, 90 * DAY)
    return NodeCertificate(root.cert, cert, key)


def test_a_node_certificate_carries_id_role_and_cluster():
    root = Authority.create(NOW)
    found = authority.identity_of_pem(member(root, "node1", "worker").cert)
    assert found == Identity("node1", "worker", "cluster1")


def test_a_node_certificate_is_signed_by_its_own_root_only():
    root, other = Authority.create(NOW), Authority.create(NOW)
    cert = member(root, "node1", "manager").cert
    assert authority.signed_by(cert, root.cert)
    assert not authority.signed_by(cert, other.cert)


def test_a_certificate_never_outlives_the_root_and_never_lives_less_than_an_hour():
    root = Authority.create(NOW)
    key = authority.new_key()
    request = authority.new_signing_request(key)
    long = root.issue(request, Identity("n", "worker", "c"), NOW, 100 * 365 * DAY)
    short = root.issue(request, Identity("n", "worker", "c"), NOW, datetime.timedelta(seconds=1))
    assert authority.validity(long)[1] == authority.validity(root.cert)[1]
    assert authority.validity(short)[1] >= (NOW + datetime.timedelta(hours=1)).replace(microsecond=0)


def test_a_root_is_swarms_an_elliptic_curve_for_twenty_years():
    root = x509.load_pem_x509_certificate(Authority.create(NOW).cert.encode())
    assert root.subject == root.issuer == x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "swarm-ca")])
    assert root.public_key().curve.name == "secp256r1"
    assert root.not_valid_after_utc - NOW > 20 * 365 * DAY - datetime.timedelta(seconds=1)


def test_a_host_whose_clock_is_an_hour_late_believes_new_certificates():
    root = Authority.create(NOW)
    for cert in (root.cert, member(root, "n", "worker").cert):
        assert authority.validity(cert)[0] <= NOW - datetime.timedelta(hours=1)


def test_garbage_requests_are_refused():
    with pytest.raises(InvalidArgument):
        Authority.create(NOW).issue("not a request", Identity("n", "worker", "c"), NOW, DAY)


def test_a_root_certificate_is_no_node():
    with pytest.raises(InvalidArgument):
        authority.identity_of_pem(Authority.create(NOW).cert)


def test_files_are_private_and_complete_or_absent(tmp_path):
    folder = tmp_path / "certificates"
    assert NodeCertificate.load(folder) is None
    saved = member(Authority.create(NOW), "n", "worker")
    saved.save(folder)
    assert NodeCertificate.load(folder) == saved
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    (folder / "node.key").unlink()
    assert NodeCertificate.load(folder) is None


def test_a_token_names_its_root_and_survives_parsing():
    rng = random.Random(1)
    root, other = Authority.create(NOW), Authority.create(NOW)
    text = tokens.new_token(root.cert, rng)
    token = tokens.parse_token(text)
    assert text.startswith("SWMTKN-1-") and len(text) == len("SWMTKN-1-") + 50 + 1 + 25
    assert token.matches(root.cert) and not token.matches(other.cert)


DIGEST, SECRET = "1kxftv4ofnc6mt30lmgipg6ngf9luhwqopfk1tz6bdmnkubg0e", "4myj5xihyto11dg1cn55w8p61"


@pytest.mark.parametrize("prefix", ["SWMTKN-1", "SWMTKN-2-0"])
def test_tokens_of_both_versions_are_read_as_swarmkit_does(prefix):
    token = tokens.parse_token(f"{prefix}-{DIGEST}-{SECRET}")
    assert token.digest.hex() == "3f72881f0095fc4e38ad6749af77f610c0b2d0506554c559a64b1b47935ac3ce"
    assert token.secret == SECRET


def test_a_token_for_fips_hosts_only_is_refused_with_the_reason():
    with pytest.raises(BadRequest, match=r"^node is not FIPS-enabled but cluster requires FIPS$"):
        tokens.parse_token(f"SWMTKN-2-1-{DIGEST}-{SECRET}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SWMTKN-1-a-b",
        f"SWMTKN-1-0-{DIGEST}-{SECRET}",
        f"SWMTKN-2-{DIGEST}-{SECRET}",
        f"SWMTKN-2-2-{DIGEST}-{SECRET}",
        "SWMTKN-3-" + "0" * 50 + "-" + "0" * 25,
        "x" * 90,
        "SWMTKN-1-" + "z" * 50 + "-" + "0" * 25,
        "SWMTKN-1-" + "É" * 50 + "-" + "0" * 25,
    ],
)
def test_anything_else_is_no_token(text):
    with pytest.raises(BadRequest, match=r"^invalid join token$"):
        tokens.parse_token(text)


async def _talk(server: ssl.SSLContext, client: ssl.SSLContext) -> bytes | None:
    """Connect and return the certificate (DER) that the server saw."""
    seen: asyncio.Future = asyncio.get_running_loop().create_future()

    async def answer(reader, writer):
        seen.set_result(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        writer.write(b"x")
        writer.close()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        assert await reader.read(1) == b"x"
        writer.close()
    return await seen


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_nothing_below_tls_1_2_is_spoken():
    root = Authority.create(NOW)
    manager = member(root, "m", "manager")
    old = tls.client_context(member(root, "w", "worker"))
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.wait_for(_talk(_lenient(tls.server_context(manager)), old), 5)
    assert tls.client_context(manager).minimum_version == ssl.TLSVersion.TLSv1_2


def _lenient(context: ssl.SSLContext) -> ssl.SSLContext:
    """Without what else keeps old protocols out."""
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


async def test_members_know_each_other_and_strangers_stay_out():
    root, foreign = Authority.create(NOW), Authority.create(NOW)
    manager, worker, stranger = (
        member(root, "m", "manager"),
        member(root, "w", "worker"),
        member(foreign, "w", "worker"),
    )
    server = tls.server_context(manager)

    der = await _talk(server, tls.client_context(worker))
    assert der is not None and authority.identity_of_der(der).node_id == "w"
    assert await _talk(server, tls.root_only_context(root.cert)) is None
    assert await _talk(server, tls.first_contact_context()) is None
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.wait_for(_talk(server, tls.client_context(stranger)), 5)
