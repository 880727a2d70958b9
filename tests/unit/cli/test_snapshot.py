"""`swarmctl snapshot save` gives a file its name only when all of it came and can be read."""

import http.server
import socketserver
import threading

import pytest

from swarm_agent.cli.main import main
from swarm_agent.model.objects import Cluster
from swarm_agent.store import archive
from swarm_agent.store.memory import memory_store

PASSPHRASE = "correct horse battery"


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """An agent that answers with given bytes: whole, cut short, or with a refusal."""

    daemon_threads = True


@pytest.fixture
async def content():
    store = memory_store()
    await store.update(lambda tx: tx.create(Cluster(id="c")))
    head = archive.new_head(created="now", cluster_id="c", node_id="n", hostname="host1", index=1, term=1)
    data = b"".join(archive.write(head, store.snapshot(), PASSPHRASE.encode()))
    await store.close()
    return data


@pytest.fixture
def serve(tmp_path):
    """Start an agent on a socket: `serve(body, status=200, claimed=None)` claims another length than it sends."""
    servers = []

    def start(body, status=200, claimed=None):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(status)
                self.send_header("Content-Length", str(claimed or len(body)))
                self.end_headers()
                self.wfile.write(body)

            def address_string(self):
                return "unix"

            def log_message(self, *arguments):
                pass

        path = tmp_path / "agent.sock"
        server = Server(str(path), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return str(path)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def passphrase(monkeypatch):
    monkeypatch.setenv("SWARMCTL_PASSPHRASE", PASSPHRASE)


def test_a_good_snapshot_gets_its_name_and_is_private(serve, content, tmp_path, capsys):
    target = tmp_path / "saved"
    main(["--socket", serve(content), "snapshot", "save", str(target)])
    assert target.read_bytes() == content and target.stat().st_mode & 0o777 == 0o600
    assert "1 clusters" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["cut", "short", "refused", "garbage"])
def test_anything_else_leaves_an_earlier_file_as_it_was(serve, content, tmp_path, kind):
    target = tmp_path / "saved"
    target.write_bytes(b"the one from yesterday")
    socket = {
        "cut": lambda: serve(content[:-10], claimed=len(content)),
        "short": lambda: serve(content[:-10]),
        "refused": lambda: serve(b'{"message": "not a manager"}', status=503),
        "garbage": lambda: serve(b"x" * 100),
    }[kind]()
    with pytest.raises(SystemExit, match="swarmctl: "):
        main(["--socket", socket, "snapshot", "save", str(target)])
    assert target.read_bytes() == b"the one from yesterday"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agent.sock", "saved"]


def test_check_needs_no_agent(content, tmp_path, capsys):
    (tmp_path / "saved").write_bytes(content)
    main(["--socket", "/nowhere", "snapshot", "check", str(tmp_path / "saved")])
    assert "by host1" in capsys.readouterr().out


def test_a_key_files_line_end_does_not_count(content, tmp_path):
    (tmp_path / "saved").write_bytes(content)
    (tmp_path / "key").write_text(PASSPHRASE + "\n")
    main(["snapshot", "check", "--key-file", str(tmp_path / "key"), str(tmp_path / "saved")])
    (tmp_path / "key").write_text("another one\n")
    with pytest.raises(SystemExit, match="not this snapshot's"):
        main(["snapshot", "check", "--key-file", str(tmp_path / "key"), str(tmp_path / "saved")])
