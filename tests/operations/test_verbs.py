"""The playbooks, a verb each, on real hosts: what they promise in docs/operating.md, in one life of a cluster."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs_commands import of_page
from tests.lab.clusterkit import cluster, http, outside, running, with_agents
from tests.lab.labkit import ROOT, Host, Lab, eventually, run
from tests.lab.playbooks import play
from tests.lab.upgrading import Load, containers, next_version

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
DAEMON_JSON = "/etc/docker/daemon.json"


@pytest.fixture(scope="module")
def first(lab: Lab) -> Iterator[Host]:
    with_agents(lab)
    yield cluster(lab)
    lab.restore()
    outside(lab)


def changes(output: str) -> int:
    """All `changed` of the recap."""
    return sum(int(count) for count in re.findall(r"changed=(\d+)", output))


def verb(name: str, *arguments: str, check: bool = True) -> str:
    return play(f"playbooks/{name}.yml", *arguments, check=check).stdout


def pinned(lab: Lab) -> str:
    """The archive that the hosts run."""
    version = lab.host("host1").exec("basename $(readlink /opt/swarm-agent/current)").out
    return f"agent_archive=.cache/{version}.tar.gz"


def test_services(first: Host, tmp_path: Path) -> None:
    declared = {
        "services_networks": [{"name": "back"}],
        "services_secrets": [{"name": "key", "data": "s3cret"}],
        "services_configs": [{"name": "settings", "data": "colour=blue"}],
        "services_stacks": [
            {"name": "shop", "definition": {"services": {"web": {"image": "whoami", "ports": ["8087:80"]}}}}
        ],
        "services_declared": [
            {
                "name": "worker", "image": "alpine", "args": ["sleep", "1d"], "networks": [{"name": "back"}],
                "secrets": [{"name": "key"}], "configs": [{"name": "settings"}], "update_config": {"monitor": "500ms"},
            }
        ],
    }  # fmt: skip
    file = tmp_path / "services.json"
    file.write_text(json.dumps(declared))
    told = verb("services", "-e", f"@{file}", "--check", "--diff")
    assert changes(told) == 5 and "s3cret" not in told and first.docker("service ls -q").out == ""
    done = verb("services", "-e", f"@{file}", "--diff")
    assert changes(done) == 5 and "s3cret" not in done and http(first, 8087)
    assert changes(verb("services", "-e", f"@{file}", "--diff")) == 0


def test_looking_only_and_where_the_time_went(first: Host) -> None:
    done = play("site.yml", "--tags", "preflight", env={"ANSIBLE_CALLBACKS_ENABLED": "swarm.cluster.times"}).stdout
    assert changes(done) == 0 and "Learn about the host" in done and "Run the agent" not in done
    assert re.search(r"^[0-9.]+ s in all, [0-9]+ tasks$", done, re.MULTILINE), done


def test_an_inventory_from_the_cluster(first: Host, lab: Lab, tmp_path: Path) -> None:
    """The manager that is asked first is nobody; the second one answers by ssh."""
    keys = ROOT / ".lab"
    ssh_args = f"-i {keys / 'id_ed25519'} -o UserKnownHostsFile={keys / 'known_hosts'} -o IdentitiesOnly=yes"
    file = tmp_path / "mine.swarm.yml"
    managers = ["ssh://root@127.0.0.1:1", f"ssh://root@{first.address}"]
    file.write_text(json.dumps({"plugin": "swarm.cluster.nodes", "managers": managers, "ssh_args": ssh_args}))
    program = str(ROOT / ".venv" / "bin" / "ansible-inventory")
    told = run([program, "-i", str(file), "--list"], cwd=ROOT).json
    assert sorted(told["workers"]["hosts"]) == ["host2", "host3"] and told["leader"]["hosts"] == ["host1"]
    assert first.address in json.dumps(told["_meta"]["hostvars"]["host1"]["ansible_host"])


def test_commands_of_troubleshooting(first: Host) -> None:
    """Those that only look are typed as the page has them."""
    looks = r"docker --context swarm (service ps .*|node ls)|curl .*|swarmctl .*|systemctl .*|journalctl .*"
    typed = sorted(set(of_page("troubleshooting.md", looks)))
    assert len(typed) >= 6
    for command in typed:
        first.exec(command.replace("SERVICE", "shop_web").replace("PORT", "8087"))


def test_an_upgrade_of_the_agent_under_load(first: Host, lab: Lab, tmp_path: Path) -> None:
    """No request fails, no container is restarted, and a second run has nothing to do."""
    archive = next_version(tmp_path)
    eventually(lambda: len(running(first, "shop_web")) == 1)
    before = containers(lab)
    with Load(lab, 8087) as load:
        done = verb("upgrade", "-e", f"agent_archive={archive}")
    assert changes(done) == 3, done
    assert before and containers(lab) == before
    assert load.asked > 10 and load.failures == []
    name = Path(archive).name.removesuffix(".tar.gz")
    assert {host.exec("basename $(readlink /opt/swarm-agent/current)").out for host in lab} == {name}
    assert changes(verb("upgrade", "-e", f"agent_archive={archive}")) == 0


def test_draining_and_back(first: Host, lab: Lab) -> None:
    verb("drain", "-e", "node=host2")
    assert lab.host("host2").engine("ps -q --filter label=com.docker.swarm.task.id").out == ""
    assert changes(verb("drain", "-e", "node=host2")) == 0
    verb("drain", "-e", "node=host2", "-e", "availability=active")
    assert first.docker("node", "inspect", "host2").json[0]["Spec"]["Availability"] == "active"


def test_rotating_tokens_and_root(first: Host) -> None:
    old = first.docker("swarm join-token -q worker").out
    assert changes(verb("rotate_tokens", "-e", f"revoke={old}")) == 1
    assert changes(verb("rotate_tokens", "-e", f"revoke={old}")) == 0
    root = first.docker("swarm ca").out
    verb("rotate_ca")
    assert first.docker("swarm ca").out != root
    assert {line["tls"] for line in tls(first)} == {"Ready"}


def tls(host: Host) -> list[dict[str, str]]:
    lines = host.docker("node", "ls", "--format", "{{.Hostname}} {{.TLSStatus}}").lines
    return [dict(zip(("name", "tls"), line.split(" "), strict=True)) for line in lines]


SWARM = """
systemctl is-active -q swarm-agent && exit 3
echo '{"live-restore": false}' > /etc/docker/daemon.json
systemctl restart docker
docker swarm init --advertise-addr ADDRESS > /dev/null
docker network create --driver overlay --attachable legacy > /dev/null
printf colour=blue | docker config create legacy_settings - > /dev/null
printf s3cret | docker secret create legacy_key - > /dev/null
docker service create --detach --name legacy --network legacy --config legacy_settings --publish 8088:80 \
    --env COLOUR=red --replicas 2 --no-resolve-image whoami > /dev/null
