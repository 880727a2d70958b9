"""What the data plane is made from: the cluster's tables as this host sees them, and facts of the host itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from swarm_agent.model.addresses import ip_of, mac_of
from swarm_agent.model.dualstack import DualStack, dual_stack
from swarm_agent.model.objects import Network
from swarm_agent.model.rows import EndpointRow, PeerRow

VNI_OPTION = "com.docker.network.driver.overlay.vxlanid_list"
MTU_OPTION = "com.docker.network.driver.mtu"


class NetworkUnavailable(Exception):
    """A task's network cannot be used on this host (yet); the text says why."""


@dataclass(frozen=True, slots=True)
class NetworkTables:
    """One view of the cluster. Lists may be in any order; the plan does not depend on it.

    networks   cluster networks that this host must have (model.session.Welcome.networks)
    own        network id → this host's own address on it, "10.0.0.2/24" (Node.attachments)
    hosts      node id → underlay IPv4 address of every host that is thought alive, this one included
    endpoints  (owner's node id, row) of every visible endpoint row, own ones included
    peers      (owner's node id, row) of every visible peer row
    """

    networks: Sequence[Network] = ()
    own: Mapping[str, str] = field(default_factory=dict)
    hosts: Mapping[str, str] = field(default_factory=dict)
    endpoints: Sequence[tuple[str, EndpointRow]] = ()
    peers: Sequence[tuple[str, PeerRow]] = ()


@dataclass(frozen=True, slots=True)
class Lacking:
    """Why a host can have no network with IPv6, no VIPs of IPv6, no rules for it at all (ipv6.py); "" where it can."""

    ipv6: str = ""
    vips: str = ""
    rules: str = ""


NOTHING_LACKING = Lacking()


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What the plan must know of its host. `mtu` is that of the link that has the underlay address. `lacking`: what
    the host's kernel lacks for networks with IPv6. `key`: the host's public WireGuard key, base64, or "" where it can
    have no encrypted networks.
    """

    node_id: str
    underlay: str
    mtu: int = 1500
    port: int = 4789
    lacking: Lacking = NOTHING_LACKING
    key: str = ""


def own_peer_rows(own: Mapping[str, str], key: str = "") -> list[PeerRow]:
    """The rows that this host must gossip about its own places on networks; `key` is its public WireGuard key."""
    return [PeerRow(network_id, ip_of(cidr), mac_of(cidr), key) for network_id, cidr in sorted(own.items())]


def is_overlay(network: Network) -> bool:
    """Whether the network spans hosts. "host", "bridge" and the like are names of each host's own networks."""
    driver = network.spec.driver_configuration
    name = (driver.name if driver else "") or network.driver_state.name
    return name in ("", "overlay")


def duals_of(networks: Iterable[Network]) -> dict[str, DualStack]:
    """Those of the networks that have IPv6, by id."""
    return {network.id: dual for network in networks if (dual := dual_stack(network)) is not None}


def vni_of(network: Network) -> int | None:
    """The network's VXLAN number as the manager chose it, or None while it has not."""
    first = network.driver_state.options.get(VNI_OPTION, "").partition(",")[0]
    return int(first) if first.isdigit() and 0 < int(first) < 1 << 24 else None


def mtu_of(network: Network) -> int | None:
    """The MTU that the user asked for, or None."""
    driver = network.spec.driver_configuration
    text = driver.options.get(MTU_OPTION, "") if driver else ""
    return int(text) if text.isdigit() and int(text) >= 576 else None
