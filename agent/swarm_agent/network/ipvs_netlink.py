"""IPVS of this network namespace over generic netlink: services by packet mark, their destinations, timeouts.

Only services whose mark has one of our two bits and nothing above are ours (ipvs.py); all others are not even seen.
Layout: linux/ip_vs.h. Blocking; runs in a worker thread.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress

from .names import BALANCED_MASK, PUBLISHED_BIT, VIP_BIT
from .netlink import ALREADY_GONE, Failure
from .nlsocket import GenericSocket, attribute, attributes
from .state import (
    Destination,
    IpvsOperation,
    KernelState,
    RemoveDestination,
    RemoveService,
    SetDestination,
    SetService,
    SetTimeouts,
    Timeouts,
)

_NEW_SERVICE, _SET_SERVICE, _DEL_SERVICE, _GET_SERVICE = 1, 2, 3, 4
_NEW_DEST, _SET_DEST, _DEL_DEST, _GET_DEST = 5, 6, 7, 8
_SET_CONFIG, _GET_CONFIG = 12, 13
_SERVICE, _DEST, _TIMEOUT_TCP, _TIMEOUT_TCP_FIN, _TIMEOUT_UDP = 1, 2, 4, 5, 6
_S_FAMILY, _S_MARK, _S_SCHEDULER, _S_FLAGS, _S_TIMEOUT, _S_NETMASK = 1, 5, 6, 7, 8, 9
_D_ADDRESS, _D_PORT, _D_METHOD, _D_WEIGHT, _D_UPPER, _D_LOWER, _D_ACTIVE, _D_INACTIVE = 1, 2, 3, 4, 5, 6, 7, 8
_D_FAMILY = 11
_NESTED = 0x8000
_REPLACE_CODES = {_NEW_SERVICE: _SET_SERVICE, _NEW_DEST: _SET_DEST}
_TRIAL_MARK = VIP_BIT  # number 0, which no frontend has


def is_ours(mark: int) -> bool:
    """Whether an IPVS service with this packet mark belongs to us."""
    return mark & ~BALANCED_MASK == 0 and bool(mark & (PUBLISHED_BIT | VIP_BIT))


def _u32(value: int) -> bytes:
    return struct.pack("=I", value)


def _service(mark: int, scheduler: str = "") -> bytes:
    body = attribute(_S_FAMILY, struct.pack("=H", socket.AF_INET)) + attribute(_S_MARK, _u32(mark))
    if scheduler:
        body += attribute(_S_SCHEDULER, scheduler.encode() + b"\0") + attribute(
            _S_FLAGS, struct.pack("=II", 0, ~0 & 0xFFFFFFFF)
        )
        body += attribute(_S_TIMEOUT, _u32(0)) + attribute(_S_NETMASK, b"\xff" * 4)
    return attribute(_SERVICE | _NESTED, body)


def _destination(ip: str, port: int, weight: int = -1) -> bytes:
    body = attribute(_D_ADDRESS, socket.inet_aton(ip) + bytes(12)) + attribute(_D_PORT, struct.pack(">H", port))
    body += attribute(_D_FAMILY, struct.pack("=H", socket.AF_INET))
    if weight >= 0:
        body += attribute(_D_METHOD, _u32(0)) + attribute(_D_WEIGHT, _u32(weight))  # 0: masquerading
        body += attribute(_D_UPPER, _u32(0)) + attribute(_D_LOWER, _u32(0))
    return attribute(_DEST | _NESTED, body)


def encoded(operation: IpvsOperation) -> tuple[int, bytes]:
    """(command, attributes) that carries the operation out, for things that are not there yet."""
    match operation:
        case SetService(mark, scheduler):
            return _NEW_SERVICE, _service(mark, scheduler)
        case RemoveService(mark):
            return _DEL_SERVICE, _service(mark)
        case SetDestination(mark, ip, port, weight):
            return _NEW_DEST, _service(mark) + _destination(ip, port, weight)
        case RemoveDestination(mark, ip, port):
            return _DEL_DEST, _service(mark) + _destination(ip, port)
        case SetTimeouts(timeouts):
            return _SET_CONFIG, (
                attribute(_TIMEOUT_TCP, _u32(timeouts.tcp))
                + attribute(_TIMEOUT_TCP_FIN, _u32(timeouts.tcp_fin))
                + attribute(_TIMEOUT_UDP, _u32(timeouts.udp))
            )


class IpvsSocket(GenericSocket):
    """A generic netlink socket that has found the kernel's IPVS. Raises FileNotFoundError where there is none."""

    family = "IPVS"

    def execute(self, operations: Collection[IpvsOperation]) -> list[Failure]:
        """Carry out in order; those that failed. What is there already is changed, what is gone already is fine."""
        commands = [encoded(operation) for operation in operations]
        codes = self.send([self.message(kind, body) for kind, body in commands])
        again = [
            position
            for position, ((kind, _), code) in enumerate(zip(commands, codes, strict=True))
            if code == errno.EEXIST and kind in _REPLACE_CODES
        ]
        replaced = self.send([self.message(_REPLACE_CODES[commands[at][0]], commands[at][1]) for at in again])
        for position, code in zip(again, replaced, strict=True):
            codes[position] = code
        return [
            Failure(operation, f"IPVS: {os.strerror(code)}")
            for operation, (kind, _), code in zip(operations, commands, codes, strict=True)
            if code and not (kind in (_DEL_SERVICE, _DEL_DEST) and code in ALREADY_GONE)
        ]

    def services(self) -> dict[int, str]:
        """Our services: mark → scheduler."""
        found: dict[int, str] = {}
        for body in self.dump(self.number, self.head(_GET_SERVICE)):
            service = dict(attributes(dict(attributes(body, 4)).get(_SERVICE, b""), 0))
            mark = struct.unpack("=I", service[_S_MARK])[0] if _S_MARK in service else 0
            if is_ours(mark):
                found[mark] = service.get(_S_SCHEDULER, b"").rstrip(b"\0").decode()
        return found

    def destinations(self, mark: int) -> Iterator[tuple[Destination, int, int]]:
        """The service's destinations: (destination, weight, connections)."""
        for body in self.dump(self.number, self.head(_GET_DEST) + _service(mark)):
            found = dict(attributes(dict(attributes(body, 4)).get(_DEST, b""), 0))
            ip = socket.inet_ntoa(found[_D_ADDRESS][:4])
            (port,) = struct.unpack(">H", found[_D_PORT])
            weight, active, inactive = (
                struct.unpack("=I", found[kind])[0] for kind in (_D_WEIGHT, _D_ACTIVE, _D_INACTIVE)
            )
            yield (mark, ip, port), weight, active + inactive

    def timeouts(self) -> Timeouts:
        for body in self.ask(self.message(_GET_CONFIG, b"")):
            found = {kind: struct.unpack("=I", value[:4])[0] for kind, value in attributes(body, 4)}
            return Timeouts(found[_TIMEOUT_TCP], found[_TIMEOUT_TCP_FIN], found[_TIMEOUT_UDP])
        raise OSError("IPVS does not tell its timeouts")


