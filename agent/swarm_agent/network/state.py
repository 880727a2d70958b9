"""The vocabulary of plans: what a host's engine and kernel hold for us, and the operations that change it.

`KernelState` is used both ways round: the plan is the state we want, an observation is the state that is there. Entries
are keyed by what the kernel keys them by, so that a difference is a comparison of dictionaries. Links are named, never
numbered: numbers change when a link is made anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class EngineNetwork:
    """A bridge network of the host's engine that stands for a cluster network. All but `name` must match."""

    network_id: str
    name: str
    bridge: str
    subnet: str
    gateway: str
    ip_range: str
    mtu: int
    internal: bool = False
    subnet6: str = ""  # "" without IPv6
    gateway6: str = ""
    ip_range6: str = ""


@dataclass(frozen=True, slots=True)
class Bridge:
    """The link of an engine network. Addresses are CIDR; `address6` is "" without IPv6."""

    mac: str
    address: str
    address6: str = ""


@dataclass(frozen=True, slots=True)
class Vxlan:
    """A tunnel link: the port of a bridge, or the routed mesh tunnel (without `bridge`, with own MAC and address)."""

    vni: int
    port: int
    local: str
    mtu: int
    bridge: str = ""
    mac: str = ""
    address: str = ""  # CIDR
    proxy: bool = True  # answers ARP from its neighbour entries


@dataclass(frozen=True, slots=True)
class WireGuard:
    """The link between hosts for encrypted networks. `key` is public, base64; `address` is CIDR."""

    key: str
    port: int
    mtu: int
    address: str


@dataclass(frozen=True, slots=True)
class Rule:
    """Packets with this mark use this routing table; with `port`, those that this host itself sends there over UDP;
    with `last`, those that no other table has a route for."""

    mark: int
    mask: int
    table: int
    port: int = 0
    last: bool = False


Chain = tuple[str, ...]  # rules as iptables-save prints them, without "-A NAME "
ChainKey = tuple[str, str]  # table, chain; tables of ip6tables end in IPV6
IPV6 = "6"  # behind a table's name ("nat6"): it is ip6tables'


