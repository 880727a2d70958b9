"""What a list of operations says to people, and which part of the kernel's interface carries each out (pure)."""

from __future__ import annotations

from collections import Counter

from .state import AddLink, AddWireGuard, IpvsOperation, Operation, Restore, SetBridge, WireGuardOperation

NAMED = 12  # links and chains that a log line names


def executor(operation: Operation) -> str:
    """Which part of the kernel's interface carries an operation out."""
    if isinstance(operation, Restore):
        return "iptables"
    if isinstance(operation, WireGuardOperation):
        return "wireguard"
    return "ipvs" if isinstance(operation, IpvsOperation) else "netlink"


def summary(operations: list[Operation]) -> str:
    """Operations counted by kind, "AddLink 2, SetFdb 14", with the names of links and chains, or the first of many."""
    counts = Counter(type(operation).__name__ for operation in operations)
    chains = [
        f"{operation.table} {chain}"
        for operation in operations
        if isinstance(operation, Restore)
        for chain in (*(name for name, _ in operation.chains), *(jump.parent for jump in operation.jumps))
    ]
    links = [operation.link for operation in operations if isinstance(operation, AddLink | AddWireGuard | SetBridge)]
    named = [*links, *chains]
    shown = [*named[:NAMED], *([f"{len(named) - NAMED} more"] if len(named) > NAMED else [])]
    detail = f" ({', '.join(shown)})" if shown else ""
    return ", ".join(f"{kind} {count}" for kind, count in counts.items()) + detail
