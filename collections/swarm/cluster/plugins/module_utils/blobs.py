# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets and configs: content that never changes under one name once it exists.

The API lets nobody change the content, and never tells a secret's. Two consequences:

* What a secret holds is known by a salted, slow hash of its content in a label. It takes an attacker who can list
  secrets as long to guess a content by it as to guess a password. A secret without that label was made by somebody
  else; its content counts as right unless the user says `force`.
* Other content needs another object. Without `versioned` the object is replaced when no service uses it, and the
  change is refused when one does. With `versioned` there are NAME_v1, NAME_v2, …: the newest is what is declared,
  services are pointed to it one after the other, and old ones go when nothing uses them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from ansible_collections.swarm.cluster.plugins.module_utils.client import ClientError
from ansible_collections.swarm.cluster.plugins.module_utils.patch import read
from ansible_collections.swarm.cluster.plugins.module_utils.values import texts

CONTENT_LABEL = "swarm.cluster.content"
ROUNDS = 100_000
LARGEST = {"secret": 500 * 1024 - 1, "config": 1000 * 1024 - 1}
SAME, DIFFERENT, UNKNOWN = "same", "different", "unknown"


def fingerprint(data, salt=""):
    """What the label says of a content: a salt and a slow hash."""
    salt = salt or secrets.token_hex(8)
    digest = hashlib.pbkdf2_hmac("sha256", data, bytes.fromhex(salt), ROUNDS).hex()
    return f"{salt}:{digest}"


def compare(kind, found, data):
    """Whether an object of the API holds this content."""
    if kind == "config":
        return SAME if base64.b64decode(read(found, "Spec.Data") or "") == data else DIFFERENT
    label = (read(found, "Spec.Labels") or {}).get(CONTENT_LABEL, "")
    if not re.fullmatch(r"[0-9a-f]{16}:[0-9a-f]{64}", label):
        return UNKNOWN
    return SAME if hmac.compare_digest(fingerprint(data, label.partition(":")[0]), label) else DIFFERENT


def own_labels(found):
    """The labels that people gave, without ours."""
    return {key: value for key, value in (read(found, "Spec.Labels") or {}).items() if key != CONTENT_LABEL}


def versions(name, objects):
    """[(number, object)] of NAME_v1, NAME_v2, … in order."""
    pattern = re.compile(re.escape(name) + r"_v([1-9][0-9]*)")
    found = [(pattern.fullmatch(item["Spec"]["Name"]), item) for item in objects]
    return sorted(((int(match.group(1)), item) for match, item in found if match), key=lambda pair: pair[0])


def users_of(kind, object_id, services):
    """Names of the services that refer to it."""
    word = kind.capitalize()
    return sorted(
        service["Spec"]["Name"]
        for service in services
        for entry in read(service, f"Spec.TaskTemplate.ContainerSpec.{word}s") or []
        if entry.get(f"{word}ID") == object_id
    )


@dataclass(frozen=True)
class Wanted:
    """What is declared: a name, its content (bytes), labels (None: as they are), and how another content is treated."""

    name: str
    data: bytes
    labels: dict | None = None
    versioned: bool = False
    force: bool = False
    templating: str = ""


