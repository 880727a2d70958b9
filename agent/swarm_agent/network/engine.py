"""The engine's side of cluster networks: a labelled bridge network for each, made and removed by the engine's own API.

The network's name on the engine is the cluster network's name, so that `docker inspect` of a task shows what the user
wrote. When that name is taken by a network that is not ours, the cluster network's id serves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import aiohttp

from .names import NETWORK_LABEL
from .state import EngineNetwork

TIMEOUT = aiohttp.ClientTimeout(total=10)  # seconds; making a network takes a tenth of one
LIST_TIMEOUT = aiohttp.ClientTimeout(total=1)  # asked often, and must not hold up the kernel's part
_BRIDGE_NAME = "com.docker.network.bridge.name"
_MTU = "com.docker.network.driver.mtu"
_GATEWAY_MODE = "com.docker.network.bridge.gateway_mode_ipv4"
_GATEWAY_MODE6 = "com.docker.network.bridge.gateway_mode_ipv6"


class EngineUnavailable(Exception):
    """The engine does not answer: it is stopped or restarting."""


class EngineRefused(Exception):
    """The engine answered and refused."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class EngineNetworks:
    """Cluster networks on one engine, over its unix socket."""

    def __init__(self, socket_path: str) -> None:
        self._path = socket_path
        self._session: aiohttp.ClientSession | None = None
        self._ids: dict[str, str] = {}  # network id → engine's id
        self._major: int | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def list(self) -> dict[str, EngineNetwork]:
        """Our networks as the engine has them, by network id."""
        found = {}
        for entry in await self._call("GET", "/networks", timeout=LIST_TIMEOUT):
            network_id = (entry.get("Labels") or {}).get(NETWORK_LABEL)
            if network_id:
                self._ids[network_id] = entry["Id"]
                found[network_id] = read_network(network_id, entry)
        return found

    async def create(self, network: EngineNetwork) -> EngineNetwork:
        """Make the network; returns it with the name that it got."""
        names = {entry["Name"] for entry in await self._call("GET", "/networks", timeout=LIST_TIMEOUT)}
        if self._major is None:
            version = (await self._call("GET", "/version")).get("Version", "")
            self._major = int(version.partition(".")[0]) if version.partition(".")[0].isdigit() else 0
        name = network.name if network.name not in names else network.network_id
        request = creation_request(network, name, self._major)
        self._ids[network.network_id] = (await self._call("POST", "/networks/create", request))["Id"]
        return replace(network, name=name)

    async def remove(self, network: EngineNetwork, force: bool) -> None:
        """Remove the network. With `force` containers that are on it are taken off; without, it is left while there
        are any (EngineRefused). Gone already is fine.
        """
        engine_id = self._ids.get(network.network_id)
        if engine_id is None:
            return
        try:
            details = await self._call("GET", f"/networks/{engine_id}")
            containers = details.get("Containers") or {}
            if containers and not force:
                raise EngineRefused(403, f"network {network.name} stays while {len(containers)} containers are on it")
            for container in containers:
                await self._call("POST", f"/networks/{engine_id}/disconnect", {"Container": container, "Force": True})
            await self._call("DELETE", f"/networks/{engine_id}")
        except EngineRefused as error:
            if error.status != 404:
                raise
        self._ids.pop(network.network_id, None)

    async def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        timeout: aiohttp.ClientTimeout = TIMEOUT,
    ) -> Any:
        if self._session is None:
            connector = aiohttp.UnixConnector(self._path)
            self._session = aiohttp.ClientSession(connector=connector)
        try:
            async with self._session.request(method, f"http://engine{path}", json=body, timeout=timeout) as response:
                answer = await response.json() if response.content_type == "application/json" else None
                if response.status >= 400:
                    text = answer.get("message", "") if isinstance(answer, dict) else await response.text()
                    raise EngineRefused(response.status, f"{method} {path}: {text}")
                return answer
        except (aiohttp.ClientConnectionError, TimeoutError, OSError) as error:
            raise EngineUnavailable(
                f"engine at {self._path}: {method} {path}: {error or 'no answer in time'}"
            ) from error


def creation_request(network: EngineNetwork, name: str, major: int) -> dict[str, Any]:
    """The body of POST /networks/create. `major`: the engine's major version."""
    options = {_BRIDGE_NAME: network.bridge, _MTU: str(network.mtu)}
    if major >= 28:
        # From 28 on engines drop packets that reach a container through another link than its bridge, as those
        # of the mesh do, unless the network is "unprotected"; our own rules say what may come.
        options[_GATEWAY_MODE] = "nat-unprotected"
        options |= {_GATEWAY_MODE6: "nat-unprotected"} if network.subnet6 else {}
    pools = [{"Subnet": network.subnet, "Gateway": network.gateway, "IPRange": network.ip_range}]
    if network.subnet6:
        pools.append({"Subnet": network.subnet6, "Gateway": network.gateway6, "IPRange": network.ip_range6})
    return {
        "Name": name,
        "CheckDuplicate": False,
        "Driver": "bridge",
        "Internal": network.internal,
        "EnableIPv6": bool(network.subnet6),
        "IPAM": {"Driver": "default", "Config": pools},
        "Options": options,
        "Labels": {NETWORK_LABEL: network.network_id},
    }


def read_network(network_id: str, entry: Mapping[str, Any]) -> EngineNetwork:
    """A network as GET /networks lists it."""
    configs = (entry.get("IPAM") or {}).get("Config") or []
    own: Mapping[str, str] = next((config for config in configs if ":" not in config.get("Subnet", "")), {})
    own6: Mapping[str, str] = next((config for config in configs if ":" in config.get("Subnet", "")), {})
    if not entry.get("EnableIPv6"):
        own6 = {}
    options = entry.get("Options") or {}
    mtu = options.get(_MTU, "")
    return EngineNetwork(
        network_id=network_id,
        name=entry.get("Name", ""),
        bridge=options.get(_BRIDGE_NAME, ""),
        subnet=own.get("Subnet", ""),
        gateway=own.get("Gateway", ""),
        ip_range=own.get("IPRange", ""),
        mtu=int(mtu) if mtu.isdigit() else 0,
        internal=bool(entry.get("Internal")),
        subnet6=own6.get("Subnet", ""),
        gateway6=own6.get("Gateway", ""),
        ip_range6=own6.get("IPRange", ""),
    )
