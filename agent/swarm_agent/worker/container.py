"""From a task to the body of the engine's POST /containers/create: pure, one small function a concern.

The result follows Swarm's own translation (moby daemon/cluster/executor/container/container.go), so that a container
looks the same to whoever inspects it: name, labels, entrypoint rules, extra hosts turned round. Empty values are left
out, so that the image's and the engine's own defaults hold.
Traps: the engine takes several networks at create from API 1.44 on only, and there the MAC is per endpoint; before, it
is one field of the container, and further networks are connected between create and start (`Plan.connects`).
"""

from __future__ import annotations

import base64
import binascii
import math
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from swarm_agent.model.addresses import ip_of, mac_of
from swarm_agent.model.extensions import TaskOptions, task_options
from swarm_agent.model.objects import Network, Task
from swarm_agent.model.specs import (
    ContainerSpec,
    Limits,
    Mount,
    NetworkAttachmentConfig,
    PortConfig,
    Privileges,
    TaskSpec,
)
from swarm_agent.model.times import SECOND

TASK_LABEL = "com.docker.swarm.task"
TASK_ID_LABEL = "com.docker.swarm.task.id"
NODE_ID_LABEL = "com.docker.swarm.node.id"
PREDEFINED_LABEL = "com.docker.swarm.predefined"
DEFAULT_GRACE = 10 * SECOND
MULTI_NETWORK_API = (1, 44)


@dataclass(frozen=True, slots=True)
class EngineNetwork:
    """A network of the engine that the container joins; `ip` without prefix length, empty when the engine chooses.
    `ip6` only on networks with IPv6. `options` are for the network's driver, of this endpoint alone.
    """

    name: str
    ip: str
    mac: str
    ip6: str = ""
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FileMount:
    """A file of the host, bind-mounted read-only at `target`: a secret or config."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send: the create body, then the endpoint settings of each further network to connect."""

    name: str
    body: dict[str, Any]
    connects: list[tuple[str, dict[str, Any]]]


def plan(
    task: Task,
    spec: ContainerSpec,
    *,
    api_version: tuple[int, int],
    networks: Sequence[EngineNetwork] = (),
    files: Sequence[FileMount] = (),
    resolvers: Sequence[str] = (),
) -> Plan:
    """The container for `task`. `spec` is the task's container spec with templates expanded; `resolvers` are the DNS
    servers to use when the spec names none."""
    ports = host_ports(task)
    body = _config(task, spec, ports)
    host = _host_config(task, spec, ports, files)
    if "Dns" not in host and resolvers:
        host["Dns"] = list(resolvers)
    if networks:
        host["NetworkMode"] = networks[0].name
    at_once = list(networks) if api_version >= MULTI_NETWORK_API else list(networks[:1])
    endpoints = {network.name: _endpoint(network, api_version) for network in at_once}
    if any(endpoints.values()):
        body["NetworkingConfig"] = {"EndpointsConfig": endpoints}
        if api_version < MULTI_NETWORK_API and networks[0].mac:
            body["MacAddress"] = networks[0].mac
    body["HostConfig"] = host
    connects = [(network.name, _endpoint(network, api_version)) for network in networks[len(at_once) :]]
    return Plan(task.name, body, connects)


def engine_network(name: str, addresses: Sequence[str], options: Mapping[str, str] | None = None) -> EngineNetwork:
    """The attachment to engine network `name` with the addresses ("10.0.1.3/24") that the manager chose."""
    ip = next((ip_of(address) for address in addresses if "." in address), "")
    ip6 = next((ip_of(address) for address in addresses if ":" in address), "")
    return EngineNetwork(name, ip, mac_of(ip) if ip else "", ip6, options or {})


def wishes(task: Task, network: Network) -> list[NetworkAttachmentConfig]:
    """What the task's spec says of its place on a network, which it may name by id or by name."""
    return [config for config in task.spec.networks if config.target in (network.id, network.spec.name)]


def on_cluster(network: Network) -> bool:
    """True for overlays, which the cluster makes; others (host, bridge, macvlan) are each engine's own, by name."""
    driver = network.spec.driver_configuration
    own = network.spec.labels.get(PREDEFINED_LABEL) == "true"
    return not own and (driver is None or driver.name in ("", "overlay"))


def attaches(task: Task) -> bool:
    """True when the task has a place on cluster networks."""
    return any(on_cluster(attachment.network) for attachment in task.networks_attachments)


