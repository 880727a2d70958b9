"""The agent's archive: what the controller builds becomes commands that run on a host, without pip or an index."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from ansible_collections.swarm.cluster.plugins.module_utils.agenthome import Home

from agent import package

ROOT = Path(__file__).resolve().parents[3]
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


class Module:
    """What Home asks of an AnsibleModule."""

    def get_bin_path(self, name: str, required: bool) -> str:
        return sys.executable

    def run_command(self, command: list[str], check_rc: bool) -> None:
        subprocess.run(command, check=check_rc, capture_output=True)

    def fail_json(self, msg: str) -> None:
        raise SystemExit(msg)


@pytest.fixture(scope="module")
def archive() -> Path:
    return package.build(ROOT / ".cache", VERSION, "x86_64")[0]


def test_an_installed_archive_runs_by_itself(archive: Path, tmp_path: Path) -> None:
    home = Home(Module(), str(tmp_path / "home"), bin_path=str(tmp_path))
    name = archive.name.removesuffix(".tar.gz")
    assert not home.has(name)
    home.install(name, str(archive))
    home.activate(name)
    assert home.has(name) and home.activated(name)
    for command in ("swarm-agent", "swarmctl"):
        told = subprocess.run([str(tmp_path / command), "--help"], capture_output=True, text=True, env={}, check=True)
        assert "usage" in told.stdout.lower()


def test_it_brings_its_bytecode_and_is_not_built_twice(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        names = set(tar.getnames())
    tag = sys.implementation.cache_tag
    assert {"swarm_agent/daemon.py", f"swarm_agent/__pycache__/daemon.{tag}.pyc"} <= names
    assert not any(name.startswith(("pip/", "/", "..")) for name in names)
    assert package.build(ROOT / ".cache", VERSION, "x86_64") == (archive, False)


def test_an_archive_without_an_agent_is_refused_and_writes_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "swarm-agent-0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../../../../../escaped"), io.BytesIO())
    home = Home(Module(), str(tmp_path / "home"))
    with pytest.raises(SystemExit, match="holds no agent"):
        home.install("swarm-agent-0", str(path))
    assert not home.has("swarm-agent-0") and not list(tmp_path.rglob("escaped"))
