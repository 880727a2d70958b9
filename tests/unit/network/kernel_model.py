"""A host's kernel and engine as plain data: applies operations with the kernel's rules, so that a wrong order fails.

Links must exist before anything hangs on them and take it with them when they go; a bridge belongs to its network of
the engine; a chain can be removed only when nothing leads to it, and a rule can only lead to a chain that is there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from swarm_agent.network.diff import kernel_operations, link_of_sysctl, network_operations
from swarm_agent.network.state import (
    AddLink,
    AddRule,
    AddWireGuard,
    Bridge,
    Chain,
    ChainKey,
    CreateNetwork,
    EngineNetwork,
    Jump,
    KernelState,
    Operation,
    RemoveDestination,
    RemoveFdb,
    RemoveLink,
    RemoveNeighbour,
    RemoveNetwork,
    RemovePortFdb,
    RemoveRoute,
    RemoveRule,
    RemoveSealed,
    RemoveService,
    Restore,
    Rule,
    SetBridge,
    SetDestination,
    SetFdb,
    SetNeighbour,
    SetPortFdb,
    SetRoute,
    SetSealed,
    SetService,
    SetSysctl,
    SetTimeouts,
    Timeouts,
    Vxlan,
    WireGuard,
)


@dataclass
class KernelModel:
    networks: dict[str, EngineNetwork] = field(default_factory=dict)
    bridges: dict[str, Bridge] = field(default_factory=dict)
    vxlans: dict[str, Vxlan] = field(default_factory=dict)
    fdb: dict[tuple[str, str], str] = field(default_factory=dict)
    port_fdb: set[tuple[str, str]] = field(default_factory=set)
    neighbours: dict[tuple[str, str], str] = field(default_factory=dict)
    routes: dict[tuple[int, str], tuple[str, str]] = field(default_factory=dict)
    rules: set[Rule] = field(default_factory=set)
    sysctls: dict[str, str] = field(default_factory=dict)
    chains: dict[ChainKey, Chain] = field(default_factory=dict)
    jumps: set[Jump] = field(default_factory=set)
    services: dict[int, str] = field(default_factory=dict)
    destinations: dict[tuple[int, str, int], int] = field(default_factory=dict)
    timeouts: Timeouts | None = None
    wireguards: dict[str, WireGuard] = field(default_factory=dict)
    sealed: dict[tuple[str, str], str] = field(default_factory=dict)

    def state(self) -> KernelState:
        """What an observation of this host would give."""
        return KernelState(
            dict(self.networks),
            dict(self.bridges),
            dict(self.vxlans),
            dict(self.fdb),
            frozenset(self.port_fdb),
            dict(self.neighbours),
            dict(self.routes),
            frozenset(self.rules),
            dict(self.sysctls),
            dict(self.chains),
            frozenset(self.jumps),
            dict(self.services),
            dict(self.destinations),
            self.timeouts,
            dict(self.wireguards),
            dict(self.sealed),
        )

    def bring_to(self, wanted: KernelState) -> list[Operation]:
        """A round as the driver does it: engine networks, the kernel as it is then, removals."""
        creations, removals = network_operations(self.state(), wanted)
        for operation in creations:
            self.apply(operation)
        operations = kernel_operations(self.state(), wanted)
        for operation in (*operations, *removals):
            self.apply(operation)
        return [*creations, *operations, *removals]

    def apply(self, operation: Operation) -> None:
        match operation:
            case CreateNetwork(network):
                assert network.network_id not in self.networks and network.bridge not in self.bridges
                self.networks[network.network_id] = network
                address = f"{network.gateway}/{network.subnet.partition('/')[2]}"
                self.bridges[network.bridge] = Bridge("aa:aa:aa:aa:aa:aa", address)
            case RemoveNetwork(network, _):
                del self.networks[network.network_id]
                self.bridges.pop(network.bridge, None)
                for name, vxlan in self.vxlans.items():
                    if vxlan.bridge == network.bridge:
                        self.vxlans[name] = replace(vxlan, bridge="")
                self._forget({network.bridge})
            case SetBridge(link, bridge, _):
                assert any(network.bridge == link for network in self.networks.values())
                self.bridges[link] = bridge
            case AddLink(link, vxlan):
                assert link not in self.vxlans
                assert not vxlan.bridge or vxlan.bridge in self.bridges
                self.vxlans[link] = vxlan
            case AddWireGuard(link, wireguard):
                assert link not in self.wireguards
                self.wireguards[link] = wireguard
            case SetSealed(link, key, underlay, port):
                assert self.wireguards[link].port == port
                for other in [other for other, address in self.sealed.items() if address == underlay]:
                    self.sealed[other] = ""  # an address is one peer's
                self.sealed[link, key] = underlay
            case RemoveSealed(link, key):
                del self.sealed[link, key]
            case RemoveLink(link):
                del (self.wireguards if link in self.wireguards else self.vxlans)[link]
                self._forget({link})
            case SetFdb(link, mac, underlay):
                assert link in self.vxlans
                self.fdb[link, mac] = underlay
            case RemoveFdb(link, mac):
                del self.fdb[link, mac]
            case SetPortFdb(link, mac):
                assert self.vxlans[link].bridge
                self.port_fdb.add((link, mac))
            case RemovePortFdb(link, mac):
                self.port_fdb.remove((link, mac))
            case SetNeighbour(link, ip, mac):
                assert link in self.vxlans
                self.neighbours[link, ip] = mac
            case RemoveNeighbour(link, ip):
                del self.neighbours[link, ip]
            case SetRoute(table, prefix, via, link):
                assert link in self.vxlans or link in self.wireguards or link == "lo"
                self.routes[table, prefix] = (via, link)
            case RemoveRoute(table, prefix):
                del self.routes[table, prefix]
            case AddRule(rule):
                assert rule not in self.rules
                self.rules.add(rule)
            case RemoveRule(rule):
                self.rules.remove(rule)
            case SetSysctl(path, value):
                link = link_of_sysctl(path)
                assert not link or link in self.vxlans or link in self.wireguards or link in self.bridges
                self.sysctls[path] = value
            case SetTimeouts(timeouts):
                self.timeouts = timeouts
            case SetService(mark, scheduler):
                self.services[mark] = scheduler
            case RemoveService(mark):
                del self.services[mark]
                self.destinations = {key: weight for key, weight in self.destinations.items() if key[0] != mark}
            case SetDestination(mark, ip, port, weight):
                assert mark in self.services
                self.destinations[mark, ip, port] = weight
            case RemoveDestination(mark, ip, port):
                del self.destinations[mark, ip, port]
            case Restore():
                self._restore(operation)

    def _restore(self, operation: Restore) -> None:
        table = operation.table
        for chain, content in operation.chains:
            self.chains[table, chain] = content
        self.jumps -= set(operation.removed_jumps)
        self.jumps |= set(operation.jumps)
        for chain in operation.removed:
            del self.chains[table, chain]
        for jump in self.jumps:
            assert jump.table != table or (table, jump.target) in self.chains, f"{jump} leads nowhere"
        for (owner, chain), rules in self.chains.items():
            for rule in rules:
                target = rule.rpartition("-j ")[2].split(" ")[0]
                if owner == table and target.startswith("SWARM-"):
                    assert (table, target) in self.chains, f"{chain}: {rule} leads nowhere"
                if owner == table and rule.endswith("/0xffffffff"):
                    mark = int(rule.rpartition(" ")[2].partition("/")[0], 16)
                    assert mark in self.services, f"{chain}: {rule} leads to no service of IPVS"

    def _forget(self, links: set[str]) -> None:
        self.fdb = {key: value for key, value in self.fdb.items() if key[0] not in links}
        self.port_fdb = {key for key in self.port_fdb if key[0] not in links}
        self.neighbours = {key: value for key, value in self.neighbours.items() if key[0] not in links}
        self.routes = {key: value for key, value in self.routes.items() if value[1] not in links}
        self.sealed = {key: value for key, value in self.sealed.items() if key[0] not in links}
        self.sysctls = {path: value for path, value in self.sysctls.items() if link_of_sysctl(path) not in links}

    # --- accidents ----------------------------------------------------------------------------------------------------

    def lose_link(self, link: str) -> None:
        """Somebody deletes a link of ours."""
        if link in self.vxlans:
            del self.vxlans[link]
        elif link in self.wireguards:
            del self.wireguards[link]
        elif link in self.bridges:
            del self.bridges[link]
            for name, vxlan in self.vxlans.items():
                if vxlan.bridge == link:
                    self.vxlans[name] = replace(vxlan, bridge="")
                    self.port_fdb = {key for key in self.port_fdb if key[0] != name}
        self._forget({link})

    def clear_ipvs(self) -> None:
        """Somebody runs ipvsadm --clear."""
        self.services.clear()
        self.destinations.clear()

    def flush_table(self, table: str) -> None:
        """Somebody flushes an iptables table and deletes its chains."""
        self.chains = {key: rules for key, rules in self.chains.items() if key[0] != table}
        self.jumps = {jump for jump in self.jumps if jump.table != table}
