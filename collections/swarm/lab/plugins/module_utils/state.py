"""The `.lab` directory: what the lab remembers between two commands, and the files that its users need.

    .lab/state.json        subnet, hosts, cut links
    .lab/id_ed25519        key for ssh to the hosts          .lab/known_hosts   their keys
    .lab/HOST/docker.sock  the agent's socket on HOST        .lab/HOST/engine.sock   its plain engine
    .lab/engine.pid, .lab/engine.log                         the machine's engine, when the lab started it
    .lab/vms/              what the driver `qemu` keeps

Nothing in it is precious: the hosts carry labels in the machine's engine, so a lab whose directory was deleted is
found again by `up` and removed by `down`.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from .identity import lab_id

Link = tuple[str, str]
"""A direction between two hosts: frames from the first to the second."""


@dataclass(frozen=True, slots=True)
class State:
    """What the lab has decided or been told.

    `image` is what hosts were started from, `hosts` maps a name to its address, `cuts` are directions that drop.
    """

    subnet: str = ""
    image: str = ""
    hosts: dict[str, str] = field(default_factory=dict)
    cuts: frozenset[Link] = frozenset()

    @property
    def network(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(self.subnet)


@dataclass(frozen=True, slots=True)
class Home:
    """A checkout and its `.lab` directory."""

    root: Path

    @property
    def identity(self) -> str:
        return lab_id(self.root)

    @property
    def directory(self) -> Path:
        return self.root / ".lab"

    @property
    def cache(self) -> Path:
        return self.root / ".cache" / "lab"

    @property
    def key(self) -> Path:
        return self.directory / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    @property
    def inventory(self) -> Path:
        return self.root / "inventories" / "lab.yml"

    def socket(self, host: str, kind: str) -> Path:
        """Path of `docker.sock` (the agent) or `engine.sock` (the plain engine) of a host."""
        return self.directory / host / kind

    def load(self) -> State:
        """The remembered state; an empty one when there is none or it cannot be read (a killed run may leave that)."""
        try:
            raw = json.loads((self.directory / "state.json").read_text())
            return State(raw["subnet"], raw["image"], dict(raw["hosts"]), frozenset((a, b) for a, b in raw["cuts"]))
        except (OSError, ValueError, KeyError, TypeError):
            return State()

    def save(self, state: State) -> None:
        """Write the state so that a reader sees the old or the new one, never a half."""
        self.directory.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(state) | {"cuts": sorted(state.cuts)}, indent=1)
        temporary = self.directory / "state.json.new"
        temporary.write_text(text + "\n")
        temporary.replace(self.directory / "state.json")

    def update(self, **changes: object) -> State:
        """Change some fields of the remembered state and return the result."""
        state = replace(self.load(), **changes)  # type: ignore[arg-type]
        self.save(state)
        return state

    def forget(self, keep: str) -> None:
        """Remove `.lab` and the inventory, but not the files of `.lab` whose names start with `keep`, if given.

        The folder of the driver `qemu` stays, too: its VMs have their own end.
        """
        self.inventory.unlink(missing_ok=True)
        for path in [*self.directory.glob("*")]:
            if path.name == "vms" or (keep and path.name.startswith(keep)):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        if self.directory.is_dir() and not any(self.directory.iterdir()):
            self.directory.rmdir()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One change of the lab at a time, across processes. The kernel drops the lock when its holder dies."""
        self.directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.root / ".lab" / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
