"""The balancer for kernels without IPVS: one chain of DNAT rules for each published port and each VIP (pure).

A chain picks one of n targets with probabilities 1/n, 1/(n-1), …, 1, so each is chosen equally often. Only the first
packet of a connection walks the chains (nat tables see no others), and a change of one service rewrites its own alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import partial

from .frontends import Balanced, Kept, Published, Target, VirtualAddress
from .names import PUBLISHED_BIT, VIP_BIT, chain_name
from .state import Chain, ChainKey

PUBLISH_CHAIN = "SWARM-PUBLISH"  # entered for packets to addresses of the host
VIRTUAL_CHAIN = "SWARM-VIP"  # entered for packets to addresses of cluster networks
REFUSE_CHAIN = "SWARM-REFUSE"  # filter: VIPs without targets


def _mark(target: str, bit: int) -> str:
    """A rule that sets a bit in the packet's mark (MARK: for routing) or in its connection's (CONNMARK)."""
    return f"-j {target} --set-xmark {bit:#x}/{bit:#x}"


def spread(targets: tuple[Target, ...], protocol: str = "") -> Chain:
    """DNAT rules that choose a target at random, each equally often."""
    match = f"-p {protocol} " if protocol else ""
    rules = []
    for position, target in enumerate(targets):
        left = len(targets) - position
        chance = f"-m statistic --mode random --probability {1 / left:.11f} " if left > 1 else ""
        destination = f"{target.ip}:{target.port}" if target.port else target.ip
        rules.append(f"{match}{chance}-j DNAT --to-destination {destination}")
    return tuple(rules)


def refusals(vips: Iterable[VirtualAddress], family: str = "") -> Chain:
    """Filter rules that answer for VIPs without a task."""
    length, icmp = (128, "icmp6") if family else (32, "icmp")
    return tuple(
        f"-d {vip.vip}/{length} -j REJECT --reject-with {icmp}-port-unreachable" for vip in vips if not vip.targets
    )


_RESTORE_PUBLISHED = (
    f"-m conntrack --ctdir ORIGINAL -m connmark --mark {PUBLISHED_BIT:#x}/{PUBLISHED_BIT:#x} "
    f"-j CONNMARK --restore-mark --nfmask {PUBLISHED_BIT:#x} --ctmask {PUBLISHED_BIT:#x}"
)


class IptablesBalancer:
    """Balances with nat chains. See frontends.Balancer."""

    name = "iptables"

    def balance(
        self, published: Iterable[Published], virtual: Iterable[VirtualAddress], subnets: Mapping[str, str], kept: Kept
    ) -> Balanced:
        chains: dict[ChainKey, Chain] = {
            ("mangle", "SWARM-FRONT"): (_RESTORE_PUBLISHED,),
            ("mangle", "SWARM-FRONT-OUT"): (_RESTORE_PUBLISHED,),
            ("nat", "SWARM-PRE"): (f"-j {VIRTUAL_CHAIN}", f"-m addrtype --dst-type LOCAL -j {PUBLISH_CHAIN}"),
        }
        chains.update(_published(published, kept))
        chains.update(virtual_chains(virtual, subnets, kept))
        return Balanced(chains)


def _published(frontends: Iterable[Published], kept: Kept) -> dict[ChainKey, Chain]:
    chains: dict[ChainKey, Chain] = {}
    entries: list[str] = []
    for frontend in frontends:
        if not frontend.targets:
            continue
        chain, jumps, content = kept.keep("port", frontend.name, frontend, partial(_port_chain, frontend))
        entries += jumps
        chains["nat", chain] = content
    chains["nat", PUBLISH_CHAIN] = tuple(entries)
    return chains


def _port_chain(frontend: Published) -> tuple[str, Chain, Chain]:
    """Name, the rules that lead there, content."""
    chain = frontend.chain("P")
    jumps = tuple(f"{match} -j {chain}" for match in frontend.matches)
    marks = (_mark("CONNMARK", PUBLISHED_BIT), _mark("MARK", PUBLISHED_BIT))
    return chain, jumps, (*marks, *spread(frontend.targets, frontend.protocol))


def _vip_chain(frontend: VirtualAddress, length: int) -> tuple[str, str, Chain]:
    """Name, the rule that leads there, content.

    The connection alone is marked: a packet's mark would go with it into the tunnel, whose own route would then be
    looked up by IPVS's rule for marked packets ("local") on hosts where IPVS balances the VIPs of IPv4.
    """
    chain = virtual_chain(frontend.vip)
    content = (_mark("CONNMARK", VIP_BIT), *spread(frontend.targets))
    return chain, f"-d {frontend.vip}/{length} -j {chain}", content


def virtual_chain(vip: str) -> str:
    """The name of a VIP's chain."""
    return chain_name("V", vip) if ":" in vip else f"SWARM-V-{vip}"


def virtual_chains(
    frontends: Iterable[VirtualAddress], subnets: Mapping[str, str], kept: Kept, family: str = ""
) -> dict[ChainKey, Chain]:
    """The chains of VIPs, for iptables or for ip6tables (`family` IPV6). `subnets`: network id → subnet."""
    vips = list(frontends)
    nat, length = f"nat{family}", 128 if family else 32
    chains: dict[ChainKey, Chain] = {}
    entries: dict[str, list[str]] = defaultdict(list)
    for frontend in vips:
        if frontend.targets:
            chain, jump, content = kept.keep("vip", frontend.vip, frontend, partial(_vip_chain, frontend, length))
            entries[frontend.network_id].append(jump)
            chains[nat, chain] = content
    networks = []
    for network_id, jumps in sorted(entries.items()):
        chain = chain_name("N", network_id)
        networks.append(f"-d {subnets[network_id]} -j {chain}")
        chains[nat, chain] = tuple(jumps)
    chains[nat, VIRTUAL_CHAIN] = tuple(networks)
    chains[f"filter{family}", REFUSE_CHAIN] = refusals(vips, family)
    return chains
