"""An external certificate authority is called before the cluster relies on it."""

import asyncio
import datetime

from swarm_agent.node.signing import reaches
from swarm_agent.pki import authority, tls
from swarm_agent.pki.authority import Authority, Identity
from swarm_agent.pki.files import NodeCertificate

NOW = datetime.datetime.now(datetime.UTC)


def certificate(root: Authority, name: str) -> NodeCertificate:
    key = authority.new_key()
    identity = Identity(name, "manager", "c")
    cert = root.issue(authority.new_signing_request(key), identity, NOW, datetime.timedelta(days=1))
    return NodeCertificate(root.cert, cert, key)


async def test_one_that_answers_under_its_root_is_enough():
    own, outer, stranger = (Authority.create(NOW) for _ in range(3))
    member = certificate(own, "n")
    server = await asyncio.start_server(
        lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=tls.server_context(certificate(outer, "localhost"))
    )
    async with server:
        port = server.sockets[0].getsockname()[1]
        there, nobody = f"https://localhost:{port}/sign", "https://localhost:1/sign"
        assert await reaches([nobody, there], tls.external_context(member, outer.cert))
        assert not await reaches([nobody], tls.external_context(member, outer.cert))
        assert not await reaches([there], tls.external_context(member, stranger.cert))
        assert not await reaches([f"https://127.0.0.1:{port}/"], tls.external_context(member, outer.cert))
        assert not await reaches(["https://:99999/"], tls.external_context(member, outer.cert))
