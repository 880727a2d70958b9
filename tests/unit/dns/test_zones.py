"""Which names there are: zones made from rows."""

from __future__ import annotations

import ipaddress

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from swarm_agent.dns.answers import View
from swarm_agent.dns.zones import Directory, build
from swarm_agent.model.rows import PortRow
from tests.unit.dns.tables import NETWORKS, network, row


def directory(*rows, networks=NETWORKS, owner="node1", previous=None):
    return build(networks, [(owner, one) for one in rows], previous or Directory())


def addresses(found_in: Directory, name: str, *, network_id="n1", source="") -> set[str] | None:
    """The addresses of a name, empty when it is denied, None when it is not the cluster's."""
    found = View(found_in.visible(network_id, source)).lookup(name)
    return None if found is None else {str(ipaddress.ip_address(one)) for one in found.addresses}


WEB = [row("web", slot, f"10.0.1.{10 + slot}", vip="10.0.1.5", aliases=("www",)) for slot in (1, 2)]


def test_a_service_and_its_aliases_are_its_vip():
    for name in ("web", "www", "web.net1", "www.net1"):
        assert addresses(directory(*WEB), name) == {"10.0.1.5"}, name


def test_tasks_dot_a_service_or_alias_are_its_tasks():
    for name in ("tasks.web", "tasks.www", "tasks.web.net1"):
        assert addresses(directory(*WEB), name) == {"10.0.1.11", "10.0.1.12"}, name


def test_without_a_vip_a_service_is_its_tasks():
    rows = [row("db", slot, f"10.0.1.{10 + slot}") for slot in (1, 2, 3)]
    assert addresses(directory(*rows), "db") == {"10.0.1.11", "10.0.1.12", "10.0.1.13"}


def test_a_task_is_found_by_container_name_short_id_and_hostname():
    task = row("web", 1, "10.0.1.11", vip="10.0.1.5", hostname="Front")
    for name in ("web.1.webtask1", task.container_id[:12], "front", "web.1.webtask1.net1"):
        assert addresses(directory(task), name) == {"10.0.1.11"}, name


def test_a_task_of_a_global_service_is_named_by_its_node():
    assert addresses(directory(row("agent", 0, "10.0.1.7"), owner="node7"), "agent.node7.agenttask0") == {"10.0.1.7"}


def test_an_alias_of_two_services_is_both():
    rows = [
        row("blue", 1, "10.0.1.11", vip="10.0.1.5", aliases=("app",)),
        row("green", 1, "10.0.1.12", vip="10.0.1.6", aliases=("app",)),
    ]
    assert addresses(directory(*rows), "app") == {"10.0.1.5", "10.0.1.6"}


def test_an_inactive_task_keeps_its_own_name_but_is_no_part_of_its_service():
    rows = [WEB[0], row("web", 2, "10.0.1.12", vip="10.0.1.5", active=False)]
    assert addresses(directory(*rows), "tasks.web") == {"10.0.1.11"}
    assert addresses(directory(*rows), "web.2.webtask2") == {"10.0.1.12"}


def test_a_vip_has_its_name_before_a_task_is_active():
    starting = directory(row("web", 1, "10.0.1.11", vip="10.0.1.5", active=False))
    assert addresses(starting, "web") == {"10.0.1.5"}
    assert addresses(starting, "tasks.web") == set()


def test_a_service_without_vip_and_active_tasks_is_denied_here_not_asked_outside():
    starting = directory(row("web", 1, "10.0.1.11", active=False))
    assert addresses(starting, "web") == set()
    assert addresses(starting, "tasks.web") == set()
    assert addresses(starting, "unheard") is None


def test_a_name_that_is_denied_in_one_network_is_looked_for_in_the_next():
    rows = [
        row("web", 1, "10.0.1.11", aliases=("app",), active=False),
        row("other", 1, "10.0.2.11", aliases=("app",)),
        row("asker", 1, "10.0.1.99", "10.0.2.99"),
    ]
    assert addresses(directory(*rows), "app", source="10.0.1.99") == {"10.0.2.11"}


def test_names_are_seen_on_their_own_network_only():
    rows = [*WEB, row("db", 1, "10.0.2.11")]
    assert addresses(directory(*rows), "db") is None
    assert addresses(directory(*rows), "db.net2") is None
    assert addresses(directory(*rows), "web", network_id="n2") is None


def test_a_task_on_two_networks_sees_both_its_own_first():
    both = row("both", 1, "10.0.1.20", "10.0.2.20", vips={"n1": "10.0.1.3", "n2": "10.0.2.3"})
    tables = directory(both, row("db", 1, "10.0.2.11"), *WEB)
    assert addresses(tables, "db", source="10.0.1.20") == {"10.0.2.11"}
    assert addresses(tables, "both", source="10.0.1.20") == {"10.0.1.3"}
    assert addresses(tables, "both.net2", source="10.0.1.20") == {"10.0.2.3"}
    assert addresses(tables, "db", source="10.0.1.11") is None


def test_the_ingress_network_has_no_names():
    tables = directory(row("web", 1, "10.0.9.11", "10.0.1.11", vips={"n9": "10.0.9.5", "n1": "10.0.1.5"}))
    assert "n9" not in tables.zones
    assert tables.visible("n1", "10.0.1.11") == (tables.zones["n1"],)
    assert addresses(tables, "web") == {"10.0.1.5"}


