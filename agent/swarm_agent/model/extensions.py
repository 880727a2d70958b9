"""What a service can say that Swarm's API has no field for: labels of the service, under a few prefixes of our own.

    swarm.task.*    how its containers are made (devices, privileged, shm_size, runtime, gpus)
    swarm.job.*     when a job runs (cron, missed, overlap)
    swarm.update.*  how its updates go (place_within)
    swarm.publish.* where its published ports answer (addresses, nodes)
    swarm.rebalance whether it may be moved for balance ("off")

Labels go through every client, stack file and SDK unchanged. A label under one of the prefixes that is not known, or
a value that cannot be read, is refused when the service is declared, never ignored. The readers here raise ValueError
with a text for people; code that acts on a stored service uses the lenient ones (`task_options`, `place_within`), for
what is stored must not stop a loop.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .cron import Schedule
from .times import SECOND

DEVICES = "swarm.task.devices"
PRIVILEGED = "swarm.task.privileged"
SHM_SIZE = "swarm.task.shm_size"
RUNTIME = "swarm.task.runtime"
GPUS = "swarm.task.gpus"
CRON = "swarm.job.cron"
MISSED = "swarm.job.missed"
OVERLAP = "swarm.job.overlap"
PLACE_WITHIN = "swarm.update.place_within"
PUBLISH_ADDRESSES = "swarm.publish.addresses"
PUBLISH_NODES = "swarm.publish.nodes"
REBALANCE = "swarm.rebalance"

PREFIXES = ("swarm.task.", "swarm.job.", "swarm.update.", "swarm.publish.")
"""All labels under these are ours. (`swarm.` alone is not: other tools use it, swarm-cronjob for one.)"""

PLACE_WITHIN_DEFAULT = 15 * 60 * SECOND
"""How long an update waits for a node for one of its tasks. Long enough for machines that are ordered on demand."""

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS = {"ms": SECOND // 1000, "s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND, "d": 86400 * SECOND}
_PERMISSIONS = re.compile(r"[rwm]{1,3}")
_NODE_TEST = re.compile(
    r"(node\.(?:id|hostname|role|ip|platform\.os|platform\.arch)|(?:node|engine)\.labels\.[A-Za-z0-9_./-]+)"
    r"\s*(==|!=)\s*([A-Za-z0-9:_./-]+)"
)
_RUNTIME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Device:
    """A device of the host in the container; `permissions` out of r(ead), w(rite), m(knod)."""

    host: str
    container: str
    permissions: str = "rwm"


@dataclass(frozen=True, slots=True)
class Gpus:
    """GPUs that the container asks of its runtime: `count` of them, -1 for all, or those with these ids."""

    count: int = 0
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """How containers are made beyond the ContainerSpec. `shm_size` is bytes, 0 the engine's default."""

    devices: tuple[Device, ...] = ()
    privileged: bool = False
    shm_size: int = 0
    runtime: str = ""
    gpus: Gpus | None = None


# --- readers of single values: ValueError says what is wrong ---------------------------------------------------------


def read_bool(text: str) -> bool:
    word = text.strip().lower()
    if word not in ("true", "false", "1", "0", "yes", "no"):
        raise ValueError(f"{text!r} is neither true nor false")
    return word in ("true", "1", "yes")


