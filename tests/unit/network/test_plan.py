"""What a plan holds for given tables, by name."""

from __future__ import annotations

from swarm_agent.model.addresses import mac_of, reserved_range
from swarm_agent.model.objects import Network, NetworkDriverState
from swarm_agent.model.rows import AddressRow, EndpointRow, PeerRow, PortRow
from swarm_agent.model.specs import Driver, NetworkSpec
from swarm_agent.network.diff import kernel_operations
from swarm_agent.network.iptables import IptablesBalancer
from swarm_agent.network.names import HOST_MASK, MESH_LINK, PUBLISH_TABLE, TABLE_BASE, host_indexes, mesh_mac
from swarm_agent.network.plan import endpoint_fault, plan
from swarm_agent.network.state import Bridge, KernelPlan, KernelState, RemoveLink, Rule
from swarm_agent.network.tables import VNI_OPTION, HostFacts, NetworkTables, own_peer_rows

FACTS = HostFacts("me", "192.168.7.1", mtu=9000, port=4790)
INGRESS = Network(
    id="ingressid0123456789", spec=NetworkSpec(name="ingress", ingress=True),
    driver_state=NetworkDriverState("overlay", {VNI_OPTION: "4097"}),
)  # fmt: skip
HOSTS = {"me": "192.168.7.1", "other": "192.168.7.2"}


def row(
    number: int, *ports: PortRow, active: bool = True, vip: str = "", network: str = INGRESS.id, task: str = ""
) -> EndpointRow:
    ip = f"10.0.0.{number}"
    address = AddressRow(network, ip, mac_of(ip), vip)
    return EndpointRow(task or f"t{number}", "s", "web", 1, "c", (address,), ports, active)


def planned(*endpoints: tuple[str, EndpointRow], **changes: object) -> KernelPlan:
    values: dict[str, object] = {
        "networks": [INGRESS],
        "own": {INGRESS.id: "10.0.0.2/24"},
        "hosts": HOSTS,
        "endpoints": endpoints,
    }
    return plan(NetworkTables(**(values | changes)), FACTS, IptablesBalancer())  # type: ignore[arg-type]


WEB = PortRow("tcp", 80, 8080, "ingress")
VXLAN, BRIDGE = "swv-ingressid01", "swb-ingressid01"


def test_engine_network_has_the_cluster_subnet_and_an_own_gateway() -> None:
    network = planned().state.networks[INGRESS.id]
    assert (network.name, network.bridge, network.subnet, network.gateway) == (
        "ingress", BRIDGE, "10.0.0.0/24", "10.0.0.2",
    )  # fmt: skip
    assert network.ip_range == "10.0.0.252/30"
    assert network.mtu == 8950


def test_the_users_mtu_wins_over_the_underlays() -> None:
    options = {"com.docker.network.driver.mtu": "1300"}
    network = Network(
        id="n", spec=NetworkSpec(name="n", driver_configuration=Driver("overlay", options)),
        driver_state=INGRESS.driver_state,
    )  # fmt: skip
    state = planned(networks=[network], own={"n": "10.0.0.2/24"}).state
    assert state.networks["n"].mtu == 1300
    assert state.vxlans["swv-n"].mtu == 1300


def test_remote_endpoints_get_entries_and_local_ones_none() -> None:
    state = planned(("other", row(5, WEB)), ("me", row(6, WEB))).state
    assert state.fdb[VXLAN, "02:42:0a:00:00:05"] == "192.168.7.2"
    assert (VXLAN, "02:42:0a:00:00:05") in state.port_fdb
    assert state.neighbours[VXLAN, "10.0.0.5"] == "02:42:0a:00:00:05"
    assert (VXLAN, "10.0.0.6") not in state.neighbours
    assert state.routes[PUBLISH_TABLE, "10.0.0.5/32"] == ("192.168.7.2", MESH_LINK)
    assert (PUBLISH_TABLE, "10.0.0.6/32") not in state.routes


