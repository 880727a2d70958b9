"""The benchmark of growth at its smallest: real leader, real sessions, every step of it."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.lab.labkit import ROOT


def test_three_nodes_place_run_lose_and_remove_six_tasks() -> None:
    command = [sys.executable, "-m", "tests.bench.growth", "--nodes", "3", "--tasks", "2", "--rest", "1"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    row, *table = ran.stdout.splitlines()
    measured = json.loads(row)
    assert (measured["nodes"], measured["tasks"]) == (3, 6)
    assert 0 < measured["placed"] <= measured["running"]
    assert measured["idle_memory"] > 10 and measured["bytes_a_task"] > 100
    assert table[0].startswith("| nodes | tasks |") and table[2].startswith("| 3 | 6 |")
