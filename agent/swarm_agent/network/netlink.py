"""Links, forwarding entries, neighbours, routes, rules and sysctls of this network namespace: read and changed.

Blocking; runs in a worker thread. Reading is by our own names and numbers only (names.py), so what belongs to others is
not even seen. Writing is one operation at a time, and one that fails does not keep the others from being done.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import rt_scope
from pyroute2.netlink.rtnl.ifaddrmsg import IFA_F_NODAD, IFA_F_TENTATIVE

from .names import BRIDGE_PREFIX, LAST_PRIORITY, MESH_LINK, RULE_PRIORITY, VXLAN_PREFIX, is_our_table
from .nlsocket import Message
from .rtnetlink import (
    DEL_NEIGHBOUR,
    DEL_ROUTE,
    NTF_SELF,
    NUD_NOARP,
    NUD_PERMANENT,
    RouteSocket,
    open_hairpin,
    remove_fdb,
    remove_neighbour,
    remove_port_fdb,
    remove_route,
    set_fdb,
    set_neighbour,
    set_port_fdb,
    set_route,
)
from .state import (
    AddLink,
    AddRule,
    Bridge,
    KernelState,
    Operation,
    RemoveFdb,
    RemoveLink,
    RemoveNeighbour,
    RemovePortFdb,
    RemoveRoute,
    RemoveRule,
    Rule,
    SetBridge,
    SetFdb,
    SetNeighbour,
    SetPortFdb,
    SetRoute,
    SetSysctl,
    Vxlan,
)

SYSCTL_ROOT = Path("/proc/sys")
ALREADY_GONE = (errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL)


@dataclass(frozen=True, slots=True)
class Failure:
    """An operation that the kernel or the engine refused."""

    operation: Operation
    reason: str

    def __str__(self) -> str:
        return f"{self.operation}: {self.reason}"


def underlay_mtu(address: str) -> int:
    """The MTU of the link that has this address. Raises LookupError when no link has it."""
    with IPRoute() as ip:
        for found in ip.get_addr(family=socket.AF_INET, address=address):
            link = next(iter(ip.get_links(found["index"])))
            return int(link.get("mtu"))
    raise LookupError(f"no link of this host has the address {address}, through which it should reach the others")


def numbers(links: Iterable[str]) -> frozenset[int]:
    """The kernel's numbers of those links that exist."""
    found = set()
    for link in links:
        with suppress(OSError):
            found.add(socket.if_nametoindex(link))
    return frozenset(found)


# --- reading ---------------------------------------------------------------------------------------------------------


def observe(wanted: KernelState) -> KernelState:
    """Our links and entries as they are, without engine networks and iptables. `wanted` tells which sysctls to read
    and which address of a bridge to look for.
    """
    with IPRoute() as ip:
        links = list(ip.get_links())
        names = {link["index"]: link.get("ifname") for link in links}
        bridges: dict[str, Bridge] = {}
        vxlans: dict[str, Vxlan] = {}
        for link in links:
            name = link.get("ifname")
            if name.startswith(BRIDGE_PREFIX):
                bridges[name] = _bridge(ip, link, wanted.bridges.get(name))
            elif name.startswith(VXLAN_PREFIX) or name == MESH_LINK:
                vxlans[name] = _vxlan(ip, link, names)
        rules = _rules(ip)
    fdb: dict[tuple[str, str], str] = {}
    port_fdb: set[tuple[str, str]] = set()
    neighbours: dict[tuple[str, str], str] = {}
    routes: dict[tuple[int, str], tuple[str, str]] = {}
    with RouteSocket() as route:
        for entry in (*route.neighbours(socket.AF_INET), *route.neighbours(socket.AF_INET6)):
            name = names.get(entry.ifindex, "")
            if name in vxlans and entry.state & NUD_PERMANENT:
                neighbours[name, entry.ip] = entry.mac
        for entry in route.neighbours(socket.AF_BRIDGE):
            name = names.get(entry.ifindex, "")
            if name not in vxlans:
                continue
            if entry.flags & NTF_SELF and entry.ip:
                fdb[name, entry.mac] = entry.ip
            elif entry.mastered and entry.state & NUD_NOARP:
                port_fdb.add((name, entry.mac))
        for found in route.routes():
            if is_our_table(found.table):
                routes[found.table, found.prefix] = (found.via, names.get(found.ifindex, ""))
    return KernelState(
        bridges=bridges,
        vxlans=vxlans,
        fdb=fdb,
        port_fdb=frozenset(port_fdb),
        neighbours=neighbours,
        routes=routes,
        rules=rules,
        sysctls=read_sysctls(wanted.sysctls),
    )


def _bridge(ip: Any, link: Any, wanted: Bridge | None) -> Bridge:
    addresses = _addresses(ip, link["index"])
    address = wanted.address if wanted and wanted.address in addresses else next(iter(addresses), "")
    address6 = wanted.address6 if wanted and wanted.address6 else ""
    if address6 and address6 not in _addresses(ip, link["index"], socket.AF_INET6):
        address6 = ""
    return Bridge(link.get("address"), address if link["state"] == "up" else "", address6)


