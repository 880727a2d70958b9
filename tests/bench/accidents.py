"""What breaks, and how long until the cluster has mended it: processes, hosts, links, the leader, the agent."""

from __future__ import annotations

import asyncio

from tests.lab.labkit import Host

from .services import Record, now, runs, spec, tasks
from .systems import OURS, Stage, until


async def down(stage: Stage, host: Host) -> None:
    """Wait until the host's node is down."""

    async def is_down() -> bool:
        return (await stage.first.get(f"/nodes/{stage.ids[host.name]}"))["Status"]["State"] == "down"

    await until(is_down)


async def elsewhere(stage: Stage, host: Host, service: str, count: int, asked: str = "") -> None:
    """Wait until so many tasks of the service run on other hosts, as told by one host's manager (the first's)."""

    async def all_elsewhere() -> bool:
        found = await tasks(stage, service, asked)
        return len([task for task in found if task["NodeID"] != stage.ids[host.name]]) == count

    await until(all_elsewhere, timeout=120)


async def crash(stage: Stage, record: Record) -> None:
    """A container's process dies, restart delay 0; three times."""
    await stage.first.post("/services/create", spec("web", 3))
    await runs(stage, "web", 3)
    names = {identifier: name for name, identifier in stage.ids.items()}
    for _ in range(3):
        victim = (await tasks(stage, "web"))[0]
        engine = stage.engines[names[victim["NodeID"]]]
        started = now()
        await engine.post(f"/containers/{victim['Status']['ContainerStatus']['ContainerID']}/kill?signal=KILL")

        async def replaced(lost: str = victim["ID"]) -> bool:
            found = [task["ID"] for task in await tasks(stage, "web")]
            return len(found) == 3 and lost not in found

        await until(replaced)
        record("crash → replacement RUNNING, delay 0", now() - started)


async def lost_host(stage: Stage, record: Record) -> None:
    """Power off a worker; then it comes back."""
    lost = stage.hosts[2]
    await stage.first.post("/services/create", spec("web", 6))
    await runs(stage, "web", 6)
    started = now()
    await asyncio.to_thread(lost.kill)
    await down(stage, lost)
    record("host without power → node down", now() - started)
    await elsewhere(stage, lost, "web", 6)
    record("host without power → replacements RUNNING", now() - started)
    await comes_back(stage)


async def cut_link(stage: Stage, record: Record) -> None:
    """A worker's link is cut: it runs on, and nobody hears it; then the link is whole again."""
    lost = stage.hosts[2]
    await stage.first.post("/services/create", spec("web", 6))
    await runs(stage, "web", 6)
    started = now()
    await asyncio.to_thread(stage.lab.cut, lost.name)
    await down(stage, lost)
    record("host's link cut → node down", now() - started)
    await elsewhere(stage, lost, "web", 6)
    record("host's link cut → replacements RUNNING", now() - started)
    await comes_back(stage)


async def agent_start(stage: Stage, record: Record) -> None:
    """The agent of the leader is started with a service on its host; when does its socket answer, and as a manager?"""
    if stage.system is not OURS:
        return
    host = stage.hosts[0]
    await stage.first.post("/services/create", spec("web", 3))
    await runs(stage, "web", 3)
    await asyncio.to_thread(host.exec, "systemctl stop swarm-agent")
    await stage.first.close()
    started = now()
    await asyncio.to_thread(host.exec, "systemctl start --no-block swarm-agent")

    async def answers() -> bool:
        await stage.first.get("/_ping")
        return True

    async def manages() -> bool:
        return bool(await stage.first.get("/services"))

    await until(answers)
    record("agent started → its socket answers", now() - started)
    await until(manages)
    record("agent started → it leads and lists services", now() - started)
    await stage.settle()


async def comes_back(stage: Stage) -> None:
    await asyncio.to_thread(stage.lab.restore)
    for name in stage.apis:
        await stage.apis[name].close()
        await stage.engines[name].close()
    await stage.settle()


async def lost_leader(stage: Stage, record: Record) -> None:
    """Power off the leader of three; another must take writes, and run what ran on it."""
    leader = stage.hosts[0]
    await stage.first.post("/services/create", spec("web", 6))
    await runs(stage, "web", 6)
    started = now()
    await asyncio.to_thread(leader.kill)
    survivors = [host.name for host in stage.hosts[1:]]
    attempts = 0

    async def accepted() -> bool:
        nonlocal attempts
        attempts += 1
        api = stage.apis[survivors[attempts % len(survivors)]]
        await api.post("/services/create", spec(f"after{attempts}", 0), timeout=5)
        return True

    await until(accepted)
    record("leader of three lost → create accepted", now() - started)

    await elsewhere(stage, leader, "web", 6, asked=survivors[0])
    record("leader of three lost → its tasks RUNNING elsewhere", now() - started)
    await comes_back(stage)
