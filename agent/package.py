#!/usr/bin/env python3
"""Builds the agent's archive: one tar.gz with wheels of the agent and of all it needs, for hosts without an index.

The name carries a hash of the agent's sources, its pinned dependencies and the hosts' Python, so the same content is
never built, copied or installed twice. Run it on the controller; it prints one JSON line:
{"archive": PATH, "name": NAME, "changed": BOOL}.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PLATFORMS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014")
PACKAGED = (".py", ".typed", ".html", ".js", ".css", ".svg")
PIP = "pip==25.3"  # travels along as a wheel: hosts need no pip


def sources() -> list[Path]:
    """The files that make the agent's wheel, in a fixed order."""
    package = HERE / "swarm_agent"
    return sorted([HERE / "pyproject.toml", *(path for path in package.rglob("*") if path.suffix in PACKAGED)])


def digest(parts: list[bytes]) -> str:
    """A short hash over all parts."""
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.hexdigest()[:16]


def pip(*arguments: str) -> None:
    """Run this interpreter's pip. Raises SystemExit with pip's own words when it fails."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pip", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"pip {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


def dependency_wheels(cache: Path, python: str, machine: str) -> Path:
    """A folder with the wheels of all dependencies, fetched once per set of pins, Python and machine."""
    pins = (HERE / "pyproject.toml").read_bytes()
    folder = cache / f"wheels-{digest([pins, python.encode(), machine.encode(), PIP.encode()])}"
    if folder.is_dir():
        return folder
    import tomllib

    requirements = tomllib.loads(pins.decode())["project"]["dependencies"]
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        target = Path(scratch) / "wheels"
        platforms = [option for name in PLATFORMS for option in ("--platform", f"{name}_{machine}")]
        pip(
            "download", "--quiet", "--only-binary=:all:", "--implementation", "cp", "--python-version", python,
            *platforms, "--dest", str(target), PIP, *requirements,
        )  # fmt: skip
        target.rename(folder)
    return folder


def build(cache: Path, python: str, machine: str) -> tuple[Path, bool]:
    """The archive's path, and whether it had to be made."""
    cache.mkdir(parents=True, exist_ok=True)
    content = [part for path in sources() for part in (str(path.relative_to(HERE)).encode(), path.read_bytes())]
    name = f"swarm-agent-{digest([*content, python.encode(), machine.encode(), PIP.encode()])}"
    archive = cache / f"{name}.tar.gz"
    if archive.exists():
        return archive, False
    wheels = dependency_wheels(cache, python, machine)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        copy = Path(scratch) / "agent"
        for path in sources():
            target = copy / path.relative_to(HERE)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
        pip("wheel", "--quiet", "--no-deps", "--wheel-dir", scratch, str(copy))
        partial = Path(scratch) / "archive"
        with tarfile.open(partial, "w:gz", compresslevel=1) as tar:
            for wheel in sorted([*wheels.glob("*.whl"), *Path(scratch).glob("*.whl")]):
                tar.add(wheel, arcname=wheel.name)
        partial.rename(archive)
    return archive, True


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=HERE.parent / ".cache", help="where archives and wheels are kept")
    parser.add_argument("--python", default="3.11", help="the hosts' Python, MAJOR.MINOR")
    parser.add_argument("--machine", default="x86_64", help="the hosts' architecture, as uname -m says")
    arguments = parser.parse_args()
    archive, changed = build(arguments.cache, arguments.python, arguments.machine)
    print(json.dumps({"archive": str(archive), "name": archive.name.removesuffix(".tar.gz"), "changed": changed}))


if __name__ == "__main__":
    main()