def _addresses(ip: Any, index: int, family: int = socket.AF_INET) -> list[str]:
    entries = ip.get_addr(family=family, index=index)
    return [f"{entry.get('address')}/{entry['prefixlen']}" for entry in entries]


def _vxlan(ip: Any, link: Any, names: dict[int, str]) -> Vxlan:
    info = link.get(("linkinfo", "data"))
    if info is None or link.get(("linkinfo", "kind")) != "vxlan":
        return Vxlan(0, 0, "", 0)
    name = link.get("ifname")
    usable = link["state"] == "up" and not info.get("vxlan_learning")
    return Vxlan(
        vni=info.get("vxlan_id") if usable else 0,
        port=info.get("vxlan_port"),
        local=info.get("vxlan_local") or "",
        mtu=link.get("mtu"),
        bridge=names.get(link.get("master"), ""),
        mac=link.get("address") if name == MESH_LINK else "",
        address=next(iter(_addresses(ip, link["index"])), "") if name == MESH_LINK else "",
        proxy=bool(info.get("vxlan_proxy")),
    )


def _rules(ip: Any) -> frozenset[Rule]:
    found = set()
    for rule in ip.get_rules(family=socket.AF_INET):
        table = rule.get("table") or rule["table"]
        if is_our_table(table):
            ports = rule.get("dport_range") or ":"
            port = int(ports.partition(":")[0] or 0) if rule.get("iifname") == "lo" else 0
            last = rule.get("priority") == LAST_PRIORITY
            found.add(Rule(rule.get("fwmark") or 0, rule.get("fwmask") or 0, table, port, last))
    return frozenset(found)


def read_sysctls(paths: Iterable[str]) -> dict[str, str]:
    found = {}
    for path in paths:
        try:
            found[path] = (SYSCTL_ROOT / path).read_text().strip()
        except FileNotFoundError:
            continue
    return found


# --- writing ---------------------------------------------------------------------------------------------------------


def execute(operations: Iterable[Operation]) -> list[Failure]:
    """Carry out operations in order; returns those that failed. Removing what is gone already is no failure."""
    failures: list[Failure] = []
    with IPRoute() as ip, RouteSocket() as route:
        writer = _Writer(ip)
        pending: list[tuple[Operation, Message]] = []
        for operation in operations:
            try:
                message = writer.entry(operation)
                if message is not None:
                    pending.append((operation, message))
                    continue
                failures += _send(route, pending)
                pending = []
                writer.apply(operation)
            except (NetlinkError, OSError, LookupError) as error:
                failures.append(Failure(operation, str(error)))
        return failures + _send(route, pending)


def _send(route: RouteSocket, pending: list[tuple[Operation, Message]]) -> list[Failure]:
    """Entries are sent in bulk, as there may be very many."""
    codes = route.send([message for _, message in pending])
    return [
        Failure(operation, os.strerror(code))
        for (operation, message), code in zip(pending, codes, strict=True)
        if code and not (message.kind in (DEL_NEIGHBOUR, DEL_ROUTE) and code in ALREADY_GONE)
    ]


def bridge_netfilter() -> bool:
    """Whether bridged packets pass iptables (absent without the kernel's br_netfilter)."""
    paths = ["net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"]
    return "1" in read_sysctls(paths).values()


def open_hairpins(bridges: Iterable[str]) -> int:
    """Let containers be answered through their own port of these bridges; returns how many ports were changed.

    With bridge netfilter on, a packet to a VIP that is translated to a container of the same bridge is bridged, not
    routed. When the sender itself is chosen, it must leave by the port that it came in by, which bridges refuse.
    """
    if not bridge_netfilter():
        return 0
    ours = numbers(bridges)
    with RouteSocket() as route:
        closed = [
            port.ifindex for port in route.ports() if port.bridge in ours and port.kind == "veth" and not port.hairpin
        ]
        codes = route.send([open_hairpin(ifindex) for ifindex in closed])
    for code in codes:
        if code and code not in ALREADY_GONE:
            raise OSError(code, f"a bridge's port cannot be opened: {os.strerror(code)}")
    return codes.count(0)


