"""The two systems, on the same lab hosts: this project's agent, and the swarm mode of the hosts' engines.

Only one of them runs at a time. Swarm mode refuses an engine with live-restore, so the engines' configuration changes
with the system, and `restore` puts back what was found. The agent is stopped and disabled while Swarm is measured, so
that a host that is switched on again comes back as what it was. Between two measurements everything is left: the
cluster, the containers, the networks.
"""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tests.lab.apiclient import Api, ApiError, Unanswered
from tests.lab.labkit import Host, Lab, eventually

DAEMON_JSON = "/etc/docker/daemon.json"


@dataclass(frozen=True, slots=True)
class System:
    """One of the two: `socket` is the kind of socket its API is at, `unit` the systemd unit of its control plane."""

    name: str
    socket: str
    unit: str
    live_restore: bool


OURS = System("ours", "docker.sock", "swarm-agent", live_restore=True)
SWARM = System("Swarm", "engine.sock", "docker", live_restore=False)


@dataclass
class Stage:
    """The lab with one system on it. `apis` and `engines` speak to each host's control plane and plain engine."""

    lab: Lab
    system: System
    apis: dict[str, Api] = field(default_factory=dict)
    engines: dict[str, Api] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    only: frozenset[str] = frozenset()  # names of the cases to run; none: all

    async def __aenter__(self) -> Stage:
        await asyncio.to_thread(switch, self.lab, self.system)
        for host in self.lab:
            self.apis[host.name] = Api(lambda host=host: host.socket(self.system.socket), timeout=60)
            self.engines[host.name] = Api(lambda host=host: host.socket("engine.sock"), timeout=60)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.dissolve()
        for api in (*self.apis.values(), *self.engines.values()):
            await api.close()

    @property
    def hosts(self) -> list[Host]:
        return list(self.lab)

    @property
    def first(self) -> Api:
        return self.apis[self.hosts[0].name]

    async def init(self) -> None:
        address = self.hosts[0].address
        body = {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": address, "ForceNewCluster": False, "Spec": {}}
        await self.first.post("/swarm/init", body)

    async def tokens(self) -> dict[str, str]:
        """`Worker` and `Manager` → join token."""
        return (await self.first.get("/swarm"))["JoinTokens"]

    async def join(self, host: Host, token: str) -> None:
        remote = f"{self.hosts[0].address}:2377"
        body = {
            "ListenAddr": "0.0.0.0:2377",
            "AdvertiseAddr": host.address,
            "RemoteAddrs": [remote],
            "JoinToken": token,
        }
        await self.apis[host.name].post("/swarm/join", body)

    async def settle(self) -> None:
        """Wait until all hosts are ready, and learn their ids."""

        async def ready() -> bool:
            nodes = await self.first.get("/nodes")
            self.ids = {node.get("Description", {}).get("Hostname", ""): node["ID"] for node in nodes}
            return len(nodes) == len(self.hosts) and all(node["Status"]["State"] == "ready" for node in nodes)

        await until(ready)

    async def dissolve(self) -> None:
        """Every host leaves; nothing of the cluster stays on it."""
        await asyncio.to_thread(self.lab.restore)

        async def leave(host: Host) -> None:
            async def left() -> bool:
                info = await self.apis[host.name].get("/info")
                if info["Swarm"]["LocalNodeState"] in ("inactive", ""):
                    return True
                try:
                    await self.apis[host.name].post("/swarm/leave?force=1", timeout=120)
                except ApiError as error:
                    if "not part of a swarm" not in error.message:
                        raise
                return False

            await until(left, timeout=120)

        await asyncio.gather(*(leave(host) for host in reversed(self.hosts)))
        await asyncio.to_thread(in_all, self.lab, CLEAN)


CLEAN = """
left=$(docker -H unix:///run/docker.sock ps -aq)
[ -z "$left" ] || docker -H unix:///run/docker.sock rm -f $left > /dev/null
docker -H unix:///run/docker.sock network prune -f > /dev/null
"""

SPACES = """
for space in /run/docker/netns/*-*; do
    [ ! -e "$space" ] || { umount "$space"; rm -f "$space"; }
done
"""
"""Namespaces of overlays that Swarm's engine forgot, when its clusters came and went: as long as one is there, nobody
else can have its VXLAN id. They end with the engine's process, which holds them too."""


def switch(lab: Lab, system: System) -> None:
    """Stop the other system and start this one, on hosts that are in no cluster."""
    lab.restore()
    options = json.dumps({"live-restore": system.live_restore})
    verb = "enable --now" if system is OURS else "disable --now"
    in_all(
        lab,
        SPACES
        + f"""
        [ -e {DAEMON_JSON}.kept ] || cp {DAEMON_JSON} {DAEMON_JSON}.kept
        systemctl {verb} -q swarm-agent
        if [ "$(cat {DAEMON_JSON})" != '{options}' ]; then
            echo '{options}' > {DAEMON_JSON}; systemctl reset-failed docker; systemctl restart docker
        fi
        """,
    )
    for host in lab:
        eventually(lambda host=host: host.engine("info").code == 0)
        if system is OURS:
            eventually(lambda host=host: "Swarm: inactive" in host.docker("info").out)


def in_all(lab: Lab, script: str) -> None:
    """Run a shell script on all hosts at once."""
    with ThreadPoolExecutor(len(lab.hosts)) as pool:
        list(pool.map(lambda host: host.exec(script, timeout=180), lab))


def depart(lab: Lab) -> None:
    """Whoever is still in a cluster, of either system and from an earlier run that was broken off, leaves it."""
    lab.restore()
    in_all(
        lab,
        """
        for socket in /run/swarm-agent/docker.sock /run/docker.sock; do
            docker -H unix://$socket swarm leave --force > /dev/null 2>&1 || true
        done
        """
        + CLEAN,
    )


def restore(lab: Lab) -> None:
    """Give the hosts back as they were found, also without the bridge that Swarm's engine may have held to its end."""
    in_all(
        lab,
        SPACES
        + f"""
        [ ! -e {DAEMON_JSON}.kept ] || {{ mv {DAEMON_JSON}.kept {DAEMON_JSON}; systemctl reset-failed docker; \
            systemctl restart docker; }}
        until docker -H unix:///run/docker.sock network prune -f > /dev/null; do sleep 1; done
        systemctl enable --now -q swarm-agent
        """,
    )


async def until(question: Any, timeout: float = 90, every: float = 0.02) -> Any:
    """Ask an async question until the answer is true, and return it. Refusals and silence count as not yet."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    last: object = None
    while loop.time() < deadline:
        try:
            last = await question()
            if last:
                return last
        except (ApiError, Unanswered, LookupError) as error:
            last = error
        await asyncio.sleep(every)
    raise TimeoutError(f"not so after {timeout:.0f} s; last answer: {last!r}")
