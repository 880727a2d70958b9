"""Driver `container`: lab hosts as systemd containers of the machine's engine.

A host is a container of the lab's Debian image whose first process, `lab-init`, becomes systemd; its /var/lib/docker is
a volume, so a nested engine has overlay2. It gets every capability but SYS_RESOURCE instead of `--privileged`: some
machines lack that one themselves and then refuse a privileged container; with the rest it runs systemd, a nested
engine, iptables and VXLAN alike, under cgroup v1 and v2. Its network is internal: no route out.

The sockets in `.lab/HOST/` are links into the host's own /run, by way of /proc/PID/root. They are rewritten at each
start and removed at each stop, so a socket that is there leads to the host that is there now.

Everything made carries the labels `swarmlab.id` and `swarmlab.root` (the checkout). They are the truth about what
exists; `.lab` may be gone, stale, or left by a run that was killed.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import links
from .command import LabError, attempt, run
from .engine import cli, docker, docker_attempt
from .identity import (
    REGISTRY_NAME,
    choose_subnet,
    container_name,
    host_address,
    host_names,
    machine_address,
    network_name,
    registry_address,
    volume_name,
)
from .state import Home, Link, State

SOCKETS = {"engine.sock": "run/docker.sock", "docker.sock": "run/swarm-agent/docker.sock"}
_READY_SECONDS = 90
# Kernel objects for which all hosts share one budget. A host with an engine takes about 10; the default is 128 in all.
_WATCHERS = Path("/proc/sys/fs/inotify/max_user_instances")
_WATCHERS_PER_HOST = 16
# So that any host can name any other, also one added later.
_NAMED_HOSTS = 9


@dataclass(frozen=True, slots=True)
class Machine:
    """A container of the lab as the engine sees it. `state` is the engine's word: running, paused, exited, dead …"""

    name: str
    state: str
    pid: int
    mac: str
    config: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What `ensure` would do: hosts to create, to start again, to remove; `network` when that has to be made."""

    create: tuple[str, ...]
    start: tuple[str, ...]
    remove: tuple[str, ...]
    network: bool

    @property
    def empty(self) -> bool:
        return not (self.create or self.start or self.remove or self.network)


# --- looking ----------------------------------------------------------------------------------------------------------


def machines(home: Home) -> dict[str, Machine]:
    """All containers of this lab by their lab name (`host1`, `registry`), in whatever state."""
    found = docker("ps", "--all", "--quiet", "--filter", f"label=swarmlab.id={home.identity}").split()
    if not found:
        return {}
    result = {}
    for raw in json.loads(docker("inspect", *found)):
        labels = raw["Config"]["Labels"]
        name = labels["swarmlab.name"]
        [endpoint] = raw["NetworkSettings"]["Networks"].values()
        result[name] = Machine(
            name, raw["State"]["Status"], raw["State"]["Pid"], endpoint["MacAddress"], labels.get("swarmlab.config", "")
        )
    return result


def machine(home: Home, name: str) -> Machine:
    """One container of this lab. Raises LabError, naming those that exist, when there is none of that name."""
    known = machines(home)
    if name not in known:
        there = ", ".join(sorted(known)) or "nothing yet, run `tests/lab/lab up`"
        raise LabError(f"no '{name}' in this lab; it has: {there}")
    return known[name]


def plan(home: Home, count: int, subnet: str, image: str, key: str) -> Plan:
    """Compare what is asked for with what the engine has. `subnet` may be empty: any."""
    network = _existing_subnet(home)
    if not network or subnet not in ("", network):
        return decide(dict.fromkeys(host_names(count), ""), machines(home), new_network=True)
    prefix = ipaddress.IPv4Network(network)
    wanted = {name: fingerprint(_arguments(home, name, prefix, image, key)) for name in host_names(count)}
    return decide(wanted, machines(home), new_network=False)


def decide(wanted: Mapping[str, str], present: Mapping[str, Machine], *, new_network: bool) -> Plan:
    """What to do to get from the machines there are to the hosts that are wanted, given as name and configuration.

    A new network takes everything with it, the registry too: containers of the old one have addresses of the old one.
    """
    if new_network:
        return Plan(create=tuple(wanted), start=(), remove=tuple(sorted(present)), network=True)
    hosts = {name: machine for name, machine in present.items() if name.startswith("host")}
    useless = {name for name, host in hosts.items() if host.config != wanted.get(name) or host.state == "dead"}
    kept = [name for name in wanted if name in hosts and name not in useless]
    return Plan(
        create=tuple(name for name in wanted if name not in kept),
        start=tuple(name for name in kept if hosts[name].state != "running"),
        remove=tuple(sorted(useless)),
        network=False,
    )


# --- changing ---------------------------------------------------------------------------------------------------------


def ensure(home: Home, count: int, subnet: str, image: str) -> Plan:
    """Bring up `count` hosts and wait until systemd and sshd of each are ready. Returns what had to be done.

    A lab of the same checkout that is there already is adopted: running hosts stay, stopped ones start with their disk,
    hosts made from another image or with other settings are made anew.
    """
    with home.locked():
        _forget_dead_checkouts(home)
        _make_room(count)
        key = _ensure_key(home)
        todo = plan(home, count, subnet, image, key)
        for name in todo.remove:
            _remove(home, name)
        if todo.network:
            _make_network(home, subnet)
        network = ipaddress.IPv4Network(_existing_subnet(home))
        hosts = {name: host_address(network, name) for name in host_names(count)}
        known = home.load()
        home.save(State(str(network), image, hosts, frozenset(cut for cut in known.cuts if set(cut) <= set(hosts))))
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda name: _create(home, name, network, image, key), todo.create))
            list(pool.map(lambda name: _resume(home, name), todo.start))
            list(pool.map(lambda item: _wait_ready(home, *item), hosts.items()))
        refresh_sockets(home)
        _write_known_hosts(home, hosts)
        _apply_cuts(home)
        return todo


def remove_all(home: Home) -> bool:
    """Remove every container, volume and network of this lab; whether there was any."""
    with home.locked():
        names = sorted(machines(home))
        for name in names:
            _remove(home, name)
        label = f"label=swarmlab.id={home.identity}"
        networks = docker("network", "ls", "--quiet", "--filter", label).split()
        volumes = docker("volume", "ls", "--quiet", "--filter", label).split()
        if networks:
            docker("network", "rm", *networks)
        if volumes:
            docker("volume", "rm", "--force", *volumes)
        return bool(names or networks or volumes)


def kill(home: Home, name: str) -> None:
    """Power the host off at once: every process on it gets SIGKILL, nothing is flushed or said goodbye to."""
    with home.locked():
        present = machine(home, name)
        # A host without power says nothing. Dying processes would: their kernel here lives on and closes connections.
        if present.state in ("running", "paused"):
            run(["nsenter", "--target", str(present.pid), "--net", "ip", "link", "set", "dev", "eth0", "down"])
        if present.state == "paused":
            docker("unpause", container_name(home.identity, name))
        docker("kill", "--signal", "KILL", container_name(home.identity, name))
        docker("wait", container_name(home.identity, name), timeout=30)
        refresh_sockets(home)


def start(home: Home, name: str) -> None:
    """Power the host on again, with the disk it had, and wait until it is ready. Cut links stay cut."""
    with home.locked():
        if machine(home, name).state != "running":
            _resume(home, name)
        # First of all: a host that comes back must not talk across a cut, not even while it boots.
        _apply_cuts(home)
        refresh_sockets(home)
        _wait_ready(home, name, home.load().hosts[name])


def freeze(home: Home, name: str) -> None:
    """Stop every process of the host in its tracks: it holds its connections and says nothing, as in a long pause."""
    with home.locked():
        if machine(home, name).state != "paused":
            docker("pause", container_name(home.identity, name))


def thaw(home: Home, name: str) -> None:
    """Let a frozen host go on."""
    with home.locked():
        if machine(home, name).state == "paused":
            docker("unpause", container_name(home.identity, name))


def set_cuts(home: Home, change: Callable[[State], frozenset[Link]]) -> State:
    """Change which links are cut and make the hosts follow."""
    with home.locked():
        state = home.update(cuts=change(home.load()))
        _apply_cuts(home)
        return state


def refresh_sockets(home: Home) -> None:
    """Point `.lab/HOST/*.sock` at the hosts as they run now, and drop the links of hosts that do not."""
    pids = _pids(home)
    for name in home.load().hosts:
        for kind, inside in SOCKETS.items():
            path = home.socket(name, kind)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            if name in pids:
                path.symlink_to(f"/proc/{pids[name]}/root/{inside}")


def socket_target(home: Home, name: str, kind: str) -> Path:
    """Where a socket's link leads now. It is short, while the link's own path may exceed a socket's 107 bytes.

    Raises LabError when the host does not run.
    """
    try:
        return home.socket(name, kind).readlink()
    except OSError as error:
        raise LabError(
            f"{name} has no {kind} in {home.directory}: it does not run, see `tests/lab/lab status`"
        ) from error


def serves(home: Home, name: str, kind: str) -> bool:
    """Whether something accepts connections on a socket of a host."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(2)
            connection.connect(str(socket_target(home, name, kind)))
        return True
    except (OSError, LabError):
        return False


