"""Names and numbers that are ours on a host: links, chains, marks, routing tables.

Everything of ours is recognised by these, and nothing else is ever changed or removed. Packet marks are 32 bits: the
upper half says through which entry host a connection of the mesh came in (0: none), two bits of the lower half say
what this host balanced itself. All rules match with masks, so other users of marks are left alone.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable

MESH_LINK = "swmesh"
MESH_ADDRESS = "169.254.77.1/32"  # on every host; see rules.py
MESH_VNI = 4096  # the manager numbers cluster networks from 4097
BRIDGE_PREFIX = "swb-"
VXLAN_PREFIX = "swv-"
CHAIN_PREFIX = "SWARM-"
NETWORK_LABEL = "com.docker.swarm.network.id"  # on engine networks that we made

HOST_MASK = 0xFFFF0000
PUBLISHED_BIT = 0x8000  # this host sent the connection from a published port to a task
VIP_BIT = 0x4000  # this host sent the connection from a service's VIP to a task
BALANCED_MASK = 0xFFFF  # the two bits above, and with IPVS the number of the port or VIP (ipvs.py)

TABLE_BASE = 0x73770000  # "sw": our routing tables; + host index, or + 0 for the tasks of published ports
PUBLISH_TABLE = TABLE_BASE
VIP_TABLE = TABLE_BASE + 0x10000  # with IPVS: VIPs are addresses of this host
LOCAL = "local"  # instead of a gateway: the route leads to this host itself
RULE_PRIORITY = 1073  # after "local" (0), before "main" (32766)
LAST_PRIORITY = 32800  # after "default" (32767)
VXLAN_OVERHEAD = 50  # bytes that VXLAN over IPv4 adds to a packet: 20 IP, 8 UDP, 8 VXLAN, 14 Ethernet

SEAL_LINK = "swseal"  # WireGuard: the way between hosts for encrypted networks
SEAL_ADDRESS = "169.254.77.2/32"  # on every host: from a link without any, the kernel takes no packets of others
SEAL_TABLE = VIP_TABLE + 1  # host → SEAL_LINK, for VXLAN packets of encrypted networks
SEAL_OVERHEAD = 60  # bytes that WireGuard over IPv4 adds to a packet: 20 IP, 8 UDP, 16 header, 16 tag


def sealed_port(data_path_port: int) -> int:
    """The UDP port of encrypted networks' VXLAN, which is never seen on a wire: its packets go through SEAL_LINK."""
    return data_path_port - 1


def seal_port(data_path_port: int) -> int:
    """The UDP port at which hosts speak WireGuard with each other."""
    return data_path_port + 1


def is_our_table(table: int) -> bool:
    """Whether a routing table belongs to us."""
    return TABLE_BASE <= table <= SEAL_TABLE


def bridge_name(network_id: str) -> str:
    """The host's bridge of a cluster network. Link names have at most 15 characters."""
    return BRIDGE_PREFIX + network_id[:11]


def vxlan_name(network_id: str) -> str:
    return VXLAN_PREFIX + network_id[:11]


def chain_name(kind: str, *parts: object) -> str:
    """A chain's name from what it is for, short enough for iptables (28 characters) and stable over time."""
    digest = hashlib.blake2s("/".join(map(str, parts)).encode(), digest_size=8).hexdigest()
    return f"{CHAIN_PREFIX}{kind}-{digest}"


def mesh_mac(underlay: str) -> str:
    """The MAC of a host's end of the mesh tunnel: 02:4d and its underlay IPv4 address."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\x4d" + ipaddress.IPv4Address(underlay).packed)


def host_indexes(underlays: Iterable[str]) -> dict[str, int]:
    """A number from 1 to 65535 for each host, the same on every host and over time.

    It is the lower half of the address, so that a host's number does not move when others come and go: marks of
    running connections hold it. Two hosts with the same lower half: the larger address takes the next free number.
    """
    taken: dict[int, str] = {}
    for address in sorted(set(underlays), key=lambda item: int(ipaddress.IPv4Address(item))):
        index = int(ipaddress.IPv4Address(address)) & 0xFFFF
        while index == 0 or index in taken:
            index = (index + 1) & 0xFFFF
        taken[index] = address
    return {address: index for index, address in taken.items()}
