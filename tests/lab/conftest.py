"""Gives the tests of this folder the `lab` and `bed` fixtures, and tells at the end how long playbooks took."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.lab.bed_fixture import bed
from tests.lab.labkit import lab
from tests.lab.playbooks import PLAYED

__all__ = ["bed", "lab"]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not PLAYED:
        return
    load = Path("/proc/loadavg").read_text().split()[0]
    terminalreporter.section(f"playbooks (seconds, module tasks a host, changes; load {load})")
    for run in PLAYED:
        told = " ".join(run.arguments)[:90]
        terminalreporter.write_line(f"{run.seconds:7.1f} {run.tasks:4} {sum(run.changed.values()):4} {told}")
