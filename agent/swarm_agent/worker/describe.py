"""What the engine says of its host (GET /info, /plugins), as a node describes itself to the managers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from swarm_agent.model.objects import EngineDescription, NodeDescription, PluginDescription
from swarm_agent.model.specs import DiscreteGenericResource, GenericResource, NamedGenericResource, Platform, Resources

_PLUGIN_TYPES = ("Volume", "Network", "Authorization", "Log")
_MANAGED_TYPES = {"volumedriver": "Volume", "networkdriver": "Network", "logdriver": "Log"}


def describe(info: Mapping[str, Any], managed: Iterable[Mapping[str, Any]] = ()) -> NodeDescription:
    """The node's description without its TLS part. Plugins are sorted by type, then name, as Swarm lists them; of those
    that the engine manages itself, /info names no log driver, and volume drivers only once they were used.
    """
    plugins = {(kind, name) for kind in _PLUGIN_TYPES for name in (info.get("Plugins") or {}).get(kind) or []}
    plugins.update(pair for plugin in managed if plugin.get("Enabled") for pair in _kinds(plugin))
    labels = dict(entry.partition("=")[::2] for entry in info.get("Labels") or [])
    return NodeDescription(
        hostname=info.get("Name", ""),
        platform=Platform(architecture=info.get("Architecture", ""), os=info.get("OSType", "")),
        resources=Resources(
            nano_cpus=int(info.get("NCPU", 0)) * 1_000_000_000,
            memory_bytes=int(info.get("MemTotal", 0)),
            generic_resources=[_generic(entry) for entry in info.get("GenericResources") or []],
        ),
        engine=EngineDescription(
            engine_version=info.get("ServerVersion", ""),
            labels=labels,
            plugins=[PluginDescription(type=kind, name=name) for kind, name in sorted(plugins)],
        ),
    )


def _kinds(plugin: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Type and name for each interface of a managed plugin ("docker.logdriver/1.0")."""
    for interface in ((plugin.get("Config") or {}).get("Interface") or {}).get("Types") or []:
        prefix, _, capability = interface.partition("/")[0].partition(".")
        if prefix == "docker":
            yield _MANAGED_TYPES.get(capability, capability), plugin["Name"]


def _generic(entry: Mapping[str, Any]) -> GenericResource:
    named, discrete = entry.get("NamedResourceSpec"), entry.get("DiscreteResourceSpec")
    if named:
        return GenericResource(named_resource_spec=NamedGenericResource(kind=named["Kind"], value=named["Value"]))
    discrete = discrete or {}
    return GenericResource(
        discrete_resource_spec=DiscreteGenericResource(
            kind=discrete.get("Kind", ""), value=int(discrete.get("Value", 0))
        )
    )
