"""Names and addresses of a lab, derived from its checkout's path, so that several checkouts share one machine.

A lab is one /24: the machine itself is .1, hostN is .(10+N), the registry is .250. The subnet is 10.A.B.0/24 with
A in 64..127 and B from a hash of the path; a taken one is skipped, and the choice is kept in `.lab/state.json`.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable
from pathlib import Path

from .command import LabError

MAX_HOSTS = 100
REGISTRY_NAME = "registry.lab"
REGISTRY_PORT = 5000


def lab_id(root: Path) -> str:
    """Eight hex digits that name the lab of this checkout in the machine's engine."""
    return hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:8]


def choose_subnet(identity: str, taken: Iterable[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """The first free /24 on this lab's own walk through 10.64.0.0/10. Raises LabError when all are taken."""
    seed = int(identity, 16)
    blocked = list(taken)
    for step in range(64):
        candidate = ipaddress.IPv4Network((f"10.{64 + (seed + step) % 64}.{(seed >> 8) % 256}.0", 24))
        if not any(candidate.overlaps(network) for network in blocked):
            return candidate
    raise LabError("no free /24 in 10.64.0.0/10 for the lab's network; name one with --subnet")


def host_names(count: int) -> list[str]:
    """host1..hostN. Raises LabError when N is out of range."""
    if not 1 <= count <= MAX_HOSTS:
        raise LabError(f"a lab has 1 to {MAX_HOSTS} hosts, not {count}")
    return [f"host{number}" for number in range(1, count + 1)]


def host_address(subnet: ipaddress.IPv4Network, name: str) -> str:
    """The fixed address of hostN: number 10+N of the subnet."""
    return str(subnet[10 + int(name.removeprefix("host"))])


def machine_address(subnet: ipaddress.IPv4Network) -> str:
    """The machine's own address on the lab's network."""
    return str(subnet[1])


def registry_address(subnet: ipaddress.IPv4Network) -> str:
    """The fixed address of the lab's registry."""
    return str(subnet[250])


def container_name(identity: str, name: str) -> str:
    """The outer engine's name of a lab machine."""
    return f"lab-{identity}-{name}"


def volume_name(identity: str, name: str) -> str:
    """The volume that backs /var/lib/docker of a host: overlay2 does not nest on overlay."""
    return f"lab-{identity}-{name}-engine"


def network_name(identity: str) -> str:
    """The outer engine's name of the lab's network."""
    return f"lab-{identity}"
