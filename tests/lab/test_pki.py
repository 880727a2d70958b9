"""Keys and certificates of a running cluster through the docker CLI: autolock, root rotation, own and external roots,
removed nodes, and the way into a backup and out of it."""

from __future__ import annotations

import datetime
import http.server
import ipaddress
import json
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from swarm_agent.pki import authority
from swarm_agent.pki.authority import Authority, Identity
from tests.lab.clusterkit import cluster, nodes, outside, running, with_agents
from tests.lab.labkit import Host, Lab, eventually
from tests.lab.playbooks import play

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

STATE = "/var/lib/swarm-agent"
CTL = "/opt/swarm-agent/current/bin/swarmctl"
NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture(scope="module")
def agents(lab: Lab) -> Lab:
    return with_agents(lab)


@pytest.fixture
def managers(agents: Lab) -> list[Host]:
    """host1 to host3, all managers of a fresh cluster."""
    outside(agents)
    first, *others = agents
    first.docker("swarm", "init", "--advertise-addr", first.address)
    token = first.docker("swarm join-token -q manager").out
    for host in others:
        host.docker("swarm", "join", "--token", token, f"{first.address}:2377")
    all_reachable(first)
    yield [first, *others]
    outside(agents)


def all_reachable(host: Host, count: int = 3) -> None:
    def good() -> bool:
        states = [node["ManagerStatus"] for node in nodes(host)]
        return sorted(states) == ["Leader"] + ["Reachable"] * (count - 1)

    eventually(good, timeout=60)


def state_of(host: Host) -> str:
    return host.docker("info --format {{.Swarm.LocalNodeState}}", check=False).out


def restart(host: Host) -> None:
    host.exec("systemctl restart swarm-agent")
    eventually(lambda: state_of(host) in ("active", "locked"))


def locked_on_disk(host: Host) -> bool:
    heads = host.exec(f"head -qn1 {STATE}/raft-keys.json {STATE}/certificates/node.key").lines
    return heads == ["-----BEGIN LOCKED KEY-----"] * 2


def unlock(host: Host, key: str, **options):
    return host.docker("swarm unlock", stdin=key + "\n", **options)


# --- autolock --------------------------------------------------------------------------------------------------------


def test_a_locked_manager_waits_for_its_key_and_its_tasks_do_not(agents):
    outside(agents)
    first = agents.host("host1")
    told = first.docker("swarm", "init", "--autolock", "--advertise-addr", first.address).out
    key = first.docker("swarm unlock-key -q").out
    assert key.startswith("SWMKEY-1-") and key in told
    first.docker("service create --detach --name web alpine sleep 1d")
    eventually(lambda: running(first, "web"))
    container = first.engine("ps -q --filter label=com.docker.swarm.service.name=web").out
    assert locked_on_disk(first)
    restart(first)
    assert state_of(first) == "locked"
    refusals = {
        "node ls": "Swarm is encrypted and needs to be unlocked before it can be used. Please use "
        '"docker swarm unlock" to unlock it.',
        "swarm leave": "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.",
        "swarm init": "This node is already part of a swarm.",
    }
    for command, text in refusals.items():
        refused = first.docker(command, check=False)
        assert refused.code == 1 and text in refused.err
    wrong = unlock(first, "SWMKEY-1-" + "A" * 43, check=False)
    assert wrong.code == 1 and "swarm could not be unlocked: invalid key provided" in wrong.err
    assert first.engine("ps -q --filter label=com.docker.swarm.service.name=web").out == container
    unlock(first, key)
    assert "Ready" in nodes(first)[0]["Status"]
    eventually(lambda: running(first, "web"))
    assert first.engine("ps -q --filter label=com.docker.swarm.service.name=web").out == container
    assert "swarm is not locked" in unlock(first, key, check=False).err
    outside(agents)


def test_a_locked_manager_can_be_thrown_away(agents):
    outside(agents)
    first = agents.host("host1")
    first.docker("swarm", "init", "--autolock", "--advertise-addr", first.address)
    restart(first)
    assert state_of(first) == "locked"
    first.docker("swarm leave --force")
    assert state_of(first) == "inactive"
    assert first.exec(f"find {STATE} -type f").out == ""


