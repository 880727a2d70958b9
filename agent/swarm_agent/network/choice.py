"""Which balancer a host uses: what was asked for, else IPVS where the kernel has it."""

from __future__ import annotations

from . import ipvs_netlink
from .frontends import Balancer
from .iptables import IptablesBalancer
from .ipvs import IpvsBalancer

AUTO = "auto"
CHOICES = (AUTO, "ipvs", "iptables")


def choose(wanted: str) -> tuple[Balancer, str]:
    """The balancer and the reason for it. Blocking. Raises LookupError when the kernel lacks what was asked for."""
    if wanted not in CHOICES:
        raise LookupError(f"balancer {wanted!r} is unknown; known are {', '.join(CHOICES)}")
    if wanted == "iptables":
        return IptablesBalancer(), "asked for"
    lacking = ipvs_netlink.available()
    if not lacking:
        return IpvsBalancer(), "asked for" if wanted == "ipvs" else "the kernel has it"
    if wanted == "ipvs":
        raise LookupError(f'this host cannot balance by IPVS: {lacking}; set balancer = "auto" or "iptables"')
    return IptablesBalancer(), lacking
