"""netcheck: what goes over the wire, as scapy reads it, and what is made of the reports of all hosts."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.swarm.cluster.plugins.module_utils import netcheck
from ansible_collections.swarm.cluster.plugins.module_utils.netprobe import Prober
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN

MESSAGE = {"run": "7", "from": "a", "complete": ["b"], "sized": ["b"], "sent": 1.5}
PEERS = {"a": "192.0.2.1", "b": "192.0.2.2"}


def packet(payload: bytes, port: int, source: str = "192.0.2.1") -> bytes:
    return bytes(IP(src=source, dst="192.0.2.2") / UDP(sport=40000, dport=port) / payload)


def healthy(*names: str) -> dict[str, Any]:
    """Reports of hosts between which all is well; the first is the only manager."""
    reports = {}
    for number, name in enumerate(names):
        others = [other for other in names if other != name]
        reports[name] = {
            "name": name,
            "address": f"192.0.2.{names.index(name) + 1}",
            "machine_id": f"{number:032x}",
            "mtu": 1500,
            "heard": {
                other: {
                    "gossip": True, "vxlan": True, "encrypted": True, "mtu": 1500, "one_way": 0.001,
                    "sources": [f"192.0.2.{names.index(other) + 1}"],
                }
                for other in others
            },
            "tcp": {other: {str(p): "open" for p in netcheck.tcp_ports(other, names[:1])} for other in others},
        }  # fmt: skip
    return reports


def checks(reports: dict[str, Any]) -> list[tuple[str, list[str]]]:
    return [(finding["check"], finding["hosts"]) for finding in netcheck.judge(reports, ["a"])]


def test_the_vxlan_probe_is_a_vxlan_frame() -> None:
    frame = VXLAN(netcheck.vxlan_frame(MESSAGE))
    assert frame.flags == "Instance" and frame.vni == netcheck.PROBE_VNI
    inner = frame[Ether]
    assert inner.dst == "ff:ff:ff:ff:ff:ff" and inner.type == 0x88B5 and inner.src.startswith("02:")


@pytest.mark.parametrize("size", netcheck.MTU_SIZES)
def test_probes_of_a_size_make_ip_packets_of_that_size(size: int) -> None:
    sent = packet(netcheck.datagram(MESSAGE, size), 7946)
    assert len(sent) == size
    assert netcheck.parse(sent) == ("192.0.2.1", 7946, size, MESSAGE)


def test_both_kinds_are_understood_and_tell_where_they_came_from() -> None:
    assert netcheck.parse(packet(netcheck.datagram(MESSAGE), 7946, "198.51.100.9"))[0] == "198.51.100.9"
    source, port, _, message = netcheck.parse(packet(netcheck.vxlan_frame(MESSAGE), 4789))
    assert (source, port, message) == ("192.0.2.1", 4789, MESSAGE)


@given(st.binary(max_size=80))
def test_other_peoples_packets_are_passed_over(noise: bytes) -> None:
    assert netcheck.parse(noise) is None
    assert netcheck.parse(packet(noise, 4789)) is None


def test_nothing_is_found_where_all_is_well() -> None:
    reports = healthy("a", "b", "c")
    assert checks(reports) == []
    assert netcheck.matrix(reports, ["a"]) == [
        "from \\ to  a             b             c",
        "a          -             ok, mtu 1500  ok, mtu 1500",
        "b          ok, mtu 1500  -             ok, mtu 1500",
        "c          ok, mtu 1500  ok, mtu 1500  -",
    ]


def test_what_is_lost_is_named_with_its_direction_and_what_to_open() -> None:
    reports = healthy("a", "b")
    reports["b"]["heard"]["a"]["vxlan"] = False
    reports["b"]["tcp"]["a"]["2377"] = "no answer"
    findings = netcheck.judge(reports, ["a"])
    assert [finding["hosts"] for finding in findings] == [["a", "b"], ["b", "a"]]
    assert findings[0]["fix"] == "on b, and in every filter on the way, let 4789/udp in from 192.0.2.1"
    assert findings[1]["found"] == "from b to a: 2377/tcp (no answer)"
    assert "no 4789/udp" in "\n".join(netcheck.report_text(reports, ["a"]))


def test_the_port_of_encrypted_networks_is_told_of_and_stops_nobody() -> None:
    reports = healthy("a", "b")
    reports["b"]["heard"]["a"]["encrypted"] = False
    assert checks(reports) == []
    [note] = netcheck.notes(reports)
    assert "4790/udp" in note and "from a to b" in note and "from b to a" not in note
    assert note in netcheck.report_text(reports, ["a"])
    # A host that is not heard at all has a finding, and needs no note.
    reports["b"]["heard"]["a"]["gossip"] = False
    assert netcheck.notes(reports) == []


def test_a_worker_need_not_be_reached_on_the_managers_port() -> None:
    assert netcheck.tcp_ports("b", ["a"]) == [7946]
    assert netcheck.tcp_ports("a", ["a"]) == [2377, 7946]


def test_a_path_that_swallows_large_packets() -> None:
    reports = healthy("a", "b")
    reports["b"]["heard"]["a"]["mtu"] = 1400
    [finding] = netcheck.judge(reports, ["a"])
    assert finding["check"] == "mtu" and "com.docker.network.driver.mtu=1350" in finding["fix"]


def test_a_small_interface_is_no_fault_of_the_path() -> None:
    reports = healthy("a", "b")
    reports["b"]["mtu"] = 1450
    for here, there in (("a", "b"), ("b", "a")):
        reports[here]["heard"][there]["mtu"] = 1450
    assert checks(reports) == []


@pytest.mark.parametrize(("ahead", "word"), [(5.0, "ahead of"), (-5.0, "behind")])
def test_clocks_apart_are_seen_through_one_way_times(ahead: float, word: str) -> None:
    reports = healthy("a", "b")
    reports["b"]["heard"]["a"]["one_way"] = 0.010 + ahead
    reports["a"]["heard"]["b"]["one_way"] = 0.010 - ahead
    [finding] = netcheck.judge(reports, ["a"])
    assert finding["found"] == f"b is 5.0 s {word} a"


def test_slow_ways_are_not_taken_for_clocks() -> None:
    reports = healthy("a", "b")
    for here, there in (("a", "b"), ("b", "a")):
        reports[here]["heard"][there]["one_way"] = 3.0
    assert checks(reports) == []


def test_one_machine_id_on_two_hosts() -> None:
    reports = healthy("a", "b", "c")
    reports["c"]["machine_id"] = reports["a"]["machine_id"]
    assert checks(reports) == [("machine id", ["a", "c"])]


def test_translated_addresses() -> None:
    reports = healthy("a", "b")
    reports["b"]["heard"]["a"]["sources"] = ["203.0.113.7"]
    [finding] = netcheck.judge(reports, ["a"])
    assert finding["found"] == "b sees a as 203.0.113.7, not as 192.0.2.1"


@given(st.data())
def test_every_fault_that_is_put_in_is_found(data: st.DataObject) -> None:
    reports = healthy("a", "b", "c")
    whole = copy.deepcopy(reports)
    source, target = data.draw(st.permutations(["a", "b", "c"]))[:2]
    kind = data.draw(st.sampled_from(["gossip", "vxlan", "tcp"]))
    if kind == "tcp":
        reports[source]["tcp"][target]["7946"] = "refused"
    else:
        reports[target]["heard"][source][kind] = False
    assert checks(reports) == [("ports", [source, target])]
    assert checks(whole) == []


def test_a_prober_is_finished_when_both_sides_have_all() -> None:
    prober = Prober("b", PEERS, ["a"], "7", 1500)
    prober.take(packet(netcheck.datagram({**MESSAGE, "complete": []}), 7946), now=2.0)
    prober.take(packet(netcheck.vxlan_frame({**MESSAGE, "complete": []}), 4789), now=2.0)
    assert prober.heard["a"]["one_way"] == 0.5 and not prober.complete("a")
    prober.tcp["a"] = dict.fromkeys(prober.tcp["a"], "open")
    assert prober.complete("a") and not prober.finished()
    prober.take(packet(netcheck.datagram(MESSAGE), 7946), now=2.0)
    assert prober.finished()


def test_large_packets_are_sent_until_a_peer_that_starts_late_has_had_them() -> None:
    prober = Prober("a", PEERS, ["a"], "7", 1500)

    def sizes() -> int:
        return sum(len(payload) > 1000 for _, payload in prober.probes_for("b"))

    assert all(sizes() > 5 for _ in range(20))
    heard = {"run": "7", "from": "b", "complete": [], "sized": [], "sent": 1.0}
    prober.take(packet(netcheck.datagram(heard), 7946, "192.0.2.2"), now=2.0)
    assert [sizes() > 5 for _ in range(5)] == [True, True, True, False, False]
    assert prober.message()["sized"] == ["b"]


def test_a_prober_waits_for_the_large_packets() -> None:
    prober = Prober("b", PEERS, ["a"], "7", 1500)
    prober.tcp["a"] = dict.fromkeys(prober.tcp["a"], "open")
    early = {**MESSAGE, "sized": []}
    for payload, port in ((netcheck.datagram(early), 7946), (netcheck.vxlan_frame(early), 4789)):
        prober.take(packet(payload, port), now=2.0)
    assert not prober.complete("a")
    prober.take(packet(netcheck.datagram(MESSAGE), 7946), now=2.0)
    assert prober.complete("a")


def test_probes_of_another_run_do_not_count() -> None:
    prober = Prober("b", PEERS, ["a"], "8", 1500)
    prober.take(packet(netcheck.vxlan_frame(MESSAGE), 4789), now=2.0)
    assert not prober.heard["a"]["vxlan"]
