"""Root certificates and what they sign: ECDSA P-256, node certificates with CN = node id, OU = role, O = cluster id.

The names are Swarm's (reference/swarm.md §3.9), so tools that look at node certificates work unchanged. A node
certificate also carries its node id and role as DNS names. Times come in from the caller.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from swarm_agent.model.errors import InvalidArgument

ROLE_UNITS = {"manager": "swarm-manager", "worker": "swarm-worker"}
_ROLES = {unit: role for role, unit in ROLE_UNITS.items()}
ROOT_LIFE = datetime.timedelta(days=20 * 365)
BACKDATE = datetime.timedelta(hours=1)  # clocks of joining hosts may lag
MIN_NODE_LIFE = datetime.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a certificate speaks for."""

    node_id: str
    role: str  # manager or worker
    cluster_id: str


def new_key() -> str:
    """A private key, PKCS #8 PEM."""
    return _key_pem(ec.generate_private_key(ec.SECP256R1()))


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _load_key(pem: str) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem.encode(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidArgument("the CA key must be an elliptic-curve key")
    return key


def new_signing_request(key_pem: str) -> str:
    """A signing request for the key. The names in it do not count: the authority sets its own."""
    key = _load_key(key_pem)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "swarm-node")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


@dataclass(frozen=True, slots=True)
class Authority:
    """A root that can sign. `cert` and `key` are PEM."""

    cert: str
    key: str

    @classmethod
    def create(cls, now: datetime.datetime) -> Authority:
        """A new self-signed root, CN swarm-ca, good for 20 years."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "swarm-ca")])
        cert = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(now + ROOT_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
            .add_extension(_key_usage(sign_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(cert.public_bytes(serialization.Encoding.PEM).decode(), _key_pem(key))

    def issue(self, csr_pem: str, identity: Identity, now: datetime.datetime, life: datetime.timedelta) -> str:
        """Sign a node's request as `identity`. Raises InvalidArgument when the request is not sound."""
        try:
            request = x509.load_pem_x509_csr(csr_pem.encode())
        except ValueError:
            raise InvalidArgument("the certificate signing request cannot be parsed") from None
        if not request.is_signature_valid:
            raise InvalidArgument("the certificate signing request's signature is not valid")
        root = x509.load_pem_x509_certificate(self.cert.encode())
        unit = ROLE_UNITS[identity.role]
        public_key = request.public_key()
        if not isinstance(public_key, ec.EllipticCurvePublicKey):
            raise InvalidArgument("the certificate signing request must be for an elliptic-curve key")
        cert = (
            x509.CertificateBuilder()
            .subject_name(
                x509.Name(
                    [
                        x509.NameAttribute(NameOID.ORGANIZATION_NAME, identity.cluster_id),
                        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
                        x509.NameAttribute(NameOID.COMMON_NAME, identity.node_id),
                    ]
                )
            )
            .issuer_name(root.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(min(now + max(life, MIN_NODE_LIFE), root.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(sign_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName(unit), x509.DNSName(identity.node_id)]), critical=False
            )
            .sign(_load_key(self.key), hashes.SHA256())
        )
        return cert.public_bytes(serialization.Encoding.PEM).decode()


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=not sign_certificates,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def identity_of(cert: x509.Certificate) -> Identity:
    """Read node id, role and cluster from a node certificate. Raises InvalidArgument when they are not there."""

    def attribute(oid: x509.ObjectIdentifier) -> str:
        values = cert.subject.get_attributes_for_oid(oid)
        return str(values[0].value) if values else ""

    role = _ROLES.get(attribute(NameOID.ORGANIZATIONAL_UNIT_NAME))
    node_id = attribute(NameOID.COMMON_NAME)
    if role is None or not node_id:
        raise InvalidArgument("the certificate is not one of a cluster node")
    return Identity(node_id, role, attribute(NameOID.ORGANIZATION_NAME))


def identity_of_pem(pem: str) -> Identity:
    """`identity_of` for PEM text."""
    return identity_of(x509.load_pem_x509_certificate(pem.encode()))


def identity_of_der(der: bytes) -> Identity:
    """`identity_of` for the DER that a TLS library hands out."""
    return identity_of(x509.load_der_x509_certificate(der))


def issuer_info(cert_pem: str) -> tuple[bytes, bytes]:
    """DER of the subject and of the public key of a (root) certificate, as /swarm's TLSInfo shows them."""
    cert = x509.load_pem_x509_certificate(cert_pem.encode())
    key = cert.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return cert.subject.public_bytes(), key


def signed_by(cert_pem: str, root_pem: str) -> bool:
    """True when the root's key made the certificate's signature."""
    cert = x509.load_pem_x509_certificate(cert_pem.encode())
    try:
        cert.verify_directly_issued_by(x509.load_pem_x509_certificate(root_pem.encode()))
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def validity(cert_pem: str) -> tuple[datetime.datetime, datetime.datetime]:
    """(not before, not after) of a certificate, UTC."""
    cert = x509.load_pem_x509_certificate(cert_pem.encode())
    return cert.not_valid_before_utc, cert.not_valid_after_utc