def read_size(text: str) -> int:
    """Bytes of "64m", "1g", "65536"."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no size; write bytes or e.g. 64m, 1g")
    size = int(float(found[1]) * 1024 ** "kmgt".find(found[2].lower()) * 1024) if found[2] else int(float(found[1]))
    if size <= 0:
        raise ValueError(f"{text!r} is no size above 0")
    return size


def read_duration(text: str) -> int:
    """Nanoseconds of "90s", "1h30m"; "off" and "0" are 0."""
    word = text.strip().lower()
    if word in ("0", "off"):
        return 0
    parts = list(_DURATION.finditer(word))
    if not parts or "".join(part[0] for part in parts) != word:
        raise ValueError(f"{text!r} is no duration; write e.g. 90s, 10m, 1h30m, or off")
    return sum(int(float(part[1]) * _UNITS[part[2]]) for part in parts)


def read_devices(text: str) -> tuple[Device, ...]:
    """Devices as of `docker run --device`: HOST[:CONTAINER[:PERMISSIONS]], several separated by commas."""
    return tuple(_device(part.strip()) for part in text.split(",") if part.strip())


def _device(text: str) -> Device:
    parts = text.split(":")
    if len(parts) == 2 and _PERMISSIONS.fullmatch(parts[1]):
        parts = [parts[0], parts[0], parts[1]]
    if len(parts) > 3 or not all(part.startswith("/") for part in parts[:2]):
        raise ValueError(f"{text!r} is no device; write /dev/HOST[:/dev/CONTAINER[:rwm]], several with commas")
    permissions = parts[2] if len(parts) == 3 else "rwm"
    if not _PERMISSIONS.fullmatch(permissions):
        raise ValueError(f"{permissions!r} are no permissions of a device; write some of r, w, m")
    return Device(parts[0], parts[1] if len(parts) > 1 else parts[0], permissions)


def read_gpus(text: str) -> Gpus:
    """GPUs as of `docker run --gpus`: "all", a number, or "device=ID,ID"."""
    word = text.strip()
    if word == "all":
        return Gpus(count=-1)
    if word.isdecimal() and int(word) > 0:
        return Gpus(count=int(word))
    ids = tuple(part.strip() for part in word.removeprefix("device=").split(",") if part.strip())
    if word.startswith("device=") and ids:
        return Gpus(ids=ids)
    raise ValueError(f"{text!r} are no GPUs; write all, a number above 0, or device=ID,ID")


def read_runtime(text: str) -> str:
    if not _RUNTIME.fullmatch(text):
        raise ValueError(f"{text!r} is no name of a runtime")
    return text


def read_addresses(text: str) -> tuple[str, ...]:
    """Addresses and networks of hosts, "10.0.0.5, 192.168.7.0/24", as networks in order."""
    found = set()
    for part in text.split(","):
        try:
            found.add(ipaddress.IPv4Network(part.strip()))
        except ValueError:
            raise ValueError(f"{part.strip()!r} is no IPv4 address or network, as 10.0.0.5 or 10.0.0.0/24") from None
    return tuple(str(network) for network in sorted(found))


def read_nodes(text: str) -> tuple[str, ...]:
    """Conditions on nodes in the words of placement constraints, "node.labels.edge==true, node.role!=manager"."""
    found = set()
    for part in text.split(","):
        test = _NODE_TEST.fullmatch(part.strip())
        if test is None:
            raise ValueError(
                f"{part.strip()!r} is no condition on nodes; write them as constraints, as node.labels.edge==true"
            )
        found.add("".join(test.groups()))
    return tuple(sorted(found))


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is not one of {', '.join(words)}")
        return text

    return read


_READERS: dict[str, Callable[[str], Any]] = {
    DEVICES: read_devices,
    PRIVILEGED: read_bool,
    SHM_SIZE: read_size,
    RUNTIME: read_runtime,
    GPUS: read_gpus,
    CRON: Schedule.parse,
    MISSED: _one_of("run", "skip"),
    OVERLAP: _one_of("skip", "replace"),
    PLACE_WITHIN: read_duration,
    PUBLISH_ADDRESSES: read_addresses,
    PUBLISH_NODES: read_nodes,
    REBALANCE: _one_of("on", "off"),
}


def check(labels: Mapping[str, str], *, job: bool) -> None:
    """Raise ValueError when the labels say something of ours that cannot be done."""
    for name, text in labels.items():
        reader = _READERS.get(name)
        if reader is None:
            if name.startswith(PREFIXES):
                known = ", ".join(sorted(one for one in _READERS if one.startswith(name.rpartition(".")[0] + ".")))
                raise ValueError(f"label {name} is not known; known are {known or ', '.join(sorted(_READERS))}")
            continue
        if name.startswith("swarm.job.") and not job:
            raise ValueError(f"label {name}: only jobs have a schedule; use mode replicated-job or global-job")
        if name.startswith("swarm.job.") and CRON not in labels:
            raise ValueError(f"label {name} says nothing without {CRON}")
        try:
            reader(text)
        except ValueError as error:
            raise ValueError(f"label {name}: {error}") from None


# --- what a stored service says; what cannot be read counts as not said ----------------------------------------------


def _read(labels: Mapping[str, str], name: str, default: Any) -> Any:
    text = labels.get(name)
    if text is None:
        return default
    try:
        return _READERS[name](text)
    except ValueError:
        return default


_NO_OPTIONS = TaskOptions()


def task_options(labels: Mapping[str, str]) -> TaskOptions:
    """How the service's containers are to be made."""
    if not any(name.startswith("swarm.task.") for name in labels):
        return _NO_OPTIONS
    return TaskOptions(
        devices=_read(labels, DEVICES, ()),
        privileged=_read(labels, PRIVILEGED, False),
        shm_size=_read(labels, SHM_SIZE, 0),
        runtime=_read(labels, RUNTIME, ""),
        gpus=_read(labels, GPUS, None),
    )


def place_within(labels: Mapping[str, str]) -> int:
    """Nanoseconds that an update waits for a node for one of its tasks; 0: for ever, as Swarm does."""
    found: int = _read(labels, PLACE_WITHIN, PLACE_WITHIN_DEFAULT)
    return found


def publish_addresses(labels: Mapping[str, str]) -> tuple[str, ...]:
    """The hosts' addresses (as networks) on which the service's published ports answer; empty: on all."""
    found: tuple[str, ...] = _read(labels, PUBLISH_ADDRESSES, ())
    return found


def publish_nodes(labels: Mapping[str, str]) -> tuple[str, ...]:
    """The conditions that a host must meet, all of them, for the service's published ports to answer there."""
    found: tuple[str, ...] = _read(labels, PUBLISH_NODES, ())
    return found


def may_rebalance(labels: Mapping[str, str]) -> bool:
    """The service has nothing against being moved for balance."""
    return labels.get(REBALANCE) != "off"


@lru_cache(maxsize=1024)
def _schedule(text: str) -> Schedule | None:
    try:
        return Schedule.parse(text)
    except ValueError:
        return None


def schedule(labels: Mapping[str, str]) -> Schedule | None:
    """When a job is to run, None for one that runs as soon as it is declared."""
    text = labels.get(CRON)
    return _schedule(text) if text is not None else None
