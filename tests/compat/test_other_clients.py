"""Clients other than the newest CLI, on a running cluster: Debian's docker 20.10 on the hosts themselves, docker-py."""

from __future__ import annotations

import re
from collections.abc import Iterator

import docker
import docker.errors
import docker.types
import pytest

from tests.lab.clusterkit import cluster, running
from tests.lab.labkit import Host, Lab, eventually

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def first(lab: Lab) -> Host:
    return cluster(lab)


@pytest.fixture(scope="module")
def client(first: Host) -> Iterator[docker.DockerClient]:
    client = docker.DockerClient(base_url=f"unix://{first.socket()}", version="auto")
    yield client
    client.close()


@pytest.fixture(autouse=True)
def nothing_left(first: Host) -> Iterator[None]:
    yield
    left = first.docker("service ls -q").lines
    if left:
        first.docker("service", "rm", *left)
    eventually(lambda: not first.engine("ps -aq --filter label=com.docker.swarm.task.id").lines)


# --- the hosts' own CLI ----------------------------------------------------------------------------------------------


def old(host: Host, command: str, **how):
    return host.exec(f"docker --host unix:///run/swarm-agent/docker.sock {command}", **how)


def test_the_tutorial_with_the_cli_of_debian_12(first):
    assert old(first, "version --format {{.Client.Version}}").out.startswith("20.10.")
    assert "Swarm: active" in old(first, "info").out
    assert re.search(r"\* +host1 +Ready +Active +Leader", old(first, "node ls").out)
    done = old(first, "service create --name hello --replicas 2 --publish 8085:80 whoami", timeout=120)
    assert "overall progress: 2 out of 2 tasks" in done.out and "Service converged" in done.out
    assert re.search(r"hello +replicated +2/2 +whoami:latest +\*:8085->80/tcp", old(first, "service ls").out)
    assert re.search(r"^ Replicas:\s+2$", old(first, "service inspect --pretty hello").out, re.M)
    assert (
        len(re.findall(r"hello\.\d +whoami:latest +host\d +Running +Running", old(first, "service ps hello").out)) == 2
    )
    assert "hello scaled to 3" in old(first, "service scale hello=3", timeout=120).out
    old(first, "service update --env-add A=b --update-parallelism 0 hello", timeout=120)
    assert "A=b" in old(first, "service inspect hello").out
    old(first, "service rollback hello", timeout=120)
    assert "A=b" not in old(first, "service inspect --format '{{json .Spec}}' hello").out
    for task in running(first, "hello"):  # on all hosts
        assert old(first, f"exec {task['id']} python3 -c 'print(\"inside\")'").out == "inside"
        shown = old(first, f"inspect --format '{{{{.ID}}}} {{{{.Slot}}}} {{{{.Status.State}}}}' {task['id']}").out
        assert shown == f"{task['id']} {task['name'].split('.')[1]} running"
    assert old(first, "node update --availability drain host3").out == "host3"
    eventually(lambda: "host3" not in {task["node"] for task in running(first, "hello")})
    old(first, "node update --availability active host3")
    assert old(first, "service rm hello").out == "hello"
    refused = old(first, "service inspect hello", check=False)
    assert refused.code == 1 and "no such service: hello" in refused.err


def test_a_stack_with_the_cli_of_debian_12(first):
    compose = "version: '3.8'\nservices: {web: {image: 'redis:3.0.6', deploy: {replicas: 2}}}\n"
    first.exec(f"printf '%s' \"{compose}\" > /tmp/stack.yml")
    assert "Creating service old_web" in old(first, "stack deploy -c /tmp/stack.yml old").out
    eventually(lambda: re.search(r"old_web +replicated +2/2", old(first, "stack services old").out))
    assert old(first, "stack ps -q old").out.count("\n") == 1
    assert "Removing service old_web" in old(first, "stack rm old").out


# --- docker-py -------------------------------------------------------------------------------------------------------


