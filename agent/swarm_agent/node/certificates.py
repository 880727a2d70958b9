"""This node's certificate while the agent runs: on disk, in TLS contexts, renewed in time or when the role changed.

Renewal happens at a random moment between 50 % and 80 % of the certificate's life (reference/swarm.md §3.9), so that a
cluster founded in one minute does not renew in one minute. Another reason to renew is a root rotation: the leader says
which key it signs with now, and who has a certificate by another asks for one.

New connections get the new certificate, running ones go on. A context forgets no root, so each certificate has contexts
of its own; the management plane's listener swaps its context as a connection says hello.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import logging
import random
import ssl

from swarm_agent.model.objects import NodeTLSInfo
from swarm_agent.pki import authority, tls
from swarm_agent.pki.authority import Identity
from swarm_agent.pki.files import NodeCertificate

from .keys import NodeKeys

log = logging.getLogger(__name__)

RENEW_FROM, RENEW_TO = 0.5, 0.8  # of the certificate's life


def renewal_time(certificate: str, rng: random.Random) -> datetime.datetime:
    """When to renew the certificate (PEM): a random moment between half and four fifths of its life."""
    start, end = authority.validity(certificate)
    return start + (end - start) * rng.uniform(RENEW_FROM, RENEW_TO)


class CertificateHolder:
    """The present certificate and everything that is made from it."""

    def __init__(self, certificate: NodeCertificate, keys: NodeKeys) -> None:
        self._certificate = certificate
        self.keys = keys
        self._listener: ssl.SSLContext | None = None
        self._server: ssl.SSLContext | None = None
        self._client: ssl.SSLContext | None = None
        self._leader: ssl.SSLContext | None = None
        self._tls_info: NodeTLSInfo | None = None
        self._until: datetime.datetime | None = None
        self._changing = asyncio.Lock()  # what is written must be what is in use when it is written

    @property
    def present(self) -> NodeCertificate:
        return self._certificate

    @property
    def identity(self) -> Identity:
        """Node id, role and cluster as the certificate says."""
        return authority.identity_of_pem(self._certificate.cert)

    @property
    def expired(self) -> bool:
        """Nobody accepts the certificate any more, not even to renew it."""
        if self._until is None:
            self._until = authority.validity(self._certificate.cert)[1]
        return datetime.datetime.now(datetime.UTC) > self._until

    @property
    def tls_info(self) -> NodeTLSInfo:
        """What this node trusts, and who signed its certificate."""
        if self._tls_info is None:
            subject, key = authority.issuer_of(self._certificate.cert, self._certificate.root) or (b"", b"")
            self._tls_info = NodeTLSInfo(
                trust_root=self._certificate.root,
                cert_issuer_subject=base64.b64encode(subject).decode(),
                cert_issuer_public_key=base64.b64encode(key).decode(),
            )
        return self._tls_info

    def client_context(self) -> ssl.SSLContext:
        """A context for a connection to a manager, with the certificate as it is now."""
        if self._client is None:
            self._client = tls.client_context(self._certificate)
        return self._client

    def leader_context(self) -> ssl.SSLContext:
        """The same for requests, which say all at once: only a manager gets through the handshake."""
        if self._leader is None:
            self._leader = tls.of_managers(tls.client_context(self._certificate))
        return self._leader

    def server_context(self) -> ssl.SSLContext:
        """The context of this node's management plane; it follows renewals."""
        if self._listener is None:
            self._server = tls.server_context(self._certificate)
            self._listener = tls.server_context(self._certificate)
            self._listener.sni_callback = self._swap  # also called for clients that name no host
        return self._listener

    def _swap(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        assert self._server is not None
        connection.context = self._server

    async def replace(self, certificate: NodeCertificate) -> None:
        """Use another certificate from now on."""
        async with self._changing:
            await self._replace(certificate)
        identity = self.identity
        log.info("node certificate renewed: role %s, until %s", identity.role, authority.validity(certificate.cert)[1])

    async def trust(self, bundle: str) -> None:
        """Trust these roots from now on, and no others."""
        async with self._changing:
            await self._replace(NodeCertificate(bundle, self._certificate.cert, self._certificate.key))
        log.info("the cluster's root certificates to trust are now %d", len(authority.certificates_in(bundle)))

    async def change_lock(self, lock: bytes | None) -> None:
        """Put this node's keys on disk under another unlock key, or none."""
        async with self._changing:
            await asyncio.to_thread(self.keys.change_lock, lock, self._certificate)

    async def _replace(self, certificate: NodeCertificate) -> None:
        await asyncio.to_thread(self.keys.save_certificate, certificate)
        self._certificate = certificate
        self._client = self._leader = self._tls_info = self._until = None
        if self._listener is not None:
            self._server = tls.server_context(certificate)
