"""Secrets and configs as files: planned purely, written under the run directory, bind-mounted read-only into the
container.

The engine's public API cannot put files on a tmpfs of a container before it starts, so each file lies on a tmpfs of
the host (`/run`, or one that we mount where the run directory is on a disk) and is mounted at its target on its own.
Owner and mode are the file's own. The folder above is 0700, so nobody but root and the container sees it.
The folder of a task lives as long as its container: the container may be started again by a live engine.
"""

from __future__ import annotations

import base64
import binascii
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarm_agent.model.objects import Config, Secret
from swarm_agent.model.specs import ContainerSpec, Driver, FileTarget

from .container import FileMount, absolute_target
from .gotemplate import TemplateError, expand
from .templates import payload_functions

SECRETS_FOLDER = "/run/secrets"
CONFIGS_FOLDER = "/"
_MEMORY_FILESYSTEMS = ("tmpfs", "ramfs")


class FilesError(Exception):
    """A secret or config that a task needs is absent or cannot be made; the text is shown as the task's error."""


class MissingDependency(FilesError):
    """The task names a secret or config that this node was not given (yet)."""


@dataclass(frozen=True, slots=True)
class PlannedFile:
    target: str
    data: bytes
    uid: int
    gid: int
    mode: int


def plan_files(
    spec: ContainerSpec,
    secrets: Mapping[str, Secret],
    configs: Mapping[str, Config],
    values: Mapping[str, Any],
) -> list[PlannedFile]:
    """The files of a task. `spec` has its templates expanded; `values` is the template context for payloads.

    Raises `MissingDependency`, `FilesError` or `TemplateError`.
    """
    secret_data: dict[str, bytes] = {}
    config_data: dict[str, bytes] = {}
    wanted: list[tuple[FileTarget, str, str, bytes, Driver | None, dict[str, bytes]]] = []
    for reference in spec.secrets:
        if reference.file is None:
            raise FilesError(f"malformed secret reference {reference.secret_name}: no target provided")
        secret = secrets.get(reference.secret_id)
        if secret is None:
            raise MissingDependency(f"secret {reference.secret_name} ({reference.secret_id}) is not on this node")
        data = secret_data[reference.file.name] = _payload(secret.spec.data, reference.secret_name)
        wanted.append((reference.file, SECRETS_FOLDER, "secret", data, secret.spec.templating, secret_data))
    for entry in spec.configs:
        if entry.file is None:  # read by the runtime itself (credential spec), not a file
            continue
        config = configs.get(entry.config_id)
        if config is None:
            raise MissingDependency(f"config {entry.config_name} ({entry.config_id}) is not on this node")
        data = config_data[entry.file.name] = _payload(config.spec.data, entry.config_name)
        wanted.append((entry.file, CONFIGS_FOLDER, "config", data, config.spec.templating, config_data))
    # Templates may name each other's raw content, so they are expanded after all is known.
    raw_secrets, raw_configs = dict(secret_data), dict(config_data)
    functions = payload_functions(spec.env, raw_secrets, raw_configs)
    planned = []
    for file, folder, kind, data, templating, _ in wanted:
        if templating is not None and templating.name:
            if templating.name != "golang":
                raise FilesError(f"{kind} {file.name}: templating driver {templating.name!r} is unknown")
            try:
                data = expand(data.decode(), values, functions).encode()
            except (UnicodeDecodeError, TemplateError) as error:
                raise TemplateError(f"expanding {kind} {file.name} failed: {error}") from None
        planned.append(
            PlannedFile(
                absolute_target(file.name, folder), data, _number(file.uid, file.name), _number(file.gid, file.name),
                file.mode & 0o7777,
            )
        )  # fmt: skip
    return planned


def _payload(data: str, name: str) -> bytes:
    """The content as bytes: base64, standard or URL-safe as clients send it."""
    try:
        return base64.b64decode(data.replace("-", "+").replace("_", "/") + "=" * (-len(data) % 4), validate=True)
    except binascii.Error as error:
        raise FilesError(f"{name}: its content is not base64: {error}") from None


def _number(text: str, name: str) -> int:
    if not text:
        return 0
    if not text.isdecimal():
        raise FilesError(f"{name}: owner {text!r} is not a number")
    return int(text)


# --- on the host (blocking; called in a thread) ----------------------------------------------------------------------


class FileStore:
    """The folder of all tasks' files. `root` is under the run directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self) -> None:
        """Make the folder, on memory. Raises `FilesError` when it would be on a disk."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root.chmod(0o700)
        if filesystem_of(self.root, mount_table()) in _MEMORY_FILESYSTEMS:
            return
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "nosuid,nodev,noexec,mode=0700", "swarm-agent-files", str(self.root)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise FilesError(f"{self.root} is on a disk and no tmpfs can be mounted there: {done.stderr.strip()}")

    def write(self, task_id: str, files: Sequence[PlannedFile]) -> list[FileMount]:
        """Write a task's files anew and say what to mount where."""
        if not files:
            return []
        self.prepare()
        self.remove(task_id)
        folder = self.root / task_id
        folder.mkdir(mode=0o700)
        mounts = []
        for number, file in enumerate(files):
            path = folder / str(number)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                view = memoryview(file.data)
                while view:
                    view = view[os.write(descriptor, view) :]
                os.fchown(descriptor, file.uid, file.gid)
                os.fchmod(descriptor, file.mode)
            finally:
                os.close(descriptor)
            mounts.append(FileMount(str(path), file.target))
        return mounts

    def remove(self, task_id: str) -> None:
        shutil.rmtree(self.root / task_id, ignore_errors=True)

    def tasks(self) -> list[str]:
        """Ids of the tasks that have files."""
        try:
            return [entry.name for entry in self.root.iterdir()]
        except FileNotFoundError:
            return []

    def remove_all(self) -> None:
        """Remove all files, and the tmpfs when it is ours."""
        if any(path == str(self.root) for path, _ in mount_table()):
            subprocess.run(["umount", "--lazy", str(self.root)], capture_output=True, check=False)
        shutil.rmtree(self.root, ignore_errors=True)


def mount_table() -> list[tuple[str, str]]:
    """(mount point, file system) of this mount namespace, in mount order."""
    found = []
    with open("/proc/self/mounts", encoding="utf-8") as table:
        for line in table:
            _, path, kind, *_ = line.split(" ")
            found.append((path.encode().decode("unicode_escape"), kind))
    return found


def filesystem_of(path: Path, mounts: Sequence[tuple[str, str]]) -> str:
    """The type of the file system that `path` is on: that of the longest mount point above it, the last one mounted."""
    resolved = path.resolve()
    best, kind = -1, ""
    for point, filesystem in mounts:
        above = Path(point)
        if resolved.is_relative_to(above) and len(above.parts) >= best:
            best, kind = len(above.parts), filesystem
    return kind