def _endpoint(network: EngineNetwork, api_version: tuple[int, int]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if network.ip:
        settings["IPAMConfig"] = {"IPv4Address": network.ip, **({"IPv6Address": network.ip6} if network.ip6 else {})}
    if network.mac and api_version >= MULTI_NETWORK_API:
        settings["MacAddress"] = network.mac
    if network.options:
        settings["DriverOpts"] = dict(network.options)
    return settings


# --- names -----------------------------------------------------------------------------------------------------------


def image_reference(image: str) -> str:
    """The image as Swarm asks the engine for it: short form, with the tag "latest" when neither tag nor digest is
    given.
    """
    name = image
    for prefix in ("docker.io/library/", "index.docker.io/library/", "docker.io/", "index.docker.io/"):
        if name.startswith(prefix):
            name = name[len(prefix) :]
            break
    if "@" in name:
        return name
    return name if ":" in name.rpartition("/")[2] else name + ":latest"


def registry_host(reference: str) -> str:
    """The registry that serves a reference: the first part when it looks like a host, else Docker Hub."""
    first, slash, _ = reference.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"


def is_digest(reference: str) -> bool:
    """True when the reference names one content for ever, so that a present image needs no pull."""
    return "@sha256:" in reference


def labels(task: Task, spec: ContainerSpec) -> dict[str, str]:
    return {
        **spec.labels,
        **task.labels,
        TASK_LABEL: "",
        TASK_ID_LABEL: task.id,
        "com.docker.swarm.task.name": task.name,
        NODE_ID_LABEL: task.node_id,
        "com.docker.swarm.service.id": task.service_id,
        "com.docker.swarm.service.name": task.service_name,
    }


def stop_grace_seconds(spec: ContainerSpec | None) -> int:
    """Whole seconds that the engine waits between stop signal and SIGKILL; a part of a second counts as one."""
    grace = DEFAULT_GRACE if spec is None or spec.stop_grace_period is None else spec.stop_grace_period
    return math.ceil(grace / SECOND)


def host_ports(task: Task) -> list[PortConfig]:
    """The ports that the task takes on its own host."""
    if task.endpoint is None:
        return []
    allocated = [port for port in task.endpoint.ports if port.publish_mode == "host"]
    return allocated or [port for port in task.endpoint.spec.ports if port.publish_mode == "host"]


# --- the body --------------------------------------------------------------------------------------------------------


def _config(task: Task, spec: ContainerSpec, ports: list[PortConfig]) -> dict[str, Any]:
    body: dict[str, Any] = {
        "Image": image_reference(spec.image),
        "Labels": labels(task, spec),
        "Hostname": spec.hostname,
        "Env": [*spec.env, *generic_env(task)],
        "WorkingDir": spec.dir,
        "User": spec.user,
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "StopSignal": spec.stop_signal,
        "ExposedPorts": {_port_key(port): {} for port in ports},
    }
    if spec.command:
        body["Entrypoint"] = spec.command
        body["Cmd"] = spec.args
    elif spec.args:
        body["Cmd"] = spec.args
    if spec.healthcheck is not None:
        body["Healthcheck"] = msgspec.to_builtins(spec.healthcheck)
    return {key: value for key, value in body.items() if value not in ("", [], {}, False)}


def generic_env(task: Task) -> list[str]:
    """DOCKER_RESOURCE_KIND=value for the generic resources that the scheduler assigned."""
    found: dict[str, list[str]] = {}
    for resource in task.generic_resources:
        named, discrete = resource.named_resource_spec, resource.discrete_resource_spec
        if named is not None:
            found.setdefault(named.kind, []).append(named.value)
        elif discrete is not None:
            found.setdefault(discrete.kind, []).append(str(discrete.value))
    return [f"DOCKER_RESOURCE_{kind.upper()}={','.join(values)}" for kind, values in found.items()]


def _port_key(port: PortConfig) -> str:
    return f"{port.target_port}/{port.protocol or 'tcp'}"


def _host_config(
    task: Task, spec: ContainerSpec, ports: list[PortConfig], files: Sequence[FileMount]
) -> dict[str, Any]:
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in ports:
        published = str(port.published_port) if port.published_port else ""
        bindings.setdefault(_port_key(port), []).append({"HostPort": published})
    dns = spec.dns_config
    mounts = [mount_body(mount) for mount in spec.mounts]
    mounts += [{"Type": "bind", "Source": file.source, "Target": file.target, "ReadOnly": True} for file in files]
    resources = _resources(task.spec)
    host: dict[str, Any] = {
        **resources,
        "PortBindings": bindings,
        "Mounts": mounts,
        "GroupAdd": spec.groups,
        "ReadonlyRootfs": spec.read_only,
        "Isolation": "" if spec.isolation == "default" else spec.isolation,
        "Sysctls": spec.sysctls,
        "CapAdd": spec.capability_add,
        "CapDrop": spec.capability_drop,
        "Ulimits": [{"Name": one.name, "Soft": one.soft, "Hard": one.hard} for one in spec.ulimits],
        "OomScoreAdj": spec.oom_score_adj,
        "ExtraHosts": extra_hosts(spec.hosts),
        "Dns": dns.nameservers if dns else [],
        "DnsSearch": dns.search if dns else [],
        "DnsOptions": dns.options if dns else [],
        "SecurityOpt": security_options(spec.privileges),
    }
    host = {key: value for key, value in host.items() if key in resources or value not in ("", [], {}, 0, False)}
    if spec.init is not None:
        host["Init"] = spec.init
    driver = task.spec.log_driver or task.log_driver  # the cluster's default
    if driver is not None and (driver.name or driver.options):  # options alone are for the engine's default driver
        host["LogConfig"] = {"Type": driver.name, "Config": driver.options}
    host |= _beyond_swarm(task_options(task.service_labels))
    host["RestartPolicy"] = {"Name": "no"}  # the cluster restarts by a new task
    return host


def _beyond_swarm(options: TaskOptions) -> dict[str, Any]:
    """What the service's labels `swarm.task.*` ask for (model/extensions.py)."""
    gpus = options.gpus
    found: dict[str, Any] = {
        "Devices": [
            {"PathOnHost": one.host, "PathInContainer": one.container, "CgroupPermissions": one.permissions}
            for one in options.devices
        ],
        "Privileged": options.privileged,
        "ShmSize": options.shm_size,
        "Runtime": options.runtime,
        "DeviceRequests": []
        if gpus is None
        else [{"Driver": "", "Count": gpus.count, "DeviceIDs": list(gpus.ids), "Capabilities": [["gpu"]]}],
    }
    return {key: value for key, value in found.items() if value}


def _resources(spec: TaskSpec) -> dict[str, Any]:
    requirements = spec.resources
    if requirements is None:
        return {}
    limits = requirements.limits or Limits()
    reserved = requirements.reservations
    found: dict[str, Any] = {
        "NanoCpus": limits.nano_cpus,
        "Memory": limits.memory_bytes,
        "PidsLimit": limits.pids,
        "MemoryReservation": reserved.memory_bytes if reserved else 0,
    }
    found = {key: value for key, value in found.items() if value}
    swap = requirements.swap_bytes
    if swap is not None:
        # The engine counts memory and swap together; -1 is "no limit" to both.
        found["MemorySwap"] = -1 if swap < 0 else limits.memory_bytes + swap
    if requirements.memory_swappiness is not None:
        found["MemorySwappiness"] = requirements.memory_swappiness  # 0 means "avoid swapping", not "unset"
    return found


def mount_body(mount: Mount) -> dict[str, Any]:
    """A mount in the engine's form, which is the service's own, field by field."""
    body: dict[str, Any] = {"Type": mount.type, "Target": mount.target}
    if mount.source:
        body["Source"] = mount.source
    if mount.read_only:
        body["ReadOnly"] = True
    if mount.consistency:
        body["Consistency"] = mount.consistency
    for name, options in (
        ("BindOptions", mount.bind_options),
        ("VolumeOptions", mount.volume_options),
        ("TmpfsOptions", mount.tmpfs_options),
    ):
        if options is not None:
            body[name] = msgspec.to_builtins(options)
    return body


def extra_hosts(entries: Sequence[str]) -> list[str]:
    """Swarm writes hosts as in /etc/hosts ("IP name alias"), the engine as "name:IP". Swarm drops aliases; we keep
    them. An entry without a name says nothing.
    """
    found = []
    for entry in entries:
        words = entry.split()
        found += [f"{name}:{words[0]}" for name in words[1:]]
    return found


def security_options(privileges: Privileges | None) -> list[str]:
    if privileges is None:
        return []
    found: list[str] = []
    credential = privileges.credential_spec
    if credential is not None:
        if credential.config:  # for Windows; the engine of other hosts refuses it, which is better than to forget it
            found.append(f"credentialspec=config://{credential.config}")
        elif credential.file:
            found.append(f"credentialspec=file://{credential.file}")
        elif credential.registry:
            found.append(f"credentialspec=registry://{credential.registry}")
    selinux = privileges.selinux_context
    if selinux is not None:
        if selinux.disable:
            found.append("label=disable")
        parts = (("user", selinux.user), ("role", selinux.role), ("level", selinux.level), ("type", selinux.type))
        found += [f"label={key}:{value}" for key, value in parts if value]
    if privileges.no_new_privileges:
        found.append("no-new-privileges=true")
    if privileges.app_armor is not None and privileges.app_armor.mode == "disabled":
        found.append("apparmor=unconfined")
    if privileges.seccomp is not None:
        found += _seccomp(privileges.seccomp.mode, privileges.seccomp.profile)
    return found


def _seccomp(mode: str, profile: str) -> list[str]:
    if mode == "unconfined":
        return ["seccomp=unconfined"]
    if mode == "custom":
        return [f"seccomp={_profile_text(profile)}"]
    return []


def _profile_text(profile: str) -> str:
    """The API carries the profile as bytes, so base64 in JSON."""
    try:
        return base64.b64decode(profile, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return profile


def absolute_target(name: str, folder: str) -> str:
    """Where a secret or config appears in the container: `name` itself when absolute, else under `folder`."""
    return posixpath.normpath(posixpath.join(folder, name))
