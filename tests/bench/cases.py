"""What is measured, once per round and system. Each case reports figures by name; the report compares them.

Times run from just before the request or the accident until the API (or, for removal, the engines) tells of the end;
that is asked every 20 ms, alike on both sides.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Coroutine
from typing import Any

from tests.lab.apiclient import Api, ApiError, Unanswered

from . import rate
from .accidents import agent_start, crash, cut_link, lost_host, lost_leader
from .names import name_questions
from .report import ENGINES_ALONE
from .services import IMAGE, Record, change, now, remove, runs, spec, tasks
from .systems import OURS, Stage, until
from .traffic import throughput
from .updates import updates

Case = Callable[[Stage, Record], Coroutine[Any, Any, None]]
CLIENTS = ((1, 300), (8, 1000), (64, 1000))  # (clients at once, services created)
MANY = 100


async def one_manager(stage: Stage, record: Record) -> None:
    started = now()
    await stage.init()
    record("swarm init", now() - started)
    tokens = await stage.tokens()
    for host in stage.hosts[1:]:
        started = now()
        await stage.join(host, tokens["Worker"])
        record("join, worker", now() - started)
    await stage.settle()
    await each(
        stage,
        record,
        idle,
        creates,
        scaling,
        crash,
        updates,
        overlay,
        name_on_another_host,
        name_questions,
        throughput,
        hundred_services,
        thousand_services,
        rates_of_one,
        lost_host,
        cut_link,
        agent_start,
    )
    await stage.dissolve()


async def three_managers(stage: Stage, record: Record) -> None:
    await stage.init()
    tokens = await stage.tokens()
    for host in stage.hosts[1:]:
        started = now()
        await stage.join(host, tokens["Manager"])
        record("join, manager", now() - started)
    await stage.settle()
    await each(
        stage,
        record,
        idle_leader,
        follower_reads,
        rates_of_three,
        lost_leader,
    )
    await stage.dissolve()


async def each(stage: Stage, record: Record, *cases: Case) -> None:
    """One case after another. What one leaves behind when it fails must not fail the next."""
    for case in cases:
        if stage.only and case.__name__ not in stage.only:
            continue
        try:
            await case(stage, record)
        except (ApiError, Unanswered, TimeoutError, AssertionError, RuntimeError, OSError) as error:
            print(f"    {stage.system.name}: {case.__name__} failed: {error!r}", flush=True)
        for service in await stage.first.get("/services"):
            await remove(stage, service["Spec"]["Name"])


async def idle(stage: Stage, record: Record) -> None:
    """Processor and memory of the control plane with a small service at rest: manager and worker."""
    await at_rest(stage, record, {"manager": stage.hosts[0].name, "worker": stage.hosts[1].name})


async def idle_leader(stage: Stage, record: Record) -> None:
    """The same of the leader of three managers."""
    await at_rest(stage, record, {"leader of three": stage.hosts[0].name})


async def at_rest(stage: Stage, record: Record, roles: dict[str, str]) -> None:
    await stage.first.post("/services/create", spec("rest", 3))
    await runs(stage, "rest", 3)
    await asyncio.sleep(5)
    seconds = 20.0
    before = {name: usage(stage, name) for name in roles.values()}
    await asyncio.sleep(seconds)
    for role, name in roles.items():
        (cpu, _), (later, memory) = before[name], usage(stage, name)
        what = "agent" if stage.system is OURS else "dockerd"
        record(f"idle processor, {role} ({what})", 100 * (later - cpu) / seconds)
        record(f"idle memory, {role} ({what})", memory)
    await remove(stage, "rest")


def usage(stage: Stage, name: str) -> tuple[float, float]:
    """Processor seconds used so far and resident MiB of the control plane's process on a host."""
    script = (
        f"pid=$(systemctl show --property MainPID --value {stage.system.unit}); "
        "cut -d')' -f2 /proc/$pid/stat; grep VmRSS /proc/$pid/status; getconf CLK_TCK"
    )
    stat, rss, tick = stage.lab.host(name).exec(script).lines
    fields = stat.split()
    return (int(fields[11]) + int(fields[12])) / int(tick), int(rss.split()[1]) / 1024


