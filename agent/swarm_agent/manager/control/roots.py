"""The cluster's root certificate: which one an update asks for, and the steps from one to the next. Pure.

    stable ──another root is asked for──▶ changing ──every node has a certificate by the next root──▶ stable

While changing, nodes trust both roots, new certificates are signed by the next one, and come with that root's
certificate as signed by the present one, so that a node that knows only one of them trusts all others. Join tokens name
the present root until the end.
"""

from __future__ import annotations

import base64
import datetime
import random
from collections.abc import Iterable
from dataclasses import dataclass

from msgspec.structs import replace

from swarm_agent.model.errors import InvalidArgument
from swarm_agent.model.objects import Cluster, JoinTokens, Node, NodeTLSInfo
from swarm_agent.model.specs import CAConfig
from swarm_agent.pki import authority
from swarm_agent.pki.authority import Authority
from swarm_agent.pki.tokens import new_token

MIN_ROOT_LIFE = datetime.timedelta(days=365)


def checked_root(ca: CAConfig, now: datetime.datetime) -> Authority | None:
    """The root that a config brings, None when it brings none; its key may be empty. Raises InvalidArgument."""
    if not ca.signing_ca_cert.strip():
        if ca.signing_ca_key.strip():
            raise InvalidArgument("if a signing CA key is provided, the signing CA cert must also be provided")
        return None
    if ca.signing_ca_key.strip():
        root = Authority.bring(ca.signing_ca_cert, ca.signing_ca_key)
    else:
        root = Authority(authority.one_root(ca.signing_ca_cert), "")
    start, end = authority.validity(root.cert)
    if end < now + MIN_ROOT_LIFE:
        raise InvalidArgument("CA certificate expires too soon")
    if start > now:
        raise InvalidArgument("CA certificate is not valid yet")
    if not root.key and not external_urls(ca, root.cert, ""):
        raise no_external("desired")
    return root


def no_external(which: str) -> InvalidArgument:
    """Nobody outside signs for this root: the `current` one, the `next` one of a change, the one that is `desired`."""
    return InvalidArgument(
        f"there must be at least one valid, reachable external CA corresponding to the {which} CA certificate"
    )


@dataclass(frozen=True, slots=True)
class Reliance:
    """A root that only external CAs sign for: its certificate, where they are, which root it is (see `no_external`)."""

    root: str
    urls: list[str]
    which: str


def new_reliance(cluster: Cluster, ca: CAConfig, now: datetime.datetime) -> Reliance | None:
    """Whom an update makes the cluster rely on: one of them should answer before it is made. An update that leaves this
    as it is needs nobody, so tokens can be rotated while the external CA is away. Raises InvalidArgument."""
    desired = checked_root(ca, now)
    if desired is not None:
        return None if desired.key else Reliance(desired.cert, external_urls(ca, desired.cert, ""), "desired")
    (root, key), before = cluster.wanted_root, cluster.spec.ca_config
    if key or ca.force_rotate != before.force_rotate or ca.external_cas == before.external_cas:
        return None
    return Reliance(root, external_urls(ca, root, cluster.ca_cert), _which(cluster))


def _which(cluster: Cluster) -> str:
    return "next" if cluster.next_ca_cert else "current"


def external_urls(ca: CAConfig, root: str, present: str) -> list[str]:
    """Where to have certificates signed by a root. An external CA that does not say its root has the present one.
    Raises InvalidArgument when a root certificate cannot be read."""
    return [
        external.url
        for external in ca.external_cas
        if (authority.one_root(external.ca_cert) if external.ca_cert.strip() else present) == root
    ]


def public_ca(ca: CAConfig) -> CAConfig:
    """The config as it is kept: without the root that it brought. A client that reads the spec and writes it back must
    not ask for a root without its key."""
    return replace(ca, signing_ca_cert="", signing_ca_key="")


def with_root_of(cluster: Cluster, ca: CAConfig, now: datetime.datetime) -> Cluster:
    """The cluster on its way to the root that an update asks for: one that it brings, or a new one when ForceRotate
    was changed. Raises InvalidArgument."""
    root = checked_root(ca, now)
    if root is None:
        if ca.force_rotate == cluster.spec.ca_config.force_rotate:
            _check_signer(cluster, ca)
            return cluster
        root = Authority.create(now)
    if root.cert == cluster.ca_cert:
        # Back to the present one: nodes that already went on return.
        return _settled(replace(cluster, ca_key=root.key, next_ca_cert="", next_ca_key="", cross_signed=""))
    if root.cert == cluster.next_ca_cert:
        return replace(cluster, next_ca_key=root.key)
    if authority.same_key(root.cert, cluster.ca_cert):
        raise InvalidArgument("Cannot update to a cert with an identical key")
    if not cluster.ca_key:
        if not root.key:
            raise InvalidArgument("rotating from one external CA to a different external CA is not supported")
        raise InvalidArgument(
            "the key of the present CA is not known to the cluster, so it cannot sign the desired one; provide the "
            "present certificate with its key first"
        )
    cross_signed = Authority(cluster.ca_cert, cluster.ca_key).cross_sign(root.cert)
    return _settled(replace(cluster, next_ca_cert=root.cert, next_ca_key=root.key, cross_signed=cross_signed))


def _check_signer(cluster: Cluster, ca: CAConfig) -> None:
    """An update must not take away the only ones that can sign."""
    root, key = cluster.wanted_root
    if cluster.spec.ca_config.external_cas and not key and not external_urls(ca, root, cluster.ca_cert):
        raise no_external(_which(cluster))


def is_complete(cluster: Cluster, nodes: Iterable[Node]) -> bool:
    """True when every node has reported a certificate by the next root."""
    wanted = cluster.tls_info.cert_issuer_public_key
    return bool(cluster.next_ca_cert) and all(
        node.description.tls_info.cert_issuer_public_key == wanted for node in nodes
    )


def completed(cluster: Cluster, rng: random.Random) -> Cluster:
    """The next root is the only one from now on, and join tokens name it."""
    cert, key = cluster.wanted_root
    tokens = JoinTokens(worker=new_token(cert, rng), manager=new_token(cert, rng))
    cluster = replace(cluster, ca_cert=cert, ca_key=key, next_ca_cert="", next_ca_key="", cross_signed="")
    return _settled(replace(cluster, join_tokens=tokens))


def tls_info(trusted: str, wanted: str) -> NodeTLSInfo:
    """What GET /swarm shows: the trusted root, and who signs."""
    subject, key = authority.issuer_info(wanted)
    return NodeTLSInfo(
        trust_root=trusted,
        cert_issuer_subject=base64.b64encode(subject).decode(),
        cert_issuer_public_key=base64.b64encode(key).decode(),
    )


def _settled(cluster: Cluster) -> Cluster:
    """With the fields that follow from the others."""
    return replace(
        cluster,
        root_rotation_in_progress=bool(cluster.next_ca_cert),
        tls_info=tls_info(cluster.ca_cert, cluster.wanted_root[0]),
    )
