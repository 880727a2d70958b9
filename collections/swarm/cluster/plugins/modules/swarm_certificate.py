#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes root certificates and certificates signed by them, as PEM files on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_certificate
short_description: Make a root certificate, or one that it signs
description:
  - Makes PEM files of a key and a certificate in the form that the cluster uses, ECDSA P-256. It is meant to be run on
    the controller (C(delegate_to) localhost), where the key of a root of your own should stay.
  - A root goes to M(swarm.cluster.swarm_cluster), to found a cluster with or to rotate to. The hosts' own certificates
    are made and renewed by the cluster; V(node) makes further ones, for something that shall speak to managers on port
    2377 or take over from an external authority.
  - What is there and fits is kept. A certificate that does not fit any more, or that ends soon, is made anew with the
    same key; a root never is, because that would be another root to those who trust it. Remove its files for that.
version_added: 0.2.0
author:
  - swarm.cluster contributors (@swarm-cluster)
extends_documentation_fragment:
  - swarm.cluster.attributes
options:
  kind:
    description:
      - What to make.
    type: str
    choices: [root, node]
    default: root
  cert:
    description:
      - File of the certificate.
    type: path
    required: true
  key:
    description:
      - File of its key, mode 0600.
    type: path
    required: true
  root_cert:
    description:
      - With O(kind=node), file of the root certificate.
    type: path
  root_key:
    description:
      - With O(kind=node), file of the root's key.
    type: path
  common_name:
    description:
      - Whose certificate it is. C(swarm-ca) for a root when left out; the node's id for a node.
    type: str
  cluster_id:
    description:
      - With O(kind=node), id of the cluster (organization).
    type: str
  role:
    description:
      - With O(kind=node), what the certificate entitles to (organizational unit).
    type: str
    choices: [manager, worker]
    default: worker
  alt_names:
    description:
      - With O(kind=node), further names and addresses.
    type: list
    elements: str
    default: []
  days:
    description:
      - How long it is valid. By default 20 years for a root and 90 days for a node.
    type: int
  renew_days:
    description:
      - With O(kind=node), make it anew when it ends within this many days.
    type: int
    default: 30
requirements:
  - cryptography
seealso:
  - module: swarm.cluster.swarm_cluster
"""

EXAMPLES = r"""
- name: Have a root certificate of your own
  swarm.cluster.swarm_certificate:
    cert: "{{ playbook_dir }}/pki/root.pem"
    key: "{{ playbook_dir }}/pki/root.key"
  delegate_to: localhost
  run_once: true

- name: Have a certificate by it
  swarm.cluster.swarm_certificate:
    kind: node
    cert: "{{ playbook_dir }}/pki/monitor.pem"
    key: "{{ playbook_dir }}/pki/monitor.key"
    root_cert: "{{ playbook_dir }}/pki/root.pem"
    root_key: "{{ playbook_dir }}/pki/root.key"
    common_name: monitor
    cluster_id: 1n7m9p3r5t2v4x6z8b0d1f3h5
    alt_names: [monitor.example.org, 192.0.2.9]
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
not_after:
  description: When it ends; empty in check mode when it would be new.
  type: str
  returned: always
  sample: "2027-02-24T10:00:00+00:00"
digest:
  description: SHA-256 of the certificate; empty in check mode when it would be new.
  type: str
  returned: always
  sample: 5f1c…
actions:
  description: What was done, or would be in check mode, a sentence each.
  type: list
  elements: str
  returned: always
  sample: [made root.key, made root.pem]
"""

import datetime
import ipaddress
import os
import tempfile
import traceback

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    IMPORT_ERROR = None
except ImportError:
    IMPORT_ERROR = traceback.format_exc()

UNITS = {"manager": "swarm-manager", "worker": "swarm-worker"}
DAYS = {"root": 20 * 365, "node": 90}
BACKDATE = datetime.timedelta(hours=1)  # clocks of others may lag


def read_key(path):
    """The key in a file, None when there is no file. Raises ValueError."""
    try:
        with open(path, "rb") as file:
            return serialization.load_pem_private_key(file.read(), None)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} holds no key without a passphrase in PEM: {error}") from None


def read_cert(path):
    """The certificate in a file, None when there is no file. Raises ValueError."""
    try:
        with open(path, "rb") as file:
            return x509.load_pem_x509_certificate(file.read())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} holds no certificate in PEM: {error}") from None


def write(path, data, mode):
    """Replace a file in one step; it is never readable for more people than it shall be."""
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, mode=0o755, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder)
    with os.fdopen(handle, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
    os.replace(temporary, path)


def key_usage(signs):
    """What the key may be used for."""
    flags = dict.fromkeys(
        (
            "content_commitment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(
        digital_signature=True, key_encipherment=not signs, key_cert_sign=signs, crl_sign=signs, **flags
    )


def alternative(name):
    """A name or an address for the certificate."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def subject(params):
    """The names that the certificate has to bear."""
    if params["kind"] == "root":
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, params["common_name"] or "swarm-ca")])
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, params["cluster_id"]),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, UNITS[params["role"]]),
            x509.NameAttribute(NameOID.COMMON_NAME, params["common_name"]),
        ]
    )


