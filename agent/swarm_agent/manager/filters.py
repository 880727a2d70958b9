"""Which nodes a task may run on: Swarm's filters, in Swarm's order and words (reference/swarm.md §3.6).

A `Demand` is what the tasks of one group (same service, same spec version) ask of a node; `refuses(info)` names the
first filter that turns the node down, or None. `explain` makes the text of how often each filter did: it is what
`docker service ps` shows as the error of a pending task.

Plugins, encryption, constraints and platform depend on node and spec alone. Their verdict is kept in `Verdicts` until
the node changes, so many small groups with equal demands cost one dictionary look-up a node.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence

from swarm_agent.model.encryption import can_encrypt, is_encrypted
from swarm_agent.model.objects import Node, PluginDescription, Task
from swarm_agent.model.specs import Mount, Platform

from . import constraints, generic
from .nodeset import NodeInfo, host_ports


class Filter(enum.IntEnum):
    """The filters in the order in which they are asked; the first refusal is the one that is reported."""

    READY = 0
    RESOURCES = 1
    PLUGINS = 2
    ENCRYPTION = 3
    CONSTRAINTS = 4
    PLATFORM = 5
    HOST_PORTS = 6
    MAX_REPLICAS = 7


_TEXTS: dict[Filter, tuple[str, str]] = {
    Filter.READY: ("1 node not available for new tasks", "{} nodes not available for new tasks"),
    Filter.RESOURCES: ("insufficient resources on 1 node", "insufficient resources on {} nodes"),
    Filter.PLUGINS: ("missing plugin on 1 node", "missing plugin on {} nodes"),
    Filter.ENCRYPTION: (
        "no WireGuard for the encrypted network on 1 node",
        "no WireGuard for the encrypted network on {} nodes",
    ),
    Filter.CONSTRAINTS: (
        "scheduling constraints not satisfied on 1 node",
        "scheduling constraints not satisfied on {} nodes",
    ),
    Filter.PLATFORM: ("unsupported platform on 1 node", "unsupported platform on {} nodes"),
    Filter.HOST_PORTS: ("host-mode port already in use on 1 node", "host-mode port already in use on {} nodes"),
    Filter.MAX_REPLICAS: ("max replicas per node limit exceed", "max replicas per node limit exceed"),
}


def explain(refusals: Mapping[Filter, int]) -> str:
    """How many nodes each filter refused, most first, in Swarm's words. Empty when none did."""
    order = sorted((item for item in refusals.items() if item[1]), key=lambda item: (-item[1], item[0]))
    return "; ".join(_TEXTS[which][count != 1].format(count) for which, count in order)


def no_suitable_node(refusals: Mapping[Filter, int]) -> str:
    """The error of a task that found no node."""
    reasons = explain(refusals)
    return f"no suitable node ({reasons})" if reasons else "no suitable node"


_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

FixedKey = tuple[tuple[str, ...], tuple[Platform, ...], tuple[str, ...], tuple[str, ...], str, bool]
"""Constraints, platforms, volume drivers, network drivers, log driver, whether a network is encrypted."""


class Fixed:
    """The part of a demand that depends on the node object alone, with its verdicts so far by node id."""

    __slots__ = ("_constraints", "key", "verdicts")

    def __init__(self, key: FixedKey) -> None:
        self.key = key
        try:
            self._constraints = constraints.parse(list(key[0])) if key[0] else None
        except ValueError:  # refused when the service was declared; here it must not stop the scheduler
            self._constraints = None
        self.verdicts: dict[str, Filter | None] = {}

    def refuses(self, node: Node) -> Filter | None:
        """The first of plugins, encryption, constraints and platform that refuses the node."""
        _, platforms, volumes, networks, log_driver, encrypted = self.key
        if (volumes or networks or log_driver) and not _has_plugins(node, volumes, networks, log_driver):
            return Filter.PLUGINS
        if encrypted and node.description.engine.plugins and not can_encrypt(node):
            return Filter.ENCRYPTION
        if self._constraints is not None and not constraints.matches(self._constraints, node):
            return Filter.CONSTRAINTS
        if platforms and not any(_same_platform(platform, node.description.platform) for platform in platforms):
            return Filter.PLATFORM
        return None

    def verdict(self, info: NodeInfo) -> Filter | None:
        """`refuses` of an available node, remembered."""
        try:
            return self.verdicts[info.id]
        except KeyError:
            assert info.node is not None  # it is available
            found = self.verdicts[info.id] = self.refuses(info.node)
            return found

    def admits(self, info: NodeInfo) -> bool:
        """Nothing of it refuses the available node."""
        return self.verdict(info) is None


