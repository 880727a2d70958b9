"""`docker stack`, from a compose file to its removal: networks, secrets, configs, an update and --prune."""

from __future__ import annotations

import json

import pytest

from tests.lab.clusterkit import cluster, http, running
from tests.lab.labkit import Host, Lab, eventually

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

COMPOSE = """
version: "3.8"
services:
  web:
    image: whoami
    networks: [front, back]
    ports: ["8090:80"]
    secrets:
      - source: password
        target: pass
        mode: 0400
    configs:
      - source: settings
        target: /etc/settings.ini
    environment:
      PLACE: "{{.Node.Hostname}}/{{.Task.Slot}}"
    deploy:
      replicas: REPLICAS
      labels: {tier: front}
      update_config: {parallelism: 0, monitor: 100ms}
  store:
    image: alpine
    command: ["sleep", "1d"]
    networks:
      back:
        aliases: [database]
    deploy:
      mode: global
WORKER
networks:
  front:
  back:
    attachable: true
secrets:
  password:
    file: ./password
configs:
  settings:
    file: ./settings.ini
"""
WORKER = """
  worker:
    image: alpine
    command: ["sleep", "1d"]
    networks: [back]
"""


@pytest.fixture(scope="module")
def first(lab: Lab) -> Host:
    return cluster(lab)


@pytest.fixture(scope="module")
def compose(first, tmp_path_factory):
    """Deploys a version of the file; the stack is removed at the end, whatever happened."""
    folder = tmp_path_factory.mktemp("stack")
    (folder / "password").write_text("s3cret")
    (folder / "settings.ini").write_text("colour=blue\n")

    def deploy(*options: str, replicas: int = 2, worker: bool = True):
        text = COMPOSE.replace("REPLICAS", str(replicas)).replace("WORKER", WORKER if worker else "")
        (folder / "stack.yml").write_text(text)
        return first.docker("stack", "deploy", "--detach=true", *options, "-c", str(folder / "stack.yml"), "shop")

    yield deploy
    first.docker("stack", "rm", "shop", check=False)


def names(first: Host, kind: str) -> set[str]:
    form = "{{.Name}}"
    listed = first.docker(kind, "ls", "--format", form, "--filter", "label=com.docker.stack.namespace=shop")
    return set(listed.lines)


def container(host: Host, service: str) -> str:
    return host.engine("ps", "-q", "--filter", f"label=com.docker.swarm.service.name={service}").lines[0]


def test_deploy_makes_everything_that_the_file_names(first, compose):
    said = compose().out
    for line in ("Creating network shop_front", "Creating network shop_back", "Creating secret shop_password",
                 "Creating config shop_settings", "Creating service shop_web",
                 "Creating service shop_store"):  # fmt: skip
        assert line in said
    assert names(first, "network") == {"shop_front", "shop_back"}
    assert names(first, "secret") == {"shop_password"}
    assert names(first, "config") == {"shop_settings"}
    assert names(first, "service") == {"shop_web", "shop_store", "shop_worker"}
    eventually(lambda: len(running(first, "shop_web")) == 2)
    eventually(lambda: len(running(first, "shop_store")) == 3)
    eventually(lambda: len(running(first, "shop_worker")) == 1)


def test_the_stack_answers_on_its_port_on_every_host(first, lab):
    for host in lab:
        assert eventually(lambda host=host: http(host, 8090))


def test_labels_tell_which_stack_it_is(first):
    spec = first.docker("service inspect shop_web").json[0]["Spec"]
    assert spec["Labels"] == {
        "com.docker.stack.image": "whoami",
        "com.docker.stack.namespace": "shop",
        "tier": "front",
    }
    assert spec["TaskTemplate"]["ContainerSpec"]["Labels"] == {"com.docker.stack.namespace": "shop"}
    aliases = {alias for network in spec["TaskTemplate"]["Networks"] for alias in network["Aliases"]}
    assert aliases == {"web"}


def test_secrets_configs_and_templates_are_in_the_containers(first):
    task = running(first, "shop_web")[0]
    look = ("exec", task["id"])
    assert first.docker(*look, "cat", "/run/secrets/pass").out == "s3cret"
    assert first.docker(*look, "stat", "-c", "%a", "/run/secrets/pass").out == "400"
    assert first.docker(*look, "cat", "/etc/settings.ini").out == "colour=blue"
    slot = task["name"].split(".")[1]
    environment = first.docker("container", "inspect", task["id"]).json[0]["Config"]["Env"]
    assert f"PLACE={task['node']}/{slot}" in environment


def test_ls_services_and_ps(first):
    listed = json.loads(first.docker("stack", "ls", "--format", "{{json .}}").out)
    assert (listed["Name"], listed["Services"]) == ("shop", "3")
    services = [json.loads(line) for line in first.docker("stack", "services", "--format", "{{json .}}", "shop").lines]
    assert {service["Name"]: service["Replicas"] for service in services} == {
        "shop_web": "2/2",
        "shop_store": "3/3",
        "shop_worker": "1/1",
    }
    assert len(first.docker("stack", "ps", "-q", "shop").lines) == 6
    assert "nothing found in stack: other" in first.docker("stack", "ps", "other", check=False).err.lower()


def test_deploying_again_changes_only_what_changed(first, compose):
    before = {task["id"] for name in ("web", "store") for task in running(first, f"shop_{name}")}
    assert "Updating service shop_web" in compose(replicas=3).out
    eventually(lambda: len(running(first, "shop_web")) == 3)
    after = {task["id"] for name in ("web", "store") for task in running(first, f"shop_{name}")}
    assert before < after


def test_prune_removes_what_the_file_no_longer_names(first, compose):
    compose(worker=False)
    assert "shop_worker" in names(first, "service")
    assert "Removing service shop_worker" in compose("--prune", worker=False).out
    assert names(first, "service") == {"shop_web", "shop_store"}


def test_rm_removes_all_of_it(first, lab):
    said = first.docker("stack", "rm", "shop").out
    assert "Removing service shop_web" in said and "Removing network shop_back" in said
    for kind in ("service", "secret", "config"):
        assert names(first, kind) == set()
    eventually(lambda: not names(first, "network"))
    for host in lab:
        label = "label=com.docker.swarm.service.name=shop_store"
        eventually(lambda host=host, label=label: not host.engine("ps", "-aq", "--filter", label).lines)
    assert first.docker("stack", "ls", "-q", check=False).out in ("", "NAME      SERVICES")
