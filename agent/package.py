#!/usr/bin/env python3
"""Builds the agent's archive: one tar.gz with the agent and all it needs, for hosts without an index.

It holds what belongs into a virtual environment's site-packages, with its bytecode: hosts unpack it and are done, where
installing wheels would have each of them run pip and compile thousands of files.

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
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PLATFORMS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014")
PACKAGED = (".py", ".typed", ".html", ".js", ".css", ".svg")
LAYOUT = b"site-packages 1"  # a change of what archives look like makes new ones


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


def unpack(wheel: Path, tree: Path) -> None:
    """Put a wheel's packages into a tree as an installer would; its scripts and headers are left out."""
    with zipfile.ZipFile(wheel) as source:
        for member in source.infolist():
            top, _, inner = member.filename.partition("/")
            if top.endswith(".data"):
                scheme, _, path = inner.partition("/")
                if scheme not in ("purelib", "platlib"):
                    continue
                member.filename = path
            if member.filename and not member.is_dir():
                source.extract(member, tree)


def compile_tree(tree: Path, python: str) -> None:
    """Add bytecode when this interpreter is of the hosts' version; else they make it when they first import."""
    if python == f"{sys.version_info.major}.{sys.version_info.minor}":
        # Versions are never edited in place, so a host need not compare the sources' times at each start.
        options = ["-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
        subprocess.run([sys.executable, "-m", "compileall", *options, str(tree)], check=False, capture_output=True)


def dependencies(cache: Path, python: str, machine: str) -> Path:
    """A tree with all dependencies, fetched and compiled once per set of pins, Python and machine."""
    pins = (HERE / "pyproject.toml").read_bytes()
    folder = cache / f"dependencies-{digest([pins, python.encode(), machine.encode(), LAYOUT])}"
    if folder.is_dir():
        return folder
    import tomllib

    requirements = tomllib.loads(pins.decode())["project"]["dependencies"]
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        wheels, tree = Path(scratch) / "wheels", Path(scratch) / "tree"
        platforms = [option for name in PLATFORMS for option in ("--platform", f"{name}_{machine}")]
        pip(
            "download", "--quiet", "--only-binary=:all:", "--implementation", "cp", "--python-version", python,
            *platforms, "--dest", str(wheels), *requirements,
        )  # fmt: skip
        for wheel in sorted(wheels.glob("*.whl")):
            unpack(wheel, tree)
        compile_tree(tree, python)
        tree.rename(folder)
    return folder


def build(cache: Path, python: str, machine: str) -> tuple[Path, bool]:
    """The archive's path, and whether it had to be made."""
    cache.mkdir(parents=True, exist_ok=True)
    content = [part for path in sources() for part in (str(path.relative_to(HERE)).encode(), path.read_bytes())]
    name = f"swarm-agent-{digest([*content, python.encode(), machine.encode(), LAYOUT])}"
    archive = cache / f"{name}.tar.gz"
    if archive.exists():
        return archive, False
    needed = dependencies(cache, python, machine)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        copy, tree = Path(scratch) / "agent", Path(scratch) / "tree"
        for path in sources():
            target = copy / path.relative_to(HERE)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
        pip("wheel", "--quiet", "--no-deps", "--wheel-dir", scratch, str(copy))
        [wheel] = Path(scratch).glob("*.whl")
        unpack(wheel, tree)
        compile_tree(tree, python)
        partial = Path(scratch) / "archive"
        with tarfile.open(partial, "w:gz", compresslevel=1) as tar:
            for folder in (needed, tree):
                for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                    tar.add(path, arcname=str(path.relative_to(folder)))
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
