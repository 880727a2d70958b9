"""`swarmctl dns`: which full names are asked for, and what is shown, with a real server on loopback."""

from __future__ import annotations

import asyncio
import json
import socket
import threading

import pytest
from rich.console import Console

from swarm_agent.cli import dns
from swarm_agent.cli.client import CommandError
from swarm_agent.cli.main import build_parser
from swarm_agent.dns.service import DnsService
from swarm_agent.node.settings import Settings
from tests.unit.dns.tables import NETWORKS, row


class Door:
    """A front door that lists networks."""

    def call(self, method: str, path: str) -> bytes:
        assert (method, path) == ("GET", "/networks")
        return json.dumps(
            [
                {"Name": "net2", "Scope": "swarm"},
                {"Name": "net1", "Scope": "swarm"},
                {"Name": "ingress", "Scope": "swarm", "Ingress": True},
                {"Name": "bridge", "Scope": "local"},
            ]
        ).encode()


@pytest.fixture
def server(monkeypatch):
    """The agent's server in a thread of its own, as in another process; its port is in the settings."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(dns, "load", lambda: Settings(dns_port=port))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    service = DnsService(loopback_port=port)
    rows = [("node1", row("web", 1, "10.0.1.11", vip="10.0.1.5")), ("node1", row("db", 1, "10.0.2.11"))]
    loop.call_soon_threadsafe(service.update, NETWORKS, {}, rows)
    asyncio.run_coroutine_threadsafe(service.open(), loop).result(10)
    yield port
    asyncio.run_coroutine_threadsafe(service.close(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def shown(capsys, *words: str) -> list[list[str]]:
    dns.run(Door(), build_parser().parse_args(["dns", *words]), Console(width=200))
    return [line.split() for line in capsys.readouterr().out.splitlines()[1:]]


def test_a_name_is_looked_for_on_every_network(server, capsys):
    assert shown(capsys, "web") == [["web.net1", "A", "2", "10.0.1.5"]]
    assert shown(capsys, "tasks.db.net2") == [["tasks.db.net2", "A", "2", "10.0.2.11"]]


def test_an_address_tells_its_names(server, capsys):
    assert shown(capsys, "10.0.1.5") == [["5.1.0.10.in-addr.arpa", "PTR", "2", "web.net1."]]


def test_nothing_found_and_nobody_there_are_told_apart(server, capsys, monkeypatch):
    with pytest.raises(CommandError, match="no A record of nobody"):
        shown(capsys, "nobody")
    monkeypatch.setattr(dns, "load", lambda: Settings(dns_port=1))
    with pytest.raises(CommandError, match="no answer from"):
        shown(capsys, "web")
    monkeypatch.setattr(dns, "load", lambda: Settings(dns_port=0))
    with pytest.raises(CommandError, match="dns_port is 0"):
        shown(capsys, "web")
