"""Gives the tests of this folder the `lab` and `bed` fixtures, and tells at the end how long playbooks took."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.lab.clusterkit import TIMES
from tests.lab.labkit import lab
from tests.lab.network_bed import Bed

__all__ = ["lab"]


@pytest.fixture
def bed(made: Bed) -> Bed:
    """Hosts in network namespaces without containers, for modules that say by a fixture `made` what hosts they want."""
    made.reset()
    return made


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not TIMES:
        return
    load = Path("/proc/loadavg").read_text().split()[0]
    terminalreporter.section(f"playbooks (seconds, tasks; load {load})")
    for seconds, tasks, arguments in TIMES:
        terminalreporter.write_line(f"{seconds:7.1f} {tasks:4} {arguments[:90]}")
