"""Node certificates, signed by whoever holds the root's key: the cluster itself, or an external authority.

An external authority is asked over cfssl's protocol: POST the request, subject and names as JSON to its URL, over TLS
with this manager's certificate. With several URLs the first that answers well is taken. Whatever it answers is checked
before it is used: the root, the subject, the key. The rule which one signs is Swarm's: external ones for that root if
there are any, else the key in the store.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import ssl
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

import aiohttp
import msgspec

from swarm_agent.manager.control.roots import external_urls
from swarm_agent.model.errors import ClusterError
from swarm_agent.model.objects import Cluster
from swarm_agent.pki import authority
from swarm_agent.pki.authority import ROLE_UNITS, Authority, Identity

log = logging.getLogger(__name__)

EXTERNAL_TIMEOUT = 10.0  # seconds for one URL
REACH_TIMEOUT = 5.0  # seconds to answer a call, as in Swarm

ExternalContext = Callable[[str], ssl.SSLContext]
"""Makes the TLS context for talking to an external authority, which may be one under the given root (PEM)."""


class SigningFailed(ClusterError):
    """No certificate could be had. The text says from whom, and why."""


async def sign(
    cluster: Cluster, csr: str, identity: Identity, now: datetime.datetime, context: ExternalContext | None = None
) -> str:
    """A certificate (PEM) for a request, with the link to the present root below it while the root changes.

    Raises InvalidArgument for an unsound request, SigningFailed when no authority signs.
    """
    root, key = cluster.wanted_root
    ca = cluster.spec.ca_config
    urls = external_urls(ca, root, cluster.ca_cert)
    if urls and context is not None:
        cert = await _sign_externally(urls, root, csr, identity, context(root))
    elif key:
        life = datetime.timedelta(microseconds=ca.node_cert_expiry // 1000)
        cert = await asyncio.to_thread(Authority(root, key).issue, csr, identity, now, life)
    else:
        raise SigningFailed("the cluster has neither the key of its root certificate nor an external CA for it")
    return cert + cluster.cross_signed


async def reaches(urls: Iterable[str], context: ssl.SSLContext) -> bool:
    """Whether one of the external authorities is there and who it should be; it is asked for nothing."""
    found = await asyncio.gather(*(_answers(url, context) for url in urls))
    return any(found)


async def _answers(url: str, context: ssl.SSLContext) -> bool:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    try:
        async with asyncio.timeout(REACH_TIMEOUT):
            port = parts.port or (443 if secure else 80)
            _, writer = await asyncio.open_connection(parts.hostname, port, ssl=context if secure else None)
    except (OSError, TimeoutError, ValueError) as error:
        log.warning("the external CA %s is unreachable or not valid: %s", url, error or "timeout")
        return False
    writer.close()
    return True


async def _sign_externally(urls: list[str], root: str, csr: str, identity: Identity, context: ssl.SSLContext) -> str:
    failures = []
    for url in urls:
        try:
            async with asyncio.timeout(EXTERNAL_TIMEOUT):
                return check_external(await _ask(url, csr, identity, context), root, csr, identity)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, ClusterError) as error:
            failures.append(f"{url}: {error or type(error).__name__}")
            log.warning("the external CA did not sign for node %s: %s", identity.node_id, failures[-1])
    raise SigningFailed("no external CA signed the certificate: " + "; ".join(failures))


def external_request(csr: str, identity: Identity) -> bytes:
    """The body of a cfssl `sign` call."""
    unit = ROLE_UNITS[identity.role]
    return msgspec.json.encode(
        {
            "certificate_request": csr,
            "hosts": [unit, identity.node_id],
            "subject": {"CN": identity.node_id, "names": [{"O": identity.cluster_id, "OU": unit}]},
        }
    )


async def _ask(url: str, csr: str, identity: Identity, context: ssl.SSLContext) -> str:
    async with (
        aiohttp.ClientSession() as http,
        http.post(
            url, data=external_request(csr, identity), headers={"Content-Type": "application/json"}, ssl=context
        ) as response,
    ):
        answer = msgspec.json.decode(await response.read())
        if not isinstance(answer, dict) or not answer.get("success"):
            errors = answer.get("errors") if isinstance(answer, dict) else None
            raise SigningFailed(f"status {response.status}, {errors or 'no reason given'}")
        return str(answer["result"]["certificate"]) if isinstance(answer.get("result"), dict) else ""


def check_external(cert: str, root: str, csr: str, identity: Identity) -> str:
    """The certificate that an external authority made, if it is what was asked for. Raises SigningFailed."""
    try:
        leaf = authority.certificates_in(cert)[0]
        if authority.identity_of_pem(leaf) != identity:
            raise SigningFailed("it signed other names than it was asked to")
    except ClusterError as error:
        raise SigningFailed(f"its answer cannot be used: {error}") from None
    if not authority.is_request_of(csr, leaf):
        raise SigningFailed("it signed another key than it was asked to")
    unit = ROLE_UNITS[identity.role]
    if not authority.has_name(leaf, unit):  # who asks a manager knows it by that
        raise SigningFailed(f"it left out the host name {unit} that it was asked for")
    if not authority.trusted(cert, root):
        raise SigningFailed("its certificate is not signed by the cluster's root")
    return "".join(authority.certificates_in(cert))
