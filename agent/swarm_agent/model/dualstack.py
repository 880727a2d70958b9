"""Networks with IPv6: every IPv6 address follows from the IPv4 address that it stands beside.

A network with IPv6 has one subnet of each family, and an address has the same number in both: 10.9.0.5 of 10.9.0.0/24
stands beside fd00:9::5 of fd00:9::/64. So whatever gives out, holds, gossips or gives back IPv4 addresses does so for
IPv6 too, without a word about it: what is unique and never lost in one family is so in the other.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from .objects import Network
from .specs import IPAMConfig


@dataclass(frozen=True, slots=True)
class DualStack:
    """The two subnets of a network, as "10.9.0.0/24" and "fd00:9::/64"."""

    subnet: str
    subnet6: str

    def beside(self, ip: str) -> str:
        """The IPv6 address beside an IPv4 address (a prefix length behind it is ignored); "" when the address is not
        of the network."""
        return _beside(ip.partition("/")[0], self.subnet, self.subnet6)

    def with_prefix(self, ip: str) -> str:
        """The same as objects hold it: "fd00:9::5/64"."""
        address = self.beside(ip)
        return f"{address}/{self.subnet6.partition('/')[2]}" if address else ""

    def back(self, ip6: str) -> str:
        """The IPv4 address that an IPv6 address stands beside; "" when it stands beside none."""
        whole, whole6 = _subnets(self.subnet, self.subnet6)
        number = int(ipaddress.IPv6Address(ip6.partition("/")[0])) - int(whole6.network_address)
        return str(whole[number]) if 0 <= number < whole.num_addresses else ""


def ipv4_config(configs: Iterable[IPAMConfig]) -> IPAMConfig | None:
    """The IPv4 subnet among a network's."""
    return next((config for config in configs if ":" not in config.subnet), None)


def ipv6_config(configs: Iterable[IPAMConfig]) -> IPAMConfig | None:
    """The IPv6 subnet among a network's."""
    return next((config for config in configs if ":" in config.subnet), None)


def dual_stack(network: Network) -> DualStack | None:
    """The network's two subnets once it is allocated; None for one without IPv6."""
    if not network.spec.ipv6_enabled or network.ipam_options is None:
        return None
    own, own6 = ipv4_config(network.ipam_options.configs), ipv6_config(network.ipam_options.configs)
    return DualStack(own.subnet, own6.subnet) if own is not None and own6 is not None else None


def fault(subnet: str, subnet6: str) -> str:
    """Why these two subnets cannot stand beside each other, or ""."""
    whole, whole6 = _subnets(subnet, subnet6)
    if whole6.num_addresses < whole.num_addresses:
        return f"it must have room for as many addresses as {subnet}, so at most /{128 - (32 - whole.prefixlen)}"
    return ""


def own_subnet6(network_id: str) -> str:
    """A subnet for a network whose user named none: a unique local one (RFC 4193) that follows from the network's id,
    so 56 bits of it are the network's own."""
    digest = hashlib.blake2s(network_id.encode(), digest_size=7).digest()
    return str(ipaddress.IPv6Network((b"\xfd" + digest + bytes(8), 64)))


@lru_cache(maxsize=4096)
def _subnets(subnet: str, subnet6: str) -> tuple[ipaddress.IPv4Network, ipaddress.IPv6Network]:
    return ipaddress.IPv4Network(subnet, strict=False), ipaddress.IPv6Network(subnet6, strict=False)


@lru_cache(maxsize=1 << 16)
def _beside(ip: str, subnet: str, subnet6: str) -> str:
    whole, whole6 = _subnets(subnet, subnet6)
    number = int(ipaddress.IPv4Address(ip)) - int(whole.network_address)
    return str(whole6[number]) if 0 <= number < whole.num_addresses else ""
