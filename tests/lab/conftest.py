"""Gives the tests of this folder the `lab` fixture, and tells at the end how long playbooks took."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.lab.clusterkit import TIMES
from tests.lab.labkit import lab

__all__ = ["lab"]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not TIMES:
        return
    load = Path("/proc/loadavg").read_text().split()[0]
    terminalreporter.section(f"playbooks (seconds, tasks; load {load})")
    for seconds, tasks, arguments in TIMES:
        terminalreporter.write_line(f"{seconds:7.1f} {tasks:4} {arguments[:90]}")
