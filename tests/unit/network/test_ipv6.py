"""What a network with IPv6 adds to a host's plan."""

from __future__ import annotations

import dataclasses

import pytest

from swarm_agent.model.addresses import mac_of
from swarm_agent.model.objects import Network, NetworkDriverState
from swarm_agent.model.rows import AddressRow, EndpointRow, PeerRow
from swarm_agent.model.specs import IPAMConfig, IPAMOptions, NetworkSpec
from swarm_agent.network.conntrack import Answers, SentTo
from swarm_agent.network.drain import stale_connections
from swarm_agent.network.engine import creation_request, read_network
from swarm_agent.network.iptables import IptablesBalancer
from swarm_agent.network.ipv6 import lacking
from swarm_agent.network.ipvs import IpvsBalancer
from swarm_agent.network.plan import plan
from swarm_agent.network.report import frontends
from swarm_agent.network.state import KernelPlan
from swarm_agent.network.tables import VNI_OPTION, HostFacts, Lacking, NetworkTables, duals_of

FACTS = HostFacts("me", "192.168.7.1")
LINK, BRIDGE = "swv-dual", "swb-dual"


def dual(subnet: str = "10.9.0.0/24", subnet6: str = "fd00:9::/64", **spec: bool) -> Network:
    return Network(
        id="dual",
        spec=NetworkSpec(name="front", ipv6_enabled=True, **spec),
        driver_state=NetworkDriverState("overlay", {VNI_OPTION: "4099"}),
        ipam_options=IPAMOptions(configs=[IPAMConfig(subnet), IPAMConfig(subnet6)]),
    )


def row(number: int, vip: str = "10.9.0.5", active: bool = True) -> EndpointRow:
    ip = f"10.9.0.{number}"
    return EndpointRow(f"t{number}", "s", "web", 1, "c", (AddressRow("dual", ip, mac_of(ip), vip),), (), active)


ROWS = [("me", row(16)), ("other", row(17))]


def tables(network: Network | None = None, rows: list[tuple[str, EndpointRow]] | None = None) -> NetworkTables:
    return NetworkTables(
        networks=[network or dual()],
        own={"dual": "10.9.0.2/24"},
        hosts={"me": "192.168.7.1", "other": "192.168.7.2"},
        endpoints=ROWS if rows is None else rows,
        peers=[("other", PeerRow("dual", "10.9.0.3", mac_of("10.9.0.3")))],
    )


def planned(facts: HostFacts = FACTS, **changes: object) -> KernelPlan:
    return plan(tables(**changes), facts, IptablesBalancer())  # type: ignore[arg-type]


def test_the_engines_network_and_its_bridge_have_both_families() -> None:
    state = planned().state
    network = state.networks["dual"]
    assert (network.subnet6, network.gateway6, network.ip_range6) == ("fd00:9::/64", "fd00:9::2", "fd00:9::fc/126")
    assert state.bridges[BRIDGE].address6 == "fd00:9::2/64"
    request = creation_request(network, "front", 28)
    assert request["EnableIPv6"] and request["IPAM"]["Config"][1]["Subnet"] == "fd00:9::/64"
    assert read_network("dual", {**request, "IPAM": {"Config": request["IPAM"]["Config"][::-1]}}) == network


def test_small_subnets_are_whole_ranges() -> None:
    small = dataclasses.replace(tables(dual("10.9.0.0/29", "fd00:9::/125")), own={"dual": "10.9.0.2/29"})
    network = plan(small, FACTS, IptablesBalancer()).state.networks["dual"]
    assert (network.ip_range, network.ip_range6) == ("10.9.0.0/29", "fd00:9::/125")


def test_neighbours_of_both_families_lead_to_one_mac() -> None:
    neighbours = planned().state.neighbours
    for address in ("10.9.0.17", "fd00:9::11"):
        assert neighbours[LINK, address] == mac_of("10.9.0.17")
    for address in ("10.9.0.3", "fd00:9::3"):
        assert neighbours[LINK, address] == mac_of("10.9.0.3")
    assert (LINK, "fd00:9::10") not in neighbours
    assert neighbours[LINK, "fd00:9::5"] == mac_of("10.9.0.2"), "a VIP is answered by this host's own bridge"


