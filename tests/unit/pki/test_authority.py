"""The root signs node certificates that say who the node is, and TLS between members works with nothing else."""

import asyncio
import datetime
import random
import ssl

import pytest

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


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SWMTKN-1-a-b",
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
