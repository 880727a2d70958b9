"""How long the playbooks take that operators wait for, on lab hosts that are bare at the start: a table.

    python -m tests.bench.playbooks

Three hosts that are managers, a fourth that is added, and an upgrade of all agents while every host's published port is
asked. The machine's load stands beside each figure: controller and hosts share its processors. The lab of this checkout
is removed before and after.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.lab.clusterkit import running
from tests.lab.labkit import ROOT, Lab, eventually
from tests.lab.playbooks import play
from tests.lab.upgrading import Load, containers, next_version

PORT, REPLICAS, REPEATS = 8080, 6, 3


@dataclass(frozen=True, slots=True)
class Row:
    """One run: seconds, the tasks that ran over ssh, and `changed` of all hosts."""

    what: str
    seconds: float
    tasks: int
    changes: int
    load: str

    def __str__(self) -> str:
        return f"| {self.what} | {self.seconds:.1f} | {self.tasks} | {self.changes} | {self.load} |"


def timed(what: str, *arguments: str) -> Row:
    """Run a playbook."""
    done = play(*arguments)
    load = Path("/proc/loadavg").read_text().split()[0]
    row = Row(what, done.seconds, done.tasks, sum(done.changed.values()), load)
    print(row, file=sys.stderr, flush=True)
    return row


def lab(*arguments: str) -> None:
    subprocess.run([str(ROOT / "tests" / "lab" / "lab"), *arguments], check=True, stdout=subprocess.DEVNULL)


def upgrade_under_load(hosts: Lab) -> tuple[Row, str]:
    """The row, and what the requests and containers say of it."""
    first = hosts.host("host1")
    first.docker(f"service create --detach --name web --replicas {REPLICAS} --publish {PORT}:80 whoami")
    eventually(lambda: len(running(first, "web")) == REPLICAS, timeout=120)
    before = containers(hosts)
    with tempfile.TemporaryDirectory() as scratch, Load(hosts, PORT) as load:
        row = timed("`upgrade.yml`, a new agent on four hosts, under load", "playbooks/upgrade.yml", "-e",
                    f"agent_archive={next_version(Path(scratch))}")  # fmt: skip
    restarted = len(set(before.items()) ^ set(containers(hosts).items()))
    told = f"{load.asked} requests meanwhile, {len(load.failures)} failed; {restarted} containers restarted."
    return row, "\n".join([told, *load.failures])


def main() -> None:
    lab("down")
    lab("up", "--hosts", "3", "--managers", "3")
    rows = [timed("first `site.yml`, three bare hosts", "site.yml")]
    lab("images")
    rows.append(min((timed("`site.yml` again", "site.yml") for _ in range(REPEATS)), key=lambda row: row.seconds))
    rows.append(timed("`site.yml --check --diff`", "site.yml", "--check", "--diff"))
    lab("up", "--hosts", "4", "--managers", "3")
    rows.append(timed("`add_nodes.yml`, one more host", "playbooks/add_nodes.yml"))
    rows.append(timed("`add_nodes.yml` again", "playbooks/add_nodes.yml"))
    lab("images")
    row, told = upgrade_under_load(Lab())
    rows += [row, timed("`status.yml`", "playbooks/status.yml")]
    lab("down")
    print("| Run | seconds | module tasks | changed | load |\n| --- | ---: | ---: | ---: | ---: |")
    print(*rows, sep="\n")
    print(f"\n{told}")


if __name__ == "__main__":
    main()