def command_in(home: Home, name: str, argv: Sequence[str], *, tty: bool = False) -> list[str]:
    """The command line that runs `argv` on a host."""
    flags = ["--interactive", *(["--tty"] if tty else [])]
    return cli("exec", *flags, container_name(home.identity, name), *argv)


# --- parts ------------------------------------------------------------------------------------------------------------


def _arguments(home: Home, name: str, subnet: ipaddress.IPv4Network, image: str, key: str) -> list[str]:
    address = host_address(subnet, name)
    names = sorted({*host_names(_NAMED_HOSTS), name}, key=lambda host: int(host.removeprefix("host")))
    # IPVS and other modules of the machine's kernel, where it has any.
    modules = ["--volume", "/lib/modules:/lib/modules:ro"] if Path("/lib/modules").is_dir() else []
    return [
        *("--hostname", name),
        *("--network", network_name(home.identity)),
        *("--ip", address),
        *(f"--add-host={host}:{host_address(subnet, host)}" for host in names if host != name),
        f"--add-host={REGISTRY_NAME}:{registry_address(subnet)}",
        *("--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE"),
        *("--security-opt", "seccomp=unconfined"),
        *("--security-opt", "apparmor=unconfined"),
        *("--security-opt", "systempaths=unconfined"),
        *("--device-cgroup-rule", "a *:* rwm"),
        "--cgroupns=private",
        *("--tmpfs", "/run:exec,mode=755", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec,mode=1777"),
        *("--volume", f"{volume_name(home.identity, name)}:/var/lib/docker"),
        *modules,
        *("--env", "container=docker"),
        *("--env", f"LAB_AUTHORIZED_KEY={key}"),
        *("--stop-signal", "SIGRTMIN+3"),
        image,
        "/usr/local/sbin/lab-init",
    ]


def fingerprint(arguments: Iterable[str]) -> str:
    """A mark of how a machine was made, to know one that has to be made anew."""
    return hashlib.sha256("\0".join(arguments).encode()).hexdigest()[:16]


def labels_of(home: Home, name: str = "") -> list[str]:
    """The flags that mark a thing as this lab's, and as belonging to one of its machines."""
    labels = ["--label", f"swarmlab.id={home.identity}", "--label", f"swarmlab.root={home.root.resolve()}"]
    return [*labels, "--label", f"swarmlab.name={name}"] if name else labels


def _create(home: Home, name: str, subnet: ipaddress.IPv4Network, image: str, key: str) -> None:
    arguments = _arguments(home, name, subnet, image, key)
    docker("volume", "create", *labels_of(home), volume_name(home.identity, name))
    labels = [*labels_of(home, name), "--label", f"swarmlab.config={fingerprint(arguments)}"]
    docker("run", "--detach", "--name", container_name(home.identity, name), *labels, *arguments)


def _resume(home: Home, name: str) -> None:
    container = container_name(home.identity, name)
    docker("unpause" if machine(home, name).state == "paused" else "start", container)


def _remove(home: Home, name: str) -> None:
    docker("rm", "--force", "--volumes", container_name(home.identity, name))
    docker_attempt("volume", "rm", "--force", volume_name(home.identity, name))
    for kind in SOCKETS:
        home.socket(name, kind).unlink(missing_ok=True)


def _wait_ready(home: Home, name: str, address: str) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        systemd = attempt(command_in(home, name, ["systemctl", "is-system-running"])).stdout.strip()
        if systemd in ("running", "degraded") and _greets(address, 22):
            return
        if time.monotonic() > deadline:
            jobs = attempt(command_in(home, name, ["systemctl", "list-jobs", "--no-pager"])).stdout.strip()
            logs = docker_attempt("logs", "--tail", "5", container_name(home.identity, name))
            raise LabError(
                f"{name} ({address}) was not ready within {_READY_SECONDS} s: systemd is '{systemd or 'silent'}'. "
                f"Its waiting jobs: {jobs or 'none'}. "
                f"Its first process said: {(logs.stdout + logs.stderr).strip() or 'nothing'}"
            )
        time.sleep(0.2)


def _greets(address: str, port: int) -> bool:
    """Whether an ssh server answers there."""
    try:
        with socket.create_connection((address, port), timeout=2) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _ensure_key(home: Home) -> str:
    if not home.key.exists():
        home.directory.mkdir(parents=True, exist_ok=True)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(home.key)])
    return home.key.with_suffix(".pub").read_text().strip()


