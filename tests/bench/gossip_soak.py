"""The lab under CPU hogs: nobody may be declared down that lives; then how soon a power-off is made good.

    make bench-soak MINUTES=30      or: python -m tests.bench.gossip_soak [--minutes 30] [--hogs 2] [--kills 5]

Three hosts with default settings, one manager, twelve tasks. So many core-hungry processes per host as `--hogs` says
run for the whole time. Each second the manager is asked for its nodes, and each state but `ready` is counted; at the
end each agent tells what its gossip saw. Then, without hogs, one worker after the other loses power: time until the
manager has as many tasks RUNNING elsewhere as before. LAB_DEPLOYED=1 takes the agent that is on the hosts.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import Counter
from typing import Any

from tests.lab.clusterkit import cluster, nodes, outside, running, with_agents
from tests.lab.labkit import Host, Lab, eventually

TASKS = 12
COUNTERS = ("suspicions", "deaths", "deaths_averted", "refutations", "pauses")


def metrics(host: Host) -> dict[str, float]:
    """The agent's metrics by name, those with labels too."""
    text = host.exec("curl -s --unix-socket /run/swarm-agent/docker.sock http://agent/swarm-agent/metrics").out
    lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def hog(lab: Lab, count: int, seconds: float) -> None:
    """Start processes on every host that want a core each; they end by themselves."""
    for host in lab:
        for _ in range(count):
            host.exec(f"timeout {seconds:.0f} sh -c 'while :; do :; done' > /dev/null 2>&1 &")


def soak(lab: Lab, manager: Host, minutes: float, hogs: int) -> None:
    """Watch the nodes' states for that long, and print what was seen."""
    before = {host.name: metrics(host) for host in lab}
    hog(lab, hogs, minutes * 60)
    end = time.monotonic() + minutes * 60
    looks, odd, down, last = 0, Counter[str](), 0, {}  # type: ignore[var-annotated]
    while time.monotonic() < end:
        for node in nodes(manager):
            name, state = node["Hostname"], node["Status"]
            if state != "Ready":
                odd[f"{name} {state}"] += 1
                if last.get(name) != state and state == "Down":
                    down += 1
                    print(f"{time.strftime('%H:%M:%S')} {name} is {state}", flush=True)
            last[name] = state
        looks += 1
        time.sleep(1.0)
    print(f"{minutes:g} minutes, {hogs} hogs per host, {looks} looks, load {os.getloadavg()[0]:.1f}: "
          f"{down} false down" + (f"; looks that were not Ready: {dict(odd)}" if odd else ""))  # fmt: skip
    print("\n| host | " + " | ".join(COUNTERS) + " | worst loop lag, s | RSS, MiB |\n| --- |" + " --- |" * 7)
    for host in lab:
        now = metrics(host)
        grown = [
            now.get(f"swarm_gossip_{name}_total", 0) - before[host.name].get(f"swarm_gossip_{name}_total", 0)
            for name in COUNTERS
        ]
        rss = now["process_resident_memory_bytes"] / 2**20
        cells = [f"{value:.0f}" for value in grown] + [f"{now['swarm_loop_lag_seconds_worst']:.2f}", f"{rss:.0f}"]
        print(f"| {host.name} | " + " | ".join(cells) + " |")


def replacements(lab: Lab, manager: Host, kills: int) -> list[float]:
    """Seconds from power-off of a worker to all tasks RUNNING elsewhere."""
    times = []
    workers = [host for host in lab if host is not manager]
    for number in range(kills):
        victim = workers[number % len(workers)]
        eventually(lambda: len(running(manager, "soak")) == TASKS, timeout=120)
        manager.docker("service update --detach --force soak")  # spread again over all hosts
        eventually(lambda v=victim: any(task["node"] == v.name for task in running(manager, "soak")), timeout=120)
        eventually(lambda: len(running(manager, "soak")) == TASKS, timeout=120)
        time.sleep(2.0)
        start = time.monotonic()
        victim.kill()
        eventually(lambda v=victim: len(elsewhere(manager, v)) == TASKS, timeout=120, every=0.05)
        times.append(time.monotonic() - start)
        victim.start()
        eventually(lambda: {node["Status"] for node in nodes(manager)} == {"Ready"}, timeout=120)
    return times


def elsewhere(manager: Host, victim: Host) -> list[dict[str, Any]]:
    return [task for task in running(manager, "soak") if task["node"] != victim.name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--hogs", type=int, default=2, help="per host")
    parser.add_argument("--kills", type=int, default=5)
    options = parser.parse_args()
    lab = with_agents(Lab.up(3))
    manager = cluster(lab)
    try:
        manager.docker(f"service create --name soak --replicas {TASKS} --restart-delay 0s whoami", timeout=120)
        eventually(lambda: len(running(manager, "soak")) == TASKS, timeout=120)
        if options.minutes:
            soak(lab, manager, options.minutes, options.hogs)
        if options.kills:
            times = replacements(lab, manager, options.kills)
            print(f"\npower-off to all {TASKS} tasks RUNNING elsewhere: median {statistics.median(times):.2f} s, "
                  f"all {', '.join(f'{one:.2f}' for one in times)}; load {os.getloadavg()[0]:.1f}")  # fmt: skip
    finally:
        lab.restore()
        outside(lab)


if __name__ == "__main__":
    main()
