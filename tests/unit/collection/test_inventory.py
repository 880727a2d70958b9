"""The inventory plugin and the callback: one manager that answers is enough, and times add up."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.swarm.cluster.plugins.module_utils.asking import ssh_command
from ansible_collections.swarm.cluster.plugins.module_utils.stopwatch import Stopwatch

from tests.unit.api.kit import Door, make_node

ROOT = Path(__file__).parents[3]


async def inventory(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """ansible-inventory, as a user runs it."""
    path = folder / "mine.swarm.yml"
    path.write_text("plugin: swarm.cluster.nodes\n" + text)
    command = [str(Path(sys.executable).with_name("ansible-inventory")), "-i", str(path), "--list"]
    return await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, text=True, check=False)


def plain(value: Any) -> Any:
    """A value that came from a manager, which Ansible marks as not to be templated."""
    return value.get("__ansible_unsafe", value) if isinstance(value, dict) else value


def groups(told: dict[str, Any]) -> dict[str, list[str]]:
    return {name: sorted(group["hosts"]) for name, group in told.items() if group.get("hosts")}


async def test_the_first_manager_that_answers_tells_the_nodes(swarm: Door, tmp_path: Path) -> None:
    nodes = [make_node("n2", "host2"), make_node("n3", "host3", state="down"), make_node("n4", "host2", state="down")]
    await swarm.store.update(lambda tx: [tx.create(node) for node in nodes])
    text = f"managers: [unix:///nobody.sock, unix://{swarm.path}]\n"
    keyed = "keyed_groups: [{key: swarm_node.role, prefix: is}]\n"
    told = json.loads((await inventory(tmp_path, text + keyed)).stdout)
    assert groups(told) == {
        "managers": ["first"],
        "leader": ["first"],
        "workers": ["host2", "host2-n4", "host3"],
        "down": ["host2-n4", "host3"],
        "is_manager": ["first"],
        "is_worker": ["host2", "host2-n4", "host3"],
    }
    first = told["_meta"]["hostvars"]["first"]
    assert plain(first["ansible_host"]) == "10.1.1.1" and plain(first["swarm_node"]["availability"]) == "active"
    told = json.loads((await inventory(tmp_path, text + "include_down: false\n")).stdout)
    assert groups(told)["workers"] == ["host2"] and "down" not in groups(told)


async def test_without_a_manager_the_reasons_are_told(door: Door, tmp_path: Path) -> None:
    done = await inventory(tmp_path, f"managers: [unix:///nobody.sock, unix://{door.path}, host1]")
    said = " ".join(done.stderr.split())
    assert done.returncode != 0
    for part in ("nobody listens there", "This node is not a swarm manager", "'host1' is not ssh://"):
        assert part in said


def test_the_command_by_ssh() -> None:
    command = ssh_command("ssh://joe@h:2222", "/run/a.sock", "-i key", True, 5)
    assert command[:6] == ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-i"]
    assert command[-4:] == ["-p", "2222", "joe@h", "sudo -n python3 - /run/a.sock 5"]
    with pytest.raises(ValueError, match="is not ssh"):
        ssh_command("ssh://", "", "", False, 5)


def test_times_of_one_name_add_up() -> None:
    ticks = iter([0.0, 0.0, 2.0, 2.0, 3.0, 3.0, 7.0, 7.0])
    watch = Stopwatch(lambda: next(ticks))
    for name in ("Wait", "Copy", "Wait"):
        watch.start(name)
    lines = watch.lines(1)
    assert lines == ["7.0 s in all, 3 tasks", "    6.0 s  Wait (2 times)"], json.dumps(lines)
