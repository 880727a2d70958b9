"""Playbooks from tests, by ansible-runner: what they printed, and what its events say they did on which host."""

from __future__ import annotations

import os
import shlex
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import ansible_runner

from tests.lab.labkit import ROOT

PATIENCE = 900  # seconds for a playbook
BIN = ROOT / ".venv" / "bin"

CONTROLLER = frozenset(
    f"ansible.builtin.{action}"
    for action in (
        "add_host", "assert", "debug", "fail", "group_by", "import_role", "import_tasks", "include_role",
        "include_tasks", "meta", "set_fact", "validate_argument_spec",
    )
)  # fmt: skip
"""What runs within Ansible itself and costs no trip to a host."""


@dataclass(frozen=True, slots=True)
class Played:
    """A playbook's run. `changed` counts tasks by host; `trips` those that were carried out on the host itself."""

    returncode: int
    stdout: str
    seconds: float
    changed: dict[str, int]
    trips: dict[str, int]
    arguments: tuple[str, ...]

    @property
    def tasks(self) -> int:
        """Module tasks of the host that had most of them."""
        return max(self.trips.values(), default=0)


PLAYED: list[Played] = []
"""All runs, for the report at the end of a test run."""


def play(*arguments: str, check: bool = True, env: dict[str, str] | None = None) -> Played:
    """Run a playbook on the lab: its file, then options as on the command line. With `check` it has to succeed."""
    playbook, *options = arguments
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        run = ansible_runner.run(
            private_data_dir=folder,
            project_dir=str(ROOT),
            playbook=playbook,
            cmdline=shlex.join(["-i", "inventories/lab.yml", *options]),
            envvars={
                "PATH": f"{BIN}:{os.environ['PATH']}",
                "ANSIBLE_FORCE_COLOR": "0",
                "ANSIBLE_NOCOLOR": "1",
                **(env or {}),
            },
            quiet=True,
            timeout=PATIENCE,
        )
        stats = run.stats or {}
        played = Played(
            returncode=run.rc,
            stdout=run.stdout.read(),
            seconds=time.monotonic() - begun,
            changed={host: stats["changed"].get(host, 0) for host in stats.get("processed", {})},
            trips=trips(list(run.events)),
            arguments=arguments,
        )
    PLAYED.append(played)
    assert not check or played.returncode == 0, f"$ ansible-playbook {shlex.join(arguments)}\n{played.stdout}"
    return played


def trips(events: list[dict[str, Any]]) -> dict[str, int]:
    """Tasks that were carried out on each host, loops counting once, from ansible-runner's events."""
    found: Counter[str] = Counter()
    for event in events:
        about = event.get("event_data", {})
        if event["event"] in ("runner_on_ok", "runner_on_failed") and about.get("task_action") not in CONTROLLER:
            found[about["host"]] += not about.get("res", {}).get("_ansible_delegated_vars")
    return dict(found)
