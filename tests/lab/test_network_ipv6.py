"""A network with IPv6, with real packets: three hosts in network namespaces (network_bed.py)."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterator

import pytest

sys.path.insert(0, os.path.dirname(__file__))

from network_bed import PATIENCE, Bed, Container, Host, eventually

from swarm_agent.network import ipv6

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(bool(ipv6.lacking().vips), reason=ipv6.lacking().vips),
    pytest.mark.timeout(120 * PATIENCE),
]
VIP, VIP6 = "10.0.2.200", "fd00:2::c8"


@pytest.fixture(scope="module")
def made() -> Iterator[Bed]:
    with Bed() as bed:
        yield bed


@pytest.fixture
def tasks(bed: Bed) -> list[Container]:
    """A task of one service on every host, 61 (fd00:2::3d) to 63."""
    found = []
    for number, host in enumerate(bed.hosts, start=1):
        found.append(bed.container(host, f"d{number}", 60 + number, ["dual"]))
        bed.rows.append((host.name, bed.row(f"d{number}", 60 + number, ["dual"], (), {"dual": VIP})))
    bed.update()
    return found


def call(bed: Bed, source: Host | Container, address: str, **more: object) -> list[str]:
    return bed.ask(source.namespace, address, 80, **more)  # type: ignore[arg-type]


def test_tasks_reach_each_other_across_hosts_in_both_families(bed: Bed, tasks: list[Container]) -> None:
    first, second, _ = tasks
    assert call(bed, first, "fd00:2::3e") == ["d2 fd00:2::3d"]
    assert call(bed, first, "10.0.2.62") == ["d2 10.0.2.61"]
    assert call(bed, second, "fd00:2::3d", payload=3_000_000) == ["d1 fd00:2::3e 3000000"]
    assert bed.ask(first.namespace, "fd00:2::3f", 53, kind="udp") == ["d3 fd00:2::3d"]
    assert call(bed, bed.hosts[2], "fd00:2::3e") == ["d2 fd00:2::d"]


def test_a_vip_reaches_all_tasks_from_every_host_and_itself(bed: Bed, tasks: list[Container]) -> None:
    for source in (*tasks, *bed.hosts):
        answers = call(bed, source, VIP6, count=40)
        assert {answer.split()[0] for answer in answers} == {"d1", "d2", "d3"}, f"{source.name}: {answers}"
    udp = bed.ask(tasks[0].namespace, VIP6, 53, kind="udp", count=40)
    assert {answer.split()[0] for answer in udp} == {"d1", "d2", "d3"}


def test_a_vip_answers_ping_in_both_families(bed: Bed, tasks: list[Container]) -> None:
    for address in (VIP6, "fd00:2::3f", VIP, "10.0.2.63"):
        bed.ping("d1", address)


def test_a_vip_without_an_active_task_refuses_at_once(bed: Bed) -> None:
    source = bed.container(bed.hosts[0], "d1", 61, ["dual"])
    bed.rows.append(("h2", bed.row("d2", 62, ["dual"], (), {"dual": VIP}, active=False)))
    bed.update()
    for asking in (source, bed.hosts[0]):
        assert "refused" in call(bed, asking, VIP6)[0]


def test_nobody_else_is_let_in(bed: Bed, tasks: list[Container]) -> None:
    """A host forwards IPv6 for one network, so it would for all: a task of another network must not get in."""
    bed.container(bed.hosts[0], "c1", 21, ["net1"])
    bed.inside("c1", 'import subprocess as s; s.run("ip -6 addr add fd00:f::2/64 dev eth0 nodad".split(), check=True)')
    bed.hosts[0].run("ip -6 addr replace fd00:f::1/64 dev swb-net1 nodad")
    bed.inside("c1", 'import subprocess as s; s.run("ip -6 route add fd00:2::/64 via fd00:f::1".split(), check=True)')
    assert bed.ask(bed.prefix + "c1", "fd00:2::3d", 80)[0].startswith("error timed out")


DAMAGES = {
    "ip6tables flushed": ["ip6tables -t nat -F", "ip6tables -F"],
    "our chains emptied": ["ip6tables -t nat -F SWARM-VIP"],
    "a rule put before ours": ["ip6tables -I FORWARD 1 -d fd00::/16 -j DROP"],
    "neighbours lost": ["ip -6 neigh flush dev swv-dual nud permanent"],
    "vxlan deleted": ["ip link del swv-dual"],
    "address of the bridge lost": ["ip -6 addr flush dev swb-dual scope global"],
    "IPv6 switched off": ["sysctl -qw net.ipv6.conf.swv-dual.disable_ipv6=1"],
    "forwarding switched off": ["sysctl -qw net.ipv6.conf.all.forwarding=0"],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_repaired(bed: Bed, tasks: list[Container], damage: str) -> None:
    for host in bed.hosts:
        for command in DAMAGES[damage]:
            host.run(command)
    try:
        for source in tasks:
            assert eventually(
                lambda s=source: len({answer.split()[0] for answer in call(bed, s, VIP6, count=20)} - {"error"}) == 3  # type: ignore[misc]
            )
    finally:
        for host in bed.hosts:
            host.run("ip6tables -D FORWARD -d fd00::/16 -j DROP", check=False)


def test_connections_to_a_task_that_is_gone_are_forgotten(bed: Bed, tasks: list[Container]) -> None:
    first = bed.hosts[0]
    call(bed, tasks[0], VIP6, count=20)
    assert tracked(first, VIP6, "fd00:2::3e") and tracked(first, VIP6, "fd00:2::3f")
    bed.update(alive=[first, bed.hosts[2]])
    assert not tracked(first, VIP6, "fd00:2::3e") and tracked(first, VIP6, "fd00:2::3f")
    assert {answer.split()[0] for answer in call(bed, tasks[0], VIP6, count=20)} == {"d1", "d3"}


def tracked(host: Host, vip: str, task: str) -> bool:
    """Whether the host tracks a connection to the VIP that a task answers."""
    sent, answers = (ipaddress.IPv6Address(address).exploded for address in (vip, task))
    entries = host.run("cat /proc/net/nf_conntrack").splitlines()
    return any(f"dst={sent}" in entry and f"src={answers}" in entry for entry in entries)


def test_removal_takes_all_of_it_away(bed: Bed, tasks: list[Container]) -> None:
    host = bed.hosts[1]
    bed.reset()
    assert ":SWARM-VIP" in host.run("ip6tables-save")
    assert host.command("remove") == "removed"
    assert "SWARM" not in host.run("ip6tables-save")
    assert "fd00:2:" not in host.run("ip -6 neigh show nud permanent") + host.run("ip -6 addr")
    bed.update()
