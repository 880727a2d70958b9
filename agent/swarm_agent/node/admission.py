"""Joining: from a token and a manager's address to a certificate. The client's side of /v1/root and /v1/certificate.

The token's digest proves the root, the root proves the manager, and only then is the token's secret shown. Nothing is
written here: a join that fails leaves no trace.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from dataclasses import dataclass

import aiohttp
import msgspec

from swarm_agent.model.errors import BadRequest, ClusterError, Unavailable, message_of
from swarm_agent.pki import authority, tls
from swarm_agent.pki.files import NodeCertificate
from swarm_agent.pki.tokens import JoinToken, parse_token

from .management import CertificateAnswer, CertificateRequest

CONNECT_TIMEOUT = 10.0  # seconds; a firewall that drops packets must not keep the user waiting for minutes
REQUEST_TIMEOUT = 20.0  # seconds, Swarm's limit for a control request
_MAX_REDIRECTS = 3


class RemoteError(ClusterError):
    """A manager's refusal, passed on with its text and status."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class Unreachable(Unavailable):
    """No connection could be made, so nothing has been asked: trying another manager is safe."""


@dataclass(frozen=True, slots=True)
class Admission:
    """A new member's papers."""

    node_id: str
    cluster_id: str
    role: str
    manager: str  # host:port of the manager that admitted us
    certificate: NodeCertificate


async def request_admission(remote: str, token: str, availability: str, hostname: str) -> Admission:
    """Join the cluster of `token` through the manager at `remote` (host:port).

    Raises Unavailable when it cannot be reached, BadRequest when its root is not the token's, RemoteError when it
    refuses.
    """
    parsed = parse_token(token)
    root = await _fetch_root(remote, parsed)
    key = await asyncio.to_thread(authority.new_key)
    body = msgspec.json.encode(
        CertificateRequest(
            token=token.strip(),
            csr=authority.new_signing_request(key),
            availability=availability,
            hostname=hostname,
        )
    )
    context = tls.of_managers(tls.root_only_context(root))
    for _ in range(_MAX_REDIRECTS):
        status, text = await call("POST", remote, "/v1/certificate", context, body)
        if status != 421:
            break
        remote = message_of(text)
    if status != 200:
        raise RemoteError(status, message_of(text))
    answer = msgspec.json.decode(text, type=CertificateAnswer)
    if not authority.trusted(answer.certificate, root):
        raise BadRequest(f"the manager at {remote} sent a certificate that its own root did not sign")
    return Admission(
        answer.node_id, answer.cluster_id, answer.role, remote, NodeCertificate(root, answer.certificate, key)
    )


async def _fetch_root(remote: str, token: JoinToken) -> str:
    status, text = await call("GET", remote, "/v1/root", tls.first_contact_context())
    if status != 200:
        raise RemoteError(status, message_of(text))
    root = text.decode("ascii", "replace")
    if not token.matches(root):
        raise BadRequest(f"remote CA does not match fingerprint. Expected: {token.digest.hex()}")
    return root


async def call(
    method: str,
    remote: str,
    path: str,
    context: ssl.SSLContext,
    body: bytes | None = None,
    *,
    connect_timeout: float = CONNECT_TIMEOUT,
) -> tuple[int, bytes]:
    """One request to a manager: status and body. Raises Unreachable or Unavailable, in gRPC's words."""
    url, name = f"https://{remote}{path}", tls.MANAGER_NAME if context.check_hostname else None
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT, sock_connect=connect_timeout)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(method, url, data=body, ssl=context, server_hostname=name) as response,
        ):
            return response.status, await response.read()
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise Unreachable(_dialing(remote, error)) from None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise Unavailable(_dialing(remote, error)) from None


def _dialing(remote: str, error: BaseException) -> str:
    return (
        "rpc error: code = Unavailable desc = connection error: desc = "
        f'"transport: Error while dialing: dial tcp {remote}: {_reason(error)}"'
    )


def _reason(error: BaseException) -> str:
    """The system's own words for a failed connection, as Go prints them."""
    if isinstance(error, TimeoutError):
        return "i/o timeout"
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    if isinstance(cause, ssl.SSLError):  # an OSError whose number is OpenSSL's
        return f"authentication handshake failed: {getattr(cause, 'verify_message', '') or cause.reason or cause}"
    if isinstance(cause, OSError) and cause.errno and cause.errno > 0:
        return f"connect: {os.strerror(cause.errno).lower()}"
    return str(error) or type(error).__name__
