"""TLS contexts of the management plane: mutual TLS with the cluster's root, at least 1.2.

Peers are known by node id and role in the certificate, not by host name: hosts have many names and addresses. So host
name checks are off and the code above asks `identity_of_der` for whom it talks to.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from .files import NodeCertificate


def _base(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def server_context(certificate: NodeCertificate, folder: Path) -> ssl.SSLContext:
    """For a manager. Clients may come without a certificate (to ask for one); with one, it must be of this cluster."""
    context = _base(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_OPTIONAL
    load_into(context, certificate, folder)
    return context


def client_context(certificate: NodeCertificate, folder: Path) -> ssl.SSLContext:
    """For a member that talks to a manager."""
    context = _base(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    load_into(context, certificate, folder)
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


def load_into(context: ssl.SSLContext, certificate: NodeCertificate, folder: Path) -> None:
    """Give a context this certificate; on a context in use, new connections get it. `folder` holds the saved files."""
    context.load_cert_chain(folder / "node.crt", folder / "node.key")
    context.load_verify_locations(cadata=certificate.root)
