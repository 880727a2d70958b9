"""Driver `qemu`: lab hosts as virtual machines, with a kernel and a clock of their own.

A fleet is a folder. In it, `fleet.json` says what was decided (addresses, ports), and each VM has a folder with its
disk (an overlay of the image), QEMU's pid file and the log of its serial line. A VM runs when the process that its pid
file names is a QEMU of that folder.

Each has two network cards. `eth0` is QEMU's user-mode network: the machine reaches the VM's sshd by a port on
127.0.0.1, and nothing leads out (`restrict=on`). `eth1` is a multicast socket on the loopback that all VMs of the fleet
share: what one sends, all others hear, as on one wire. Neither needs root, bridges or taps. Ports and the multicast
group are derived from the folder's path, and moved when another program has them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import ipaddress
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .command import LabError, run
from .identity import choose_subnet, host_address, host_names, lab_id
from .vm_image import QEMU, Accelerator, VmImage, accelerator

# The door's network is the same in all VMs, and no pool of overlay networks has it (Swarm's is 10.0.0.0/8).
_DOOR_NETWORK, _DOOR_ADDRESS = "192.168.200.0/24", "192.168.200.15/24"
# Below what kernels give to outgoing connections and what a cluster gives to published ports.
_FIRST_PORT, _PORT_BLOCKS, _PORTS_PER_BLOCK = 16000, 600, 20
# All their names and addresses go on the kernel's command line, which holds 2 KiB.
_MAX_VMS = 16
_READY_SECONDS = 40  # times the accelerator's patience
_HOST_KEY = "lab-host-key "


@dataclass(frozen=True, slots=True)
class Settings:
    """What all VMs of a fleet have in common."""

    subnet: str
    port: int
    """The multicast group's; hostN is reached by ssh at this one plus N."""
    memory: int
    """MiB of each."""
    image: str
    """The image's folder."""
    key: str
    """The public ssh key that may log in, without its type."""
    names: tuple[str, ...]

    @property
    def network(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(self.subnet)

    def address(self, name: str) -> str:
        """The host's address on the network between the hosts."""
        return host_address(self.network, name)

    def ssh_port(self, name: str) -> int:
        """The port on 127.0.0.1 that leads to the host's sshd."""
        return self.port + int(name.removeprefix("host"))

    @property
    def group(self) -> str:
        """The multicast group that is the wire between the hosts."""
        return f"230.{self.port >> 8}.{self.port & 255}.1:{self.port}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do: VMs to create, to start again with their disk, and to remove."""

    create: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()

    @property
    def actions(self) -> list[str]:
        kinds = (("removed", self.remove), ("created", self.create), ("started", self.start))
        return [f"{done} {name}" for done, names in kinds for name in names]


@dataclass(frozen=True, slots=True)
class Fleet:
    """The VMs of one folder."""

    directory: Path
    _lock: str = field(default="lock", repr=False)

    def of(self, name: str) -> Path:
        """A VM's folder."""
        return self.directory / name

    @property
    def key(self) -> Path:
        return self.directory / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    @property
    def identity(self) -> str:
        return lab_id(self.directory)

    def load(self) -> Settings | None:
        """What was decided; None for a fleet that is not there or whose notes cannot be read."""
        try:
            raw = json.loads((self.directory / "fleet.json").read_text())
            return Settings(**raw | {"names": tuple(raw["names"])})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, settings: Settings) -> None:
        temporary = self.directory / "fleet.json.new"
        temporary.write_text(json.dumps(asdict(settings), indent=1) + "\n")
        temporary.replace(self.directory / "fleet.json")

    def pid(self, name: str) -> int | None:
        """The process of a VM that runs. A pid file that names another process, or none, is as good as no pid file."""
        return pid_of(self.of(name))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One change of the fleet at a time, across processes."""
        self.directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.directory / self._lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


# --- decisions --------------------------------------------------------------------------------------------------------


def decide(wanted: Mapping[str, str], present: Mapping[str, str], running: Sequence[str]) -> Plan:
    """Compare the VMs wanted with those that have a disk, both given as name and mark of their configuration."""
    remove = [name for name, mark in present.items() if wanted.get(name) != mark]
    kept = [name for name in wanted if name in present and name not in remove]
    return Plan(
        create=tuple(name for name in wanted if name not in kept),
        start=tuple(name for name in kept if name not in running),
        remove=tuple(sorted(remove)),
    )


def command_line(settings: Settings, name: str, folder: Path, chosen: Accelerator) -> list[str]:
    """QEMU's arguments for a VM."""
    image, number = VmImage(Path(settings.image)), int(name.removeprefix("host"))
    prefix = settings.network.prefixlen
    words = [
        *("root=/dev/vda", "rw", "console=ttyS0", "net.ifnames=0", "panic=-1", "loglevel=4", "mitigations=off"),
        *("systemd.show_status=auto", f"systemd.hostname={name}"),
        *(f"lab.name={name}", f"lab.address={settings.address(name)}/{prefix}", f"lab.manage={_DOOR_ADDRESS}"),
        f"lab.hosts={','.join(f'{each}:{settings.address(each)}' for each in settings.names)}",
        f"lab.key={settings.key}",
    ]
    mac = f"52:54:00:{settings.port >> 8:02x}:{settings.port & 255:02x}:{number:02x}"
    door = f"user,id=door,net={_DOOR_NETWORK},restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:{settings.ssh_port(name)}-:22"
    return [
        *(QEMU, "-name", f"lab-{name}", "-nodefaults", "-display", "none", "-no-reboot", "-daemonize"),
        *("-pidfile", str(folder / "pid"), "-serial", f"file:{folder / 'serial.log'}"),
        *(*chosen.flags, "-smp", "1", "-m", str(settings.memory)),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", " ".join(words)),
        # What the guest flushed is in this machine's cache, which outlives the guest.
        *("-drive", f"file={folder / 'disk.qcow2'},if=virtio,format=qcow2,cache=unsafe,discard=unmap"),
        *("-netdev", door, "-device", "virtio-net-pci,netdev=door,romfile="),
        *("-netdev", f"socket,id=wire,mcast={settings.group},localaddr=127.0.0.1"),
        *("-device", f"virtio-net-pci,netdev=wire,mac={mac},romfile="),
        *("-device", "virtio-rng-pci"),
    ]


