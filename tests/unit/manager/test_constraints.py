"""Placement constraints: syntax, keys and operators (reference/swarm.md §3.6)."""

from __future__ import annotations

import pytest

from swarm_agent.manager.constraints import ConstraintError, matches, node_satisfies, parse, parsed
from swarm_agent.model.objects import EngineDescription, Node, NodeDescription, NodeStatus
from swarm_agent.model.specs import NodeSpec, Platform

NODE = Node(
    id="n1",
    spec=NodeSpec(labels={"Disk": "SSD", "zone": "a-1"}, role="worker", availability="active"),
    description=NodeDescription(
        hostname="Host1",
        platform=Platform(architecture="x86_64", os="linux"),
        engine=EngineDescription(labels={"storage": "big"}),
    ),
    status=NodeStatus(state="ready", addr="192.0.2.7"),
)


@pytest.mark.parametrize(
    "expression",
    [
        "node.id == n1",
        "node.id==N1",
        "NODE.ID != n2",
        "node.hostname == host1",
        "node.role == worker",
        "node.role != manager",
        "node.platform.os == Linux",
        "node.platform.arch == x86_64",
        "node.labels.Disk == ssd",
        "Node.Labels.Disk == ssd",
        "node.labels.zone == A-1",
        "node.labels.missing != anything",
        "engine.labels.storage == big",
        "node.ip == 192.0.2.7",
        "node.ip == 192.0.2.0/24",
        "node.ip != 198.51.100.0/24",
    ],
)
def test_the_node_satisfies(expression: str) -> None:
    assert node_satisfies([expression], NODE)


@pytest.mark.parametrize(
    "expression",
    [
        "node.id != n1",
        "node.labels.disk == ssd",  # label names are case-sensitive
        "node.labels.Disk != ssd",
        "node.labels.missing == anything",
        "engine.labels.Disk == ssd",
        "node.ip == 192.0.2.8",
        "node.ip != 192.0.2.0/24",
        "node.ip != nonsense",
        "node.unknown == x",
        "node.unknown != x",
        "node.labels. != x",
    ],
)
def test_the_node_does_not_satisfy(expression: str) -> None:
    assert not node_satisfies([expression], NODE)


def test_all_constraints_have_to_hold() -> None:
    assert matches(parse(["node.role == worker", "node.labels.zone == a-1"]), NODE)
    assert not matches(parse(["node.role == worker", "node.labels.zone == b"]), NODE)
    assert matches(parse([]), NODE)


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("node.labels.disk", "constraint expected one operator from ==, !="),
        ("node.labels.disk = ssd", "constraint expected one operator from ==, !="),
        ("node.labels.disk =~ ssd", "constraint expected one operator from ==, !="),
        ("1node == x", "key '1node' is invalid"),
        ("node label == x", "key 'node label' is invalid"),
        ("== x", "key '' is invalid"),
        ("node.id == ", "value '' is invalid"),
        ("node.id == a>b", "value 'a>b' is invalid"),
        ("node.id == ä", "value 'ä' is invalid"),
    ],
)
def test_malformed_constraints_are_refused_in_swarms_words(expression: str, text: str) -> None:
    with pytest.raises(ConstraintError) as caught:
        parse([expression])
    assert str(caught.value) == text


def test_a_malformed_list_is_satisfied_by_no_node() -> None:
    assert parsed(["node.id"]) is None
    assert not node_satisfies(["node.id"], NODE)