class _Writer:
    def __init__(self, ip: Any) -> None:
        self._ip = ip
        self._indexes: dict[str, int] = {}

    def _index(self, name: str) -> int:
        index = self._indexes.get(name)
        if index is None:
            found = self._ip.link_lookup(ifname=name)
            if not found:
                raise LookupError(f"this host has no link {name}")
            index = self._indexes[name] = found[0]
        return index

    def entry(self, operation: Operation) -> Message | None:
        """The message for an operation on one entry of a table; None for all others."""
        match operation:
            case SetFdb(link, mac, underlay):
                return set_fdb(self._index(link), mac, underlay)
            case SetPortFdb(link, mac):
                return set_port_fdb(self._index(link), mac)
            case SetNeighbour(link, address, mac):
                return set_neighbour(self._index(link), address, mac)
            case SetRoute(table, prefix, via, link):
                return set_route(table, prefix, via, self._index(link))
            case RemoveRoute(table, prefix):
                return remove_route(table, prefix)
            case RemoveFdb(link, mac):
                return remove_fdb(self._index(link), mac)
            case RemovePortFdb(link, mac):
                return remove_port_fdb(self._index(link), mac)
            case RemoveNeighbour(link, address):
                return remove_neighbour(self._index(link), address)
            case _:
                return None

    def apply(self, operation: Operation) -> None:
        match operation:
            case AddRule(rule):
                self._rule("add", rule)
            case RemoveRule(rule):
                self._remove(lambda: self._rule("del", rule))
            case SetSysctl(path, value):
                (SYSCTL_ROOT / path).write_text(value)
            case AddLink(link, vxlan):
                self._add_link(link, vxlan)
            case RemoveLink(link):
                self._remove(lambda: self._ip.link("del", index=self._index(link)))
                self._indexes.pop(link, None)
            case SetBridge(link, bridge, mtu):
                self._set_bridge(link, bridge, mtu)
            case _:
                raise LookupError("not an operation of the kernel's links and routes")

    def _rule(self, command: str, rule: Rule) -> None:
        if rule.port:  # "iif lo": what this host sends itself
            match = {"iifname": "lo", "ip_proto": socket.IPPROTO_UDP, "dport_range": f"{rule.port}:{rule.port}"}
        elif rule.last:
            match = {}
        else:
            match = {"fwmark": rule.mark, "fwmask": rule.mask}
        priority = LAST_PRIORITY if rule.last else RULE_PRIORITY
        self._ip.rule(command, family=socket.AF_INET, priority=priority, table=rule.table, **match)

    def _remove(self, action: Any) -> None:
        try:
            action()
        except LookupError:
            return
        except NetlinkError as error:
            if error.code not in ALREADY_GONE:
                raise

    def _add_link(self, name: str, vxlan: Vxlan) -> None:
        options: dict[str, Any] = {
            "vxlan_id": vxlan.vni,
            "vxlan_local": vxlan.local,
            "vxlan_port": vxlan.port,
            "vxlan_learning": False,
            "vxlan_proxy": vxlan.proxy,
            "mtu": vxlan.mtu,
        }
        if vxlan.mac:
            options["address"] = vxlan.mac
        self._ip.link("add", ifname=name, kind="vxlan", **options)
        index = self._index(name)
        if vxlan.bridge:
            self._ip.link("set", index=index, master=self._index(vxlan.bridge))
            self._ip.brport("set", index=index, learning=0)
        if vxlan.address:
            address, _, prefix = vxlan.address.partition("/")
            self._ip.addr("add", index=index, address=address, prefixlen=int(prefix), scope=rt_scope["link"])
        self._ip.link("set", index=index, state="up")

    def _set_bridge(self, name: str, bridge: Bridge, mtu: int) -> None:
        created = not self._ip.link_lookup(ifname=name)
        if created:
            self._ip.link("add", ifname=name, kind="bridge", address=bridge.mac, mtu=mtu)
        index = self._index(name)
        self._ip.link("set", index=index, address=bridge.mac, state="up")
        interface = ipaddress.IPv4Interface(bridge.address)
        self._ip.addr(
            "replace",
            index=index,
            address=str(interface.ip),
            prefixlen=interface.network.prefixlen,
            broadcast=str(interface.network.broadcast_address),
        )
        if bridge.address6:
            address6, _, length = bridge.address6.partition("/")
            # Nobody else can have it, and while the kernel makes sure of that the address is of no use. That an engine
            # began it is not undone by the flag alone.
            address = {"index": index, "address": address6, "prefixlen": int(length)}
            if any(
                found.get("address") == address6 and found.get("flags", 0) & IFA_F_TENTATIVE
                for found in self._ip.get_addr(index=index, family=socket.AF_INET6)
            ):
                self._ip.addr("del", **address)
            self._ip.addr("replace", **address, flags=IFA_F_NODAD)
        if created:
            self._take_back(index, interface.network)

    def _take_back(self, bridge: int, subnet: ipaddress.IPv4Network) -> None:
        """Make the host's ends of containers' links ports of the new bridge. A link is known by the MAC of its other
        end, which is made from the container's address (model.addresses); the kernel tells it across namespaces.
        """
        for link in self._ip.get_links():
            namespace, peer = link.get("link_netnsid"), link.get("link")
            if link.get(("linkinfo", "kind")) != "veth" or link.get("master") or namespace is None or not peer:
                continue
            other = next(iter(self._ip.link("get", index=peer, if_netnsid=namespace)), None)
            mac = (other.get("address") if other else None) or ""
            if mac.startswith("02:42:") and ipaddress.IPv4Address(bytes.fromhex(mac[6:].replace(":", ""))) in subnet:
                self._ip.link("set", index=link["index"], master=bridge)
