"""What networks with IPv6 need on a host beside what every network needs (pure), and what their kernel must have.

Addresses follow from the IPv4 addresses (model.dualstack), so entries and VIPs are made here from those of IPv4. VIPs
are balanced by ip6tables on every host, also where IPVS balances IPv4: a chain of DNAT rules each, answered by this
host's own bridge like the VIP beside it. The mesh of published ports is IPv4 alone, and so is the underlay.

A network's IPv6 is its own: nothing is forwarded to it from other links but answers. Engines before 27 have no rules
for IPv6, and a host that forwards for one network forwards for all.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from swarm_agent.model.dualstack import DualStack

from .frontends import Kept, Target, VirtualAddress
from .iptables import REFUSE_CHAIN, virtual_chains
from .names import VIP_BIT
from .state import IPV6, Chain, ChainKey, EngineNetwork, Jump
from .tables import Lacking

_VIRTUAL = f"{VIP_BIT:#x}/{VIP_BIT:#x}"
NAT, FILTER = f"nat{IPV6}", f"filter{IPV6}"
FORWARD_JUMP = Jump(FILTER, "DOCKER-USER", "SWARM-FORWARD", fallback="FORWARD")
VIP_JUMPS = frozenset(
    {
        Jump(NAT, "PREROUTING", "SWARM-PRE"),
        Jump(NAT, "OUTPUT", "SWARM-PRE"),
        Jump(NAT, "POSTROUTING", "SWARM-POST"),
        Jump(FILTER, "OUTPUT", REFUSE_CHAIN),
    }
)
_FILTER_TRIAL = """*filter
-A FORWARD -o swb-trial -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
"""
_TRIAL = f"""*nat
-A POSTROUTING -o swb-trial -m connmark --mark {_VIRTUAL} -j SNAT --to-source fd00::1
-A PREROUTING -d fd00::1/128 -m statistic --mode random --probability 0.5 -j DNAT --to-destination fd00::2
COMMIT
"""


def virtual_addresses(
    virtual: Iterable[VirtualAddress], duals: Mapping[str, DualStack], kept: Kept
) -> list[VirtualAddress]:
    """The IPv6 VIPs beside those of IPv4, on networks that have them."""
    found = []
    for frontend in virtual:
        dual = duals.get(frontend.network_id)
        if dual is not None:
            name = (frontend.vip, dual)
            found.append(kept.keep("vip6", name, frontend, partial(_virtual_address, frontend, dual)))
    return [frontend for frontend in found if frontend.vip]


def _virtual_address(frontend: VirtualAddress, dual: DualStack) -> VirtualAddress:
    targets = tuple(Target(six) for target in frontend.targets if (six := dual.beside(target.ip)))
    return VirtualAddress(frontend.network_id, dual.beside(frontend.vip), targets)


def chains_and_jumps(
    networks: Iterable[EngineNetwork], virtual: Iterable[VirtualAddress], kept: Kept, lacking: Lacking
) -> tuple[dict[ChainKey, Chain], frozenset[Jump]]:
    """ip6tables' part for these networks, those with IPv6, as far as the host can have it."""
    overlays = sorted(networks, key=lambda network: network.bridge)
    if not overlays or lacking.rules:
        return {}, frozenset()
    forward: list[str] = []
    for network in overlays:
        link = network.bridge
        forward += [
            f"-i {link} -o {link} -j ACCEPT",
            f"-o {link} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            f"-o {link} -j DROP",
            *([f"-i {link} -j DROP"] if network.internal else []),
        ]
    if lacking.vips:
        return {(FILTER, "SWARM-FORWARD"): tuple(forward)}, frozenset({FORWARD_JUMP})
    subnets = {network.network_id: network.subnet6 for network in overlays}
    chains = virtual_chains(virtual, subnets, kept, IPV6)
    chains[NAT, "SWARM-PRE"] = ("-j SWARM-VIP",)
    chains[NAT, "SWARM-POST"] = tuple(
        f"-o {network.bridge} -m connmark --mark {_VIRTUAL} -j SNAT --to-source {network.gateway6}"
        for network in overlays
    )
    chains[FILTER, "SWARM-FORWARD"] = (f"-j {REFUSE_CHAIN}", *forward)
    return chains, VIP_JUMPS | {FORWARD_JUMP}


def sysctls(network: EngineNetwork, tunnel: str) -> dict[str, str]:
    """Kernel settings for a network with IPv6 and its tunnel. The tunnel link answers neighbour solicitations, which
    it does only with IPv6 switched on.
    """
    return {
        "net/ipv6/conf/all/forwarding": "1",
        f"net/ipv6/conf/{network.bridge}/disable_ipv6": "0",
        f"net/ipv6/conf/{network.bridge}/accept_ra": "0",
        f"net/ipv6/conf/{tunnel}/disable_ipv6": "0",
    }


def lacking() -> Lacking:
    """What this host lacks. Blocking."""
    if not Path("/proc/sys/net/ipv6/conf/all/forwarding").exists():
        reason = "this host's kernel runs without IPv6 (ipv6.disable=1, or built without)"
        return Lacking(reason, reason, reason)
    filtering = _refusal(_FILTER_TRIAL)
    if filtering:
        reason = f"ip6tables does not work: {filtering}"
        return Lacking("", reason, reason)
    translating = _refusal(_TRIAL)
    return Lacking("", f"ip6tables has no nat with DNAT, SNAT and statistic: {translating}" if translating else "", "")


def _refusal(rules: str) -> str:
    """Why ip6tables does not take these rules, or "": tried without changing anything."""
    command = ["ip6tables-restore", "--noflush", "--test", "-w", "5"]
    try:
        result = subprocess.run(command, input=rules, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (result.stderr.strip() or f"exit status {result.returncode}") if result.returncode else ""
