"""TLS contexts of the management plane: mutual TLS with the cluster's root, at least 1.2.

Peers are known by node id and role in the certificate, not by host name: hosts have many names and addresses. So host
name checks are off and the code above asks `identity_of_der` for whom it talks to; requests ask for a manager by name.

OpenSSL wants certificate and key as files. They are handed over in memory (memfd), because on disk the key may be
locked, and must then not lie beside its lock in the clear.
"""

from __future__ import annotations

import os
import ssl
from asyncio import sslproto

from .authority import ROLE_UNITS
from .files import NodeCertificate

# asyncio sets 256 KiB aside for what it reads of each TLS connection, and a leader has a connection to every node.
# A TLS record holds 16 KiB.
sslproto.SSLProtocol.max_size = 32 * 1024


def _base(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def server_context(certificate: NodeCertificate) -> ssl.SSLContext:
    """For a manager. Clients may come without a certificate (to ask for one); with one, it must be of this cluster."""
    context = _base(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_OPTIONAL
    load_into(context, certificate)
    return context


def client_context(certificate: NodeCertificate) -> ssl.SSLContext:
    """For a member that talks to a manager."""
    context = _base(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    load_into(context, certificate)
    return context


MANAGER_NAME = ROLE_UNITS["manager"]
"""The DNS name that every manager's certificate has, and no worker's."""


def of_managers(context: ssl.SSLContext) -> ssl.SSLContext:
    """The context, for connections with `server_hostname=MANAGER_NAME`: a worker, whose certificate is of the same
    root, cannot pose as a manager and be told tokens and secrets.
    """
    context.check_hostname = True
    return context


def first_contact_context() -> ssl.SSLContext:
    """For fetching the root by its digest: nothing can be verified yet, and nothing secret may be sent through it."""
    context = _base(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def root_only_context(root_pem: str) -> ssl.SSLContext:
    """For asking for a certificate: the manager is verified against the root, the client has nothing to show yet."""
    context = _base(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=root_pem)
    return context


def external_context(certificate: NodeCertificate, root_pem: str) -> ssl.SSLContext:
    """For asking the external authority of a root: it is known by its host name and a certificate under that root."""
    context = _base(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_REQUIRED
    _load_chain(context, certificate)
    # No other root: several may have the same name, and such servers' certificates may not say which key signed them.
    context.load_verify_locations(cadata=root_pem)
    return context


def load_into(context: ssl.SSLContext, certificate: NodeCertificate) -> None:
    """Give a context this certificate; on a context in use, new connections get it. Roots are only added: for fewer of
    them a new context is needed."""
    _load_chain(context, certificate)
    context.load_verify_locations(cadata=certificate.root)


def _load_chain(context: ssl.SSLContext, certificate: NodeCertificate) -> None:
    descriptor = os.memfd_create("node-certificate")
    try:
        os.write(descriptor, certificate.cert.encode() + b"\n" + certificate.key.encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
