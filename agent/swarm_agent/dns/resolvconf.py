"""The host's own resolvers, from /etc/resolv.conf, as it is now: DHCP and VPNs rewrite that file at any time."""

from __future__ import annotations

import ipaddress
import os
import time
from collections.abc import Callable, Collection
from pathlib import Path

LOOK_PERIOD = 1.0  # seconds between looks at the file
MOST = 3  # resolvers that are used, as in resolver(5)


def nameservers(text: str) -> list[str]:
    """The addresses behind "nameserver", without what is none."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                ipaddress.ip_address(words[1])
            except ValueError:
                continue
            found.append(words[1])
    return list(dict.fromkeys(found))


class HostResolvers:
    """The host's resolvers without our own addresses, which would only ask themselves."""

    def __init__(
        self,
        own: Callable[[], Collection[str]],
        path: Path = Path("/etc/resolv.conf"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own = own
        self._path = path
        self._clock = clock
        self._looked = float("-inf")
        self._stamp: tuple[int, int, int] | None = None
        self._servers: list[str] = []

    def __call__(self) -> list[str]:
        now = self._clock()
        if now - self._looked >= LOOK_PERIOD:
            self._looked = now
            self._look()
        own = self._own()
        return [server for server in self._servers if server not in own][:MOST]

    def _look(self) -> None:
        try:
            status = os.stat(self._path)
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if stamp != self._stamp:
                self._servers = nameservers(self._path.read_text(errors="replace"))
                self._stamp = stamp
        except OSError:
            self._servers, self._stamp = [], None
