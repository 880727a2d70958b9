"""Addresses that follow from other addresses, so that nobody has to be told them.

A container's MAC is made from its IPv4 address, as engines before 28 did: 02:42 (locally administered) and the four
bytes of the address. A host's bridge on a cluster network gets the MAC of its own address in the same way.
"""

from __future__ import annotations

import ipaddress


def mac_of(ip: str) -> str:
    """The MAC of the interface that has this IPv4 address: "10.0.0.5" → "02:42:0a:00:00:05".

    Accepts a prefix length ("10.0.0.5/24"). Raises ValueError when `ip` is no IPv4 address.
    """
    packed = ipaddress.IPv4Address(ip.partition("/")[0]).packed
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + packed)


def ip_of(cidr: str) -> str:
    """The address without its prefix length: "10.0.0.5/24" → "10.0.0.5"."""
    return cidr.partition("/")[0]


def is_ipv4(text: str) -> bool:
    """Whether this is an IPv4 address, without prefix length."""
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def reserved_range(subnet: ipaddress.IPv4Network) -> ipaddress.IPv4Network:
    """The part of a cluster network from which engines take addresses for containers that come without one: its last
    four addresses. The manager must not hand these out. In subnets of fewer than eight addresses it is the whole.
    """
    if subnet.prefixlen > 28:
        return subnet
    return ipaddress.IPv4Network((int(subnet.broadcast_address) - 3, 30))