def _write_known_hosts(home: Home, hosts: dict[str, str]) -> None:
    lines = []
    for name, address in hosts.items():
        public = run(command_in(home, name, ["cat", "/etc/ssh/ssh_host_ed25519_key.pub"])).split()
        lines.append(f"{address},{name} {public[0]} {public[1]}\n")
    text = "".join(lines)
    if not home.known_hosts.exists() or home.known_hosts.read_text() != text:
        home.known_hosts.write_text(text)


def _apply_cuts(home: Home) -> None:
    state, present = home.load(), machines(home)
    addresses = {name: found.mac for name, found in present.items() if found.mac}
    for name in state.hosts:
        if name in present and present[name].pid:
            links.apply(present[name].pid, links.ruleset(name, state.cuts, addresses))


def _pids(home: Home) -> dict[str, int]:
    return {name: found.pid for name, found in machines(home).items() if found.pid}


def _existing_subnet(home: Home) -> str:
    """The subnet of this lab's network, or '' when there is no usable one."""
    answer = docker_attempt("network", "inspect", network_name(home.identity))
    if answer.returncode != 0:
        return ""
    raw = json.loads(answer.stdout)[0]
    return raw["IPAM"]["Config"][0]["Subnet"] if raw["Internal"] and raw["IPAM"]["Config"] else ""


