"""Encrypted networks: how a network asks for it, and how a node tells that its kernel can do it."""

from __future__ import annotations

from msgspec.structs import replace

from .objects import Network, Node, NodeDescription, PluginDescription

OPTION = "encrypted"  # of a network's driver; its value says nothing, as in Swarm
WIREGUARD = PluginDescription(type="Network", name="wireguard")
"""Among a node's plugins: its kernel has WireGuard. `docker node inspect` shows it."""


def is_encrypted(network: Network) -> bool:
    """Whether what the network carries must be encrypted between hosts."""
    driver = network.spec.driver_configuration
    return driver is not None and OPTION in driver.options


def can_encrypt(node: Node) -> bool:
    """Whether the node may have encrypted networks."""
    return WIREGUARD in node.description.engine.plugins


def described(description: NodeDescription, lacking: str) -> NodeDescription:
    """The description, with WireGuard among the plugins unless it is `lacking`. While an engine does not answer, its
    plugins are not known, and the list stays empty.
    """
    engine = description.engine
    if lacking or not engine.plugins:
        return description
    plugins = sorted([*engine.plugins, WIREGUARD], key=lambda plugin: (plugin.type, plugin.name))
    return replace(description, engine=replace(engine, plugins=plugins))
