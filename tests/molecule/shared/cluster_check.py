#!/usr/bin/python3
"""What the scenarios make and look at, in one program on a host: there, a task of Ansible's own costs seconds.

    cluster_check.py deploy               an overlay, a service on it with six tasks, published on 8080
    cluster_check.py without HOST         the cluster as it has to be when HOST has lost its power
    cluster_check.py returned HOST        and when HOST is back
    cluster_check.py mesh                 this host balances the published port and the service's address by IPVS
    cluster_check.py whole N              N nodes, all ready, and the service answers on each
    cluster_check.py remember             note when the service's containers were started
    cluster_check.py same N               as `whole`, by the containers noted, none of them restarted

Each check waits until it is so, and fails with what it saw last. Standard library and the docker command only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

SERVICE, REPLICAS, PORT = "web", 6, 8080
LABEL = "com.docker.swarm.service.name"
NOTES = Path("/root/containers.json")
PATIENCE = 240  # seconds: an emulated host on a busy machine is slow, and that is not what is tested


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", "--context", "swarm", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"docker {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def rows(*arguments: str) -> list[dict]:
    return [json.loads(line) for line in docker(*arguments, "--format", "{{json .}}").splitlines()]


def eventually(what: str, question):
    """Ask until the answer is true, and return it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            last = question()
            if last:
                print(f"{what}: {json.dumps(last) if not isinstance(last, str) else last}")
                return last
        except (AssertionError, OSError, LookupError, ValueError) as error:
            last = f"{type(error).__name__}: {error}"
        if time.monotonic() > deadline:
            sys.exit(f"NOT SO: {what}; last seen: {last!r}")
        time.sleep(1)


def peers() -> dict[str, str]:
    """Addresses of all hosts of the lab by their name."""
    with open("/etc/hosts") as table:
        words = [line.split() for line in table if not line.startswith("127.")]
    return {name: address for address, name in words}


def nodes() -> dict[str, dict]:
    return {row["Hostname"]: row for row in rows("node", "ls")}


def running() -> list[str]:
    """The hosts of the service's tasks that run and shall run."""
    found = rows("service", "ps", SERVICE, "--filter", "desired-state=running")
    return sorted(row["Node"] for row in found if row["CurrentState"].startswith("Running"))


def all_running() -> list[str]:
    """The hosts on which the service's tasks run, once they all do."""
    hosts = running()
    errors = {row["Error"] for row in rows("service", "ps", SERVICE, "--no-trunc") if row["Error"]}
    assert len(hosts) == REPLICAS, f"{len(hosts)} of {REPLICAS} run; errors: {'; '.join(sorted(errors)) or 'none'}"
    return hosts


def ask(address: str) -> dict:
    with urllib.request.urlopen(f"http://{address}:{PORT}/", timeout=10) as response:
        return json.load(response)


def answers(hosts: list[str]) -> dict[str, list[str]] | None:
    """The containers that answer behind each host's published port; None until each has several."""
    addresses, seen = peers(), {}
    for host in hosts:
        told = [ask(addresses[host]) for _ in range(6)]
        seen[host] = sorted({one["container"][:12] for one in told})
        # A host of the cluster is seen as itself, or as the host that it asked (docs/networking.md).
        own = {addresses[os.uname().nodename], addresses[host], "127.0.0.1"}
        wrong = {one["peer"]["address"] for one in told} - own
        assert not wrong, f"asked at {host}, a task saw the client as {wrong}, not as one of {own}"
    return seen if all(len(containers) > 1 for containers in seen.values()) else None


