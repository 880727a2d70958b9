# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A compose file as what a cluster shall hold, by the rules of `docker stack deploy`. Pure; reading files is handed in.

What comes out for each service are parameters of swarm_service, so that a stack's service and one that is declared by
itself are planned by the same table. Objects are called STACK_NAME and bear the label com.docker.stack.namespace, as
Docker's own command would have it. Keys that Docker ignores in a stack are ignored here, with its warning.
"""

from __future__ import annotations

import base64
import os
import re

from ansible_collections.swarm.cluster.plugins.module_utils.compose_parts import (
    ComposeError,
    file_reference,
    mapping,
    mount,
    network_list,
    port_list,
    texts_of,
    words,
)

NAMESPACE = "com.docker.stack.namespace"
IMAGE = "com.docker.stack.image"
IGNORED = frozenset(
    (
        *("build", "cgroup_parent", "cgroupns_mode", "container_name", "depends_on", "devices", "domainname", "expose"),
        *("external_links", "ipc", "links", "mac_address", "network_mode", "pid", "privileged", "profiles"),
        *("pull_policy", "security_opt", "shm_size", "userns_mode"),
    )
)
VARIABLE = re.compile(
    r"\$(?:(?P<escaped>\$)|(?P<named>[_a-zA-Z][_a-zA-Z0-9]*)|"
    r"\{(?P<braced>[_a-zA-Z][_a-zA-Z0-9]*)(?:(?P<how>:?[-?+])(?P<word>[^}]*))?\}|(?P<wrong>))"
)


def interpolate(value, environment, where="the file"):
    """Values with $NAME, ${NAME}, ${NAME:-default}, ${NAME:?message}, ${NAME:+other} filled in, at any depth."""
    if isinstance(value, dict):
        return {key: interpolate(part, environment, f"{where}.{key}") for key, part in value.items()}
    if isinstance(value, list):
        return [interpolate(part, environment, where) for part in value]
    if not isinstance(value, str):
        return value

    def filled(match):
        if match.group("escaped"):
            return "$"
        name = match.group("named") or match.group("braced")
        if name is None:
            raise ComposeError(f"{where}: {value!r} has a $ that names nothing; write $$ for a dollar sign")
        found, how, word = environment.get(name), match.group("how") or "", match.group("word") or ""
        missing = found is None or (how.startswith(":") and found == "")
        if how.endswith("?") and missing:
            raise ComposeError(f"{where}: {name} is not set: {word or 'it has to be'}")
        if how.endswith("-"):
            return word if missing else str(found)
        if how.endswith("+"):
            return "" if missing else word
        return "" if found is None else str(found)

    return VARIABLE.sub(filled, value)


def merge(base, other):
    """A second file over the first: dicts by key, lists one after the other, everything else replaced."""
    result = dict(base)
    for key, value in other.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            result[key] = merge(old, value)
        elif isinstance(old, list) and isinstance(value, list) and key not in ("command", "entrypoint", "test"):
            result[key] = old + [item for item in value if item not in old]
        else:
            result[key] = value
    return result


class Reader:
    """One stack out of its compose file. `read_file(path)` gives bytes; `folder` is where relative paths start."""

    def __init__(self, stack, document, read_file, folder=".", environment=None):
        self.stack = stack
        self.document = document
        self.read_file = read_file
        self.folder = folder
        self.environment = environment or {}
        self.warnings = []
        self.contents = {}

    def read(self):
        """services, networks, secrets, configs by their key in the file, each with the name that the object gets."""
        unknown = set(self.document) - {"version", "name", "services", "networks", "volumes", "secrets", "configs"}
        unknown = sorted(key for key in unknown if not key.startswith("x-"))
        if unknown:
            raise ComposeError(f"unknown at the top of the file: {', '.join(unknown)}")
        declared = mapping(self.document.get("services"), "services")
        if not declared:
            raise ComposeError("the file declares no services")
        services = {name: self._service(name, mapping(body, name)) for name, body in declared.items()}
        used = {item["key"] for service in services.values() for item in service["networks"]}
        return {
            "services": {name: self._named(service) for name, service in services.items()},
            "networks": self._networks(used),
            "secrets": self._blobs("secrets"),
            "configs": self._blobs("configs"),
        }

    # --- top level ------------------------------------------------------------------------------------------------

    def scoped(self, name):
        """What an object of the stack is called."""
        return f"{self.stack}_{name}"

    def labels(self, given=None, where="labels"):
        """Labels with the one that says which stack it is."""
        return {**texts_of(given, where), NAMESPACE: self.stack}

    def _entry(self, kind, key):
        declared = mapping(self.document.get(kind), kind)
        if key not in declared:
            raise ComposeError(f"{kind[:-1]} {key} is used, but not declared under {kind}")
        return mapping(declared[key], f"{kind}.{key}")

    def object_name(self, kind, key):
        """The name of the network, volume, secret or config with this key, and whether somebody else makes it."""
        entry = self._entry(kind, key)
        external = entry.get("external")
        if isinstance(external, dict):
            return external.get("name", key), True
        name = entry.get("name")
        return name or (key if external else self.scoped(key)), bool(external)

    def _networks(self, used):
        found = {}
        for key in sorted(used):
            if key == "default" and "default" not in mapping(self.document.get("networks"), "networks"):
                found[key] = {"name": self.scoped(key), "external": False, "labels": self.labels()}
                continue
            entry, (name, external) = self._entry("networks", key), self.object_name("networks", key)
            found[key] = {"name": name, "external": external}
            if external:
                continue
            driver = entry.get("driver") or "overlay"
            if driver != "overlay":
                raise ComposeError(f"networks.{key}: driver {driver}; networks of a stack are overlays")
            ipam = mapping(entry.get("ipam"), f"networks.{key}.ipam")
            found[key].update(
                labels=self.labels(entry.get("labels")),
                attachable=bool(entry.get("attachable")),
                internal=bool(entry.get("internal")),
                driver_options=texts_of(entry.get("driver_opts"), f"networks.{key}.driver_opts"),
            )
            if ipam.get("config"):
                found[key]["subnets"] = [
                    {"subnet": item.get("subnet"), "gateway": item.get("gateway"), "ip_range": item.get("ip_range")}
                    for item in ipam["config"]
                ]
        return found

    def _blobs(self, kind):
        found = {}
        for key, body in mapping(self.document.get(kind), kind).items():
            entry, (name, external) = mapping(body, f"{kind}.{key}"), self.object_name(kind, key)
            found[key] = {"name": name, "external": external}
            if external:
                continue
            found[key].update(
                labels=self.labels(entry.get("labels")), template=entry.get("template_driver") == "golang"
            )
            self.contents[f"{kind}/{key}"] = base64.b64encode(self._content(kind, key, entry)).decode()
        return found

    def _content(self, kind, key, entry):
        if entry.get("file"):
            return self.read_file(self.path(entry["file"]))
        if entry.get("environment"):
            value = self.environment.get(entry["environment"])
            if value is None:
                raise ComposeError(f"{kind}.{key}: {entry['environment']} is not set")
            return str(value).encode()
        if kind == "configs" and entry.get("content") is not None:
            return str(entry["content"]).encode()
        raise ComposeError(f"{kind}.{key}: say where the content comes from (file, environment, or external: true)")

    def path(self, text):
        """A path of the file, made absolute."""
        return os.path.normpath(os.path.join(self.folder, os.path.expanduser(text)))

    # --- services -------------------------------------------------------------------------------------------------

    def _named(self, service):
        """The service with the names of its networks."""
        networks = []
        for item in service["networks"]:
            key = item["key"]
            name = self.scoped(key) if key == "default" else self.object_name("networks", key)[0]
            if key == "default" and "default" in mapping(self.document.get("networks"), "networks"):
                name = self.object_name("networks", key)[0]
            networks.append({"name": name, "aliases": item["aliases"], "driver_opts": item["driver_opts"]})
        return {**service, "networks": sorted(networks, key=lambda entry: entry["name"])}

    def _service(self, name, body):
        where = f"services.{name}"
        for key in sorted(set(body) & IGNORED):
            if key != "depends_on":
                self.warnings.append(f"{where}: {key} is ignored in a stack, as docker stack deploy does")
        unknown = sorted(
            key for key in body if key not in IGNORED and key not in SERVICE_KEYS and not key.startswith("x-")
        )
        if unknown:
            raise ComposeError(f"{where}: unknown: {', '.join(unknown)}")
        if not body.get("image"):
            raise ComposeError(f"{where}: a service of a stack needs an image; it is not built on deployment")
        deploy = mapping(body.get("deploy"), f"{where}.deploy")
        params = {
            "image": body["image"],
            "command": words(body.get("entrypoint")),
            "args": words(body.get("command")),
            "env": self._environment(body, where),
            "container_labels": self.labels(body.get("labels"), f"{where}.labels"),
            "labels": {**self.labels(deploy.get("labels"), f"{where}.deploy.labels"), IMAGE: body["image"]},
            "hosts": self._hosts(body.get("extra_hosts"), where),
            "networks": network_list(name, body.get("networks"), where),
            "publish": port_list(body.get("ports"), where),
            "mounts": [
                mount(item, self, where) for item in [*(body.get("volumes") or []), *_tmpfs_mounts(body.get("tmpfs"))]
            ],
            "secrets": [file_reference(item, "secrets", self, where) for item in body.get("secrets") or []],
            "configs": [file_reference(item, "configs", self, where) for item in body.get("configs") or []],
            "ulimits": _ulimits(body.get("ulimits")),
        }
        for key, option in PLAIN.items():
            if body.get(key) is not None:
                params[option] = body[key]
        for key, option in (("dns", "dns"), ("dns_search", "dns_search")):
            if body.get(key):
                params[option] = [body[key]] if isinstance(body[key], str) else list(body[key])
        if body.get("sysctls"):
            params["sysctls"] = texts_of(body["sysctls"], f"{where}.sysctls")
        if body.get("healthcheck"):
            params["healthcheck"] = _health(mapping(body["healthcheck"], f"{where}.healthcheck"))
        if body.get("logging"):
            logging = mapping(body["logging"], f"{where}.logging")
            params["logging"] = {"driver": logging.get("driver"), "options": logging.get("options")}
        if body.get("credential_spec"):
            params["privileges"] = {"credential_spec": dict(body["credential_spec"])}
        params.update(_deployment(deploy, body.get("restart"), where))
        return {key: value for key, value in params.items() if value is not None}

    def _environment(self, body, where):
        result = {}
        files = body.get("env_file") or []
        for item in [files] if isinstance(files, (str, dict)) else files:
            entry = item if isinstance(item, dict) else {"path": item}
            try:
                text = self.read_file(self.path(entry["path"])).decode()
            except OSError:
                if entry.get("required", True):
                    raise
                continue
            for line in text.splitlines():
                key, given, value = line.strip().partition("=")
                if key and not key.startswith("#"):
                    result[key] = value if given else self.environment.get(key)
        own = body.get("environment") or {}
        if isinstance(own, list):
            own = {
                str(item).partition("=")[0]: str(item).partition("=")[2] if "=" in str(item) else None for item in own
            }
        for key, value in own.items():
            result[key] = self.environment.get(key) if value is None else value
        return {key: value for key, value in texts_of(result, f"{where}.environment", keep_none=True).items()
                if value is not None}  # fmt: skip

    def _hosts(self, given, where):
        if isinstance(given, dict):
            return {name: str(address) for name, address in given.items()}
        result = {}
        for item in given or []:
            name, _sign, address = re.sub(r"^([^:=]+)[:=]", r"\1=", item).partition("=")
            if not address:
                raise ComposeError(f"{where}.extra_hosts: {item!r} is not NAME:ADDRESS")
            result[name] = address.strip("[]")
        return result


PLAIN = {
    "working_dir": "working_dir",
    "user": "user",
    "group_add": "groups",
    "hostname": "hostname",
    "tty": "tty",
    "stdin_open": "open_stdin",
    "init": "init",
    "read_only": "read_only",
    "stop_signal": "stop_signal",
    "stop_grace_period": "stop_grace_period",
    "cap_add": "cap_add",
    "cap_drop": "cap_drop",
    "isolation": "isolation",
    "oom_score_adj": "oom_score_adj",
}
SERVICE_KEYS = frozenset(
    (
        *PLAIN,
        *("image", "entrypoint", "command", "environment", "env_file", "labels", "deploy", "extra_hosts", "networks"),
        *("ports", "volumes", "tmpfs", "secrets", "configs", "ulimits", "dns", "dns_search", "sysctls", "healthcheck"),
        *("logging", "credential_spec", "restart"),
    )
)


def _tmpfs_mounts(given):
    return [{"type": "tmpfs", "target": item} for item in ([given] if isinstance(given, str) else given or [])]


def _ulimits(given):
    result = []
    for name, value in sorted((given or {}).items()):
        limits = value if isinstance(value, dict) else {"soft": value, "hard": value}
        result.append({"name": name, "soft": limits["soft"], "hard": limits["hard"]})
    return result


def _health(given):
    if given.get("disable"):
        return {"test": ["NONE"]}
    test = given.get("test")
    keys = ("interval", "timeout", "start_period", "start_interval", "retries")
    return {"test": [test] if isinstance(test, str) else test, **{key: given.get(key) for key in keys}}


def _deployment(deploy, restart, where):
    known = {"mode", "replicas", "endpoint_mode", "labels", "placement", "resources", "restart_policy", "update_config",
             "rollback_config"}  # fmt: skip
    unknown = sorted(key for key in deploy if key not in known and not key.startswith("x-"))
    if unknown:
        raise ComposeError(f"{where}.deploy: unknown: {', '.join(unknown)}")
    placement = mapping(deploy.get("placement"), f"{where}.deploy.placement")
    resources = mapping(deploy.get("resources"), f"{where}.deploy.resources")
    limits, reserved = (
        mapping(resources.get(key), f"{where}.deploy.resources.{key}") for key in ("limits", "reservations")
    )
    params = {key: deploy.get(key) for key in ("mode", "replicas", "endpoint_mode")}
    params["placement"] = {
        "constraints": placement.get("constraints"),
        "spread": [item["spread"] for item in placement.get("preferences") or []] or None,
        "replicas_max_per_node": placement.get("max_replicas_per_node"),
    }
    params["limits"] = {"cpus": _number(limits.get("cpus")), "memory": limits.get("memory"), "pids": limits.get("pids")}
    params["reservations"] = {
        "cpus": _number(reserved.get("cpus")),
        "memory": reserved.get("memory"),
        "generic": _generic(reserved.get("generic_resources")),
    }
    policy = deploy.get("restart_policy") or _restart(restart, where)
    if policy:
        keys = ("condition", "delay", "max_attempts", "window")
        params["restart_config"] = {key: policy[key] for key in keys if policy.get(key) is not None}
    for key in ("update_config", "rollback_config"):
        if deploy.get(key) is not None:
            words_of = ("parallelism", "delay", "failure_action", "monitor", "max_failure_ratio", "order")
            given = {word: deploy[key].get(word) for word in words_of}
            # One by one is what a file means that says how to update, but not how many at once.
            params[key] = {**given, "parallelism": 1 if given["parallelism"] is None else given["parallelism"]}
    return params


def _number(text):
    return None if text is None else float(text)


def _generic(given):
    kinds = {}
    for item in given or []:
        spec = item.get("discrete_resource_spec") or item.get("named_resource_spec") or {}
        kinds.setdefault(spec.get("kind"), []).append(spec.get("value"))
    return {kind: values[0] if len(values) == 1 else values for kind, values in kinds.items()} or None


def _restart(word, where):
    if word in (None, "", "no", False):
        return None
    if word in ("always", "unless-stopped"):
        return {"condition": "any"}
    match = re.fullmatch(r"on-failure(?::(\d+))?", str(word))
    if not match:
        raise ComposeError(f"{where}.restart: {word!r} is not no, always, unless-stopped or on-failure[:COUNT]")
    return {"condition": "on-failure", "max_attempts": int(match.group(1)) if match.group(1) else None}