def test_pointers_name_tasks_and_vips_and_unknown_addresses_inside_are_denied():
    view = View(directory(*WEB).visible("n1", ""))
    assert view.lookup("11.1.0.10.in-addr.arpa").names == ("web.1.webtask1.net1",)
    assert view.lookup("5.1.0.10.in-addr.arpa").names == ("web.net1",)
    assert view.lookup("77.1.0.10.in-addr.arpa").empty
    assert view.lookup("8.8.8.8.in-addr.arpa") is None
    assert view.lookup("nonsense.in-addr.arpa") is None


def test_named_ports_are_services():
    ports = (PortRow("tcp", 8080, 80, "ingress", "http"), PortRow("udp", 53, 0, "ingress", ""))
    rows = [row("web", slot, f"10.0.1.{10 + slot}", vip="10.0.1.5", ports=ports) for slot in (1, 2)]
    view = View(directory(*rows).visible("n1", ""))
    assert [(one.target, one.port) for one in view.lookup("_http._tcp.web").services] == [("web.net1", 8080)]
    assert [one.target for one in view.lookup("_http._tcp.tasks.web.net1").services] == [
        "web.1.webtask1.net1",
        "web.2.webtask2.net1",
    ]
    assert view.lookup("_domain._udp.web") is None


def test_a_row_that_cannot_be_read_harms_no_other():
    good = row("odd", 1, "10.0.1.30")
    odd = msgspec.structs.replace(good, addresses=(msgspec.structs.replace(good.addresses[0], ip="10.0.1.300"),))
    assert addresses(directory(odd, *WEB), "web") == {"10.0.1.5"}


def test_only_zones_with_changes_are_made_anew():
    first = directory(*WEB, row("db", 1, "10.0.2.11"))
    second = directory(*WEB[::-1], row("db", 1, "10.0.2.12"), previous=first)
    assert second.zones["n1"] is first.zones["n1"]
    assert second.zones["n2"] is not first.zones["n2"]
    renamed = directory(*WEB, networks=[network(1, "front")], previous=second)
    assert addresses(renamed, "web.front") == {"10.0.1.5"}
    assert addresses(renamed, "web.net1") is None


states = st.lists(
    st.lists(
        st.builds(
            lambda service, slot, net, active, vip: row(
                service, slot, f"10.0.{net}.{10 + slot}", active=active, vip=f"10.0.{net}.5" if vip else ""
            ),
            st.sampled_from(["a", "b"]), st.integers(1, 4), st.integers(1, 2), st.booleans(), st.booleans(),
        ),
        max_size=6,
        unique_by=lambda one: one.task_id,
    ),
    min_size=1,
    max_size=5,
)  # fmt: skip


@given(states)
def test_a_directory_that_grew_equals_one_made_at_once(history):
    grown = Directory()
    for rows in history:
        grown = directory(*rows, previous=grown)
    fresh = directory(*history[-1])
    assert grown.others == fresh.others
    for network_id, zone in fresh.zones.items():
        other = grown.zones[network_id]
        assert {key: other.get(key) for key in other.index} == {key: zone.get(key) for key in zone.index}


# --- networks with IPv6 ----------------------------------------------------------------------------------------------

DUAL = [network(1, six=True), network(2)]
RR = [row("rr", slot, f"10.0.1.{20 + slot}") for slot in (1, 2)]


def test_on_a_network_with_ipv6_every_address_has_the_one_beside_it():
    found = directory(*WEB, *RR, networks=DUAL)
    assert addresses(found, "web") == {"10.0.1.5", "fd00:1::5"}
    assert addresses(found, "rr") == {"10.0.1.21", "fd00:1::15", "10.0.1.22", "fd00:1::16"}
    assert addresses(found, "tasks.www") == {"10.0.1.11", "fd00:1::b", "10.0.1.12", "fd00:1::c"}
    assert addresses(found, "web.1.webtask1") == {"10.0.1.11", "fd00:1::b"}


def test_ipv6_addresses_have_names_and_unknown_ones_of_the_network_are_denied():
    view = View(directory(*WEB, networks=DUAL).visible("n1", ""))

    def names(address: str) -> tuple[str, ...] | None:
        found = view.lookup(ipaddress.ip_address(address).reverse_pointer)
        return found.names if found is not None else None

    assert names("fd00:1::5") == ("web.net1",)
    assert names("fd00:1::b") == ("web.1.webtask1.net1",)
    assert names("fd00:1::ff") == ()
    assert names("fd00:2::5") is None


def test_a_host_that_cannot_balance_ipv6_names_no_vips_of_it():
    found = build(DUAL, [("node1", one) for one in (*WEB, *RR)], Directory(), vips6=False)
    assert addresses(found, "web") == {"10.0.1.5"}
    assert addresses(found, "tasks.web") == {"10.0.1.11", "fd00:1::b", "10.0.1.12", "fd00:1::c"}
    assert addresses(found, "rr") == {"10.0.1.21", "fd00:1::15", "10.0.1.22", "fd00:1::16"}