def test_published_port_is_spread_evenly_over_active_tasks() -> None:
    state = planned(("other", row(5, WEB)), ("me", row(6, WEB)), ("me", row(7, WEB, active=False))).state
    assert state.chains["nat", "SWARM-PUBLISH"] == ("-p tcp -m tcp --dport 8080 -j SWARM-P-tcp-8080",)
    assert state.chains["nat", "SWARM-P-tcp-8080"][2:] == (
        "-p tcp -m statistic --mode random --probability 0.50000000000 -j DNAT --to-destination 10.0.0.5:80",
        "-p tcp -j DNAT --to-destination 10.0.0.6:80",
    )


def test_published_ports_lead_to_the_address_that_a_task_answers_from() -> None:
    addresses = (AddressRow(INGRESS.id, "10.0.0.5", ""), AddressRow("front", "10.0.1.7", ""))
    both = EndpointRow("t5", "s", "web", 1, "c", addresses, (WEB,), answers_from="10.0.1.7")
    state = planned(("other", both)).state
    assert state.chains["nat", "SWARM-P-tcp-8080"][2:] == ("-p tcp -j DNAT --to-destination 10.0.1.7:80",)
    assert state.routes[PUBLISH_TABLE, "10.0.1.7/32"] == ("192.168.7.2", MESH_LINK)


def test_inactive_rows_keep_the_way_to_their_task() -> None:
    state = planned(("other", row(5, WEB, active=False))).state
    assert state.chains["nat", "SWARM-PUBLISH"] == ()
    assert (PUBLISH_TABLE, "10.0.0.5/32") in state.routes
    assert (VXLAN, "10.0.0.5") in state.neighbours


def test_host_mode_ports_are_left_to_the_engine() -> None:
    state = planned(("other", row(5, PortRow("tcp", 80, 8080, "host")))).state
    assert state.chains["nat", "SWARM-PUBLISH"] == ()
    assert (PUBLISH_TABLE, "10.0.0.5/32") not in state.routes


def test_an_active_row_wins_an_address_over_one_that_leaves() -> None:
    for order in (1, -1):
        rows = [("other", row(5, task="old", active=False)), ("third", row(5, task="new"))][::order]
        state = planned(*rows, hosts=HOSTS | {"third": "192.168.7.3"}).state
        assert state.fdb[VXLAN, "02:42:0a:00:00:05"] == "192.168.7.3"


def test_vip_is_answered_by_this_hosts_own_bridge() -> None:
    state = planned(("other", row(5, vip="10.0.0.9"))).state
    assert state.neighbours[VXLAN, "10.0.0.9"] == mac_of("10.0.0.2")
    assert state.bridges[BRIDGE].mac == mac_of("10.0.0.2")


def test_rows_of_hosts_that_are_not_alive_are_not_used() -> None:
    assert planned(("gone", row(5, WEB, vip="10.0.0.9"))) == planned()


def test_networks_without_vni_or_address_wait() -> None:
    assert planned(own={}).state.networks == {}
    bare = Network(id="bare", spec=NetworkSpec(name="bare"))
    assert planned(networks=[bare], own={"bare": "10.0.5.2/24"}).state.networks == {}


def test_malformed_input_is_named_and_spoils_nothing_else() -> None:
    bad = [
        EndpointRow("evil", "s", "w", 1, "c", (AddressRow("n", "10.0.0.5 -j ACCEPT", ""),)),
        EndpointRow("vip", "s", "w", 1, "c", (AddressRow("n", "10.0.0.5", "", "x"),)),
        EndpointRow("mac", "s", "w", 1, "c", (AddressRow("n", "10.0.0.5", "zz"),)),
        EndpointRow("protocol", "s", "w", 1, "c", (), (PortRow("icmp", 1, 1, "ingress"),)),
        EndpointRow("port", "s", "w", 1, "c", (), (PortRow("tcp", 80, 70000, "ingress"),)),
    ]
    good = ("other", row(5, WEB))
    result = planned(good, *(("other", item) for item in bad), peers=[("other", PeerRow("n", "nowhere", "zz"))])
    assert result.state == planned(good).state
    assert len(result.problems) == 6
    assert all(endpoint_fault(item) for item in bad)


