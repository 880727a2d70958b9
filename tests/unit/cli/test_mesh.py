"""`swarmctl mesh` prints what the agent reports."""

import argparse

import pytest
from rich.console import Console

from swarm_agent.cli import mesh
from swarm_agent.cli.client import CommandError

BACKEND = {
    "task_id": "abcdefabcdefabcdef", "service": "web", "slot": 2, "node_id": "n2", "host": "192.168.7.2",
    "address": "10.0.0.5:80", "state": "active", "here": False, "connections": 7,
}  # fmt: skip
REPORT = {
    "node_id": "n1", "underlay": "192.168.7.1", "mtu": 1500, "balancer": "ipvs", "reason": "the kernel has it",
    "rules": 40, "services": 1, "destinations": 2, "hosts": {"n1": "192.168.7.1", "n2": "192.168.7.2"},
    "failures": [], "problems": ["VIP x is left out"],
    "frontends": [
        {"kind": "port", "name": "8080/tcp", "network": "ingress", "programmed": "ipvs 0x8001", "backends": [
            BACKEND, {**BACKEND, "slot": 1, "here": True, "state": "draining", "connections": None},
        ]},
    ],
}  # fmt: skip


class Agent:
    def json(self, path):
        assert path == "/swarm-agent/v1/mesh"
        return REPORT


def printed(what="", as_json=False):
    console = Console(width=160, record=True)
    mesh.run(Agent(), argparse.Namespace(what=what, json=as_json), console)
    return console.export_text()


def test_the_table_names_tasks_hosts_states_and_connections():
    text = printed()
    for word in ("balancer: ipvs (the kernel has it)", "1 IPVS services with 2 destinations", "8080/tcp", "ipvs 0x8001",
                 "web.2  abcdefabcdef", "192.168.7.2", "here", "draining", " 7 ", "left out: VIP x"):  # fmt: skip
        assert word in text, word


@pytest.mark.parametrize("what", ["8080", "8080/tcp", "web"])
def test_one_port_or_service_may_be_asked_for(what):
    assert "web.2" in printed(what)
    assert '"programmed": "ipvs 0x8001"' in printed(what, as_json=True)


def test_what_is_not_balanced_is_an_error():
    with pytest.raises(CommandError, match="9999"):
        printed("9999")
