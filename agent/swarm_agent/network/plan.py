"""From the cluster's tables to everything this host should hold: pure, total, independent of the order of its input.

Bad input never spoils the rest: a row or network that makes no sense is left out and named in `problems`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from functools import lru_cache

from swarm_agent.model.addresses import is_ipv4, mac_of, reserved_range
from swarm_agent.model.dualstack import dual_stack
from swarm_agent.model.encryption import is_encrypted
from swarm_agent.model.objects import Network
from swarm_agent.model.rows import EndpointRow, PeerRow

from .frontends import Balancer
from .ipv6 import chains_and_jumps, sysctls, virtual_addresses
from .names import (
    HOST_MASK,
    MESH_ADDRESS,
    MESH_LINK,
    MESH_VNI,
    PUBLISH_TABLE,
    PUBLISHED_BIT,
    SEAL_OVERHEAD,
    TABLE_BASE,
    VXLAN_OVERHEAD,
    bridge_name,
    host_indexes,
    mesh_mac,
    sealed_port,
    vxlan_name,
)
from .parts import Memory, Surroundings, Ways, all_published, all_virtual
from .rules import JUMPS, surrounding_chains
from .sealing import LACKING, Sealing, seal
from .state import Bridge, EngineNetwork, KernelPlan, KernelState, Rule, Vxlan
from .tables import HostFacts, NetworkTables, duals_of, is_overlay, mtu_of, vni_of

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_KEY = re.compile(r"([A-Za-z0-9+/]{43}=)?")
_PROTOCOLS = ("", "tcp", "udp", "sctp")


def plan(tables: NetworkTables, facts: HostFacts, balancer: Balancer, memory: Memory | None = None) -> KernelPlan:
    """What this host should hold. Without networks (outside a cluster) that is nothing at all. `memory` makes the next
    plan with it quicker, and no different.
    """
    memory = memory or Memory()
    problems: list[str] = []
    networks, vnis = _networks(tables, facts, problems)
    if not tables.networks:
        return KernelPlan(KernelState(), tuple(problems))
    hosts = _hosts(tables, facts, problems)
    ingress_id = next((item.id for item in tables.networks if item.spec.ingress), "")

    encrypted = {item.id for item in tables.networks if is_overlay(item) and is_encrypted(item)}

    def port_of(network_id: str) -> int:
        return sealed_port(facts.port) if network_id in encrypted else facts.port

    vxlans = {
        vxlan_name(network_id): Vxlan(
            vnis[network_id], port_of(network_id), facts.underlay, network.mtu, bridge=network.bridge
        )
        for network_id, network in networks.items()
    }
    vxlans[MESH_LINK] = Vxlan(
        MESH_VNI,
        port_of(ingress_id),
        facts.underlay,
        facts.mtu - (SEAL_OVERHEAD if ingress_id in encrypted else 0) - VXLAN_OVERHEAD,
        mac=mesh_mac(facts.underlay),
        address=MESH_ADDRESS,
        proxy=False,
    )

    duals = {network_id: dual for network_id, dual in duals_of(tables.networks).items() if network_id in networks}
    around = Surroundings(facts.node_id, ingress_id, hosts, frozenset(networks), duals)
    parts = memory.parts(tables.endpoints, around, endpoint_fault)
    ways = Ways()
    peers = _usable_peers(tables, hosts, problems)
    sealing = Sealing()
    if encrypted:
        sealed = [item for item in peers if item[1].network_id in networks.keys() & encrypted]
        sealing = seal(facts, (item for item in sealed if item[0] != facts.node_id), hosts)
    for owner, peer in peers:
        if owner != facts.node_id and peer.network_id in networks:
            ways.remote(around, peer.network_id, peer.gateway, peer.mac, hosts[owner])
    for part in parts:
        problems += part.problems
        ways.update(part.inactive)
    for part in parts:
        ways.update(part.active)
    fdb, neighbours, routes = ways.fdb, ways.neighbours, ways.routes
    if encrypted:
        _without_clear(fdb, neighbours, {vxlan_name(network_id) for network_id in encrypted}, sealing)
    port_fdb = frozenset(fdb)  # before the mesh tunnel's entries: it is no port of a bridge

    subnets = {network_id: network.subnet for network_id, network in networks.items()}
    virtual = all_virtual(parts)
    virtual6 = virtual_addresses(virtual, duals, memory.kept) if not facts.lacking.vips else []
    if duals and facts.lacking.vips:
        names = ", ".join(networks[network_id].name for network_id in sorted(duals))
        problems.append(
            f"VIPs of IPv6 on {names}: {facts.lacking.vips}; there names have tasks' addresses of IPv6 alone"
        )
    # The tunnel answers ARP for a VIP with this host's own bridge, so the VIP needs to be nobody's address.
    own = {network_id: (vxlan_name(network_id), mac_of(network.gateway)) for network_id, network in networks.items()}
    for frontend in (*virtual, *virtual6):
        link, mac = own[frontend.network_id]
        neighbours[link, frontend.vip] = mac

    numbers = host_indexes(hosts.values())
    others = {address: number for address, number in numbers.items() if address != facts.underlay}
    # Last too: a host without a default route, and not on a task's network, would take the task's answers for forged
    # (rp_filter asks for any route back, without the mark), and IPVS would not even look for the way to it.
    rules = {
        Rule(PUBLISHED_BIT, PUBLISHED_BIT, PUBLISH_TABLE),
        Rule(0, 0, PUBLISH_TABLE, last=True),
        *sealing.rules,
    }
    for underlay, number in others.items():
        mac = mesh_mac(underlay)
        fdb[MESH_LINK, mac] = underlay
        neighbours[MESH_LINK, underlay] = mac
        routes[TABLE_BASE + number, "0.0.0.0/0"] = (underlay, MESH_LINK)
        rules.add(Rule(number << 16, HOST_MASK, TABLE_BASE + number))

    overlays = [(network.bridge, network.subnet, network.gateway) for network in networks.values()]
    chains = surrounding_chains(facts.underlay, others, overlays, sealing.raw_guard, sealing.output_guard)
    balanced = balancer.balance(all_published(parts), virtual, subnets, memory.kept)
    chains.update(balanced.chains)
    dual_networks = [networks[network_id] for network_id in duals]
    chains6, jumps6 = chains_and_jumps(dual_networks, virtual6, memory.kept, facts.lacking)
    chains.update(chains6)
    settings = _sysctls([MESH_LINK, *(network.bridge for network in networks.values())])
    for network in dual_networks:
        settings |= sysctls(network, vxlan_name(network.network_id))
    problems += balanced.problems

    return KernelPlan(
        KernelState(
            networks=networks,
            bridges={
                network.bridge: Bridge(
                    mac_of(network.gateway),
                    f"{network.gateway}/{network.subnet.partition('/')[2]}",
                    f"{network.gateway6}/{network.subnet6.partition('/')[2]}" if network.subnet6 else "",
                )
                for network in networks.values()
            },
            vxlans=vxlans,
            fdb=fdb,
            port_fdb=port_fdb,
            neighbours=neighbours,
            routes={**routes, **sealing.routes, **balanced.routes},
            rules=frozenset(rules) | balanced.rules,
            sysctls={**settings, **sealing.sysctls, **balanced.sysctls},
            chains=chains,
            jumps=JUMPS | balanced.jumps | jumps6,
            services=balanced.services,
            destinations=balanced.destinations,
            timeouts=balanced.timeouts,
            wireguards=sealing.wireguards,
            sealed=sealing.sealed,
        ),
        tuple(problems),
    )


def _without_clear(
    fdb: dict[tuple[str, str], str], neighbours: dict[tuple[str, str], str], links: set[str], sealing: Sealing
) -> None:
    """Take the entries of encrypted networks (`links`) that lead to hosts without a key away."""
    known = set(sealing.sealed.values())
    for key in [key for key, underlay in fdb.items() if key[0] in links and underlay not in known]:
        del fdb[key]
    for link, ip in [key for key, mac in neighbours.items() if key[0] in links and (key[0], mac) not in fdb]:
        del neighbours[link, ip]


def _networks(
    tables: NetworkTables, facts: HostFacts, problems: list[str]
) -> tuple[dict[str, EngineNetwork], dict[str, int]]:
    """The overlay networks that can be made here now, and their VXLAN numbers."""
    found: dict[str, EngineNetwork] = {}
    vnis: dict[str, int] = {}
    for network in sorted(tables.networks, key=lambda item: item.id):
        if not is_overlay(network):
            continue
        own, vni = tables.own.get(network.id), vni_of(network)
        if own is None or vni is None:
            continue  # the manager has not given them yet; attach() waits for them
        if network.spec.ipv6_enabled and facts.lacking.ipv6:
            problems.append(f"network {network.spec.name} ({network.id}) has IPv6: {facts.lacking.ipv6}")
            continue
        if is_encrypted(network) and not facts.key:
            problems.append(f"network {network.spec.name} ({network.id}): {LACKING}")
            continue
        try:
            found[network.id] = _engine_network(network, own, facts)
        except ValueError as error:
            problems.append(f"network {network.spec.name} ({network.id}): own address {own!r}: {error}")
            continue
        vnis[network.id] = vni
    return found, vnis


def _engine_network(network: Network, own: str, facts: HostFacts) -> EngineNetwork:
    interface = ipaddress.IPv4Interface(own)
    dual = dual_stack(network)
    reserved = reserved_range(interface.network)
    six: dict[str, str] = {}
    if dual is not None:
        # Only addresses that the manager leaves alone; all of a subnet that is too small to have some.
        first, length = dual.beside(str(reserved.network_address)), 128 - (32 - reserved.prefixlen)
        six = {
            "subnet6": str(ipaddress.IPv6Network(dual.subnet6, strict=False)),
            "gateway6": dual.beside(own),
            "ip_range6": str(ipaddress.IPv6Network(f"{first}/{length}", strict=False)),
        }
    return EngineNetwork(
        network_id=network.id,
        name=network.spec.name or network.id,
        bridge=bridge_name(network.id),
        subnet=str(interface.network),
        gateway=str(interface.ip),
        ip_range=str(reserved),
        mtu=mtu_of(network) or facts.mtu - (SEAL_OVERHEAD if is_encrypted(network) else 0) - VXLAN_OVERHEAD,
        internal=network.spec.internal,
        **six,
    )


def _hosts(tables: NetworkTables, facts: HostFacts, problems: list[str]) -> dict[str, str]:
    hosts = {}
    for node_id, address in tables.hosts.items():
        if is_ipv4(address):
            hosts[node_id] = address
        else:
            problems.append(f"host {node_id}: underlay address {address!r} is not IPv4")
    hosts[facts.node_id] = facts.underlay
    return hosts


def _usable_peers(tables: NetworkTables, hosts: Mapping[str, str], problems: list[str]) -> list[tuple[str, PeerRow]]:
    found = []
    for owner, peer in tables.peers:
        if owner not in hosts:
            continue
        if is_ipv4(peer.gateway) and _MAC.fullmatch(peer.mac) and _KEY.fullmatch(peer.key):
            found.append((owner, peer))
        else:
            problems.append(f"peer row of network {peer.network_id} from node {owner}: {peer.gateway!r}, {peer.mac!r}")
    return sorted(found, key=lambda item: (item[0], item[1].network_id))


@lru_cache(maxsize=1 << 16)
def endpoint_fault(row: EndpointRow) -> str:
    """What is wrong with a row that came from the network, or "". Rules are made from it as text, so be strict."""
    for address in row.addresses:
        if not is_ipv4(address.ip):
            return f"address {address.ip!r} is not IPv4"
        if address.vip and not is_ipv4(address.vip):
            return f"VIP {address.vip!r} is not IPv4"
        if address.mac and not _MAC.fullmatch(address.mac):
            return f"MAC {address.mac!r} is malformed"
    for port in row.ports:
        if port.protocol not in _PROTOCOLS:
            return f"protocol {port.protocol!r} is unknown"
        if not (0 < port.target < 65536 and 0 <= port.published < 65536):
            return f"port {port.published} to {port.target} is out of range"
        if not all(map(_is_network, port.addresses)):
            return f"addresses {port.addresses!r} of port {port.published} are not IPv4"
    return ""


def _is_network(text: str) -> bool:
    try:
        return str(ipaddress.IPv4Network(text)) == text
    except ValueError:
        return False


def _sysctls(links: list[str]) -> dict[str, str]:
    """Kernel settings.

    rp_filter=2: answers may leave by another bridge than the one the question came by; 0 for the mesh's tunnel, whose
    clients this host need not have any route to: answers take the connection's own. send_redirects: a VIP's packets
    enter and leave by one bridge; a redirect would teach the container to pass us by. The setting of "all" is or-ed
    with that of the link, so 0 there changes nothing for other links, which have their own.
    """
    values = {"net/ipv4/ip_forward": "1", "net/ipv4/conf/all/send_redirects": "0"}
    for link in links:
        conf = f"net/ipv4/conf/{link}"
        filtered = "0" if link == MESH_LINK else "2"
        values |= {f"{conf}/rp_filter": filtered, f"{conf}/route_localnet": "1", f"{conf}/send_redirects": "0"}
    return values