def names(params):
    """The alternative names, in the order in which they stand."""
    return [alternative(name) for name in (params["common_name"], UNITS[params["role"]], *params["alt_names"])]


def misfit(params, cert, key, root, now):
    """Why the certificate has to be made anew, "" when it is good."""
    if cert is None:
        return "there is none"
    public = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if key is None or cert.public_key().public_bytes(*public) != key.public_key().public_bytes(*public):
        return "it is not of this key"
    if params["kind"] == "root":
        return ""
    if cert.subject != subject(params):
        return "its subject differs"
    found = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if list(found) != names(params):
        return "its names differ"
    try:
        cert.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        return "it is not signed by the root"
    if cert.not_valid_after_utc < now + datetime.timedelta(days=params["renew_days"]):
        return f"it ends {cert.not_valid_after_utc:%Y-%m-%d}"
    return ""


def make(params, key, root, root_key, now):
    """The certificate."""
    days = params["days"] or DAYS[params["kind"]]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject(params))
        .issuer_name(root.subject if root else subject(params))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if root is None:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        return builder.add_extension(key_usage(signs=True), critical=True).sign(key, hashes.SHA256())
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key())
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(signs=False), critical=True)
        .add_extension(purposes, critical=False)
        .add_extension(authority, critical=False)
        .add_extension(x509.SubjectAlternativeName(names(params)), critical=False)
        .sign(root_key, hashes.SHA256())
    )


def declare(module, now):
    """Read, plan, apply; the module's result. Raises ValueError."""
    params, actions, before, after = module.params, [], {}, {}
    key, cert, root, root_key = read_key(params["key"]), read_cert(params["cert"]), None, None
    if params["kind"] == "node":
        root, root_key = read_cert(params["root_cert"]), read_key(params["root_key"])
        if (root is None or root_key is None) and not module.check_mode:
            raise ValueError(f"there is no root: {params['root_cert']} and {params['root_key']} have to be there")
    elif cert is not None and key is None:
        raise ValueError(
            f"{params['cert']} is there without its key {params['key']}. Bring the key back, or remove the certificate "
            f"to make another root."
        )
    if key is None:
        actions.append(f"made {os.path.basename(params['key'])}")
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        if not module.check_mode:
            write(params["key"], pem, 0o600)
    reason = misfit(params, cert, key, root, now)
    if reason and params["kind"] == "root" and cert is not None:
        raise ValueError(
            f"{params['cert']}: {reason}. Bring the right key back, or remove both files for another root."
        )
    if reason:
        actions.append(f"made {os.path.basename(params['cert'])}: {reason}")
        before["certificate"] = cert.subject.rfc4514_string() if cert else None
        after["certificate"] = subject(params).rfc4514_string()
        if not module.check_mode:
            cert = make(params, key, root, root_key, now)
            write(params["cert"], cert.public_bytes(serialization.Encoding.PEM), 0o644)
    return {
        "changed": bool(actions),
        "actions": actions,
        "not_after": cert.not_valid_after_utc.isoformat() if cert else "",
        "digest": cert.fingerprint(hashes.SHA256()).hex() if cert else "",
        "diff": {"before": before, "after": after},
    }


def main():
    module = AnsibleModule(
        argument_spec={
            "kind": {"type": "str", "choices": ["root", "node"], "default": "root"},
            "cert": {"type": "path", "required": True},
            "key": {"type": "path", "required": True, "no_log": False},
            "root_cert": {"type": "path"},
            "root_key": {"type": "path", "no_log": False},
            "common_name": {"type": "str"},
            "cluster_id": {"type": "str"},
            "role": {"type": "str", "choices": ["manager", "worker"], "default": "worker"},
            "alt_names": {"type": "list", "elements": "str", "default": []},
            "days": {"type": "int"},
            "renew_days": {"type": "int", "default": 30},
        },
        required_if=[("kind", "node", ("root_cert", "root_key", "common_name", "cluster_id"))],
        supports_check_mode=True,
    )
    if IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("cryptography"), exception=IMPORT_ERROR)
    try:
        result = declare(module, datetime.datetime.now(datetime.UTC))
    except (ValueError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