docker service create --detach --name guarded --secret legacy_key --no-resolve-image --update-monitor 500ms \
    alpine sleep 1d > /dev/null
"""


def test_a_host_goes_another_cluster_is_adopted_and_the_host_comes_back(first: Host, lab: Lab, tmp_path: Path) -> None:
    third, archive = lab.host("host3"), pinned(lab)
    first.docker("node promote host3")
    eventually(lambda: first.docker("node", "inspect", "host3").json[0].get("ManagerStatus"))
    verb("remove_node", "-e", "node=host3")
    assert first.docker("node", "ls", "--format", "{{.Hostname}}").lines == ["host1", "host2"]
    assert "Swarm: inactive" in third.docker("info").out

    refused = verb("reset", "--limit", "host3", check=False)
    assert "reset_confirm=yes" in refused and changes(refused) == 0
    verb("reset", "--limit", "host3", "-e", "reset_confirm=yes")
    assert third.exec("ls /opt/swarm-agent /var/lib/swarm-agent /usr/local/bin/swarmctl", check=False).code != 0

    try:
        third.exec(SWARM.replace("ADDRESS", third.address), timeout=120)
        stopped = play("site.yml", "--tags", "preflight", check=False).stdout
        assert "the engine is in Docker's own swarm mode" in stopped and "docker swarm leave --force" in stopped
        plan = verb("adopt", "-e", "adopt_from=host3")
        assert changes(plan) == 0 and "created service legacy" in plan
        assert "service guarded lacks secret legacy_key" in plan
        file = tmp_path / "secrets.json"
        file.write_text(json.dumps({"adopt_secrets": {"legacy_key": "s3cret"}}))
        done = verb("adopt", "-e", "adopt_from=host3", "-e", "adopt_apply=true", "-e", f"@{file}", "--diff")
        assert "s3cret" not in done
        assert eventually(lambda: http(first, 8088))["env"]["COLOUR"] == "red"
        [task] = running(first, "guarded")
        assert first.docker("exec", task["id"], "cat", "/run/secrets/legacy_key").out == "s3cret"
        again = verb("adopt", "-e", "adopt_from=host3", "-e", "adopt_apply=true", "-e", f"@{file}")
        assert changes(again) == 0 and "All of it is there already" in again
    finally:
        third.exec("docker swarm leave --force", check=False, timeout=120)

    added = verb("add_nodes", "-e", archive)
    assert first.docker("node", "ls", "--format", "{{.Hostname}}").lines == ["host1", "host2", "host3"], added
    assert changes(verb("add_nodes", "-e", archive)) == 0
    shown = verb("status")
    assert "3 nodes, 1 of them managers" in shown and "service legacy" in shown