@dataclass(frozen=True, slots=True)
class Jump:
    """A rule in a chain that is not ours, always its first, which leads into one of ours.

    When the host has no chain `parent`, `fallback` is used (DOCKER-USER, else FORWARD).
    """

    table: str
    parent: str
    target: str
    match: str = ""
    fallback: str = ""

    @property
    def rule(self) -> str:
        return f"{self.match} -j {self.target}".strip()


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds after which IPVS forgets a silent connection: established TCP, TCP being closed, UDP."""

    tcp: int
    tcp_fin: int
    udp: int


Destination = tuple[int, str, int]  # IPVS service (its packet mark), address and port of a task (port 0: as asked for)


@dataclass(frozen=True, slots=True)
class KernelState:
    networks: Mapping[str, EngineNetwork] = field(default_factory=dict)  # by network id
    bridges: Mapping[str, Bridge] = field(default_factory=dict)  # by link
    vxlans: Mapping[str, Vxlan] = field(default_factory=dict)  # by link
    fdb: Mapping[tuple[str, str], str] = field(default_factory=dict)  # (vxlan link, MAC) → underlay address
    port_fdb: frozenset[tuple[str, str]] = frozenset()  # (vxlan link, MAC): the bridge finds this MAC behind the link
    neighbours: Mapping[tuple[str, str], str] = field(default_factory=dict)  # (link, address) → MAC
    routes: Mapping[tuple[int, str], tuple[str, str]] = field(default_factory=dict)  # (table, prefix) → (via, link)
    rules: frozenset[Rule] = frozenset()
    sysctls: Mapping[str, str] = field(default_factory=dict)  # path under /proc/sys → value
    chains: Mapping[ChainKey, Chain] = field(default_factory=dict)
    jumps: frozenset[Jump] = frozenset()
    services: Mapping[int, str] = field(default_factory=dict)  # IPVS: packet mark → scheduler
    destinations: Mapping[Destination, int] = field(default_factory=dict)  # IPVS: weight (0: no new connections)
    timeouts: Timeouts | None = None  # IPVS: None leaves them as they are
    wireguards: Mapping[str, WireGuard] = field(default_factory=dict)  # by link
    sealed: Mapping[tuple[str, str], str] = field(default_factory=dict)  # (link, a host's public key) → its underlay


@dataclass(frozen=True, slots=True)
class KernelPlan:
    """What a host should hold, and what could not be planned (for the log): malformed or unfinished inputs."""

    state: KernelState
    problems: tuple[str, ...] = ()


# --- operations, in the order in which a change carries them out -----------------------------------------------------


@dataclass(frozen=True, slots=True)
class CreateNetwork:
    network: EngineNetwork


@dataclass(frozen=True, slots=True)
class RemoveNetwork:
    """`force`: also when containers are on it, which are taken off; otherwise it waits until they are gone."""

    network: EngineNetwork
    force: bool = False


@dataclass(frozen=True, slots=True)
class SetBridge:
    """Give the bridge this MAC and address; make the link anew when it is gone, and take its containers back in."""

    link: str
    bridge: Bridge
    mtu: int


@dataclass(frozen=True, slots=True)
class AddLink:
    link: str
    vxlan: Vxlan


@dataclass(frozen=True, slots=True)
class AddWireGuard:
    link: str
    wireguard: WireGuard


@dataclass(frozen=True, slots=True)
class SetSealed:
    """The host with this public key is reached at this underlay address and UDP port, and may send as that address."""

    link: str
    key: str
    underlay: str
    port: int


@dataclass(frozen=True, slots=True)
class RemoveSealed:
    link: str
    key: str


@dataclass(frozen=True, slots=True)
class RemoveLink:
    link: str


@dataclass(frozen=True, slots=True)
class SetFdb:
    link: str
    mac: str
    underlay: str


@dataclass(frozen=True, slots=True)
class RemoveFdb:
    link: str
    mac: str


@dataclass(frozen=True, slots=True)
class SetPortFdb:
    link: str
    mac: str


@dataclass(frozen=True, slots=True)
class RemovePortFdb:
    link: str
    mac: str


@dataclass(frozen=True, slots=True)
class SetNeighbour:
    link: str
    ip: str
    mac: str


@dataclass(frozen=True, slots=True)
class RemoveNeighbour:
    link: str
    ip: str


@dataclass(frozen=True, slots=True)
class SetRoute:
    table: int
    prefix: str
    via: str
    link: str


@dataclass(frozen=True, slots=True)
class RemoveRoute:
    table: int
    prefix: str


@dataclass(frozen=True, slots=True)
class AddRule:
    rule: Rule


@dataclass(frozen=True, slots=True)
class RemoveRule:
    rule: Rule


@dataclass(frozen=True, slots=True)
class SetSysctl:
    path: str
    value: str


@dataclass(frozen=True, slots=True)
class SetService:
    mark: int
    scheduler: str


@dataclass(frozen=True, slots=True)
class RemoveService:
    """Its destinations go with it."""

    mark: int


@dataclass(frozen=True, slots=True)
class SetDestination:
    mark: int
    ip: str
    port: int
    weight: int


@dataclass(frozen=True, slots=True)
class RemoveDestination:
    mark: int
    ip: str
    port: int


@dataclass(frozen=True, slots=True)
class SetTimeouts:
    timeouts: Timeouts


@dataclass(frozen=True, slots=True)
class Restore:
    """One transaction on one iptables table: chains to (re)write, chains to drop, jumps to put first or to remove."""

    table: str
    chains: tuple[tuple[str, Chain], ...] = ()
    removed: tuple[str, ...] = ()
    jumps: tuple[Jump, ...] = ()
    removed_jumps: tuple[Jump, ...] = ()


Operation = (
    CreateNetwork
    | RemoveNetwork
    | SetBridge
    | AddLink
    | AddWireGuard
    | SetSealed
    | RemoveSealed
    | RemoveLink
    | SetFdb
    | RemoveFdb
    | SetPortFdb
    | RemovePortFdb
    | SetNeighbour
    | RemoveNeighbour
    | SetRoute
    | RemoveRoute
    | AddRule
    | RemoveRule
    | SetSysctl
    | SetService
    | RemoveService
    | SetDestination
    | RemoveDestination
    | SetTimeouts
    | Restore
)
WireGuardOperation = AddWireGuard | SetSealed | RemoveSealed
IpvsOperation = SetService | RemoveService | SetDestination | RemoveDestination | SetTimeouts