def test_every_manager_follows_when_the_lock_comes_changes_and_goes(managers):
    first, second, third = managers
    assert "no unlock key is set" in first.docker("swarm unlock-key", check=False).err
    second.docker("swarm update --autolock=true")
    old = first.docker("swarm unlock-key -q").out
    eventually(lambda: all(locked_on_disk(host) for host in managers))
    before = [raft_files(host) for host in managers]
    new = third.docker("swarm unlock-key -q --rotate").out
    assert new != old
    # The raft log of each is put under a new key: none of the files from before is left.
    for host, earlier in zip(managers, before, strict=True):
        eventually(lambda host=host, earlier=earlier: not raft_files(host) & earlier)
    restart(third)
    assert state_of(third) == "locked"
    assert "invalid key" in unlock(third, old, check=False).err
    unlock(third, new)
    all_reachable(first)
    first.docker("swarm update --autolock=false")
    eventually(lambda: not any(locked_on_disk(host) for host in managers))
    restart(third)
    eventually(lambda: state_of(third) == "active")
    all_reachable(first)


def raft_files(host: Host) -> set[str]:
    return set(host.exec(f"cd {STATE}/raft && ls -i").lines)


# --- roots -----------------------------------------------------------------------------------------------------------


def issuers(host: Host) -> set[str]:
    ids = host.docker("node ls -q").lines
    form = "{{.Description.TLSInfo.CertIssuerPublicKey}}"
    return set(host.docker("node", "inspect", "--format", form, *ids).lines)


def test_the_root_is_replaced_while_the_cluster_works(managers):
    first, second, third = managers
    first.docker("service create --detach --name web --replicas 3 alpine sleep 1d")
    eventually(lambda: len(running(first, "web")) == 3)
    containers = [host.engine("ps -q").out for host in managers]
    old, token = first.docker("swarm ca").out, first.docker("swarm join-token -q worker").out
    second.docker("swarm ca --rotate --quiet", timeout=60)
    new = third.docker("swarm ca").out
    assert new != old and "BEGIN CERTIFICATE" in new
    assert len(issuers(first)) == 1
    assert first.docker("swarm join-token -q worker").out.split("-")[2] != token.split("-")[2]
    assert [host.engine("ps -q").out for host in managers] == containers
    for host in managers:
        assert host.exec(f"cat {STATE}/certificates/root.crt").out == new
    # With the old root gone, everything that is connected anew is connected under the new one.
    for host in managers:
        restart(host)
    all_reachable(first)
    third.docker("swarm leave --force")
    refused = third.docker("swarm", "join", "--token", token, f"{first.address}:2377", check=False)
    assert "remote CA does not match fingerprint" in refused.err
    token = first.docker("swarm join-token -q worker").out
    third.docker("swarm", "join", "--token", token, f"{first.address}:2377")


def test_a_rotation_waits_for_a_host_that_is_away(managers):
    first, _, third = managers
    old = first.docker("swarm ca").out
    third.exec("systemctl stop swarm-agent")
    try:
        first.docker("swarm ca --rotate --detach")
        assert first.docker("info --format {{.Swarm.Cluster.RootRotationInProgress}}").out == "true"
        eventually(lambda: len(issuers(first)) == 2)
        assert first.docker("swarm ca").out == old
    finally:
        third.exec("systemctl start swarm-agent")
    eventually(lambda: first.docker("swarm ca").out != old, timeout=60)
    assert first.docker("info --format {{.Swarm.Cluster.RootRotationInProgress}}").out == "false"
    eventually(lambda: len(issuers(first)) == 1)
    all_reachable(first)


