"""The machine's own container engine: find it, start it when there is none, ask it things.

Where systemd is PID 1 the engine is its service. Elsewhere the lab starts a plain dockerd in a session of its own, with
pid and log in `.lab/`, so that it outlives the command that started it. Only an engine that a lab started is ever
stopped by one, and only when nothing runs on it.

Traps, all met on machines where an earlier run was killed hard. A pid file that names a process which is gone, is a
zombie, or is now something else makes dockerd refuse to start, or wait for a containerd that is not there: so process
names are checked, and stale files removed, before each start. And `.lab` may be deleted while its engine runs: so whose
an engine is, is read from its command line.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from .command import LabError, attempt, run
from .state import Home

SOCKET = "/var/run/docker.sock"
_CONTAINERD_PID = Path("/var/run/docker/containerd/containerd.pid")
_START_SECONDS = 60


def cli(*arguments: str) -> list[str]:
    """The command line of a docker call to the machine's engine.

    The address is spelled out: a DOCKER_HOST meant for a lab host must not lead here.
    """
    return ["docker", "--host", f"unix://{SOCKET}", *arguments]


def docker(*arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
    """Run the docker CLI against the machine's engine and return what it printed."""
    try:
        return run(cli(*arguments), stdin=stdin, timeout=timeout)
    except LabError as error:
        if "Cannot connect to the Docker daemon" in str(error):
            raise LabError(f"no engine answers at {SOCKET} on this machine; `tests/lab/lab up` starts one") from error
        raise


def docker_attempt(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Like `docker`, for calls whose failure is an answer."""
    return attempt(cli(*arguments), timeout=timeout)


def answers() -> bool:
    """Whether the machine's engine serves its socket."""
    try:
        return docker_attempt("version", "--format", "{{.Server.Version}}", timeout=10).returncode == 0
    except LabError:
        return False


def start(home: Home) -> bool:
    """Make sure the machine's engine answers; whether it had to be started. An error has the engine's last words."""
    if answers():
        return False
    if _engine_starts():
        # Installing its package may have started one, which takes a moment. A second one would fight it for its files.
        _wait_until(answers, "the engine that runs on this machine to answer")
        return False
    if _systemd_runs():
        run(["systemctl", "start", "docker"], timeout=_START_SECONDS)
        home.directory.mkdir(parents=True, exist_ok=True)
        _unit_mark(home).touch()
    else:
        _start_plain(home)
    return True


def stop(home: Home) -> bool:
    """Stop the engine if a lab started it, it is this lab's or nobody's, and nothing runs on it; whether it stopped."""
    if not owned(home) or (answers() and docker("ps", "--quiet").strip()):
        return False
    if _unit_mark(home).exists():
        run(["systemctl", "stop", "docker.service", "docker.socket"], timeout=_START_SECONDS)
        _unit_mark(home).unlink()
        return True
    pid = _plain_engine(home)
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    _wait_until(lambda: _program(pid) != "dockerd", "the machine's engine to stop")
    return True


def owned(home: Home) -> bool:
    """Whether this lab, or one that is gone, started the machine's engine and it runs."""
    return _unit_mark(home).exists() or _plain_engine(home) is not None


def _start_plain(home: Home) -> None:
    home.directory.mkdir(parents=True, exist_ok=True)
    pid_file, log = _pid_file(home), home.directory / "engine.log"
    for path, program in ((pid_file, "dockerd"), (_CONTAINERD_PID, "containerd")):
        if _stale(path, program):
            path.unlink(missing_ok=True)
    wanted = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
    environment = {name: os.environ[name] for name in wanted if name in os.environ}
    environment["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["dockerd", "--pidfile", str(pid_file)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_SECONDS
    while not answers():
        if process.poll() is not None or time.monotonic() > deadline:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
            raise LabError(f"dockerd did not come up on this machine; the end of {log} says:\n{last}")
        time.sleep(0.2)


def _engine_starts() -> bool:
    """Whether a dockerd runs on this machine itself. Those in containers are seen from here, but live elsewhere."""
    here = os.readlink("/proc/self/ns/pid")
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if _program(int(entry.name)) == "dockerd" and os.readlink(entry / "ns" / "pid") == here:
                return True
        except OSError:
            continue  # it ended while we looked
    return False


def _plain_engine(home: Home) -> int | None:
    """The pid of the dockerd that this lab started, or one whose `.lab` is gone."""
    own = _pid_file(home)
    for entry in Path("/proc").glob("[0-9]*"):
        if _program(int(entry.name)) == "dockerd":
            arguments = _command(int(entry.name))
            named = Path(arguments[arguments.index("--pidfile") + 1]) if "--pidfile" in arguments[:-1] else None
            if named is not None and named.parts[-2:] == own.parts[-2:] and (named == own or not named.exists()):
                return int(entry.name)
    return None


def _stale(pid_file: Path, program: str) -> bool:
    """Whether a pid file names no living process of that program."""
    try:
        return _program(int(pid_file.read_text())) != program
    except (OSError, ValueError):
        return True


def _command(pid: int) -> list[str]:
    """A process's command line. Empty when it is gone or a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def _program(pid: int) -> str:
    command = _command(pid)
    return Path(command[0]).name if command else ""


def _pid_file(home: Home) -> Path:
    return home.directory / "engine.pid"


def _unit_mark(home: Home) -> Path:
    return home.directory / "engine.unit"


def _systemd_runs() -> bool:
    return Path("/run/systemd/system").is_dir()


def _wait_until(condition: Callable[[], bool], what: str, seconds: float = _START_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.1)
