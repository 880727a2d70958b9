"""What tests of a whole cluster share: hosts with the agent on them, in and out of a cluster."""

from __future__ import annotations

import json
import os
from typing import Any

from tests.lab.labkit import Host, Lab, eventually
from tests.lab.playbooks import play


def with_agents(lab: Lab) -> Lab:
    """The lab with this checkout's agent running on every host and all images loaded.

    With LAB_DEPLOYED=1 in the environment the hosts are taken as they are: for many runs while one writes a test.
    """
    if not os.environ.get("LAB_DEPLOYED"):
        play("site.yml", "--skip-tags", "cluster")
    lab.images()
    return lab


def outside(lab: Lab) -> None:
    """Every host is in no cluster, and nothing is left of one."""
    for host in lab:
        if "Swarm: inactive" not in host.docker("info").out:
            host.docker("swarm leave --force", timeout=120)
    for host in lab:
        left = host.engine("ps -aq --filter label=com.docker.swarm.task.id").out.split()
        assert not left, f"{host.name} still has containers of tasks: {left}"


def cluster(lab: Lab) -> Host:
    """A fresh cluster: host1 manages, the others work for it. Returns host1."""
    outside(lab)
    first = lab.host("host1")
    first.docker("swarm", "init", "--advertise-addr", first.address)
    token = first.docker("swarm join-token -q worker").out
    for host in lab:
        if host is not first:
            host.docker("swarm", "join", "--token", token, f"{first.address}:2377")
    eventually(lambda: [node["Status"] for node in nodes(first)] == ["Ready"] * len(lab.hosts))
    return first


def nodes(host: Host) -> list[dict[str, Any]]:
    """`docker node ls` as objects."""
    return [json.loads(line) for line in host.docker("node", "ls", "--format", "{{json .}}").lines]


def tasks(host: Host, service: str) -> list[dict[str, str]]:
    """`docker service ps`, newest first within each slot."""
    keys = ("id", "name", "image", "node", "desired", "current", "error")
    columns = ("ID", "Name", "Image", "Node", "DesiredState", "CurrentState", "Error")
    form = "\t".join(f"{{{{.{column}}}}}" for column in columns)
    lines = host.docker("service", "ps", "--no-trunc", "--format", form, service).out.splitlines()
    return [dict(zip(keys, (line + "\t").split("\t"), strict=False)) for line in lines]


def running(host: Host, service: str) -> list[dict[str, str]]:
    """The tasks that run and shall run."""
    return [
        task for task in tasks(host, service) if task["current"].startswith("Running") and task["desired"] == "Running"
    ]


def task_containers(host: Host, service: str) -> list[str]:
    """Names of the running containers of a service on one host, from its plain engine."""
    names = host.engine("ps", "--format", "{{.Names}}", "--filter", f"label=com.docker.swarm.service.name={service}")
    return names.out.split()


def http(host: Host, port: int) -> Any:
    """What a `whoami` says behind a published port of this host, or None when nobody answers."""
    try:
        return host.http(port)
    except OSError:
        return None