def _make_network(home: Home, subnet: str) -> None:
    name = network_name(home.identity)
    docker_attempt("network", "rm", name)
    remembered = home.load().subnet
    taken = list(_taken_networks())
    if not subnet and remembered and not any(ipaddress.IPv4Network(remembered).overlaps(each) for each in taken):
        subnet = remembered
    network = ipaddress.IPv4Network(subnet) if subnet else choose_subnet(home.identity, taken)
    addresses = ["--subnet", str(network), "--gateway", machine_address(network)]
    docker("network", "create", "--internal", *addresses, *labels_of(home), name)


def _taken_networks() -> Iterable[ipaddress.IPv4Network]:
    for route in json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"]) or "[]"):
        if route["dst"] != "default":
            yield ipaddress.IPv4Network(route["dst"], strict=False)
    identifiers = docker("network", "ls", "--quiet").split()
    for raw in json.loads(docker("network", "inspect", *identifiers)) if identifiers else []:
        for config in raw["IPAM"]["Config"] or []:
            if ":" not in config.get("Subnet", ":"):
                yield ipaddress.IPv4Network(config["Subnet"])


def _make_room(count: int) -> None:
    """Raise the machine's limit on inotify instances to what this many hosts need, if it is lower."""
    needed = 128 + _WATCHERS_PER_HOST * count
    if int(_WATCHERS.read_text()) < needed:
        _WATCHERS.write_text(str(needed))


def _forget_dead_checkouts(home: Home) -> None:
    """Remove labs whose checkout no longer exists, such as a clone that was deleted while its lab ran."""
    kinds = (
        (["ps", "--all"], "{{.Names}}", ["rm", "--force", "--volumes"]),
        (["network", "ls"], "{{.Name}}", ["network", "rm"]),
        (["volume", "ls"], "{{.Name}}", ["volume", "rm"]),
    )
    for listing, name_field, removal in kinds:
        form = name_field + '\t{{.Label "swarmlab.root"}}'
        for row in docker(*listing, "--filter", "label=swarmlab.root", "--format", form).splitlines():
            name, root = row.split("\t")
            if not Path(root).exists():
                docker_attempt(*removal, name)
