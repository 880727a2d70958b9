"""`swarmctl` against a real unix socket: what it prints, and what it says when there is nobody."""

import http.server
import json
import socketserver
import threading

import pytest

from swarm_agent.cli.main import main

NODE = {
    "Description": {"Hostname": "host1"},
    "Status": {"Addr": "10.0.0.1", "State": "ready"},
    "Spec": {"Availability": "drain"},
    "ManagerStatus": {"Leader": True, "Reachability": "reachable"},
}
SERVICE = {
    "Spec": {"Name": "web", "Mode": {"Replicated": {}}, "TaskTemplate": {"ContainerSpec": {"Image": "whoami:1"}}},
    "ServiceStatus": {"RunningTasks": 2, "DesiredTasks": 3},
    "UpdateStatus": {"State": "paused", "Message": "update paused"},
}
ANSWERS = {
    "/info": {"Swarm": {"LocalNodeState": "active", "NodeID": "n1", "NodeAddr": "10.0.0.1", "ControlAvailable": True}},
    "/nodes": [NODE],
    "/v1.41/services?status=true": [SERVICE],
}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        found = self.path in ANSWERS
        body = json.dumps(ANSWERS[self.path] if found else {"message": "page not found"}).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass

    def address_string(self):
        return "unix"


@pytest.fixture
def agent(tmp_path):
    path = tmp_path / "a.sock"
    with socketserver.ThreadingUnixStreamServer(str(path), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield path
        server.shutdown()


def test_status_shows_nodes_and_services(agent, capsys):
    main(["--socket", str(agent), "status"])
    printed = capsys.readouterr().out
    for word in ("host1", "drain", "leader", "web", "2/3", "whoami:1", "paused"):
        assert word in printed


def test_without_an_agent_it_says_where_to_look():
    with pytest.raises(SystemExit, match=r"no agent at /nowhere/a\.sock; see: systemctl status swarm-agent"):
        main(["--socket", "/nowhere/a.sock", "status"])


def test_the_agents_refusal_is_passed_on(agent, monkeypatch):
    monkeypatch.delitem(ANSWERS, "/info")
    with pytest.raises(SystemExit, match="swarmctl: page not found"):
        main(["--socket", str(agent), "status"])


def test_an_unknown_verb_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as refusal:
        main(["dance"])
    assert refusal.value.code == 2
    assert "invalid choice" in capsys.readouterr().err
