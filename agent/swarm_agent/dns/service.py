"""The DNS of one host: a listener on its own address on each network, and one on loopback for the host itself.

    dns = DnsService(loopback_port=7953)
    dns.update(networks, own, endpoints)      # with every change of the tables; returns when questions are answered so
    await dns.open()                          # begin to listen
    await dns.close()

A network's listener answers askers whose address is in the network's subnet; others are refused, whatever way their
packets came. Before `open` nothing listens, so an agent that starts with empty tables denies no name that exists:
askers get a temporary failure and ask again. An address that is taken (another server on port 53) is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from swarm_agent.model.addresses import ip_of
from swarm_agent.model.objects import Network
from swarm_agent.model.rows import EndpointRow

from .answers import View
from .forward import PORT, Forwarder
from .resolvconf import HostResolvers
from .server import Desk, Listener
from .zones import Directory, Zone, build

log = logging.getLogger("swarm.dns")

LOOPBACK = "127.0.0.1"
LOOPBACK_PORT = 7953  # beside gossip's 7946; 5353 is mDNS
RETRY = 2.0  # seconds between attempts at an address that is taken


class DnsService:
    """See the module. `port` and `forward_port` differ from 53 only in tests; `loopback_port` 0: no such listener."""

    def __init__(
        self,
        *,
        loopback_port: int = LOOPBACK_PORT,
        port: int = PORT,
        forward_port: int = PORT,
        resolv_conf: Path = Path("/etc/resolv.conf"),
        rng: random.Random | None = None,
    ) -> None:
        self._rng = rng or random.SystemRandom()
        self._shuffle = random.Random(self._rng.getrandbits(64))  # cheap; nothing rests on it
        self._port = port
        self._loopback_port = loopback_port
        self._resolvers = HostResolvers(lambda: self._own.values(), resolv_conf)
        self._forwarder = Forwarder(self._resolvers, rng=self._rng, port=forward_port)
        self._directory = Directory()
        self._own: dict[str, str] = {}  # network id → this host's address there
        self._desks: dict[tuple[Zone, ...], Desk] = {}
        self._refusing = Desk(None)
        self._listeners: dict[tuple[str, str], Listener] = {}  # (network id, address); loopback has no network
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._complaints: dict[tuple[str, str], str] = {}

    @property
    def directory(self) -> Directory:
        """What is answered now."""
        return self._directory

    @property
    def listening(self) -> list[tuple[str, int]]:
        """Addresses and ports that are bound."""
        return sorted((listener.address, listener.port) for listener in self._listeners.values())

    def update(
        self,
        networks: Iterable[Network],
        own: Mapping[str, str],
        endpoints: Iterable[tuple[str, EndpointRow]],
        *,
        vips6: bool = True,
    ) -> None:
        """New tables. `own`: network id → this host's own address there, "10.0.1.2/24". `vips6`: whether this host
        balances VIPs of IPv6; always the same."""
        self._directory = build(networks, endpoints, self._directory, vips6=vips6)
        zones = self._directory.zones
        self._desks = {
            seen: desk for seen, desk in self._desks.items() if all(zones.get(zone.network_id) is zone for zone in seen)
        }
        own = {network_id: ip_of(address) for network_id, address in own.items() if network_id in zones}
        for listener in self._listeners.values():
            listener.forget()
        if own != self._own:
            self._own = own
            self._wake.set()

    async def open(self) -> None:
        """Begin to listen, and follow the addresses from now on."""
        if self._task is None:
            await self._reconcile()
            self._task = asyncio.create_task(self._run(), name="dns")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        for listener in self._listeners.values():
            await listener.stop()
        self._listeners.clear()
        await self._forwarder.close()

    # --- listeners ---------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY if self._complaints else None):
                    await self._wake.wait()
            await self._reconcile()

    async def _reconcile(self) -> None:
        self._wake.clear()
        wanted = set(self._own.items())
        if self._loopback_port:
            wanted.add(("", LOOPBACK))
        for key in self._listeners.keys() - wanted:
            await self._listeners.pop(key).stop()
        self._complaints = {key: text for key, text in self._complaints.items() if key in wanted}
        for key in sorted(wanted - self._listeners.keys()):
            network_id, address = key
            port = self._port if network_id else self._loopback_port
            listener = Listener(address, port, self._desk_finder(network_id), self._shuffle)
            try:
                await listener.start()
            except OSError as error:
                if self._complaints.get(key) != str(error):
                    log.error("names cannot be served on %s; trying again", error)
                self._complaints[key] = str(error)
                continue
            except asyncio.CancelledError:
                await listener.stop()
                raise
            self._complaints.pop(key, None)
            self._listeners[key] = listener

    def _desk_finder(self, network_id: str) -> Callable[[str], Desk]:
        return (lambda source: self._desk(network_id, source)) if network_id else (lambda source: self._host_desk())

    def _desk(self, network_id: str, source: str) -> Desk:
        """Who answers `source` on a network's listener."""
        zone = self._directory.zones.get(network_id)
        if zone is None or not zone.contains(ipaddress.ip_address(source).packed):
            return self._refusing
        seen = self._directory.visible(network_id, source)
        if seen not in self._desks:
            self._desks[seen] = Desk(View(seen), self._forwarder)
        return self._desks[seen]

    def _host_desk(self) -> Desk:
        """Who answers the host itself: every network, by names with their network; the host asks others on its own."""
        return Desk(View(tuple(self._directory.zones.values()), qualified=True))
