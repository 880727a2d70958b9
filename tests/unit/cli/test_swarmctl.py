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
    "/swarm-agent/v1/explain/web": {
        "Kind": "service",
        "ID": "s" * 25,
        "Name": "web",
        "Facts": ["2 of 3 replicas run", "1 task: it waits for a node: no suitable node [x]"],
        "Nodes": [{"NodeID": "n1", "Hostname": "host1", "Objections": ["the node is drained", "too full"]}]
        + [{"NodeID": f"m{n}", "Hostname": f"more{n}", "Objections": ["full"]} for n in range(30)],
        "Story": [
            {
                "Name": "web.1.abcdefghijklmnop",
                "Hostname": "host1",
                "CreatedAt": "2026-01-01T10:00:00.5Z",
                "DesiredState": "running",
                "State": "pending",
                "Why": "node host2 is drained",
            }
        ],
    },
    "/swarm": {"Version": {"Index": 7}, "Spec": {"Name": "default", "Labels": {"a": "b"}, "Raft": {"X": 1}}},
}
POSTED: list[tuple[str, dict]] = []
MOVE = {"Service": "web", "Slot": 2, "Source": "host1", "Target": "host2", "Reason": "host1 has 4, host2 has 0"}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        found = self.path in ANSWERS
        body = json.dumps(ANSWERS[self.path] if found else {"message": "page not found"}).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        POSTED.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
        answer = {"Moves": [MOVE], "LeftAlone": [{"Service": "db", "Reason": "its tasks keep data"}]}
        body = json.dumps(answer).encode() if "rebalance" in self.path else b""
        self.send_response(200)
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


def test_explain_shows_facts_nodes_and_story(agent, capsys):
    main(["--socket", str(agent), "explain", "web"])
    printed = capsys.readouterr().out
    assert "1 task: it waits for a node: no suitable node [x]" in printed
    assert "host1: the node is drained; too full" in printed
    assert "and 11 more" in printed and "more29" not in printed
    assert "pending, wanted running" in printed
    row = next(line for line in printed.splitlines() if "web.1.abcdef" in line)
    assert row.rstrip().endswith("node host2 is drained"), "for grep and awk each row is one line"


def test_rebalance_says_what_moves_and_what_does_not(agent, capsys):
    POSTED.clear()
    main(["--socket", str(agent), "rebalance", "web", "--dry-run"])
    printed = capsys.readouterr().out
    assert POSTED == [("/swarm-agent/v1/rebalance", {"Service": "web", "DryRun": True})]
    assert "1 tasks would be moved" in printed and "host1 has 4, host2 has 0" in printed
    assert "left alone: db: its tasks keep data" in printed


@pytest.mark.parametrize(("word", "labels"), [("on", {"a": "b", "swarm.rebalance": "auto"}), ("off", {"a": "b"})])
def test_auto_writes_the_clusters_label_and_keeps_all_else(agent, word, labels):
    POSTED.clear()
    main(["--socket", str(agent), "rebalance", "--auto", word])
    assert [("/swarm/update?version=7", {"Name": "default", "Labels": labels, "Raft": {"X": 1}})] == POSTED


def test_auto_goes_with_nothing_else(agent):
    with pytest.raises(SystemExit, match="--auto is a setting of the cluster"):
        main(["--socket", str(agent), "rebalance", "web", "--auto", "on"])
