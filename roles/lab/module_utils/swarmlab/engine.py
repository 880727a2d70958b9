"""The machine's own container engine: find it, start it when there is none, ask it things.

Where systemd is PID 1 the engine is its service. Elsewhere the lab starts a plain dockerd in a session of its own, with
pid and log in `.lab/`, so that it outlives the command that started it. Only an engine that this lab started is ever
stopped by it, and only when no other lab's machines run on it.

Traps, all met on machines where an earlier run was killed hard: a pid file naming a process that is gone, is a zombie,
or is now something else makes dockerd refuse to start or talk to a containerd that is not there. So process names are
checked, and stale files removed, before each start.
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


def owned(home: Home) -> bool:
    """Whether this lab started the machine's engine, and has not stopped it."""
    return (home.directory / "engine.unit").exists() or (home.directory / "engine.pid").exists()


def cli(*arguments: str) -> list[str]:
    """The command line of a docker call to the machine's engine.

    The address is spelled out: a DOCKER_HOST meant for a lab host must not lead here.
    """
    return ["docker", "--host", f"unix://{SOCKET}", *arguments]


def docker(*arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
    """Run the docker CLI against the machine's engine and return what it printed."""
    return run(cli(*arguments), stdin=stdin, timeout=timeout)


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
    if _systemd_runs():
        run(["systemctl", "start", "docker"], timeout=_START_SECONDS)
        (home.directory / "engine.unit").touch()
    else:
        _start_plain(home)
    return True


def stop(home: Home) -> bool:
    """Stop the engine if this lab started it and nothing else runs on it; whether it was stopped."""
    unit, pid_file = home.directory / "engine.unit", home.directory / "engine.pid"
    if not owned(home):
        return False
    if answers() and docker("ps", "--quiet").strip():
        return False
    if unit.exists():
        run(["systemctl", "stop", "docker.service", "docker.socket"], timeout=_START_SECONDS)
        unit.unlink()
        return True
    pid = _live_pid(pid_file, "dockerd")
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        _wait_until(lambda: _live_pid(pid_file, "dockerd") is None, "the machine's engine to stop")
    pid_file.unlink(missing_ok=True)
    return pid is not None


def _start_plain(home: Home) -> None:
    home.directory.mkdir(parents=True, exist_ok=True)
    pid_file, log = home.directory / "engine.pid", home.directory / "engine.log"
    for path, program in ((pid_file, "dockerd"), (_CONTAINERD_PID, "containerd")):
        if _live_pid(path, program) is None:
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


def _live_pid(pid_file: Path, program: str) -> int | None:
    """The pid in the file if it names a living process of that program. A zombie, without command line, is none."""
    try:
        pid = int(pid_file.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    except (OSError, ValueError):
        return None
    return pid if Path(command.decode(errors="replace")).name == program else None


def _systemd_runs() -> bool:
    return Path("/run/systemd/system").is_dir()


def _wait_until(condition: Callable[[], bool], what: str, seconds: float = _START_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.1)
