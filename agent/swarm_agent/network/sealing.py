"""Encrypted networks: what they send to other hosts goes through WireGuard, or nowhere (pure).

The way of a frame of an encrypted network, from host A to host B:

    A  VXLAN         to B's UDP port sealed_port(), which no other network uses
    A  routing       a rule for packets to this port leads to table SEAL_TABLE: B is reached through SEAL_LINK
    A  OUTPUT mangle what would leave by another link is dropped: routes or rules that others removed
    the wire         WireGuard, from and to seal_port()
    B  SEAL_LINK     the key must be that of the host whose address is the source
    B  PREROUTING    raw: what comes to this port by another link is dropped, and so is all else that SEAL_LINK brings

Each host makes a key pair when its agent first starts after boot, and tells the public half with its places on networks
(model.rows.PeerRow), which only members can do. The keys of the traffic are WireGuard's own: two hosts agree on
fresh ones every two minutes, and use both for a moment, so no packet is lost (https://www.wireguard.com/protocol/).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from swarm_agent.model.rows import PeerRow

from .names import SEAL_ADDRESS, SEAL_LINK, SEAL_OVERHEAD, SEAL_TABLE, seal_port, sealed_port
from .state import Chain, Rule, WireGuard
from .tables import HostFacts

LACKING = "encrypted networks need WireGuard, which this host's kernel lacks"


@dataclass(frozen=True, slots=True)
class Sealing:
    """A host's part of the plan for encrypted networks. The guards are rules of chains that others have too."""

    wireguards: Mapping[str, WireGuard] = field(default_factory=dict)
    sealed: Mapping[tuple[str, str], str] = field(default_factory=dict)
    routes: Mapping[tuple[int, str], tuple[str, str]] = field(default_factory=dict)
    rules: frozenset[Rule] = frozenset()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    raw_guard: Chain = ()
    output_guard: Chain = ()


def seal(facts: HostFacts, peers: Iterable[tuple[str, PeerRow]], hosts: Mapping[str, str]) -> Sealing:
    """What a cluster with encrypted networks needs on this host.

    peers: (owner, row) of other hosts' places on encrypted networks that are here too; hosts: node id → underlay
    address. A host that cannot have such networks gets the guards alone.
    """
    port = sealed_port(facts.port)
    to_port = f"-p udp -m udp --dport {port}"
    raw_guard = (
        f"-i {SEAL_LINK} {to_port} -m addrtype --dst-type LOCAL -j RETURN",
        f"-i {SEAL_LINK} -j DROP",
        f"{to_port} -m addrtype --dst-type LOCAL -j DROP",
    )
    output_guard = (f"! -o {SEAL_LINK} {to_port} -j DROP",)
    if not facts.key:
        return Sealing(raw_guard=raw_guard, output_guard=output_guard)
    keys = {hosts[owner]: row.key for owner, row in peers if row.key}  # one for each host
    known = {key: underlay for underlay, key in keys.items() if key != facts.key}
    return Sealing(
        wireguards={
            SEAL_LINK: WireGuard(facts.key, seal_port(facts.port), facts.mtu - SEAL_OVERHEAD, SEAL_ADDRESS),
        },
        sealed={(SEAL_LINK, key): underlay for key, underlay in known.items()},
        routes={(SEAL_TABLE, f"{underlay}/32"): (underlay, SEAL_LINK) for underlay in known.values()},
        rules=frozenset({Rule(0, 0, SEAL_TABLE, port)}),
        sysctls={f"net/ipv4/conf/{SEAL_LINK}/rp_filter": "2"},  # the way back to a host is another link
        raw_guard=raw_guard,
        output_guard=output_guard,
    )