class Blobs:
    """Secrets or configs on a manager. `declaration` collects what is done."""

    def __init__(self, declaration, kind):
        self.declaration = declaration
        self.kind = kind
        self.path = f"/{kind}s"

    def listed(self):
        """All objects of the kind."""
        return self.declaration.ask(self.path, [])

    def present(self, wanted):
        """Have it. Returns the name of the object that holds the content now, for services to refer to."""
        if not 1 <= len(wanted.data) <= LARGEST[self.kind]:
            raise ClientError(
                f"{self.kind} {wanted.name}: {len(wanted.data)} bytes; a {self.kind} holds 1 to {LARGEST[self.kind]}"
            )
        objects = self.listed()
        if wanted.versioned:
            found = versions(wanted.name, objects)
            number, newest = found[-1] if found else (0, None)
            name, following = f"{wanted.name}_v{max(number, 1)}", f"{wanted.name}_v{number + 1}"
        else:
            newest = next((item for item in objects if item["Spec"]["Name"] == wanted.name), None)
            name = following = wanted.name
        if newest is None:
            self._create(following, wanted, "created")
            return following
        state = compare(self.kind, newest, wanted.data)
        if state == UNKNOWN and not wanted.force:
            self.declaration.warnings.append(
                f"secret {name} was not made by this module, so its content cannot be compared; it is left as it is. "
                f"With force: true it counts as another content."
            )
        if state == DIFFERENT or (state == UNKNOWN and wanted.force):
            if not wanted.versioned:
                self._make_way(newest)
            self._create(following, wanted, "created" if wanted.versioned else "replaced")
            return following
        self._relabel(newest, wanted.labels)
        return name

    def absent(self, name, versioned=False):
        """Remove it; with `versioned` all its versions."""
        objects = self.listed()
        if versioned:
            gone = [item for _number, item in versions(name, objects)]
        else:
            gone = [item for item in objects if item["Spec"]["Name"] == name]
        for item in gone:
            self._remove(item)

    def prune(self, name, keep):
        """Remove versions beside the newest `keep` + 1 that no service uses."""
        old = [item for _number, item in versions(name, self.listed())][: -(keep + 1)]
        services = self.declaration.ask("/services", []) if old else []
        for item in old:
            if not users_of(self.kind, item["ID"], services):
                self._remove(item)

    def _create(self, name, wanted, verb):
        labels = texts(wanted.labels or {})
        shown = {f"{self.kind} {name}": {"labels": dict(labels), "content": self._shown(wanted.data)}}
        self.declaration.note(f"{verb} {self.kind} {name}", {}, shown)
        if self.declaration.check:
            return
        if self.kind == "secret":
            labels[CONTENT_LABEL] = fingerprint(wanted.data)
        body = {"Name": name, "Labels": labels, "Data": base64.b64encode(wanted.data).decode()}
        if wanted.templating:
            body["Templating"] = {"Name": wanted.templating}
        self.declaration.client.post(f"{self.path}/create", body)

    def _make_way(self, found):
        name = found["Spec"]["Name"]
        users = users_of(self.kind, found["ID"], self.declaration.ask("/services", []))
        if users:
            raise ClientError(
                f"{self.kind} {name} holds another content and is in use by {', '.join(users)}. The content of a "
                f"{self.kind} is fixed: declare it with versioned: true and let the services use the name that the "
                f"module returns, or declare it under another name."
            )
        self.declaration.before.update(
            {f"{self.kind} {name}": {"labels": own_labels(found), "content": self._shown_of(found)}}
        )
        if not self.declaration.check:
            self.declaration.client.delete(f"{self.path}/{found['ID']}")

    def _relabel(self, found, labels):
        before = own_labels(found)
        if labels is None or texts(labels) == before:
            return
        name = found["Spec"]["Name"]
        self.declaration.note(
            f"set labels of {self.kind} {name}", {f"{self.kind} {name}": {"labels": before}},
            {f"{self.kind} {name}": {"labels": texts(labels)}},
        )  # fmt: skip
        if self.declaration.check:
            return
        kept = {key: value for key, value in (read(found, "Spec.Labels") or {}).items() if key == CONTENT_LABEL}
        spec = {**found["Spec"], "Labels": {**texts(labels), **kept}}
        self.declaration.client.post(f"{self.path}/{found['ID']}/update", spec, version=found["Version"]["Index"])

    def _remove(self, found):
        name = found["Spec"]["Name"]
        self.declaration.note(
            f"removed {self.kind} {name}", {f"{self.kind} {name}": "present"}, {f"{self.kind} {name}": None}
        )
        if not self.declaration.check:
            self.declaration.client.delete(f"{self.path}/{found['ID']}")

    def _shown_of(self, found):
        return (
            self._shown(base64.b64decode(read(found, "Spec.Data") or ""))
            if self.kind == "config"
            else "(another secret)"
        )

    def _shown(self, data):
        """A content for the diff: a config's text, and of a secret nothing."""
        if self.kind == "secret":
            return "(secret)"
        try:
            return data.decode()
        except UnicodeDecodeError:
            return f"({len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()[:16]}…)"