def stranger_answers(hosts: list[str]) -> dict[str, list[str]] | None:
    """The same for a client that is no host of the cluster: a network namespace here, with a MAC and an address of its
    own on the hosts' network. Whichever host it asks and wherever the task runs, the task sees the client's address.
    """
    addresses, here = peers(), os.uname().nodename
    mine = addresses[here].rpartition(".")[0] + ".200"
    if not Path("/run/netns/stranger").exists():
        [link] = [
            entry["ifname"]
            for entry in json.loads(subprocess.check_output(["ip", "-j", "-4", "address"]))
            if addresses[here] in {found["local"] for found in entry["addr_info"]}
        ]
        for command in (
            "ip netns add stranger",
            f"ip link add stranger0 link {link} netns stranger type macvlan mode bridge",
            f"ip -n stranger address add {mine}/24 dev stranger0",
            "ip -n stranger link set stranger0 up",
        ):
            subprocess.run(command.split(), check=True)
    program = (
        "import sys, urllib.request\n"
        "for _ in range(12): print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode().replace('\\n', ''))"
    )
    seen = {}
    for host in hosts:
        if host == here:
            continue  # a macvlan link does not reach the host that it hangs on
        command = ["ip", "netns", "exec", "stranger", "python3", "-c", program, f"http://{addresses[host]}:{PORT}/"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        told = [json.loads(line) for line in done.stdout.splitlines()]
        wrong = {one["peer"]["address"] for one in told} - {mine}
        assert not wrong, f"asked at {host}, a task saw the stranger as {wrong}, not as {mine}"
        seen[host] = sorted({one["container"][:12] for one in told})
    return seen if all(len(containers) > 1 for containers in seen.values()) else None


def names() -> dict[str, list[str]] | None:
    """What containers on the overlay are told about the service: its one address, and those of all its tasks."""
    local = subprocess.run(
        ["docker", "--context", "default", "ps", "--quiet", "--filter", f"label={LABEL}={SERVICE}"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    program = (
        "import socket, json; look = lambda name: sorted({a[4][0] for a in socket.getaddrinfo(name, 80)});"
        f"print(json.dumps([look('{SERVICE}'), look('tasks.{SERVICE}')]))"
    )
    told = subprocess.run(
        ["docker", "--context", "default", "exec", local[0], "python3", "-c", program],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    one, every = json.loads(told.stdout)
    return {"vip": one, "tasks": every} if len(one) == 1 and len(every) == REPLICAS and one[0] not in every else None


def kernel_services() -> dict[int, int]:
    """How many destinations each packet mark has in the kernel's table of IPVS."""
    found: dict[int, int] = {}
    for line in Path("/proc/net/ip_vs").read_text().splitlines():
        words = line.split()
        if words[:1] == ["FWM"]:
            mark = int(words[1], 16)
            found[mark] = 0
        elif words[:1] == ["->"] and found and words[1] != "RemoteAddress:Port":
            found[mark] += 1
    return found


def mesh() -> None:
    """What the agent says it told the kernel, and what the kernel has."""

    def balanced() -> dict[str, str] | None:
        done = subprocess.run(["swarmctl", "mesh", "--json"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        report, kernel = json.loads(done.stdout), kernel_services()
        assert report["balancer"] == "ipvs", f"balanced by {report['balancer']}: {report['reason']}"
        assert not report["failures"] + report["problems"], report
        ours = [item for item in report["frontends"] if {b["service"] for b in item["backends"]} == {SERVICE}]
        seen = {}
        for item in ours:
            assert item["programmed"].startswith("ipvs "), item
            counts = [kernel.get(int(mark, 16), 0) for mark in item["programmed"].removeprefix("ipvs ").split(", ")]
            assert set(counts) == {REPLICAS}, f"{item['name']}: destinations in the kernel {counts}"
            seen[item["name"]] = f"{item['programmed']}, {REPLICAS} destinations in the kernel"
        return seen if {item["kind"] for item in ours} == {"port", "vip"} and f"{PORT}/tcp" in seen else None

    eventually("balanced by IPVS", balanced)


def deploy() -> None:
    docker("network", "create", "--driver", "overlay", "app")
    docker(
        "service", "create", "--detach", "--name", SERVICE, "--replicas", str(REPLICAS), "--network", "app",
        "--publish", f"{PORT}:80", "--restart-delay", "1s", "--no-resolve-image", "whoami",
    )  # fmt: skip
    eventually("the service's tasks run on", all_running)
    eventually("containers that answer, by host asked", lambda: answers(list(peers())))
    eventually("containers that answer a stranger by his own address", lambda: stranger_answers(list(peers())))


def without(host: str) -> None:
    left = [name for name in peers() if name != host]
    eventually(
        "another host leads",
        lambda: [n for n, row in nodes().items() if row["ManagerStatus"] == "Leader" and n != host],
    )
    eventually(f"{host} is known to be down", lambda: nodes()[host]["Status"] == "Down")
    eventually("all tasks run elsewhere, on", lambda: host not in (hosts := all_running()) and hosts)
    eventually("containers that answer, by host asked", lambda: answers(left))
    eventually("containers that answer a stranger by his own address", lambda: stranger_answers(left))
    eventually("names in containers", names)


def returned(host: str) -> None:
    eventually(f"{host} is ready, and a manager that is reached", lambda: (
        nodes()[host]["Status"] == "Ready" and nodes()[host]["ManagerStatus"] == "Reachable"
    ))  # fmt: skip
    docker("service", "update", "--detach", "--force", "--update-parallelism", "3", SERVICE)
    eventually("work is given to it again, tasks on", lambda: host in (hosts := all_running()) and hosts)
    eventually("containers that answer, by host asked", lambda: answers(list(peers())))
    eventually("names in containers", names)


def whole(count: str) -> None:
    eventually("nodes", lambda: len(nodes()) == int(count) and all(n["Status"] == "Ready" for n in nodes().values())
               and sorted(nodes()))  # fmt: skip
    eventually("the service's tasks run on", all_running)
    eventually("containers that answer, by host asked", lambda: answers(list(nodes())))


def started() -> dict[str, float]:
    """When each container that answers was started, as it says itself."""
    seen: dict[str, float] = {}
    for address in peers().values():
        for _ in range(3 * REPLICAS):
            told = ask(address)
            seen[told["container"][:12]] = told["started"]
    return seen


def remember() -> None:
    NOTES.write_text(json.dumps(eventually("containers", lambda: len(s := started()) == REPLICAS and s)))


def same(count: str) -> None:
    whole(count)
    noted = json.loads(NOTES.read_text())
    eventually("the same containers, not restarted", lambda: started() == noted and sorted(noted))


if __name__ == "__main__":
    verbs = {
        "deploy": deploy,
        "without": without,
        "returned": returned,
        "mesh": mesh,
        "whole": whole,
        "remember": remember,
        "same": same,
    }
    verbs[sys.argv[1]](*sys.argv[2:])
