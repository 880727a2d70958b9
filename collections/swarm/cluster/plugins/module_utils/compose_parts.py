# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Short and long forms of a compose file's parts: ports, volumes, networks, references to secrets and configs. Pure."""

from __future__ import annotations

import re
import shlex

from ansible_collections.swarm.cluster.plugins.module_utils.values import text_of

PORT = re.compile(
    r"(?:(?P<address>\[[0-9a-fA-F:]+\]|\d+(?:\.\d+){3}):)?(?:(?P<published>\d+(?:-\d+)?):)?(?P<target>\d+(?:-\d+)?)"
    r"(?:/(?P<protocol>tcp|udp|sctp))?"
)
PROPAGATIONS = ("rprivate", "private", "rshared", "shared", "rslave", "slave")


class ComposeError(ValueError):
    """The file says something that cannot be; the text says where, what, and what to do."""


def mapping(value, where):
    """A dict, {} for nothing."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ComposeError(f"{where} has to be a mapping, not {value!r}")
    return value


def texts_of(value, where, keep_none=False):
    """Labels, environment, options: a mapping, or a list of NAME=VALUE. Raises for booleans."""
    if isinstance(value, list):
        value = {str(item).partition("=")[0]: str(item).partition("=")[2] for item in value}
    try:
        return {
            str(key): None if item is None and keep_none else text_of(item)
            for key, item in mapping(value, where).items()
        }
    except ValueError as error:
        raise ComposeError(f"{where}: {error}") from None


def words(command):
    """A command: a list as it is, a text as a shell splits it."""
    return shlex.split(command) if isinstance(command, str) else command


def port_list(given, where):
    """Ports, in the order of their numbers."""
    found = []
    for item in given or []:
        found += [_long_port(item)] if isinstance(item, dict) else _short_ports(str(item), where)
    return sorted(found, key=lambda port: (port["published_port"] or 0, port["target_port"]))


def _long_port(item):
    published = item.get("published")
    return {
        "target_port": int(item["target"]),
        "published_port": None if published in (None, "") else int(published),
        "protocol": item.get("protocol") or "tcp",
        "mode": item.get("mode") or "ingress",
        "name": item.get("name"),
    }


def _short_ports(text, where):
    match = PORT.fullmatch(text)
    if not match:
        raise ComposeError(f"{where}.ports: {text!r} is not [PUBLISHED:]TARGET[/PROTOCOL]")
    if match.group("address"):
        raise ComposeError(f"{where}.ports: {text!r}: a cluster publishes on all addresses of its hosts; leave it out")
    targets = _range(match.group("target"))
    published = _range(match.group("published")) if match.group("published") else [None] * len(targets)
    if len(published) != len(targets):
        raise ComposeError(f"{where}.ports: {text!r}: the two ranges have different lengths")
    protocol = match.group("protocol") or "tcp"
    return [
        {"target_port": target, "published_port": port, "protocol": protocol, "mode": "ingress", "name": None}
        for port, target in zip(published, targets, strict=True)
    ]


def _range(text):
    first, _dash, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def network_list(service, given, where):
    """Networks by their key in the file; the service's own name is an alias on each."""
    if isinstance(given, list):
        given = dict.fromkeys(given)
    given = mapping(given, f"{where}.networks") or {"default": None}
    result = []
    for key, body in given.items():
        entry = mapping(body, f"{where}.networks.{key}")
        for fixed in ("ipv4_address", "ipv6_address"):
            if entry.get(fixed):
                raise ComposeError(f"{where}.networks.{key}: {fixed}: tasks get their addresses from the cluster")
        aliases = [*(entry.get("aliases") or []), service]
        result.append({"key": key, "aliases": aliases, "driver_opts": entry.get("driver_opts")})
    return result


def file_reference(item, kind, reader, where):
    """A secret or config as a file in containers."""
    entry = {"source": item} if isinstance(item, str) else mapping(item, f"{where}.{kind}")
    key = entry.get("source")
    if not key:
        raise ComposeError(f"{where}.{kind}: an entry without a source")
    name, _external = reader.object_name(kind, key)
    mode = entry.get("mode")
    return {
        "key": key,
        "name": name,
        "target": entry.get("target") or key,
        "uid": str(entry.get("uid", "0")),
        "gid": str(entry.get("gid", "0")),
        # 0440 in YAML is an octal number; a text is one, too.
        "mode": "0444" if mode is None else f"{mode:o}" if isinstance(mode, int) else str(mode),
    }


def mount(item, reader, where):
    """A volume, a bind mount or a tmpfs, from the short or the long form."""
    entry = (
        _short_mount(item, reader, where) if isinstance(item, str) else _long_mount(mapping(item, f"{where}.volumes"))
    )
    if entry["type"] == "bind" and not entry.get("source", "").startswith("/"):
        entry["source"] = reader.path(entry.get("source", ""))
    if entry["type"] == "volume" and entry.get("source"):
        volume = mapping(mapping(reader.document.get("volumes"), "volumes").get(entry["source"]), f"{where}.volumes")
        if entry["source"] not in mapping(reader.document.get("volumes"), "volumes"):
            raise ComposeError(f"{where}.volumes: {entry['source']} is not declared under volumes")
        name, external = reader.object_name("volumes", entry["source"])
        entry["source"] = name
        if not external:
            entry["labels"] = reader.labels(volume.get("labels"))
            if volume.get("driver") or volume.get("driver_opts"):
                entry["driver_config"] = {"name": volume.get("driver"), "options": volume.get("driver_opts")}
    return entry


def _short_mount(text, reader, where):
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise ComposeError(f"{where}.volumes: {text!r} is not [SOURCE:]TARGET[:MODE]")
    if len(parts) == 1:
        return {"type": "volume", "target": text}
    source, target = parts[:2]
    entry = {"type": "bind" if source[0] in "./~" else "volume", "source": source, "target": target}
    if entry["type"] == "bind":
        entry["source"] = reader.path(source)
    for word in parts[2].split(",") if len(parts) == 3 else []:
        if word == "ro":
            entry["readonly"] = True
        elif word == "nocopy":
            entry["no_copy"] = True
        elif word in PROPAGATIONS:
            entry["propagation"] = word
        elif word in ("consistent", "cached", "delegated"):
            entry["consistency"] = word
        elif word not in ("rw", "z", "Z", "volume-nocopy"):
            raise ComposeError(f"{where}.volumes: {text!r}: unknown mode {word!r}")
    return entry


def _long_mount(item):
    bind, volume, tmpfs = (item.get(key) or {} for key in ("bind", "volume", "tmpfs"))
    entry = {
        "type": item.get("type") or "volume",
        "source": item.get("source"),
        "target": item.get("target"),
        "readonly": bool(item.get("read_only")),
        "consistency": item.get("consistency"),
        "propagation": bind.get("propagation"),
        "no_copy": bool(volume.get("nocopy")),
        "subpath": volume.get("subpath"),
        "tmpfs_size": str(tmpfs["size"]) if tmpfs.get("size") else None,
    }
    return {key: value for key, value in entry.items() if value is not None}