async def creates(stage: Stage, record: Record) -> None:
    for count in (1, 3, 10, 30):
        started = now()
        await stage.first.post("/services/create", spec("web", count))
        await runs(stage, "web", count)
        record(f"create {count}, all RUNNING", now() - started)
        started = now()
        await remove(stage, "web")
        if count in (1, 30):
            record(f"remove {count}, containers gone", now() - started)
    await engines_alone(stage, record, 30)


async def engines_alone(stage: Stage, record: Record, count: int) -> None:
    """The same containers spread over the same hosts by the engines' own API, all asked for at once: the limit that
    no control plane can pass."""

    async def run(engine: Api, number: int) -> None:
        made = await engine.post(f"/containers/create?name=alone{number}", {"Image": IMAGE})
        await engine.post(f"/containers/{made['Id']}/start")

    engines = list(stage.engines.values())
    started = now()
    await asyncio.gather(*(run(engines[number % len(engines)], number) for number in range(count)))
    record(f"{count} containers by the {ENGINES_ALONE}, running", now() - started)
    for number in range(count):
        await engines[number % len(engines)].delete(f"/containers/alone{number}?force=1")


async def scaling(stage: Stage, record: Record) -> None:
    await stage.first.post("/services/create", spec("web", 3))
    await runs(stage, "web", 3)
    started = now()
    await change(stage, "web", lambda wanted: wanted["Mode"]["Replicated"].update(Replicas=10))
    await runs(stage, "web", 10)
    record("scale 3 → 10 RUNNING", now() - started)
    started = now()
    await change(stage, "web", lambda wanted: wanted["Mode"]["Replicated"].update(Replicas=3))

    async def three_left() -> bool:
        return len(await containers_running(stage, "web")) == 3

    await until(three_left)
    record("scale 10 → 3, containers stopped", now() - started)


async def containers_running(stage: Stage, name: str) -> list[str]:
    found = []
    for engine in stage.engines.values():
        for each_one in await engine.get("/containers/json"):
            if each_one["Labels"].get("com.docker.swarm.service.name") == name:
                found.append(each_one["Id"])
    return found


async def overlay(stage: Stage, record: Record) -> None:
    await stage.first.post("/networks/create", {"Name": "net", "Driver": "overlay"})
    for count in (1, 10, 30):
        started = now()
        await stage.first.post("/services/create", spec("web", count, network="net"))
        await runs(stage, "web", count)
        record(f"create {count} on an overlay, all RUNNING", now() - started)
        started = now()
        await remove(stage, "web")
        if count in (1, 30):
            record(f"remove {count} on an overlay, containers gone", now() - started)
    await drop_network(stage, "net")


async def drop_network(stage: Stage, name: str) -> None:
    async def dropped() -> bool:
        await stage.first.delete(f"/networks/{name}")
        return True

    await until(dropped)


async def name_on_another_host(stage: Stage, record: Record) -> None:
    """A service is created on one host; when does a container on another resolve its name?"""
    await stage.first.post("/networks/create", {"Name": "names", "Driver": "overlay"})
    asking, asked = stage.hosts[1].name, stage.hosts[2].name
    client = spec("asker", 1, network="names")
    client["TaskTemplate"]["ContainerSpec"] = {
        "Image": "alpine:latest",
        "Command": ["sleep", "1d"],
        "StopGracePeriod": 0,
    }
    client["TaskTemplate"]["Placement"] = {"Constraints": [f"node.hostname=={asking}"]}
    await stage.first.post("/services/create", client)
    await runs(stage, "asker", 1)
    container = (await tasks(stage, "asker"))[0]["Status"]["ContainerStatus"]["ContainerID"]
    for number in range(3):
        wanted = spec(f"named{number}", 1, network="names")
        wanted["TaskTemplate"]["Placement"] = {"Constraints": [f"node.hostname=={asked}"]}
        # An unanswered question must not hold up the next; busybox's own `timeout` knows whole seconds only.
        ask = f"nslookup named{number} 127.0.0.11 >/dev/null 2>&1 & asked=$!"
        loop = f"while :; do {ask}; (sleep 0.2; kill $asked) 2>/dev/null & wait $asked && exit 0; sleep 0.02; done"
        started = now()
        await stage.first.post("/services/create", wanted)
        answer = await asyncio.to_thread(
            stage.lab.host(asking).engine, "exec", container, "timeout", "60", "sh", "-c", loop, check=False, timeout=90
        )
        assert answer.code == 0, answer.err
        record("service created → its name answers on another host", now() - started)
    for name in ("asker", "named0", "named1", "named2"):
        await remove(stage, name)
    await drop_network(stage, "names")