class Verdicts:
    """Fixed demands by content, at most `limit`; the least recently used ones are forgotten."""

    def __init__(self, limit: int = 256) -> None:
        self._limit = limit
        self._known: dict[FixedKey, Fixed] = {}

    def of(self, task: Task) -> Fixed | None:
        """The fixed demand of a task, None when it asks nothing of the kind."""
        key = _fixed_key(task)
        if not any(key):
            return None
        found = self._known.pop(key, None) or Fixed(key)
        self._known[key] = found
        if len(self._known) > self._limit:
            del self._known[next(iter(self._known))]
        return found

    def forget(self, node_id: str) -> None:
        """The node changed."""
        for fixed in self._known.values():
            fixed.verdicts.pop(node_id, None)


class Demand:
    """What the tasks of one group ask of a node. Made from any one task of the group."""

    __slots__ = ("_cpus", "_memory", "_ports", "_possible", "fixed", "generic", "max_replicas", "service_id", "varies")

    def __init__(self, task: Task, verdicts: Verdicts) -> None:
        self.service_id = task.service_id
        reservations = task.spec.resources.reservations if task.spec.resources is not None else None
        self._cpus = reservations.nano_cpus if reservations is not None else 0
        self._memory = reservations.memory_bytes if reservations is not None else 0
        wanted = generic.wanted(reservations.generic_resources) if reservations is not None else {}
        self._possible = wanted is not None
        self.generic: dict[str, int] = wanted or {}
        self._ports = host_ports(task)
        placement = task.spec.placement
        self.max_replicas = placement.max_replicas if placement is not None else 0
        self.fixed = verdicts.of(task)
        self.varies = bool(self._cpus or self._memory or self.generic or self._ports or self.max_replicas)
        """A node that took one task of the group may refuse the next."""

    def refuses(self, info: NodeInfo) -> Filter | None:
        """The first filter that keeps the group's tasks off this node, None if it may take one (more)."""
        if not info.available:
            return Filter.READY
        if (self._cpus or self._memory or self.generic or not self._possible) and not self._has_room(info):
            return Filter.RESOURCES
        fixed = self.fixed
        if fixed is not None:
            verdict = fixed.verdict(info)
            if verdict is not None:
                return verdict
        if self._ports and any(port in info.ports for port in self._ports):
            return Filter.HOST_PORTS
        if self.max_replicas and info.by_service.get(self.service_id, 0) >= self.max_replicas:
            return Filter.MAX_REPLICAS
        return None

    def _has_room(self, info: NodeInfo) -> bool:
        if (
            not self._possible
            or (self._cpus and self._cpus > info.cpus)
            or (self._memory and self._memory > info.memory)
        ):
            return False
        return not self.generic or generic.has_enough(info.free_generic(), self.generic)


def _fixed_key(task: Task) -> FixedKey:
    placement, container, log = task.spec.placement, task.spec.container_spec, task.spec.log_driver
    volumes = container is not None and {name for mount in container.mounts if (name := _volume_plugin(mount))}
    networks = {attachment.network.driver_state.name for attachment in task.networks_attachments} - {""}
    return (
        tuple(placement.constraints) if placement is not None else (),
        tuple(placement.platforms) if placement is not None else (),
        tuple(sorted(volumes)) if volumes else (),
        tuple(sorted(networks)) if networks else (),
        log.name if log is not None and log.name != "none" else "",
        any(is_encrypted(attachment.network) for attachment in task.networks_attachments),
    )


def _volume_plugin(mount: Mount) -> str:
    options = mount.volume_options
    if mount.type != "volume" or options is None or options.driver_config is None:
        return ""
    return "" if options.driver_config.name == "local" else options.driver_config.name


def _has_plugins(node: Node, volumes: Iterable[str], networks: Iterable[str], log_driver: str) -> bool:
    plugins = node.description.engine.plugins
    if not plugins:  # what this engine has is not known
        return True
    if any(not _has_plugin(plugins, "Volume", name) for name in volumes):
        return False
    # Overlays are this agent's own work on every node; the engine needs no plugin for them.
    if any(name != "overlay" and not _has_plugin(plugins, "Network", name) for name in networks):
        return False
    # An engine that names no log drivers at all is taken to be one that does not report them.
    reports = any(plugin.type == "Log" for plugin in plugins)
    return not log_driver or not reports or _has_plugin(plugins, "Log", log_driver)


def _has_plugin(plugins: Sequence[PluginDescription], type_: str, name: str) -> bool:
    return any(plugin.type == type_ and plugin.name in (name, f"{name}:latest") for plugin in plugins)


def _same_platform(wanted: Platform, node: Platform) -> bool:
    architecture = _ARCHITECTURES.get(wanted.architecture, wanted.architecture)
    return (not architecture or architecture == _ARCHITECTURES.get(node.architecture, node.architecture)) and (
        not wanted.os or wanted.os == node.os
    )
