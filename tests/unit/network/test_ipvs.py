"""What the IPVS balancer makes of ports and VIPs, and how it is said to the kernel."""

from __future__ import annotations

import pytest

from swarm_agent.network.choice import choose
from swarm_agent.network.frontends import Kept, Published, Target, VirtualAddress
from swarm_agent.network.ipvs import IpvsBalancer, numbers
from swarm_agent.network.ipvs_netlink import encoded, is_ours
from swarm_agent.network.names import LOCAL, PUBLISHED_BIT, VIP_BIT, VIP_TABLE
from swarm_agent.network.state import Rule, SetDestination, SetService

A, B, C = (Target(f"10.0.0.{number}", 80) for number in (3, 4, 5))
SUBNETS = {"net": "10.0.1.0/24"}


def port(*targets: Target, draining: tuple[Target, ...] = (), protocol: str = "tcp") -> Published:
    return Published(protocol, 8080, targets, draining)


def test_a_port_is_one_mark_and_one_service_however_many_tasks_it_has() -> None:
    few, many = (IpvsBalancer().balance([port(*tasks)], [], {}, Kept()) for tasks in ((A,), (A, B, C)))
    (mark,) = many.services
    assert mark & PUBLISHED_BIT and not mark & VIP_BIT
    assert many.chains["mangle", "SWARM-PUBLISH"] == few.chains["mangle", "SWARM-PUBLISH"]
    assert many.chains["mangle", "SWARM-PUBLISH"] == (
        f"-p tcp -m tcp --dport 8080 -j MARK --set-xmark {mark:#x}/0xffffffff",
    )
    assert many.destinations == {(mark, task.ip, 80): 1 for task in (A, B, C)}


def test_draining_tasks_keep_connections_and_get_no_new_ones() -> None:
    balanced = IpvsBalancer().balance([port(A, draining=(B,))], [], {}, Kept())
    assert sorted(balanced.destinations.values()) == [0, 1]
    assert {ip: weight for (_, ip, _), weight in balanced.destinations.items()} == {A.ip: 1, B.ip: 0}


def test_udp_clients_leave_a_draining_task_at_once() -> None:
    balanced = IpvsBalancer().balance([port(A, draining=(B,), protocol="udp")], [], {}, Kept())
    assert [ip for _, ip, _ in balanced.destinations] == [A.ip]


def test_a_port_whose_tasks_all_drain_takes_no_new_connection() -> None:
    balanced = IpvsBalancer().balance([port(draining=(A,))], [], {}, Kept())
    assert balanced.chains["mangle", "SWARM-PUBLISH"] == ()
    assert list(balanced.destinations.values()) == [0]


def test_a_vip_has_a_service_for_udp_and_one_for_all_else_on_any_port() -> None:
    vip = VirtualAddress("net", "10.0.1.9", (Target("10.0.1.3"),))
    balanced = IpvsBalancer().balance([], [vip], SUBNETS, Kept())
    assert len(balanced.services) == 2
    assert all(mark & VIP_BIT and not mark & PUBLISHED_BIT for mark in balanced.services)
    assert {(ip, port) for _, ip, port in balanced.destinations} == {("10.0.1.3", 0)}
    assert balanced.routes == {(VIP_TABLE, "0.0.0.0/0"): (LOCAL, "lo")}
    assert balanced.rules == {Rule(VIP_BIT, VIP_BIT, VIP_TABLE)}


def test_a_vip_without_tasks_refuses() -> None:
    balanced = IpvsBalancer().balance([], [VirtualAddress("net", "10.0.1.9", ())], SUBNETS, Kept())
    assert balanced.services == {}
    assert "-d 10.0.1.9/32 -j REJECT --reject-with icmp-port-unreachable" in balanced.chains["filter", "SWARM-REFUSE"]


def test_numbers_seldom_move_and_end() -> None:
    keys = [f"tcp/{number}" for number in range(1000)]
    before, after = numbers(keys, 0x3FFF), numbers(keys[:-1], 0x3FFF)
    assert len(set(before.values())) == 1000
    assert sum(before[key] != after[key] for key in after) <= 2
    assert len(numbers(keys, 100)) == 100


def test_more_ports_than_there_are_numbers_are_named() -> None:
    ports = [Published(protocol, number, (A,)) for protocol in ("tcp", "udp") for number in range(1, 10_001)]
    balanced = IpvsBalancer().balance(ports, [], {}, Kept())
    assert len(balanced.services) == 0x3FFF
    assert len(balanced.problems) == 20_000 - 0x3FFF
    assert balanced.problems[0].startswith("port ")


def test_services_of_others_are_not_ours() -> None:
    assert is_ours(0x8001) and is_ours(0x6001)
    assert not is_ours(0) and not is_ours(1) and not is_ours(0x18001)


def test_messages_are_laid_out_as_the_kernel_reads_them() -> None:
    assert encoded(SetService(0x8001, "rr")) == (1, bytes.fromhex(
        "38000180" "0600010002000000" "0800050001800000" "0700060072720000"
        "0c00070000000000ffffffff" "0800080000000000" "08000900ffffffff"
    ))  # fmt: skip
    kind, body = encoded(SetDestination(0x8001, "10.0.0.3", 80, 1))
    assert kind == 5
    assert bytes.fromhex("140001000a000003000000000000000000000000") in body
    assert bytes.fromhex("0600020000500000") in body


def test_an_unknown_balancer_is_named() -> None:
    with pytest.raises(LookupError, match="known are auto, ipvs, iptables"):
        choose("nftables")
    assert choose("iptables")[0].name == "iptables"


def test_a_packet_whose_task_is_chosen_has_no_mark_that_leads_back_to_this_host() -> None:
    """The kernel looks for a route again after IPVS; by the VIP's mark that was this host, and the packet was lost."""
    vip = VirtualAddress("net", "10.0.1.9", (Target("10.0.1.3"),))
    chains = IpvsBalancer().balance([port(A)], [vip], SUBNETS, Kept()).chains
    assert chains["mangle", "SWARM-FRONT-OUT"][0] == "-m ipvs --ipvs -g SWARM-CHOSEN"
    assert chains["mangle", "SWARM-CHOSEN"] == (
        "-j MARK --set-xmark 0x0/0xffff",
        "-m connmark --mark 0x8000/0x8000 -j MARK --set-xmark 0x8000/0x8000",
    )


def test_a_port_bound_to_addresses_wins_over_an_unbound_one_and_leaves_loopback_alone() -> None:
    bound = Published("tcp", 8080, (A,), (), ("10.9.0.5/32",))
    chains = IpvsBalancer().balance([bound, port(B)], [], {}, Kept()).chains
    first, last = chains["mangle", "SWARM-PUBLISH"]
    assert first.startswith("-p tcp") and last.startswith("-d 10.9.0.5/32 -p tcp")  # the last mark counts
    assert chains["nat", "SWARM-LOOPBACK"] == ("-p tcp -m tcp --dport 8080 -j SWARM-L-tcp-8080",)