def test_docker_py_sees_tasks_and_their_logs(client):
    secret = client.secrets.create(name="pykey", data=b"hidden")
    config = client.configs.create(name="pyconf", data=b"shown")
    try:
        service = client.services.create(
            "alpine",
            ["sh", "-c", "cat /run/secrets/pykey; echo; cat /pyconf; echo; sleep 1d"],
            name="py",
            env=["A=b"],
            labels={"l": "1"},
            constraints=["node.role==worker"],
            mode=docker.types.ServiceMode("replicated", 2),
            restart_policy=docker.types.RestartPolicy("on-failure", delay=0, max_attempts=3),
            resources=docker.types.Resources(cpu_limit=500_000_000, mem_limit=64 << 20),
            endpoint_spec=docker.types.EndpointSpec(ports={8086: 80}),
            secrets=[docker.types.SecretReference(secret.id, "pykey")],
            configs=[docker.types.ConfigReference(config.id, "pyconf", filename="/pyconf")],
            stop_grace_period=0,
        )
        eventually(lambda: [task["Status"]["State"] for task in service.tasks()] == ["running"] * 2)
        workers = {node.id for node in client.nodes.list(filters={"role": "worker"})}
        tasks = client.api.tasks(filters={"service": "py", "desired-state": "running"})
        assert {task["NodeID"] for task in tasks} == workers
        assert client.api.inspect_task(tasks[0]["ID"])["Spec"]["ContainerSpec"]["Env"] == ["A=b"]
        assert [port["PublishedPort"] for port in client.services.get("py").attrs["Endpoint"]["Ports"]] == [8086]
        logged = eventually(lambda: sorted(b"".join(service.logs(stdout=True)).split()))
        assert logged == [b"hidden", b"hidden", b"shown", b"shown"]
        with pytest.raises(docker.errors.APIError, match="secret 'pykey' is in use by the following service: py"):
            secret.remove()
        eventually(lambda: goes_through(service, lambda: service.scale(1)))
        eventually(lambda: goes_through(service, lambda: service.update(labels={"l": "2"}, force_update=3)))
        service.reload()
        assert service.attrs["Spec"]["Labels"] == {"l": "2"}
        service.remove()
    finally:
        for thing in (secret, config):
            eventually(lambda thing=thing: removed(thing))


def goes_through(service, change) -> bool:
    """Whether a change was taken; the managers may have written the service since it was read, as in Swarm."""
    service.reload()
    try:
        return bool(change())
    except docker.errors.APIError as error:
        if not error.explanation.endswith("update out of sequence"):
            raise
        return False


def removed(thing) -> bool:
    try:
        thing.remove()
    except docker.errors.NotFound:
        return True
    except docker.errors.APIError:
        return False
    return True


def test_docker_py_changes_nodes_and_the_cluster(client):
    node = client.nodes.list(filters={"name": "host2"})[0]
    spec = node.attrs["Spec"]
    assert node.update({**spec, "Labels": {"py": "yes"}})
    assert [found.id for found in client.nodes.list(filters={"node.label": "py=yes"})] == [node.id]
    node.reload()
    assert node.update({**node.attrs["Spec"], "Labels": {}})
    before = client.swarm.attrs["JoinTokens"]["Worker"]
    assert client.swarm.update(rotate_worker_token=True, task_history_retention_limit=4)
    client.swarm.reload()
    assert client.swarm.attrs["JoinTokens"]["Worker"] != before
    assert client.swarm.attrs["Spec"]["Orchestration"] == {"TaskHistoryRetentionLimit": 4}
    assert client.swarm.get_unlock_key() == {"UnlockKey": ""}
    with pytest.raises(docker.errors.APIError, match="already part of a swarm"):
        client.swarm.init()


def test_docker_py_attaches_a_plain_container_to_an_overlay(client):
    network = client.networks.create("pynet", driver="overlay", attachable=True, labels={"n": "m"})
    try:
        assert [found.id for found in client.networks.list(filters={"label": "n=m"})] == [network.id]
        said = client.containers.run("alpine", ["cat", "/etc/hosts"], network="pynet", remove=True)
        subnet = client.networks.get(network.id).attrs["IPAM"]["Config"][0]["Subnet"]
        assert subnet.rsplit(".", 1)[0] in said.decode()
    finally:
        eventually(lambda: removed(network))
