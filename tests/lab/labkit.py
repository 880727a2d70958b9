"""Lab hosts for tests: `lab` is a fixture, hosts are objects that run commands and meet with accidents.

    from tests.lab.labkit import lab, eventually          # in a conftest.py: the fixture; in a test: the helpers

    def test_tasks_move(lab):
        first = lab.host("host1")
        first.docker("service create --detach --name web --replicas 3 whoami")    # the real CLI, at the agent's socket
        first.engine("ps -a")                                                     # the same, at the plain engine's
        lab.host("host3").kill()
        eventually(lambda: "host3" not in first.docker("service ps web -f desired-state=running").out)

The docker CLI runs on this machine, unmodified, against the sockets in `.lab/`. A failing command raises with all that
it printed, unless `check=False`. Nothing here sleeps for a fixed time: `eventually` asks until the answer is right.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "collections"), str(ROOT / "tests" / "lab")]

import registry  # noqa: E402
import tiny  # noqa: E402
from ansible_collections.swarm.lab.plugins.module_utils import engine, hosts, links  # noqa: E402
from ansible_collections.swarm.lab.plugins.module_utils.command import environment  # noqa: E402
from ansible_collections.swarm.lab.plugins.module_utils.identity import machine_address  # noqa: E402
from ansible_collections.swarm.lab.plugins.module_utils.state import Home  # noqa: E402

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Result:
    """What a command left behind. `out` and `err` are what it printed, without the last line end."""

    command: str
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def __str__(self) -> str:
        return f"$ {self.command}\n{self.out}\n{self.err}\n[code {self.code}]"


def eventually(question: Callable[[], T], timeout: float = 30, every: float = 0.2) -> T:
    """Ask until the answer is true, and return it. A failing assertion or lookup counts as not yet.

    Raises AssertionError with the last answer when `timeout` seconds are over; that is patience, not a measurement.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            last: object = question()
            if last:
                return last  # type: ignore[return-value]
        except (AssertionError, LookupError, OSError, ValueError) as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not so after {timeout:.0f} s; last answer: {last!r}")
        time.sleep(every)


def run(
    command: Sequence[str],
    *,
    check: bool = True,
    stdin: str | None = None,
    timeout: float = 60,
    cwd: Path | None = None,
) -> Result:
    """Run a program on this machine."""
    done = subprocess.run(
        list(command),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment(),
        cwd=cwd,
        check=False,
    )
    result = Result(shlex.join(command), done.returncode, done.stdout.rstrip("\n"), done.stderr.rstrip("\n"))
    assert not check or result.code == 0, str(result)
    return result


class Host:
    """One lab host."""

    def __init__(self, home: Home, name: str, address: str) -> None:
        self._home = home
        self.name = name
        self.address = address

    def __repr__(self) -> str:
        return f"<{self.name} {self.address}>"

    def socket(self, kind: str = "docker.sock") -> Path:
        """The socket of the agent (`docker.sock`) or the plain engine (`engine.sock`), for the host as it runs now."""
        return hosts.socket_target(self._home, self.name, kind)

    def docker(self, *arguments: str, **options: Any) -> Result:
        """The docker CLI at the agent's socket. One string is split as a shell does; several are taken as they are."""
        return self._cli("docker.sock", arguments, options)

    def engine(self, *arguments: str, **options: Any) -> Result:
        """The docker CLI at the host's plain engine."""
        return self._cli("engine.sock", arguments, options)

    def exec(self, *command: str, **options: Any) -> Result:
        """A command on the host itself. One string goes to a shell there; several are a program and its arguments."""
        argv = ["sh", "-c", command[0]] if len(command) == 1 else list(command)
        return run(hosts.command_in(self._home, self.name, argv), **options)

    def http(self, port: int, path: str = "/", timeout: float = 3) -> Any:
        """The JSON that a `whoami` behind a published port of this host tells, over a connection of its own."""
        with urllib.request.urlopen(f"http://{self.address}:{port}{path}", timeout=timeout) as response:
            return json.load(response)

    def kill(self) -> None:
        """Power off at once."""
        hosts.kill(self._home, self.name)

    def start(self) -> None:
        """Power on, with the disk as it was, and wait until systemd and sshd are ready."""
        hosts.start(self._home, self.name)

    def freeze(self) -> None:
        """Stop all processes where they are."""
        hosts.freeze(self._home, self.name)

    def thaw(self) -> None:
        """Let them go on."""
        hosts.thaw(self._home, self.name)

    @property
    def state(self) -> str:
        """`running`, `paused` (frozen) or `exited` (powered off)."""
        return hosts.machine(self._home, self.name).state

    def _cli(self, kind: str, arguments: tuple[str, ...], options: dict[str, Any]) -> Result:
        words = shlex.split(arguments[0]) if len(arguments) == 1 else list(arguments)
        return run(["docker", "--host", f"unix://{self.socket(kind)}", *words], **options)


