"""This node's certificate while the agent runs: on disk, in TLS contexts, renewed in time or when the role changed.

Renewal happens at a random moment between 50 % and 80 % of the certificate's life (reference/swarm.md §3.9), so that a
cluster founded in one minute does not renew in one minute. The certificate on disk is replaced file by file, the key
last written and first used; new connections get it, running ones go on.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import random
import ssl
from pathlib import Path

from swarm_agent.pki import authority, tls
from swarm_agent.pki.authority import Identity
from swarm_agent.pki.files import NodeCertificate

log = logging.getLogger(__name__)

RENEW_FROM, RENEW_TO = 0.5, 0.8  # of the certificate's life


def renewal_time(certificate: str, rng: random.Random) -> datetime.datetime:
    """When to renew the certificate (PEM): a random moment between half and four fifths of its life."""
    start, end = authority.validity(certificate)
    return start + (end - start) * rng.uniform(RENEW_FROM, RENEW_TO)


class CertificateHolder:
    """The present certificate and everything that is made from it."""

    def __init__(self, certificate: NodeCertificate, folder: Path) -> None:
        self._certificate = certificate
        self._folder = folder
        self._server: ssl.SSLContext | None = None

    @property
    def present(self) -> NodeCertificate:
        return self._certificate

    @property
    def identity(self) -> Identity:
        """Node id, role and cluster as the certificate says."""
        return authority.identity_of_pem(self._certificate.cert)

    def client_context(self) -> ssl.SSLContext:
        """A context for a connection to a manager, with the certificate as it is now."""
        return tls.client_context(self._certificate, self._folder)

    def server_context(self) -> ssl.SSLContext:
        """The context of this node's management plane; it follows renewals."""
        if self._server is None:
            self._server = tls.server_context(self._certificate, self._folder)
        return self._server

    async def replace(self, certificate: NodeCertificate) -> None:
        """Use another certificate from now on."""
        await asyncio.to_thread(certificate.save, self._folder)
        self._certificate = certificate
        if self._server is not None:
            tls.load_into(self._server, certificate, self._folder)
        identity = self.identity
        log.info("node certificate renewed: role %s, until %s", identity.role, authority.validity(certificate.cert)[1])