def mark(settings: Settings, name: str, folder: Path) -> str:
    """A mark of how a VM was made, to know one that has to be made anew. How its processor is made does not count."""
    arguments = command_line(settings, name, folder, Accelerator("any", (), 1))
    return hashlib.sha256("\0".join(arguments).encode()).hexdigest()[:16]


# --- changing ---------------------------------------------------------------------------------------------------------


def plan(fleet: Fleet, settings: Settings) -> Plan:
    """What it takes to bring the fleet to these settings."""
    present = {path.parent.name: path.read_text() for path in fleet.directory.glob("host*/mark")}
    running = [name for name in present if fleet.pid(name)]
    return decide({name: mark(settings, name, fleet.of(name)) for name in settings.names}, present, running)


def settle(fleet: Fleet, image: VmImage, count: int, memory: int, subnet: str) -> Settings:
    """The settings of a fleet: those it has where they still fit what is asked for, else new ones."""
    if not 1 <= count <= _MAX_VMS:
        raise LabError(f"a lab has 1 to {_MAX_VMS} VMs, not {count}")
    known = fleet.load()
    chosen = subnet or (known.subnet if known else str(choose_subnet(fleet.identity, [])))
    port = known.port if known and _mine_or_free(fleet, known.port) else _free_port(fleet)
    key = fleet.key.with_suffix(".pub").read_text().split()[1] if fleet.key.exists() else ""
    return Settings(chosen, port, memory, str(image.directory), key, tuple(host_names(count)))


def ensure(fleet: Fleet, image: VmImage, count: int, memory: int, subnet: str) -> Plan:
    """Have `count` VMs running and ready for ssh. Those that are right stay as they are, those off start again."""
    with fleet.locked():
        _end_orphans()
        if not fleet.key.exists():
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(fleet.key)])
        settings = settle(fleet, image, count, memory, subnet)
        todo = plan(fleet, settings)
        for name in todo.remove:
            _remove(fleet, name)
        fleet.save(settings)
        for name in todo.create:
            _create(fleet, settings, name)
        _power_on(fleet, settings, [*todo.create, *todo.start])
        return todo


def remove_all(fleet: Fleet) -> bool:
    """End all VMs and forget the folder; whether there was any."""
    if not fleet.directory.is_dir():
        return False
    with fleet.locked():
        for path in fleet.directory.glob("host*"):
            _remove(fleet, path.name)
        shutil.rmtree(fleet.directory)
        return True


def power(fleet: Fleet, names: Sequence[str], *, on: bool) -> list[str]:
    """Power VMs off at once, without a goodbye, or on again with their disk; the names of those it changed.

    Raises LabError for a name that the fleet does not have.
    """
    with fleet.locked():
        settings = fleet.load()
        for name in names:
            if settings is None or name not in settings.names:
                there = ", ".join(settings.names) if settings else "none"
                raise LabError(f"no VM '{name}' in {fleet.directory}; it has: {there}")
        assert settings is not None
        different = [name for name in names if (fleet.pid(name) is not None) != on]
        if on:
            _power_on(fleet, settings, different)
        else:
            for name in different:
                _end(fleet.of(name))
        return different


# --- parts ------------------------------------------------------------------------------------------------------------