class Lab:
    """The lab of this checkout."""

    def __init__(self, root: Path = ROOT) -> None:
        self.home = Home(root)
        self.hosts = {name: Host(self.home, name, address) for name, address in self.home.load().hosts.items()}

    @classmethod
    def up(cls, count: int = 3) -> Lab:
        """A lab with at least `count` hosts, all ready and all links whole; made or repaired when it is not so."""
        lab = cls()
        if not lab._whole(count):
            wanted = max(count, len(lab.hosts))
            run([str(ROOT / "tests" / "lab" / "lab"), "up", "--hosts", str(wanted)], timeout=1800)
            lab = cls()
        lab.heal()
        return lab

    def grow(self, count: int) -> Lab:
        """The same hosts and more of them, without the agent on the new ones. Until `shrink` this lab is the larger."""
        return Lab.up(count)

    def shrink(self, count: int) -> None:
        """Remove the hosts beyond so many."""
        if len(self.hosts) > count:
            run([str(ROOT / "tests" / "lab" / "lab"), "up", "--hosts", str(count)], timeout=1800)

    def host(self, name: str) -> Host:
        return self.hosts[name]

    def __iter__(self) -> Iterator[Host]:
        return iter(self.hosts.values())

    @property
    def machine_address(self) -> str:
        """This machine's address as the hosts see it."""
        return machine_address(self.home.load().network)

    def cut(self, host: str, other: str | None = None, *, one_way: bool = False) -> None:
        """Drop all frames between a host and another, or all others; with `one_way` only those that `host` sends."""
        if other:
            cut = links.between(host, other, one_way=one_way)
        else:
            cut = links.around(host, self.hosts, one_way=one_way)
        hosts.set_cuts(self.home, lambda state: state.cuts | cut)

    def heal(self) -> None:
        """Mend all links."""
        hosts.set_cuts(self.home, lambda _: frozenset())

    def images(self, *names: str, on: Sequence[str] = ()) -> None:
        """Load tiny images (all when none is named) on hosts (all when none is named) that lack them."""
        archives = tiny.build(self.home, self.home.load().image, names or tiny.RECIPES)
        tiny.load_all(self.home, on or self.hosts, archives)

    def registry(self, *names: str) -> str:
        """A running registry that has these tiny images; the address that goes before their names."""
        registry.start(self.home)
        for archive in tiny.build(self.home, self.home.load().image, names):
            registry.push(self.home, archive)
        return registry.ADDRESS

    def restore(self) -> None:
        """Undo accidents: links whole, frozen hosts thawed, hosts that are off started."""
        self.heal()
        for host in self:
            if host.state == "paused":
                host.thaw()
            elif host.state != "running":
                host.start()

    def _whole(self, count: int) -> bool:
        if len(self.hosts) < count or not engine.answers():
            return False
        present = hosts.machines(self.home)
        return all(name in present and present[name].state == "running" for name in self.hosts)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Three hosts, ready. They stay for the next run; broken links and hosts without power are mended at the end."""
    lab = Lab.up(3)
    yield lab
    lab.restore()
    registry.stop(lab.home)
