"""The collection community.docker, as released with the package `ansible` on PyPI, for tests against it.

Only its own folder is taken out of the package (2 MB of 60), into `.cache`, once.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from tests.lab.labkit import ROOT

RELEASE = "ansible==11.13.0"  # with community.docker 4.8.5, the newest for ansible-core 2.18 and 2.19
FOLDERS = ("ansible_collections/community/docker/", "ansible_collections/community/library_inventory_filtering_v1/")
CACHE = ROOT / ".cache" / "community.docker"


def collection() -> Path:
    """The folder for `collections_path`. Raises CalledProcessError when no package index is there."""
    there = CACHE / RELEASE
    if not there.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(CACHE), RELEASE],
            check=True, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        wheel = next(CACHE.glob("ansible-*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(there, [name for name in archive.namelist() if name.startswith(FOLDERS)])
        wheel.unlink()
    return there


def run_module(module: str, socket: Path, /, *, check: bool = False, **arguments: Any) -> dict[str, Any]:
    """What a module of the collection answers, run by Ansible on this machine against a socket."""
    given = json.dumps({"docker_host": f"unix://{socket}", **arguments})
    command = [str(Path(sys.executable).parent / "ansible"), "localhost", "-i", "localhost,", "-c", "local"]
    command += ["-e", f"ansible_python_interpreter={sys.executable}", "-m", f"community.docker.{module}", "-a", given]
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(collection()), "ANSIBLE_NOCOLOR": "1"}
    environment["ANSIBLE_CALLBACK_RESULT_FORMAT"] = "json"
    done = subprocess.run(
        [*command, *(["--check"] if check else [])],
        capture_output=True, text=True, timeout=120, check=False, env=environment,
    )  # fmt: skip
    found = re.search(r"^localhost \| (\w+)!? => (\{.*\})", done.stdout, re.DOTALL | re.MULTILINE)
    assert found is not None, done.stdout + done.stderr
    return {**json.loads(found[2]), "failed": found[1] == "FAILED"}
