"""What shows that an upgrade of the agent is noticed by nobody: load, the next version, and when containers started."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

from tests.lab.labkit import ROOT, Lab, eventually


class Load:
    """Requests to every host, one after the other, from a thread of their own; each over a new connection."""

    def __init__(self, lab: Lab, port: int) -> None:
        self.addresses = [host.address for host in lab]
        self.port = port
        self.asked = 0
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        eventually(lambda: self.asked > 10)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            address = self.addresses[self.asked % len(self.addresses)]
            try:
                with urllib.request.urlopen(f"http://{address}:{self.port}/", timeout=10) as answer:
                    answer.read()
            except (OSError, urllib.error.URLError) as error:
                self.failures.append(f"{address}: {error}")
            self.asked += 1
            self._stop.wait(0.02)


def next_version(folder: Path) -> str:
    """An archive of the agent whose sources differ in one comment."""
    shutil.copytree(
        ROOT / "agent", folder / "agent", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    )
    with (folder / "agent" / "swarm_agent" / "__init__.py").open("a") as file:
        file.write("\n# The next version.\n")
    done = subprocess.run(
        [sys.executable, str(folder / "agent" / "package.py"), "--cache", str(ROOT / ".cache")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return str(json.loads(done.stdout.splitlines()[-1])["archive"])


def containers(lab: Lab) -> dict[str, str]:
    """Every container of a task with the time it was started, by its id."""
    form = "--format '{{.Id}} {{.State.StartedAt}}'"
    found = {}
    for host in lab:
        ids = host.engine("ps -q --no-trunc --filter label=com.docker.swarm.task.id").out.split()
        lines = host.engine(f"inspect {form} {' '.join(ids)}").lines if ids else []
        found.update(line.split(" ", 1) for line in lines)
    return found