def test_own_roots_at_the_beginning_and_later(agents, tmp_path):
    outside(agents)
    first = agents.host("host1")
    own, other = Authority.create(NOW), Authority.create(NOW)
    files = {}
    for name, text in {"cert": own.cert, "key": own.key, "cert2": other.cert, "key2": other.key}.items():
        (tmp_path / name).write_text(text)
        files[name] = str(tmp_path / name)
    body = {
        "ListenAddr": "0.0.0.0:2377",
        "AdvertiseAddr": first.address,
        "Spec": {"CAConfig": {"SigningCACert": own.cert, "SigningCAKey": own.key}},
    }
    bad = {**body, "Spec": {"CAConfig": {"SigningCACert": own.cert, "SigningCAKey": other.key}}}
    assert "the CA key does not match the CA certificate" in post(first, "/swarm/init", bad)
    assert state_of(first) == "inactive"
    post(first, "/swarm/init", body)
    assert first.docker("swarm ca").out == own.cert.strip()
    assert "SigningCAKey" not in first.exec(curl("/swarm")).out
    wrong = first.docker(
        "swarm", "ca", "--rotate", "--quiet", "--ca-cert", files["cert2"], "--ca-key", files["key"], check=False
    )
    assert "does not match" in wrong.err
    first.docker("swarm", "ca", "--rotate", "--quiet", "--ca-cert", files["cert2"], "--ca-key", files["key2"])
    assert first.docker("swarm ca").out == other.cert.strip()
    first.docker("swarm update --cert-expiry 48h")  # a client that writes the spec back does not ask for a root
    assert first.docker("swarm ca").out == other.cert.strip()
    outside(agents)


def curl(path: str) -> str:
    return f"curl -s --unix-socket /run/swarm-agent/docker.sock http://x{path}"


def post(host: Host, path: str, body: object) -> str:
    host.exec(f"cat > /tmp/body <<'END'\n{json.dumps(body)}\nEND")
    return host.exec(curl(path) + " -H 'Content-Type: application/json' -d @/tmp/body").out


def test_an_external_authority_signs(agents, lab, tmp_path):
    """A cfssl-like authority on this machine; the cluster has its certificate and not its key."""
    first = cluster(agents)
    root = Authority.create(NOW)
    server, url, asked = external_authority(root, tmp_path, first)
    try:
        cert = tmp_path / "ca.pem"
        cert.write_text(root.cert)
        option = f"protocol=cfssl,url={url},cacert={cert}"
        first.docker("swarm", "ca", "--rotate", "--quiet", "--ca-cert", str(cert), "--external-ca", option, timeout=60)
        assert first.docker("swarm ca").out == root.cert.strip()
        assert {subject["names"][0]["OU"] for subject in asked} == {"swarm-manager", "swarm-worker"}
        assert len(issuers(first)) == 1
    finally:
        server.shutdown()
    outside(agents)


