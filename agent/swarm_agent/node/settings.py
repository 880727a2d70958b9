"""What an operator can set on a host: `/etc/swarm-agent/agent.toml`. Everything has a default; few need changing."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path

BALANCERS = ("auto", "ipvs", "iptables")
DEFAULT_FILE = Path("/etc/swarm-agent/agent.toml")


class SettingsError(Exception):
    """The settings file cannot be used; the text says which line of it and why."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Paths, sockets and ports of the agent on this host."""

    socket: Path = Path("/run/swarm-agent/docker.sock")  # the front door: the Engine API for users
    socket_group: str = "docker"  # who may use it besides root, as with the engine's own socket
    engine_socket: Path = Path("/run/docker.sock")  # the plain engine behind it
    state_dir: Path = Path("/var/lib/swarm-agent")  # certificates, log, snapshots: survives restarts
    run_dir: Path = Path("/run/swarm-agent")  # secrets and configs of tasks: a tmpfs
    gossip_port: int = 7946  # udp and tcp, must be the same on all hosts
    management_port: int = 2377  # tcp, managers; used when no other port is asked for
    dns_port: int = 7953  # udp and tcp on 127.0.0.1: names for the host itself; 0: off
    metrics_addr: str = ""  # HOST:PORT for GET /metrics, as 127.0.0.1:9323; empty: only on the front door's socket
    balancer: str = "auto"  # of VIPs and published ports: "ipvs", "iptables", or "auto": IPVS where the kernel has it
    log_level: str = "info"


def load(path: Path = DEFAULT_FILE) -> Settings:
    """Read the file; a missing file means the defaults. Raises SettingsError on unknown keys and wrong types."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return Settings()
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: {error}") from None
    known = {field.name: field for field in dataclasses.fields(Settings)}
    chosen: dict[str, object] = {}
    for key, value in values.items():
        if key not in known:
            raise SettingsError(f"{path}: unknown setting {key!r}; known are {', '.join(sorted(known))}")
        default = known[key].default
        wanted: type = str if isinstance(default, Path) else type(default)
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise SettingsError(f"{path}: {key} must be of type {wanted.__name__}, not {value!r}")
        chosen[key] = Path(str(value)) if isinstance(default, Path) else value
    if chosen.get("balancer", "auto") not in BALANCERS:
        raise SettingsError(f"{path}: balancer must be one of {', '.join(BALANCERS)}, not {chosen['balancer']!r}")
    return Settings(**chosen)  # type: ignore[arg-type]
