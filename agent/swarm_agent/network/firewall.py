"""iptables and ip6tables of a host as one: tables of the latter have IPV6 ("6") behind their names.

ip6tables is asked only where a network has IPv6, or had when this process began to look.
"""

from __future__ import annotations

from collections.abc import Iterable

from .netlink import Failure
from .state import IPV6, Chain, ChainKey, Jump, KernelState, Restore
from .watch import firewall_generation
from .xtables import Xtables


class Firewall:
    """See the module. Blocking."""

    def __init__(self) -> None:
        self._four, self._six = Xtables(), Xtables(IPV6)
        self._has_six = True  # an earlier process may have left something

    def undisturbed(self) -> bool:
        """Whether nobody has changed anything since we last looked or wrote; False when that cannot be told."""
        return self._four.undisturbed() and (not self._has_six or self._six.undisturbed())

    def observe(self, wanted: KernelState) -> tuple[dict[ChainKey, Chain], frozenset[Jump]]:
        """Our chains and jumps that are there. Raises OSError."""
        chains, jumps = self._four.observe([jump for jump in wanted.jumps if not jump.table.endswith(IPV6)])
        wants_six = any(table.endswith(IPV6) for table, _ in wanted.chains)
        if not (wants_six or self._has_six):
            return chains, jumps
        try:
            chains6, jumps6 = self._six.observe([jump for jump in wanted.jumps if jump.table.endswith(IPV6)])
        except OSError:
            if wants_six:
                raise
            self._has_six = False
            return chains, jumps
        self._has_six = wants_six or bool(chains6) or bool(jumps6)
        return {**chains, **chains6}, jumps | jumps6

    def execute(self, operations: Iterable[Restore]) -> list[Failure]:
        """Carry out transactions; returns those that failed, each of which changed nothing."""
        wanted = list(operations)
        failures: list[Failure] = []
        for family, mine, other in (("", self._four, self._six), (IPV6, self._six, self._four)):
            group = [item for item in wanted if item.table.endswith(IPV6) == bool(family)]
            if not group:
                continue
            self._has_six |= bool(family)
            before = firewall_generation()
            failed = mine.execute(group)
            after = firewall_generation()
            if before is not None and after == before + len(group) - len(failed):
                other.follow(before, after)
            failures += failed
        return failures
