"""Links, forwarding entries, neighbours, routes, rules and sysctls of this network namespace: read and changed.

Blocking; runs in a worker thread. Reading is by our own names and numbers only (names.py), so what belongs to others is
not even seen. Writing is one operation at a time, and one that fails does not keep the others from being done.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import rt_scope
from pyroute2.netlink.rtnl.ndmsg import NTF_MASTER, NTF_SELF, NUD_NOARP, NUD_PERMANENT

from .names import BRIDGE_PREFIX, MESH_LINK, RULE_PRIORITY, TABLE_BASE, VXLAN_PREFIX
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
        fdb: dict[tuple[str, str], str] = {}
        port_fdb: set[tuple[str, str]] = set()
        neighbours: dict[tuple[str, str], str] = {}
        for link in links:
            name = link.get("ifname")
            if name in vxlans:
                for entry in ip.get_neighbours(ifindex=link["index"], family=socket.AF_INET):
                    if entry["state"] & NUD_PERMANENT:
                        neighbours[name, entry.get("dst")] = entry.get("lladdr")
        for entry in ip.get_neighbours(family=socket.AF_BRIDGE):
            name = names.get(entry["ifindex"])
            if name not in vxlans:
                continue
            if entry["flags"] & NTF_SELF and entry.get("dst"):
                fdb[name, entry.get("lladdr")] = entry.get("dst")
            elif entry.get("master") and entry["state"] & NUD_NOARP:
                port_fdb.add((name, entry.get("lladdr")))
        return KernelState(
            bridges=bridges,
            vxlans=vxlans,
            fdb=fdb,
            port_fdb=frozenset(port_fdb),
            neighbours=neighbours,
            routes=_routes(ip, names),
            rules=_rules(ip),
            sysctls=_sysctls(wanted.sysctls),
        )


def _bridge(ip: Any, link: Any, wanted: Bridge | None) -> Bridge:
    addresses = _addresses(ip, link["index"])
    address = wanted.address if wanted and wanted.address in addresses else next(iter(addresses), "")
    return Bridge(link.get("address"), address if link["state"] == "up" else "")


def _addresses(ip: Any, index: int) -> list[str]:
    entries = ip.get_addr(family=socket.AF_INET, index=index)
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


def _routes(ip: Any, names: dict[int, str]) -> dict[tuple[int, str], tuple[str, str]]:
    found = {}
    for route in ip.get_routes(family=socket.AF_INET):
        table = route.get("table") or route["table"]
        if table >> 16 == TABLE_BASE >> 16:
            prefix = f"{route.get('dst') or '0.0.0.0'}/{route['dst_len']}"
            found[table, prefix] = (route.get("gateway") or "", names.get(route.get("oif"), ""))
    return found


def _rules(ip: Any) -> frozenset[Rule]:
    found = set()
    for rule in ip.get_rules(family=socket.AF_INET):
        table = rule.get("table") or rule["table"]
        if table >> 16 == TABLE_BASE >> 16:
            found.add(Rule(rule.get("fwmark") or 0, rule.get("fwmask") or 0, table))
    return frozenset(found)


def _sysctls(paths: Iterable[str]) -> dict[str, str]:
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
    failures = []
    with IPRoute() as ip:
        writer = _Writer(ip)
        for operation in operations:
            try:
                writer.apply(operation)
            except (NetlinkError, OSError, LookupError) as error:
                failures.append(Failure(operation, str(error)))
    return failures


def open_hairpins() -> int:
    """Let containers be answered through their own port of our bridges; returns how many ports were changed.

    With bridge netfilter on, a packet to a VIP that is translated to a container of the same bridge is bridged, not
    routed. When the sender itself is chosen, it must leave by the port that it came in by, which bridges refuse.
    """
    try:
        needed = (SYSCTL_ROOT / "net/bridge/bridge-nf-call-iptables").read_text().strip() == "1"
    except FileNotFoundError:
        needed = False
    if not needed:
        return 0
    changed = 0
    with IPRoute() as ip:
        links = list(ip.get_links())
        bridges = {link["index"] for link in links if link.get("ifname").startswith(BRIDGE_PREFIX)}
        for link in links:
            port = link.get(("linkinfo", "slave_data"))
            if (
                link.get("master") in bridges
                and link.get(("linkinfo", "kind")) == "veth"
                and port is not None
                and not port.get("mode")
            ):
                try:
                    ip.brport("set", index=link["index"], mode=1)
                    changed += 1
                except NetlinkError as error:
                    if error.code not in ALREADY_GONE:
                        raise
    return changed


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

    def apply(self, operation: Operation) -> None:
        match operation:
            case SetFdb(link, mac, underlay):
                self._fdb("replace", link, mac, flags=NTF_SELF, state=NUD_PERMANENT, dst=underlay)
            case SetPortFdb(link, mac):
                self._fdb("replace", link, mac, flags=NTF_MASTER, state=NUD_NOARP)
            case SetNeighbour(link, address, mac):
                self._ip.neigh("replace", ifindex=self._index(link), dst=address, lladdr=mac, state="permanent")
            case RemoveFdb(link, mac):
                self._remove(lambda: self._fdb("del", link, mac, flags=NTF_SELF))
            case RemovePortFdb(link, mac):
                self._remove(lambda: self._fdb("del", link, mac, flags=NTF_MASTER))
            case RemoveNeighbour(link, address):
                self._remove(lambda: self._ip.neigh("del", ifindex=self._index(link), dst=address))
            case SetRoute(table, prefix, via, link):
                self._ip.route("replace", table=table, dst=prefix, gateway=via, oif=self._index(link), flags=["onlink"])
            case RemoveRoute(table, prefix):
                self._remove(lambda: self._ip.route("del", table=table, dst=prefix))
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

    def _fdb(self, command: str, link: str, mac: str, **more: Any) -> None:
        self._ip.neigh(command, family=socket.AF_BRIDGE, ifindex=self._index(link), lladdr=mac, **more)

    def _rule(self, command: str, rule: Rule) -> None:
        self._ip.rule(
            command, family=socket.AF_INET, priority=RULE_PRIORITY, fwmark=rule.mark, fwmask=rule.mask, table=rule.table
        )

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