def test_every_other_host_has_a_mark_a_table_and_a_neighbour() -> None:
    state = planned().state
    number = (7 << 8) | 2
    assert Rule(number << 16, HOST_MASK, TABLE_BASE + number) in state.rules
    assert state.routes[TABLE_BASE + number, "0.0.0.0/0"] == ("192.168.7.2", MESH_LINK)
    assert state.fdb[MESH_LINK, mesh_mac("192.168.7.2")] == "192.168.7.2"
    assert (MESH_LINK, mesh_mac("192.168.7.1")) not in state.fdb


def test_outside_a_cluster_there_is_nothing() -> None:
    assert plan(NetworkTables(), FACTS, IptablesBalancer()).state == type(planned().state)()


def test_host_numbers_are_unique_and_do_not_move_when_others_come() -> None:
    assert host_indexes(["10.1.0.5", "10.2.0.5", "10.1.0.6"]) == {"10.1.0.5": 5, "10.1.0.6": 6, "10.2.0.5": 7}
    assert host_indexes(["10.1.0.0"]) == {"10.1.0.0": 1}
    assert host_indexes(["10.1.255.255", "10.2.255.255"]) == {"10.1.255.255": 65535, "10.2.255.255": 1}


def test_reserved_range_is_the_end_of_the_subnet() -> None:
    import ipaddress

    assert str(reserved_range(ipaddress.IPv4Network("10.0.0.0/16"))) == "10.0.255.252/30"
    assert str(reserved_range(ipaddress.IPv4Network("10.0.0.0/30"))) == "10.0.0.0/30"


def test_own_peer_rows_name_gateway_and_bridge() -> None:
    assert own_peer_rows({"n": "10.0.0.2/24"}) == [PeerRow("n", "10.0.0.2", "02:42:0a:00:00:02")]


def test_a_port_bound_to_addresses_answers_on_these_alone_and_before_an_unbound_one() -> None:
    bound = PortRow("tcp", 80, 8080, "ingress", "", ("192.168.7.0/24",))
    chains = planned(("me", row(4, bound)), ("me", row(5, WEB))).state.chains
    first, second = chains["nat", "SWARM-PUBLISH"]
    assert first.startswith("-d 192.168.7.0/24 -p tcp -m tcp --dport 8080 -j SWARM-P-")
    assert second == "-p tcp -m tcp --dport 8080 -j SWARM-P-tcp-8080"
    assert "10.0.0.4:80" in chains["nat", first.rpartition(" ")[2]][-1]


def test_addresses_of_a_port_that_are_none_are_a_fault() -> None:
    assert "are not IPv4" in endpoint_fault(row(4, PortRow("tcp", 80, 8080, "ingress", "", ("-j ACCEPT",))))


def test_a_bridge_that_outlived_its_network_is_removed_and_no_other() -> None:
    wanted = planned().state
    used = {network.bridge: Bridge("02:00:00:00:00:01", "") for network in wanted.networks.values()}
    there = KernelState(networks=wanted.networks, bridges=used | {"swb-left": Bridge("02:00:00:00:00:02", "")})
    assert [one for one in kernel_operations(there, wanted) if isinstance(one, RemoveLink)] == [RemoveLink("swb-left")]
    unknown = KernelState(bridges={"swb-left": Bridge("02:00:00:00:00:02", "")})  # the engine has not said anything yet
    assert [one for one in kernel_operations(unknown, wanted) if isinstance(one, RemoveLink)] == []
    assert RemoveLink("swb-left") in kernel_operations(unknown, KernelState()), "this host leaves"
