"""Ports that are published on some nodes only."""

from __future__ import annotations

from swarm_agent.model.objects import Node
from swarm_agent.model.rows import EndpointRow, PortRow
from swarm_agent.model.specs import NodeSpec
from swarm_agent.node.data_plane import published_here

EVERYWHERE = PortRow("tcp", 80, 8080, "ingress")
EDGE = PortRow("tcp", 81, 8081, "ingress", "http", (), ("node.labels.edge==true", "node.role==worker"))
ROW = EndpointRow("t1", "s", "web", 1, "c", (), (EVERYWHERE, EDGE))


def node(edge: str, role: str = "worker") -> Node:
    return Node(id="n1", spec=NodeSpec(role=role, labels={"edge": edge}))


def test_a_node_that_meets_all_conditions_has_all_ports() -> None:
    assert published_here(ROW, node("true")) is ROW


def test_on_others_the_port_is_not_published_but_has_its_name_still() -> None:
    for other in (node("false"), node("true", "manager"), Node(id="n2")):
        everywhere, edge = published_here(ROW, other).ports
        assert everywhere == EVERYWHERE
        assert (edge.published, edge.target, edge.name) == (0, 81, "http")


def test_the_same_row_gives_the_same_object_so_that_nothing_is_planned_anew() -> None:
    assert published_here(ROW, node("false")) is published_here(ROW, node("false"))
