"""Modes of services: global, both kinds of jobs; secrets and configs by every option of the docker CLI."""

from __future__ import annotations

import pytest

from tests.lab.clusterkit import cluster, running, tasks
from tests.lab.labkit import Host, Lab, eventually

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def first(lab: Lab) -> Host:
    return cluster(lab)


@pytest.fixture(autouse=True)
def nothing_left(first):
    yield
    left = first.docker("service ls -q").lines
    if left:
        first.docker("service", "rm", *left)
    eventually(lambda: not first.docker("service ls -q").lines)


def create(first: Host, name: str, *options: str, command: tuple[str, ...] = ("sleep", "1d"), **how):
    return first.docker("service", "create", "--name", name, *options, "alpine", *command, timeout=90, **how)


def replicas(first: Host, name: str) -> str:
    return first.docker("service", "ls", "--filter", f"name={name}", "--format", "{{.Mode}} {{.Replicas}}").out


# --- global ----------------------------------------------------------------------------------------------------------


def test_a_global_service_runs_once_on_every_host_that_may(first, lab):
    assert "Service " in create(first, "every", "--mode", "global").out
    assert replicas(first, "every") == "global 3/3"
    assert {task["node"] for task in running(first, "every")} == {host.name for host in lab}
    names = {task["name"] for task in running(first, "every")}
    assert names == {f"every.{node}" for node in first.docker("node ls -q").lines}
    first.docker("node update --availability drain host3")
    eventually(lambda: {task["node"] for task in running(first, "every")} == {"host1", "host2"})
    first.docker("node update --availability active host3")
    eventually(lambda: len(running(first, "every")) == 3)


def test_a_global_service_keeps_to_its_constraints(first):
    create(first, "workers", "--mode", "global", "--constraint", "node.role==worker")
    assert {task["node"] for task in running(first, "workers")} == {"host2", "host3"}
    refused = first.docker("service scale workers=2", check=False)
    assert "scale can only be used with replicated or replicated-job mode" in refused.err + refused.out


# --- jobs ------------------------------------------------------------------------------------------------------------


def test_a_replicated_job_completes_as_often_as_it_should(first):
    said = create(
        first, "job", "--mode", "replicated-job", "--replicas", "5", "--max-concurrent", "2",
        command=("sh", "-c", "echo done $HOSTNAME"),
    )  # fmt: skip
    assert "job complete" in said.out + said.err
    assert replicas(first, "job") == "replicated job 0/2 (5/5 completed)"
    done = tasks(first, "job")
    assert len(done) == 5 and all(task["current"].startswith("Complete") for task in done)
    mode = first.docker("service inspect job").json[0]
    assert mode["Spec"]["Mode"] == {"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 5}}
    assert "JobIteration" in mode["JobStatus"]


def test_a_job_that_fails_is_tried_again_as_often_as_allowed(first):
    create(
        first, "flaky", "--mode", "replicated-job", "--detach", "--restart-max-attempts", "2", "--restart-delay", "0s",
        command=("sh", "-c", "exit 3"),
    )  # fmt: skip
    eventually(lambda: len(tasks(first, "flaky")) == 3 and all("Failed" in t["current"] for t in tasks(first, "flaky")))
    assert all("task: non-zero exit (3)" in task["error"] for task in tasks(first, "flaky"))


def test_a_job_runs_again_when_it_is_updated_by_force(first):
    create(first, "again", "--mode", "replicated-job", command=("true",))
    before = {task["id"] for task in tasks(first, "again")}
    first.docker("service update --force again", timeout=60)
    after = [task for task in tasks(first, "again") if task["id"] not in before]
    assert len(after) == 1 and after[0]["current"].startswith("Complete")
    assert replicas(first, "again") == "replicated job 0/1 (1/1 completed)"


def test_a_global_job_runs_once_on_every_host(first, lab):
    create(first, "everywhere", "--mode", "global-job", command=("true",))
    done = tasks(first, "everywhere")
    assert {task["node"] for task in done} == {host.name for host in lab}
    assert all(task["current"].startswith("Complete") for task in done)
    assert replicas(first, "everywhere") == "global job 0/0 (3/3 completed)"


# --- secrets and configs ---------------------------------------------------------------------------------------------


@pytest.fixture
def files(first):
    """A secret and a config, gone when the test is over."""
    first.docker("secret", "create", "--label", "a=b", "key", "-", stdin="s3cret")
    first.docker("config", "create", "conf", "-", stdin="x=1\n")
    first.docker(
        "config", "create", "--template-driver", "golang", "templated", "-",
        stdin='{{.Service.Name}} {{.Task.Slot}} {{env "WORD"}}',
    )  # fmt: skip
    yield
    first.docker("service", "rm", "app", check=False)
    eventually(lambda: first.docker("secret rm key", check=False).code == 0)
    first.docker("config rm conf templated")


def test_secrets_and_configs_are_files_with_owner_and_mode(first, files):
    create(
        first, "app", "--env", "WORD=hi",
        "--secret", "key",
        "--secret", "source=key,target=other,uid=7,gid=8,mode=0440",
        "--secret", "source=key,target=/etc/deep/key",
        "--config", "conf",
        "--config", "source=templated,target=/etc/t,mode=0400,uid=5",
    )  # fmt: skip
    task = running(first, "app")[0]["id"]

    def see(*command: str) -> str:
        return first.docker("exec", task, *command).out

    assert see("cat", "/run/secrets/key", "/run/secrets/other", "/etc/deep/key") == "s3cret" * 3
    assert see("stat", "-c", "%a %u %g", "/run/secrets/key") == "444 0 0"
    assert see("stat", "-c", "%a %u %g", "/run/secrets/other") == "440 7 8"
    assert see("cat", "/conf") == "x=1"
    assert see("cat", "/etc/t") == "app 1 hi"
    assert see("stat", "-c", "%a %u", "/etc/t") == "400 5"
    failed = first.docker("exec", task, "sh", "-c", "echo x > /run/secrets/key", check=False)
    assert failed.code != 0


def test_what_a_service_uses_cannot_be_removed(first, files):
    create(first, "app", "--secret", "key", "--config", "conf", "--replicas", "0")
    assert "secret 'key' is in use by the following service: app" in first.docker("secret rm key", check=False).err
    assert "config 'conf' is in use by the following service: app" in first.docker("config rm conf", check=False).err


def test_a_secret_is_exchanged_by_an_update(first, files):
    create(first, "app", "--secret", "key")
    first.docker("secret", "create", "newer", "-", stdin="fresh")
    first.docker("service update --secret-rm key --secret-add source=newer,target=key app", timeout=60)
    task = running(first, "app")[0]["id"]
    assert first.docker("exec", task, "cat", "/run/secrets/key").out == "fresh"
    first.docker("service rm app")
    first.docker("secret rm newer")


def test_secrets_are_shown_without_their_content(first, files):
    shown = first.docker("secret inspect key")
    assert "s3cret" not in shown.out and "czNjcmV0" not in shown.out
    assert shown.json[0]["Spec"]["Labels"] == {"a": "b"}
    assert "x=1" in first.docker("config inspect --pretty conf").out
