"""Root certificates and what they sign: ECDSA P-256, node certificates with CN = node id, OU = role, O = cluster id.

The names are Swarm's (reference/swarm.md §3.9), so tools that look at node certificates work unchanged. A node
certificate also carries its node id and role as DNS names. Times come in from the caller.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

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
    try:
        key = serialization.load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidArgument("the CA key cannot be read: it must be a PEM key without a passphrase") from None
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

    def __repr__(self) -> str:
        return "Authority(…)"

    @classmethod
    def bring(cls, cert: str, key: str) -> Authority:
        """A root that the user brings. Raises InvalidArgument when it is not one certificate and its key."""
        root = one_root(cert)
        if not is_key_of(key, root):
            raise InvalidArgument("the CA key does not match the CA certificate")
        return cls(root, _key_pem(_load_key(key)))

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
            .add_extension(_key_identifier(root), critical=False)
            .sign(_load_key(self.key), hashes.SHA256())
        )
        return cert.public_bytes(serialization.Encoding.PEM).decode()

    def cross_sign(self, root_pem: str) -> str:
        """Another root, as this one signs it: who trusts this root trusts with it what the other signs."""
        root = x509.load_pem_x509_certificate(self.cert.encode())
        other = x509.load_pem_x509_certificate(root_pem.encode())
        builder = (
            x509.CertificateBuilder()
            .subject_name(other.subject)
            .issuer_name(root.subject)
            .public_key(other.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(other.not_valid_before_utc)
            .not_valid_after(min(other.not_valid_after_utc, root.not_valid_after_utc))
        )
        for extension in other.extensions:
            if extension.oid != ExtensionOID.AUTHORITY_KEY_IDENTIFIER:  # that would name itself
                builder = builder.add_extension(extension.value, extension.critical)
        builder = builder.add_extension(_key_identifier(root), critical=False)
        return builder.sign(_load_key(self.key), hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def _key_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Which key signed. All roots of a cluster may have the same name, and OpenSSL goes by this to tell them apart."""
    try:
        known = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known)


def certificates_in(pem: str) -> list[str]:
    """The certificates of a bundle, each in normal form. Raises InvalidArgument when it cannot be read or is empty."""
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        raise InvalidArgument("could not parse the desired CA certificate") from None
    return [cert.public_bytes(serialization.Encoding.PEM).decode() for cert in found]


def one_root(pem: str) -> str:
    """The only certificate of the text, in normal form. Raises InvalidArgument: several, none, not a CA's, not on an
    elliptic curve."""
    found = certificates_in(pem)
    if len(found) != 1:
        raise InvalidArgument("the desired CA certificate cannot contain multiple certificates")
    cert = x509.load_pem_x509_certificate(found[0].encode())
    try:
        authority = cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        authority = False
    if not authority:
        raise InvalidArgument("the desired CA certificate is not one of a certificate authority")
    if not isinstance(cert.public_key(), ec.EllipticCurvePublicKey):
        raise InvalidArgument("only ECDSA keys are supported for the desired CA certificate")
    return found[0]


def is_key_of(key_pem: str, cert_pem: str) -> bool:
    """True when the private key belongs to the (first) certificate."""
    cert = x509.load_pem_x509_certificate(cert_pem.encode())
    return _load_key(key_pem).public_key() == cert.public_key()


def is_request_of(csr_pem: str, cert_pem: str) -> bool:
    """True when a signing request and a certificate are for the same key."""
    cert = x509.load_pem_x509_certificate(cert_pem.encode())
    return x509.load_pem_x509_csr(csr_pem.encode()).public_key() == cert.public_key()


def has_name(cert_pem: str, name: str) -> bool:
    """True when the certificate is good for the DNS name."""
    cert = x509.load_pem_x509_certificate(cert_pem.encode())
    try:
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return name in names.get_values_for_type(x509.DNSName)


def same_key(cert_pem: str, other_pem: str) -> bool:
    """True when two certificates are for the same key."""
    return issuer_info(cert_pem)[1] == issuer_info(other_pem)[1]


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


def issuer_of(chain_pem: str, bundle_pem: str) -> tuple[bytes, bytes] | None:
    """`issuer_info` of the certificate that signed the first one of the chain: a root of the bundle, or a link in the
    chain itself. None when neither did."""
    for candidate in [*certificates_in(bundle_pem), *certificates_in(chain_pem)[1:]]:
        if signed_by(chain_pem, candidate):
            return issuer_info(candidate)
    return None


def trusted(chain_pem: str, bundle_pem: str) -> bool:
    """True when a chain of certificates leads to a root of the bundle. Times are not looked at."""
    links = certificates_in(chain_pem)
    for number, link in enumerate(links):
        if any(signed_by(link, root) for root in certificates_in(bundle_pem)):
            return True
        if number + 1 < len(links) and not signed_by(link, links[number + 1]):
            return False
    return False


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