def available(load: bool = True) -> str:
    """Why this kernel cannot balance by IPVS, or "" when it can: shown by making a service and removing it again.

    `load`: try to load the kernel's module.
    """
    try:
        ipvs = IpvsSocket()
    except FileNotFoundError:
        if load:
            with suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(["modprobe", "-q", "ip_vs"], timeout=10, check=False)
            return available(load=False)
        return "this kernel offers no IPVS"
    except OSError as error:
        return f"generic netlink: {error}"
    with ipvs:
        failures = ipvs.execute([SetService(_TRIAL_MARK, "rr"), RemoveService(_TRIAL_MARK)])
        return "; ".join(failure.reason for failure in failures) or _match_lacking()


def _match_lacking() -> str:
    """Why iptables cannot tell packets that come from IPVS, or "": tried without changing anything."""
    text = "*mangle\n-A OUTPUT -m ipvs --ipvs -j ACCEPT\nCOMMIT\n"
    command = ["iptables-restore", "--noflush", "--test", "-w", "5"]
    try:
        result = subprocess.run(command, input=text, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"iptables-restore: {error}"
    return f"iptables' match ipvs: {result.stderr.strip()}" if result.returncode else ""


def observe() -> tuple[dict[int, str], dict[Destination, int], Timeouts | None]:
    """Our services and destinations, and the timeouts; nothing where the kernel has no IPVS (loaded)."""
    try:
        ipvs = IpvsSocket()
    except OSError:
        return {}, {}, None
    with ipvs:
        services = ipvs.services()
        found = {key: weight for mark in services for key, weight, _ in ipvs.destinations(mark)}
        return services, found, ipvs.timeouts()


def connections(marks: Iterable[int]) -> dict[Destination, int]:
    """How many connections IPVS knows to each destination of these services; nothing when it cannot be asked."""
    try:
        with IpvsSocket() as ipvs:
            return {key: count for mark in marks for key, _, count in ipvs.destinations(mark)}
    except OSError:
        return {}


class IpvsWatch:
    """Notices that others changed our services. The kernel tells nobody of changes, so it is asked: each time for all
    services, and for the destinations of `AT_ONCE` of them, in turn.
    """

    AT_ONCE = 200

    def __init__(self) -> None:
        self._next = 0  # mark

    def undisturbed(self, wanted: KernelState) -> bool:
        if not wanted.services:
            return True
        try:
            with IpvsSocket() as ipvs:
                if ipvs.services() != wanted.services or ipvs.timeouts() != wanted.timeouts:
                    return False
                marks = sorted(wanted.services)
                start = next((at for at, mark in enumerate(marks) if mark >= self._next), 0)
                turn = marks[start : start + self.AT_ONCE]
                self._next = turn[-1] + 1 if turn[-1] != marks[-1] else 0
                asked = set(turn)
                planned = {key: weight for key, weight in wanted.destinations.items() if key[0] in asked}
                return planned == {key: weight for mark in turn for key, weight, _ in ipvs.destinations(mark)}
        except OSError:
            return False


def execute(operations: Iterable[IpvsOperation]) -> list[Failure]:
    """Carry out operations in order; returns those that failed."""
    wanted = list(operations)
    if not wanted:
        return []
    try:
        with IpvsSocket() as ipvs:
            return ipvs.execute(wanted)
    except OSError as error:
        return [Failure(operation, f"IPVS: {error}") for operation in wanted]
