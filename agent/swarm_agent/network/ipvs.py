"""The balancer for kernels with IPVS: one virtual service for each published port and each VIP (pure).

Rules mark the first packet of a connection with a number that stands for the port or VIP; IPVS has a service for each
such number and picks the task, in turn. A change of one service's tasks touches its own destinations and, for
127.0.0.1, its own chain. IPVS takes packets that are *for this host* and sends them out as if they were its own, which
shapes all rules here:

    PREROUTING mangle   NEW: the number as mark, kept in the connection's mark; later packets: mark restored
    routing             a port's packets are for this host anyway; a VIP's mark leads to table VIP_TABLE: local
    INPUT               accepted (filter); IPVS picks the task, changes the destination, looks up a route without mark
    OUTPUT mangle       now for a task: of the mark only the bit is left that leads through the tunnel to the task's
                        host, for the kernel looks for a route again when the destination was changed
    POSTROUTING         the sources as with iptables; net.ipv4.vs.conntrack lets connection tracking follow
    FORWARD             answers: IPVS gives them the port's or VIP's address as source again

- IPVS knows connections by addresses alone, not by conntrack zone. A client that used one source port towards two
  entry hosts would be confused on a host that is entry host and runs the task; so entry hosts give connections that go
  through the tunnel a source port of their own from MESH_PORTS, below what clients commonly use (rules.py).
- IPVS balances no ICMP. Who pings a VIP is answered by their own host, as by Swarm's load balancer.
- IPVS sends nothing from 127.0.0.0/8 to others, so for 127.0.0.1 there are DNAT rules to a few tasks of each port.
- A task that takes no new connections keeps its own with weight 0. UDP has no connections: there it goes at once, and
  its clients are spread anew. VIPs therefore have one service for UDP and one for all else.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache, partial

from .frontends import Balanced, Kept, Published, VirtualAddress
from .iptables import PUBLISH_CHAIN, REFUSE_CHAIN, refusals, spread
from .names import BALANCED_MASK, LOCAL, PUBLISHED_BIT, VIP_BIT, VIP_TABLE, chain_name
from .state import Chain, ChainKey, Destination, Jump, Rule, Timeouts

SCHEDULER = "rr"
LOOPBACK_TASKS = 2  # tasks of a port that answer on 127.0.0.1
TIMEOUTS = Timeouts(432_000, 120, 300)
"""Conntrack's own for established connections (5 days), so that an idle connection is not lost after IPVS' 900 s."""

_UDP_BIT = 0x2000  # of VIPs: the service for UDP
PORT_NUMBERS, VIP_NUMBERS = 0x3FFF, 0x1FFF
SYSCTLS = {
    "net/ipv4/vs/conntrack": "1",
    "net/ipv4/vs/expire_nodest_conn": "1",  # packets for a task that is gone are sent elsewhere or refused, not dropped
    "net/ipv4/vs/expire_quiescent_template": "1",
}
_ANY_BIT = PUBLISHED_BIT | VIP_BIT
_MARKED = f"-m mark ! --mark 0x0/{_ANY_BIT:#x}"
_PUBLISHED = f"-m mark --mark {PUBLISHED_BIT:#x}/{PUBLISHED_BIT:#x}"
_RESTORE = (
    f"-m conntrack --ctdir ORIGINAL -m connmark ! --mark 0x0/{_ANY_BIT:#x} "
    f"-j CONNMARK --restore-mark --nfmask {BALANCED_MASK:#x} --ctmask {BALANCED_MASK:#x}"
)
_NEW = "-m conntrack --ctstate NEW -j SWARM-NEW"
_ANSWER_PING = f"-p icmp -m icmp --icmp-type 8 -m mark --mark {VIP_BIT:#x}/{VIP_BIT:#x} -j REDIRECT"
_ACCEPT: Chain = (f"-m connmark ! --mark 0x0/{_ANY_BIT:#x} -j ACCEPT",)


def numbers(keys: Iterable[str], highest: int) -> dict[str, int]:
    """A number from 1 to `highest` for each key, which seldom moves when others come and go: connections hold it.

    Keys for which none is left are missing.
    """
    taken: dict[int, str] = {}
    for key in sorted(set(keys)):
        if len(taken) == highest:
            break
        number = _first_choice(key, highest)
        while number in taken:
            number = number % highest + 1
        taken[number] = key
    return {key: number for number, key in taken.items()}


@lru_cache(maxsize=1 << 15)
def _first_choice(key: str, highest: int) -> int:
    return int.from_bytes(hashlib.blake2s(key.encode(), digest_size=4).digest(), "big") % highest + 1


class IpvsBalancer:
    """Balances with IPVS. See frontends.Balancer."""

    name = "ipvs"

    def balance(
        self, published: Iterable[Published], virtual: Iterable[VirtualAddress], subnets: Mapping[str, str], kept: Kept
    ) -> Balanced:
        ports, vips = list(published), list(virtual)
        chains: dict[ChainKey, Chain] = {
            ("mangle", "SWARM-FRONT"): (_RESTORE, _NEW),
            ("mangle", "SWARM-FRONT-OUT"): (
                "-m ipvs --ipvs -g SWARM-CHOSEN",
                _RESTORE,
                _NEW,
                f"-d 127.0.0.0/8 {_PUBLISHED} -j SWARM-LOOPMARK",
            ),
            # Here for the second time: the task is chosen. The nat hook behind this looks for a route again, by mark.
            ("mangle", "SWARM-CHOSEN"): (
                f"-j MARK --set-xmark 0x0/{BALANCED_MASK:#x}",
                f"-m connmark --mark {PUBLISHED_BIT:#x}/{PUBLISHED_BIT:#x} "
                f"-j MARK --set-xmark {PUBLISHED_BIT:#x}/{PUBLISHED_BIT:#x}",
            ),
            ("mangle", "SWARM-LOOPMARK"): tuple(
                f"-j {target} --set-xmark {PUBLISHED_BIT:#x}/{BALANCED_MASK:#x}" for target in ("CONNMARK", "MARK")
            ),
            ("filter", "SWARM-BALANCED"): _ACCEPT,
        }
        services: dict[int, str] = {}
        destinations: dict[Destination, int] = {}
        problems = [
            *_published(ports, chains, services, destinations, kept),
            *_virtual(vips, subnets, chains, services, destinations, kept),
        ]
        return Balanced(
            chains=chains,
            jumps=frozenset({Jump("filter", "INPUT", "SWARM-BALANCED")}),
            services=services,
            destinations=destinations,
            timeouts=TIMEOUTS,
            routes={(VIP_TABLE, "0.0.0.0/0"): (LOCAL, "lo")},
            rules=frozenset({Rule(VIP_BIT, VIP_BIT, VIP_TABLE)}),
            sysctls=SYSCTLS,
            problems=tuple(problems),
        )


def _mark(match: str, mark: int) -> str:
    """The whole mark is set: IPVS compares all of it."""
    return f"{match} -j MARK --set-xmark {mark:#x}/0xffffffff"


def _published(
    ports: list[Published],
    chains: dict[ChainKey, Chain],
    services: dict[int, str],
    destinations: dict[Destination, int],
    kept: Kept,
) -> list[str]:
    found = numbers((port.name for port in ports), PORT_NUMBERS)
    marks: list[str] = []
    loopback: list[str] = []
    problems = []
    for port in ports:
        number = found.get(port.name)
        if number is None:
            problems.append(f"port {port.port}/{port.protocol}: IPVS takes {PORT_NUMBERS} published ports")
            continue
        mark = PUBLISHED_BIT | number
        served = kept.keep("ipvs", mark, port, partial(_served, mark, port, udp=port.protocol == "udp"))
        services.update(served[0])
        destinations.update(served[1])
        if port.targets:
            rules, jumps, chain, content = kept.keep("ipvs rules", mark, port, partial(_port_rules, port, mark))
            marks += rules
            if jumps:
                loopback += jumps
                chains["nat", chain] = content
    chains["mangle", PUBLISH_CHAIN] = tuple(reversed(marks))  # the last one that fits counts
    chains["nat", "SWARM-LOOPBACK"] = tuple(loopback)
    chains["nat", "SWARM-PRE"] = ("-d 127.0.0.0/8 -j SWARM-LOOPBACK", _ANSWER_PING)
    return problems


def _port_rules(port: Published, mark: int) -> tuple[Chain, Chain, str, Chain]:
    """Rules that mark its packets; for 127.0.0.1 the rules that lead to a chain, its name and content."""
    chain = port.chain("L")
    jumps = tuple(f"{match} -j {chain}" for match in port.matches) if port.on_loopback else ()
    marks = tuple(_mark(match, mark) for match in port.matches)
    return marks, jumps, chain, spread(port.targets[:LOOPBACK_TASKS], port.protocol)


def _virtual(
    vips: list[VirtualAddress],
    subnets: Mapping[str, str],
    chains: dict[ChainKey, Chain],
    services: dict[int, str],
    destinations: dict[Destination, int],
    kept: Kept,
) -> list[str]:
    found = numbers((vip.vip for vip in vips), VIP_NUMBERS)
    marks: dict[str, list[str]] = defaultdict(list)
    problems = []
    for vip in vips:
        number = found.get(vip.vip)
        if number is None:
            problems.append(f"VIP {vip.vip}: IPVS takes {VIP_NUMBERS} VIPs")
            continue
        mark = VIP_BIT | number
        for each, udp in ((mark, False), (mark | _UDP_BIT, True)):
            served = kept.keep("ipvs", each, vip, partial(_served, each, vip, udp=udp))
            services.update(served[0])
            destinations.update(served[1])
        if vip.targets:
            marks[vip.network_id] += kept.keep("ipvs rules", mark, vip, partial(_vip_rules, vip, mark))
    new = [f"-m addrtype --dst-type LOCAL -j {PUBLISH_CHAIN}"]
    for network_id, rules in sorted(marks.items()):
        chain = chain_name("N", network_id)
        new.append(f"-d {subnets[network_id]} -j {chain}")
        chains["mangle", chain] = tuple(rules)
    new.append(
        f"{_MARKED} -j CONNMARK --save-mark --nfmask {BALANCED_MASK:#x} --ctmask {BALANCED_MASK:#x}",
    )
    chains["mangle", "SWARM-NEW"] = tuple(new)
    chains["filter", REFUSE_CHAIN] = (*refusals(vips), "-j SWARM-BALANCED")
    return problems


def _vip_rules(vip: VirtualAddress, mark: int) -> Chain:
    return (
        _mark(f"-d {vip.vip}/32 ! -p udp", mark),
        _mark(f"-d {vip.vip}/32 -p udp", mark | _UDP_BIT),
    )


def _served(
    mark: int, frontend: Published | VirtualAddress, *, udp: bool
) -> tuple[dict[int, str], dict[Destination, int]]:
    """The service of a frontend, if it needs one, and its destinations."""
    targets, draining = frontend.targets, frontend.draining
    if not targets and (udp or not draining):
        return {}, {}
    destinations: dict[Destination, int] = {}
    if not udp:
        destinations.update({(mark, target.ip, target.port): 0 for target in draining})
    destinations.update({(mark, target.ip, target.port): 1 for target in targets})
    return {mark: SCHEDULER}, destinations
