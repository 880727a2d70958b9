"""A dockerd of our own for tests: own data, socket and network namespace, so that it meets nothing else on the machine.

It can be killed and started again, which is what the worker has to survive. Its containerd is a process of its own, as
on real hosts, and outlives it. Its one image is made from this machine's own `sh` and a few tools with the libraries
they need, so no registry and no download is involved.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
import uuid
from pathlib import Path

TOOLS = ("sh", "sleep", "cat", "ls", "stat", "id", "env", "touch", "rm", "test", "hostname")
IMAGE = "tiny:1"


def missing() -> str:
    """Why no engine can be started here; empty when one can."""
    if os.geteuid() != 0:
        return "needs root to start an engine"
    absent = [tool for tool in ("dockerd", "containerd", "docker", "ip", "nsenter") if shutil.which(tool) is None]
    return f"needs {', '.join(absent)}" if absent else ""


class PrivateEngine:
    """`start`, `stop`, `kill` as often as wanted, then `close`."""

    def __init__(self) -> None:
        # Not pytest's tmp_path: containerd's socket path below it would exceed 108 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="eng", dir="/tmp"))
        self.socket = self.folder / "d.sock"
        self.namespace = f"eng-{uuid.uuid4().hex[:8]}"
        self._process: subprocess.Popen[bytes] | None = None
        _run("ip", "netns", "add", self.namespace)
        _run("ip", "-n", self.namespace, "link", "set", "lo", "up")
        self._log = (self.folder / "log").open("ab")
        self._containerd = self._start_containerd()

    def _start_containerd(self) -> subprocess.Popen[bytes]:
        config = self.folder / "containerd.toml"
        config.write_text(
            f'version = 2\nroot = "{self.folder}/ctd"\nstate = "{self.folder}/run"\n'
            f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{self.folder}/c.sock"\n'
        )
        return subprocess.Popen(
            ["containerd", "--config", str(config)], stdout=self._log, stderr=self._log, start_new_session=True
        )

    def start(self, *options: str) -> None:
        (self.folder / "d.pid").unlink(missing_ok=True)  # a killed daemon leaves it
        self._process = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self.namespace}", "dockerd", "--data-root", str(self.folder / "data"),
             "--exec-root", str(self.folder / "exec"), "--pidfile", str(self.folder / "d.pid"),
             "--containerd", str(self.folder / "c.sock"), "-H", f"unix://{self.socket}", *options],
            stdout=self._log, stderr=self._log, start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while self._cli("version", check=False).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"dockerd did not start: {self.log_tail()}")
            time.sleep(0.05)

    def log_tail(self) -> str:
        return "\n".join((self.folder / "log").read_text(errors="replace").splitlines()[-15:])

    def send(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the daemon; with SIGKILL its containers and containerd go on."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(60)

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def docker(self, *arguments: str) -> str:
        """The output of the docker CLI on this engine."""
        return self._cli(*arguments).stdout.decode().strip()

    def _cli(
        self, *arguments: str, check: bool = True, stdin: bytes | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            ["docker", "-H", f"unix://{self.socket}", *arguments], input=stdin, capture_output=True, check=False
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"docker {' '.join(arguments)}: {done.stderr.decode()}")
        return done

    def load_image(self, name: str = IMAGE) -> None:
        self._cli("import", "-c", 'CMD ["sleep", "1000"]', "-", name, stdin=root_filesystem())

    def remove_containers(self) -> None:
        ids = self.docker("ps", "-aq").split()
        if ids:
            self.docker("rm", "-f", *ids)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(RuntimeError):
                self.remove_containers()
        self.stop()
        self._containerd.terminate()
        self._containerd.wait(30)
        self._log.close()
        subprocess.run(["ip", "netns", "del", self.namespace], check=False)
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            point = line.split()[1]
            if point.startswith(str(self.folder)):
                subprocess.run(["umount", "-l", point], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def root_filesystem() -> bytes:
    """A tar of a root file system that holds the tools and what they link to."""
    wanted: dict[str, Path] = {}
    for tool in TOOLS:
        found = shutil.which(tool, path="/usr/bin:/bin")
        if found is None:
            raise RuntimeError(f"{tool} is not on this machine")
        wanted[f"bin/{tool}"] = Path(found)
        linked = subprocess.run(["ldd", found], capture_output=True, text=True, check=False).stdout
        for library in re.findall(r"(/\S+) \(0x", linked):
            wanted[library.lstrip("/")] = Path(library)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in ("tmp", "etc", "proc", "sys", "dev", "run", "data"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, source in wanted.items():
            content = source.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
