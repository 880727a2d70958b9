"""The iptables rules around the balancer: marks, zones, source addresses, forwarding (pure).

The way of a mesh connection, client C, entry host E, task T on host H:

    E  the balancer       a published port: T instead of E, PUBLISHED_BIT on packet and connection
    E  routing            marked packets to T go through the mesh tunnel to H (table PUBLISH_TABLE), source still C
    H  PREROUTING raw     E's MAC: its own conntrack zone, so that C may use one source port towards two entry hosts
    H  PREROUTING mangle  E's MAC: E's number in the connection's mark
    H  bridge             to T; T answers C by whatever default route it has, which leads to a bridge of H
    H  PREROUTING mangle  a reply: E's number from the connection's mark to the packet's
    H  routing            that mark: through the tunnel to E, which undoes the DNAT and sends to C

No source address is rewritten except where the answer would not come back this way: sources that belong to a host or
to an overlay network. The tunnel has a link-local address that nobody talks to: from a link without any, the kernel
takes no packets of foreign sources. For 127.0.0.1 the links have route_localnet=1; raw rules keep loopback closed to
others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .iptables import REFUSE_CHAIN
from .names import BRIDGE_PREFIX, HOST_MASK, MESH_LINK, PUBLISHED_BIT, VIP_BIT, mesh_mac
from .state import Chain, ChainKey, Jump

BRIDGES = BRIDGE_PREFIX + "+"  # iptables' wildcard for our bridges
_FROM_HOST = f"-m connmark ! --mark 0x0/{HOST_MASK:#x}"
_PUBLISHED = f"{PUBLISHED_BIT:#x}/{PUBLISHED_BIT:#x}"
_VIRTUAL = f"{VIP_BIT:#x}/{VIP_BIT:#x}"
_PORTED = ("tcp", "udp", "sctp")
MESH_PORTS = "1024-32767"
"""Source ports of connections in the tunnel: not those that clients commonly use (Linux from 32768, others from 49152).

The task's host may be an entry host for the same client, and IPVS there knows connections by addresses and ports alone:
it would take answers that belong into the tunnel for its own (ipvs.py).
"""

JUMPS = frozenset(
    {
        Jump("raw", "PREROUTING", "SWARM-RAW"),
        Jump("mangle", "PREROUTING", "SWARM-MARK"),
        Jump("mangle", "OUTPUT", "SWARM-MARK-OUT"),
        Jump("mangle", "POSTROUTING", "SWARM-UNMARK"),
        Jump("nat", "PREROUTING", "SWARM-PRE"),
        Jump("nat", "OUTPUT", "SWARM-PRE"),
        Jump("nat", "POSTROUTING", "SWARM-POST"),
        Jump("filter", "DOCKER-USER", "SWARM-FORWARD", fallback="FORWARD"),
        Jump("filter", "OUTPUT", REFUSE_CHAIN),
    }
)


def surrounding_chains(
    underlay: str,
    others: Mapping[str, int],
    bridges: Iterable[tuple[str, str, str]],
    raw_guard: Chain = (),
    output_guard: Chain = (),
) -> dict[ChainKey, Chain]:
    """The chains that do not depend on endpoints. They lead into a balancer's (frontends.Balancer).

    underlay: this host's address; others: underlay address of every other host → its number;
    bridges: (link, subnet, own address) of every overlay network here; raw_guard, output_guard: sealing.py.
    """
    overlays = sorted(bridges)
    raw = []
    hosts = []
    tunnel = ["-m addrtype --src-type LOCAL -j SWARM-OWN"]
    for address, number in sorted(others.items()):
        mac = mesh_mac(address)
        raw.append(f"-i {MESH_LINK} -m mac --mac-source {mac} -j CT --zone-orig {number}")
        hosts.append(f"-m mac --mac-source {mac} -j CONNMARK --set-xmark {number << 16:#x}/{HOST_MASK:#x}")
        tunnel.append(f"-s {address}/32 -j SWARM-OWN")
    tunnel += [f"-s {subnet} -j SWARM-OWN" for _, subnet, _ in overlays]
    tunnel += [f"-p {protocol} -j SNAT --to-source :{MESH_PORTS}" for protocol in _PORTED]
    own = [f"-p {protocol} -j SNAT --to-source {underlay}:{MESH_PORTS}" for protocol in _PORTED]
    masquerade = [
        f"-s {source} -o {BRIDGES} -j MASQUERADE" for source in ("127.0.0.0/8", *(subnet for _, subnet, _ in overlays))
    ]
    return {
        ("raw", "SWARM-RAW"): (
            *raw_guard,
            f"-i {MESH_LINK} -d 127.0.0.0/8 -j DROP",
            f"-i {BRIDGES} -d 127.0.0.0/8 -j DROP",
            *raw,
        ),
        ("mangle", "SWARM-MARK"): (
            f"-i {MESH_LINK} -m conntrack --ctstate NEW -j SWARM-HOSTS",
            f"! -i {MESH_LINK} -m conntrack --ctdir REPLY {_FROM_HOST} "
            f"-j CONNMARK --restore-mark --nfmask {HOST_MASK:#x} --ctmask {HOST_MASK:#x}",
            "-j SWARM-FRONT",
        ),
        ("mangle", "SWARM-HOSTS"): tuple(hosts),
        ("mangle", "SWARM-MARK-OUT"): (*output_guard, "-j SWARM-FRONT-OUT"),
        # The tunnel's own packets inherit the mark of what they carry, and would be routed into the tunnel again.
        ("mangle", "SWARM-UNMARK"): (f"-o {MESH_LINK} -j MARK --set-xmark 0x0/{HOST_MASK:#x}",),
        ("nat", "SWARM-POST"): (
            *(f"-o {link} -m connmark --mark {_VIRTUAL} -j SNAT --to-source {own}" for link, _, own in overlays),
            f"-m mark --mark {_PUBLISHED} -j SWARM-SOURCE",
        ),
        ("nat", "SWARM-SOURCE"): (f"-o {MESH_LINK} -j SWARM-TUNNEL", *masquerade),
        ("nat", "SWARM-TUNNEL"): tuple(tunnel),
        ("nat", "SWARM-OWN"): (*own, f"-j SNAT --to-source {underlay}"),
        ("filter", "SWARM-FORWARD"): (
            f"-j {REFUSE_CHAIN}",
            f"-m connmark --mark {_PUBLISHED} -j ACCEPT",
            f"-i {MESH_LINK} {_FROM_HOST} -j ACCEPT",
            f"-o {MESH_LINK} {_FROM_HOST} -j ACCEPT",
            f"-i {MESH_LINK} -j DROP",
            # Where tasks' addresses have no other route (plan.py), other networks' containers are led here.
            f"-o {MESH_LINK} -j DROP",
            *(f"-i {link} -o {link} -j ACCEPT" for link, _, _ in overlays),
        ),
    }