def test_vips_are_spread_by_ip6tables_whatever_balances_ipv4() -> None:
    states = [plan(tables(), FACTS, balancer).state for balancer in (IptablesBalancer(), IpvsBalancer())]
    for state in states:
        [jump] = [
            rule
            for key, rules in state.chains.items()
            if key[1].startswith("SWARM-N") and key[0] == "nat6"
            for rule in rules
        ]
        chain = state.chains["nat6", jump.rpartition(" ")[2]]
        assert jump.startswith("-d fd00:9::5/128 -j SWARM-V-")
        assert [rule.rpartition(" ")[2] for rule in chain[1:]] == ["fd00:9::10", "fd00:9::11"]
        assert state.chains["nat6", "SWARM-POST"] == (
            f"-o {BRIDGE} -m connmark --mark 0x4000/0x4000 -j SNAT --to-source fd00:9::2",
        )


def test_a_vip_without_an_active_task_refuses() -> None:
    chains = planned(rows=[("me", row(16, active=False))]).state.chains
    assert chains["filter6", "SWARM-REFUSE"] == ("-d fd00:9::5/128 -j REJECT --reject-with icmp6-port-unreachable",)


def test_nothing_is_forwarded_to_the_network_but_answers() -> None:
    forward = planned().state.chains["filter6", "SWARM-FORWARD"]
    assert forward[-1] == f"-o {BRIDGE} -j DROP"
    assert planned(network=dual(internal=True)).state.chains["filter6", "SWARM-FORWARD"][-1] == f"-i {BRIDGE} -j DROP"


def test_a_host_without_ip6tables_nat_says_so_and_has_all_but_vips() -> None:
    result = planned(dataclasses.replace(FACTS, lacking=Lacking(vips="no nat table")))
    assert result.problems == ("VIPs of IPv6 on front: no nat table; there names have tasks' addresses of IPv6 alone",)
    full = planned().state
    assert result.state.neighbours == {key: mac for key, mac in full.neighbours.items() if key[1] != "fd00:9::5"}
    assert {table for table, _ in result.state.chains if table.endswith("6")} == {"filter6"}
    assert result.state.networks == full.networks


def test_a_host_without_ip6tables_has_no_rules_of_it_and_forwards_all_else() -> None:
    result = planned(dataclasses.replace(FACTS, lacking=Lacking("", "not installed", "not installed")))
    assert not [table for table, _ in result.state.chains if table.endswith("6")]
    assert not [jump for jump in result.state.jumps if jump.table.endswith("6")]
    assert result.state.neighbours[LINK, "fd00:9::11"] == mac_of("10.9.0.17")
    assert "not installed" in result.problems[0]


def test_a_host_without_the_program_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    found = lacking()
    assert found.ipv6 == "" and "ip6tables" in found.rules and found.vips == found.rules


def test_a_host_without_ipv6_has_no_such_network_and_says_why() -> None:
    result = planned(dataclasses.replace(FACTS, lacking=Lacking(*["the kernel has none"] * 3)))
    assert result.state.networks == {}
    assert result.problems[0] == "network front (dual) has IPv6: the kernel has none"


def test_networks_without_ipv6_need_nothing_of_it() -> None:
    network = dual()
    state = planned(
        network=Network(network.id, spec=NetworkSpec(name="front"), driver_state=network.driver_state)
    ).state
    assert not [table for table, _ in state.chains if table.endswith("6")]
    assert not [path for path in state.sysctls if "ipv6" in path]
    assert not [ip for _, ip in state.neighbours if ":" in ip]


def test_connections_of_both_families_are_forgotten() -> None:
    found = stale_connections(ROWS, [], duals_of([dual()]))
    assert found == [Answers("10.9.0.16"), Answers("10.9.0.17"), Answers("fd00:9::10"), Answers("fd00:9::11")]
    assert SentTo("udp", ip="fd00:9::5") in stale_connections([], ROWS, duals_of([dual()]))


def test_the_report_has_the_vips_of_both_families() -> None:
    state = planned().state
    names = {item.name: item for item in frontends(ROWS, tables(), "me", state, {})}
    assert names.keys() == {"10.9.0.5", "fd00:9::5"}
    assert [one.address for one in names["fd00:9::5"].backends] == ["fd00:9::10", "fd00:9::11"]
    assert names["fd00:9::5"].programmed.startswith("nat6 SWARM-V-")


def test_a_packet_to_a_vip_takes_no_mark_into_the_tunnel() -> None:
    """With IPVS beside, marked packets are routed to the host itself: frames in their tunnel were, by that mark."""
    for balancer in (IptablesBalancer(), IpvsBalancer()):
        chains = plan(tables(), FACTS, balancer).state.chains
        vips = [rule for (_, name), content in chains.items() if name.startswith("SWARM-V-") for rule in content]
        assert any("DNAT --to-destination fd00:9::" in rule for rule in vips)
        assert not [rule for rule in vips if " MARK " in rule]