def external_authority(root: Authority, folder, host: Host):
    """An HTTPS server that signs what it is asked to, as cfssl does: itself, its URL, and the subjects asked for."""
    address = host.address.rsplit(".", 1)[0] + ".1"
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            subject = request["subject"]
            asked.append(subject)
            (name,) = subject["names"]
            role = {unit: role for role, unit in authority.ROLE_UNITS.items()}[name["OU"]]
            identity = Identity(subject["CN"], role, name["O"])
            cert = root.issue(request["certificate_request"], identity, NOW, datetime.timedelta(days=30))
            body = json.dumps({"success": True, "result": {"certificate": cert}, "errors": []}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    key = authority.new_key()
    (folder / "server.pem").write_text(server_certificate(root, key, address) + key)
    server = http.server.ThreadingHTTPServer((address, 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"https://{address}:{server.server_port}/api/v1/cfssl/sign", asked


def server_certificate(root: Authority, key: str, address: str) -> str:
    issuer = x509.load_pem_x509_certificate(root.cert.encode())
    public = serialization.load_pem_private_key(key.encode(), None).public_key()
    cert = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")]))
        .issuer_name(issuer.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - datetime.timedelta(hours=1))
        .not_valid_after(NOW + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .sign(serialization.load_pem_private_key(root.key.encode(), None), hashes.SHA256())
    )
    return cert.public_bytes(serialization.Encoding.PEM).decode()


# --- what nobody may see, and who may not come back ------------------------------------------------------------------


def test_a_removed_node_is_refused(agents):
    first = cluster(agents)
    second = agents.host("host2")
    second.exec("systemctl stop swarm-agent")
    eventually(lambda: {n["Hostname"]: n["Status"] for n in nodes(first)}["host2"] == "Down", timeout=60)
    first.docker("node rm host2")
    second.exec("systemctl start swarm-agent")
    eventually(lambda: "403" in second.exec("journalctl -u swarm-agent --no-pager -n 20").out)
    assert "host2" not in {node["Hostname"] for node in nodes(first)}
    outside(agents)


def test_keys_and_secrets_are_neither_in_others_files_nor_in_logs(managers):
    first, *_ = managers
    first.docker("secret create word -", stdin="very-hidden-word")
    first.docker("service create --detach --name web --replicas 3 --secret word alpine sleep 1d")
    eventually(lambda: len(running(first, "web")) == 3)
    first.docker("swarm update --autolock=true")
    shown = [first.docker("swarm unlock-key -q").out, first.docker("swarm join-token -q manager").out]
    eventually(lambda: all(locked_on_disk(host) for host in managers))
    for host in managers:
        assert host.exec(f"find {STATE} -perm /077").out == ""
        assert host.exec(f"grep -rl very-hidden-word {STATE} || true").out == ""
        log = host.exec("journalctl -u swarm-agent --no-pager").out
        for secret in ("very-hidden-word", "dmVyeS1oaWRkZW4td29yZA", "PRIVATE KEY", *shown):
            assert secret not in log


# --- backup ----------------------------------------------------------------------------------------------------------


def test_a_cluster_is_saved_lost_and_restored_elsewhere(managers, agents):
    first, second, third = managers
    first.docker("secret create word -", stdin="very-hidden-word")
    first.docker("service create --detach --name web --replicas 2 --secret word alpine sleep 1d")
    first.docker("node update --label-add disk=ssd host3")
    eventually(lambda: len(running(first, "web")) == 2)
    ca, token = first.docker("swarm ca").out, first.docker("swarm join-token -q worker").out
    second.exec("head -c 32 /dev/urandom | base64 > /root/key")
    saved = second.exec(f"{CTL} snapshot save --key-file /root/key /root/cluster.snapshot").out
    assert "1 services" in saved and second.exec("stat -c %a /root/cluster.snapshot").out == "600"
    refused = second.exec(f"SWARMCTL_PASSPHRASE=another-one {CTL} snapshot check /root/cluster.snapshot", check=False)
    assert refused.code == 1 and "not this snapshot's" in refused.err
    assert second.exec("grep -c very-hidden-word /root/cluster.snapshot || true").out == "0"
    for name in ("key", "cluster.snapshot"):
        third.exec(f"base64 -d > /root/{name} <<'END'\n{second.exec(f'base64 /root/{name}').out}\nEND")
    first.docker("service rm web")  # what came after the snapshot is not in it
    outside(agents)
    third.exec(f"{CTL} snapshot restore --key-file /root/key /root/cluster.snapshot")
    assert third.docker("swarm ca").out == ca
    assert third.docker("node inspect --format {{.Spec.Labels.disk}} self").out == "ssd"
    assert third.docker("swarm join-token -q worker").out == token
    first.docker("swarm", "join", "--token", token, f"{third.address}:2377")
    eventually(lambda: [task["node"] in ("host1", "host3") for task in running(third, "web")] == [True] * 2, timeout=90)
    eventually(lambda: third.engine("ps -q --filter label=com.docker.swarm.service.name=web").lines)
    task = third.engine("ps -q --filter label=com.docker.swarm.service.name=web").lines[0]
    assert third.engine("exec", task, "cat", "/run/secrets/word").out == "very-hidden-word"
    again = third.exec(f"{CTL} snapshot restore --key-file /root/key /root/cluster.snapshot", check=False)
    assert again.code == 1 and "already part of a swarm" in again.err


def test_the_playbooks_save_and_restore(agents, tmp_path):
    first = cluster(agents)
    first.docker("config create settings -", stdin="a=b")
    ca = first.docker("swarm ca").out
    (tmp_path / "key").write_text("a secret that nobody knows\n")
    options = ["-e", f"backup_file={tmp_path / 'saved'}", "-e", f"backup_key_file={tmp_path / 'key'}"]
    told = play("playbooks/backup.yml", *options).stdout
    assert "The cluster is saved in" in told and "nobody knows" not in told
    refused = play("playbooks/restore.yml", *options, check=False)
    assert refused.returncode and "host1 is in a cluster (active)" in refused.stdout
    outside(agents)
    told = play("playbooks/restore.yml", *options).stdout
    assert "nobody knows" not in told
    assert first.docker("swarm ca").out == ca
    assert first.docker("config ls --format {{.Name}}").lines == ["settings"]
    for host in agents:
        assert host.exec("ls /run/swarm-agent | grep snapshot || true").out == ""
    outside(agents)
