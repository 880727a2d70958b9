"""Pools of addresses, subnets and network numbers. Each counts holders, so what is free is what nobody holds.

Nothing here is stored: pools are filled from the objects of the store (allocation.py). That is why nothing can leak:
an object that is gone holds nothing. Holders are counted, not marked: a VIP is held by its service and by each of its
tasks, and is free when the last of them has ended.

Addresses are given in rising order, not the lowest free first. A host may hear of an address's end a moment after the
manager, so one that was just freed should be the last to be used again. Subnets are given lowest first, as Swarm
does: people know 10.0.1.0/24.
"""

from __future__ import annotations

import bisect
import functools
import ipaddress
from collections import Counter
from collections.abc import Iterable

from swarm_agent.model.addresses import reserved_range

DEFAULT_POOL = ("10.0.0.0/8",)
DEFAULT_SUBNET_SIZE = 24

FIRST_VNI, LAST_VNI = 4097, (1 << 24) - 1
"""VXLAN network identifiers; Swarm's overlays begin there too (4096 is left out)."""


def to_int(address: str) -> int:
    """An IPv4 address (a prefix length behind it is ignored) as a number."""
    return int(ipaddress.IPv4Address(address.partition("/")[0]))


def to_text(number: int) -> str:
    """The address of a number."""
    return str(ipaddress.IPv4Address(number))


class NumberPool:
    """Numbers from `first` to `last`, given in rising order and again from the start when the end is reached."""

    __slots__ = ("_held", "_next", "first", "last")

    def __init__(self, first: int, last: int) -> None:
        self.first = first
        self.last = last
        self._held: Counter[int] = Counter()
        self._next = first

    def hold(self, number: int) -> None:
        """One more holder. Numbers outside the range may be held too; they are never given."""
        self._held[number] += 1
        if self._next <= number <= self.last:
            self._next = number + 1

    def release(self, number: int) -> bool:
        """One holder less; True when the number is free now."""
        self._held[number] -= 1
        if self._held[number] > 0:
            return False
        del self._held[number]
        return True

    def is_held(self, number: int) -> bool:
        """Somebody holds it."""
        return number in self._held

    def peek(self) -> int | None:
        """The number that is given next, None when all are held. It is not held by this."""
        for start, stop in ((self._next, self.last), (self.first, min(self._next - 1, self.last))):
            for number in range(start, stop + 1):
                if number not in self._held:
                    self._next = number
                    return number
        return None


class AddressPool(NumberPool):
    """Addresses of one network's IPv4 subnet, without its network, broadcast and gateway addresses, without those that
    engines give to containers that come without one, and without those that the user `reserved`.
    """

    __slots__ = ("prefix",)

    def __init__(self, subnet: str, ip_range: str = "", gateway: str = "", reserved: Iterable[str] = ()) -> None:
        whole = ipaddress.IPv4Network(subnet, strict=False)
        part = ipaddress.IPv4Network(ip_range, strict=False) if ip_range else whole
        first, last = int(part.network_address), int(part.broadcast_address)
        if whole.prefixlen < 31:
            first = max(first, int(whole.network_address) + 1)
            last = min(last, int(whole.broadcast_address) - 1)
            if whole.prefixlen <= 28:
                last = min(last, int(reserved_range(whole).network_address) - 1)
        super().__init__(first, last)
        self.prefix = whole.prefixlen
        if gateway:
            self.hold(to_int(gateway))
        for address in reserved:
            self._held[to_int(address)] += 1  # not held: addresses are given from the first on

    def can_give(self, number: int) -> bool:
        """It is one to be given, and nobody has it."""
        return self.first <= number <= self.last and not self.is_held(number)

    def text(self, number: int) -> str:
        """The address with prefix length, as objects hold it: "10.0.1.5/24"."""
        return f"{to_text(number)}/{self.prefix}"


class SubnetPool:
    """Subnets of a fixed size cut out of the cluster's default address pools, beside those that users chose."""

    __slots__ = ("_held", "_pools", "_size")

    def __init__(self, pools: Iterable[str] = DEFAULT_POOL, size: int = DEFAULT_SUBNET_SIZE) -> None:
        self._held: Counter[tuple[int, int]] = Counter()
        self.cut_from(pools, size)

    def cut_from(self, pools: Iterable[str], size: int) -> None:
        """From now on give subnets of these pools and this prefix length."""
        self._pools = [ipaddress.IPv4Network(pool, strict=False) for pool in pools]
        self._size = size

    def hold(self, subnet: str) -> None:
        """One more holder of these addresses, a subnet or a single address that no subnet may contain."""
        self._held[_bounds(subnet)] += 1

    def release(self, subnet: str) -> bool:
        """One holder less; True when nobody holds exactly this subnet any more."""
        bounds = _bounds(subnet)
        self._held[bounds] -= 1
        if self._held[bounds] > 0:
            return False
        del self._held[bounds]
        return True

    def overlaps(self, subnet: str) -> bool:
        """Somebody holds addresses in it."""
        first, last = _bounds(subnet)
        return any(start <= last and first <= stop for start, stop in self._held)

    def take(self) -> str | None:
        """The first subnet that overlaps nothing held, None when the pools are used up. It is not held by this."""
        held = _merged(self._held)
        starts = [start for start, _ in held]
        for pool in self._pools:
            size = 1 << (32 - max(self._size, pool.prefixlen))
            candidate, end = int(pool.network_address), int(pool.broadcast_address)
            while candidate + size - 1 <= end:
                at = bisect.bisect_right(starts, candidate + size - 1) - 1
                if at < 0 or held[at][1] < candidate:
                    return f"{to_text(candidate)}/{max(self._size, pool.prefixlen)}"
                candidate = (held[at][1] // size + 1) * size
        return None


@functools.lru_cache(4096)
def _bounds(subnet: str) -> tuple[int, int]:
    network = ipaddress.IPv4Network(subnet, strict=False)
    return int(network.network_address), int(network.broadcast_address)


def _merged(held: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Disjoint intervals in order."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(held):
        if merged and start <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged
