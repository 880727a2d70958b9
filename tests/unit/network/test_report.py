"""What `swarmctl mesh` is told about ports and VIPs."""

from __future__ import annotations

import pytest

from swarm_agent.network.frontends import Balancer
from swarm_agent.network.iptables import IptablesBalancer
from swarm_agent.network.ipvs import IpvsBalancer
from swarm_agent.network.plan import plan
from swarm_agent.network.report import Frontend, frontends
from swarm_agent.network.tables import NetworkTables
from tests.unit.network.test_plan import FACTS, HOSTS, INGRESS, WEB, row

ROWS = (("other", row(5, WEB, vip="10.0.0.9")), ("me", row(4, WEB, vip="10.0.0.9", active=False)))


def reported(balancer: Balancer, connections: int = 0) -> list[Frontend]:
    tables = NetworkTables([INGRESS], {INGRESS.id: "10.0.0.2/24"}, HOSTS, ROWS)
    state = plan(tables, FACTS, balancer).state
    counted = dict.fromkeys(state.destinations, connections)
    return frontends(ROWS, tables, FACTS.node_id, state, counted)


@pytest.mark.parametrize("balancer", [IptablesBalancer(), IpvsBalancer()], ids=lambda item: item.name)
def test_each_port_and_vip_names_its_tasks_where_they_are_and_their_state(balancer: Balancer) -> None:
    port, vip = reported(balancer)
    assert (port.kind, port.name, port.network) == ("port", "8080/tcp", "ingress")
    assert (vip.kind, vip.name, vip.network) == ("vip", "10.0.0.9", "ingress")
    assert [(item.address, item.host, item.here, item.state) for item in port.backends] == [
        ("10.0.0.4:80", "192.168.7.1", True, "draining"),
        ("10.0.0.5:80", "192.168.7.2", False, "active"),
    ]
    assert [item.address for item in vip.backends] == ["10.0.0.4", "10.0.0.5"]


def test_where_it_is_in_the_kernel() -> None:
    port, vip = reported(IptablesBalancer())
    assert (port.programmed, vip.programmed) == ("nat SWARM-P-tcp-8080", "nat SWARM-V-10.0.0.9")
    port, vip = reported(IpvsBalancer())
    assert port.programmed.startswith("ipvs 0x")
    assert vip.programmed.count("0x") == 2  # UDP and all else


def test_connections_are_counted_over_all_services_of_a_vip() -> None:
    port, vip = reported(IpvsBalancer(), connections=3)
    assert [item.connections for item in port.backends] == [3, 3]
    assert [item.connections for item in vip.backends] == [3, 6]  # the draining one has no UDP
    assert [item.connections for item in reported(IptablesBalancer())[0].backends] == [None, None]


def test_a_port_without_an_active_task_says_so() -> None:
    rows = (("me", row(4, WEB, active=False)),)
    tables = NetworkTables([INGRESS], {INGRESS.id: "10.0.0.2/24"}, HOSTS, rows)
    state = plan(tables, FACTS, IptablesBalancer()).state
    (port,) = frontends(rows, tables, FACTS.node_id, state, {})
    assert port.programmed == "nothing: no task is active"