async def hundred_services(stage: Stage, record: Record) -> None:
    names = [f"many{number}" for number in range(MANY)]
    started = now()
    for name in names:
        await stage.first.post("/services/create", spec(name, 1))

    async def all_run() -> bool:
        found = await stage.first.get("/tasks")
        return sum(t["Status"]["State"] == "running" and t["DesiredState"] == "running" for t in found) >= MANY

    await until(all_run)
    record(f"{MANY} services of 1, all RUNNING", now() - started)
    await asyncio.sleep(1)
    ids = [service["ID"] for service in await stage.first.get("/services")]
    for label, path in (
        ("GET /services", "/services"),
        ("GET /services?status=true", "/services?status=true"),
        ("GET /tasks", "/tasks"),
        ("GET /nodes", "/nodes"),
        ("GET /services/ID", f"/services/{ids[0]}"),
        ("GET /info", "/info"),
    ):
        record(f"{label} at {MANY} services", await latency(stage, path))
    started = now()
    for name in names:
        await stage.first.delete(f"/services/{name}")

    async def none_left() -> bool:
        return not await any_containers(stage)

    await until(none_left)
    record(f"{MANY} services of 1 removed, containers gone", now() - started)


async def thousand_services(stage: Stage, record: Record) -> None:
    """Reads with a thousand services and a thousand tasks, which wait for a host that there is not."""
    names = [f"waits{number}" for number in range(1000)]
    nowhere = {"Constraints": ["node.labels.nowhere==true"]}
    for name in names:
        wanted = spec(name, 1)
        wanted["TaskTemplate"]["Placement"] = nowhere
        await stage.first.post("/services/create", wanted)

    async def all_wait() -> bool:
        found = await stage.first.get("/tasks")
        return sum(task["Status"]["State"] == "pending" for task in found) == len(names)

    await until(all_wait)
    await asyncio.sleep(1)
    socket = stage.hosts[0].socket(stage.system.socket)
    for path in ("/services", "/services?status=true", "/tasks", "/nodes", "/info"):
        record(f"GET {path} at 1000 services", await rate.latency(socket, path))
    await rate.remove_all(socket, names)


async def any_containers(stage: Stage) -> bool:
    return any([await engine.get("/containers/json?all=1") for engine in stage.engines.values()])


async def latency(stage: Stage, path: str, host: str = "", samples: int = 50) -> float:
    """Median of answers to one client that asks again and again, in milliseconds."""
    api = stage.apis[host] if host else stage.first
    taken = []
    for _ in range(samples):
        started = now()
        await api.get(path)
        taken.append(1000 * (now() - started))
    return statistics.median(taken)


async def rates_of_one(stage: Stage, record: Record) -> None:
    await rates(stage, record, "1 manager")


async def rates_of_three(stage: Stage, record: Record) -> None:
    await rates(stage, record, "3 managers")


async def rates(stage: Stage, record: Record, managers: str) -> None:
    socket = stage.hosts[0].socket(stage.system.socket)
    for clients, total in CLIENTS:
        figure, names = await rate.creates_per_second(socket, f"rate{clients}", clients, total)
        record(f"creates per second, {managers}, {clients} at once", figure)
        figure = await rate.remove_all(socket, names)
    record(f"removals per second, {managers}, 8 at once", figure)


async def follower_reads(stage: Stage, record: Record) -> None:
    for number in range(MANY):
        await stage.first.post("/services/create", spec(f"many{number}", 0))
    record(f"GET /services at {MANY} services, of a follower", await latency(stage, "/services", stage.hosts[1].name))