def pid_of(folder: Path) -> int | None:
    """The QEMU process whose pid file is in that folder."""
    try:
        pid = int((folder / "pid").read_text())
    except (OSError, ValueError):
        return None
    arguments = _arguments(pid)
    return pid if arguments and Path(arguments[0]).name == QEMU and str(folder / "pid") in arguments else None


def _create(fleet: Fleet, settings: Settings, name: str) -> None:
    folder = fleet.of(name)
    folder.mkdir(parents=True, exist_ok=True)
    backing = VmImage(Path(settings.image)).disk
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(backing), "-F", "raw", str(folder / "disk.qcow2")])
    (folder / "mark").write_text(mark(settings, name, folder))


def _power_on(fleet: Fleet, settings: Settings, names: Sequence[str]) -> None:
    if not names:
        return
    chosen = accelerator(VmImage(Path(settings.image)))
    for name in names:
        (fleet.of(name) / "serial.log").unlink(missing_ok=True)
        run(command_line(settings, name, fleet.of(name), chosen), timeout=60)
    deadline = time.monotonic() + _READY_SECONDS * chosen.patience
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: _wait_ready(fleet, settings, name, chosen, deadline), names))
    _write_known_hosts(fleet, settings)


def _wait_ready(fleet: Fleet, settings: Settings, name: str, chosen: Accelerator, deadline: float) -> None:
    log = fleet.of(name) / "serial.log"
    while not (_host_key(fleet, name) and _greets(settings.ssh_port(name))):
        gone = fleet.pid(name) is None
        if gone or time.monotonic() > deadline:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-12:]) if log.exists() else "nothing"
            what = "ended by itself" if gone else f"was not ready after {_READY_SECONDS * chosen.patience} s"
            raise LabError(f"{name} ({chosen.name}) {what}; its serial line ({log}) said last:\n{last}")
        time.sleep(0.25)


def _host_key(fleet: Fleet, name: str) -> str:
    """The ssh key that a VM told on its serial line, which nobody but the VM writes to."""
    try:
        lines = (fleet.of(name) / "serial.log").read_text(errors="replace").split("\n")[:-1]
    except OSError:
        return ""
    return next((line.split(_HOST_KEY, 1)[1].strip() for line in lines if _HOST_KEY in line), "")


def _greets(port: int) -> bool:
    """Whether an ssh server answers. QEMU itself accepts the connection long before the guest can."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _write_known_hosts(fleet: Fleet, settings: Settings) -> None:
    keys = {name: _host_key(fleet, name) for name in settings.names}
    lines = [f"[127.0.0.1]:{settings.ssh_port(name)},{name} {key}\n" for name, key in keys.items() if key]
    fleet.known_hosts.write_text("".join(lines))


def _remove(fleet: Fleet, name: str) -> None:
    _end(fleet.of(name))
    shutil.rmtree(fleet.of(name), ignore_errors=True)


def _end(folder: Path) -> None:
    """Pull the plug."""
    pid = pid_of(folder)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        _until(lambda: not _arguments(pid), f"process {pid} to end")
    (folder / "pid").unlink(missing_ok=True)


def _end_orphans() -> None:
    """End VMs whose folder is gone, such as those of a checkout that was deleted while they ran."""
    for entry in Path("/proc").glob("[0-9]*"):
        arguments = _arguments(int(entry.name))
        if arguments and Path(arguments[0]).name == QEMU and "-pidfile" in arguments[:-1]:
            ours = any(word.startswith("lab-host") for word in arguments)
            if ours and not Path(arguments[arguments.index("-pidfile") + 1]).parent.exists():
                os.kill(int(entry.name), signal.SIGKILL)


def _arguments(pid: int) -> list[str]:
    """A process's command line. Empty when it is gone or a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def _mine_or_free(fleet: Fleet, port: int) -> bool:
    return any(fleet.pid(path.name) for path in fleet.directory.glob("host*")) or _is_free(port)


def _free_port(fleet: Fleet) -> int:
    """The first port of a block that nobody listens in, on this fleet's own walk through the blocks."""
    seed = int(fleet.identity, 16)
    for step in range(_PORT_BLOCKS):
        port = _FIRST_PORT + (seed + step) % _PORT_BLOCKS * _PORTS_PER_BLOCK
        if _is_free(port):
            return port
    raise LabError(f"no free block of ports on 127.0.0.1 from {_FIRST_PORT} on for the VMs of {fleet.directory}")


def _is_free(port: int) -> bool:
    """Whether no other fleet has this block: its wire, and the first doors."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
            wire.bind(("", port))
        for number in range(1, _MAX_VMS + 1):
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as door:
                door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                door.bind(("127.0.0.1", port + number))
    except OSError:
        return False
    return True


def _until(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.05)
