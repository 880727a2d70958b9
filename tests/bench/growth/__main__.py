"""Runs each size once and writes docs/growth.md. See the package's own words for what is real in it.

Both processes live in a network namespace of their own, so its loopback counts exactly what leader and nodes say to
each other. With `--profile` py-spy (if it is installed) samples the leader while tasks are placed.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.bench import report
from tests.lab.labkit import ROOT

SETTLING = 3.0  # seconds before a rest is measured
POLL = 0.1
LIMIT = 900.0  # seconds for any one step


@dataclass(frozen=True, slots=True)
class Row:
    """What one size took. Seconds, processor seconds of the leader, MiB, and what its fields' names say."""

    nodes: int
    tasks: int
    join: float
    idle_processor: float  # per cent of a core, nodes joined, nothing to run
    idle_bytes: float  # a node and second, both directions, with TCP and IP headers
    idle_memory: float
    placed: float  # from the request to the last task assigned
    running: float  # … to the last task RUNNING in the store
    processor: float  # spent until then
    memory: float  # then
    bytes_a_task: float  # on the wire, from the request until then
    busy_processor: float  # per cent of a core, all tasks running, at rest
    lost: float  # a node of them ends: until its tasks RUN elsewhere
    removed: float  # from the request to no task left


class Child:
    """One of the two processes, spoken to in JSON lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, module: str, *arguments: str) -> Child:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            f"tests.bench.growth.{module}",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 26,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def hear(self) -> Any:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), LIMIT)
        if not line:
            raise RuntimeError("a process of the benchmark ended; its last words are above")
        return json.loads(line)

    async def ask(self, **question: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        await self._process.stdin.drain()
        return await self.hear()

    async def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 60)
        except TimeoutError:
            self._process.kill()


def loopback() -> int:
    """Bytes that went over this namespace's loopback so far."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name.strip() == "lo":
            return int(rest.split()[8])
    raise RuntimeError("there is no loopback here")


class Size:
    """One size of cluster: a leader and so many nodes."""

    def __init__(self, leader: Child, workers: Child, profile: Path | None, rest: float) -> None:
        self._leader = leader
        self._workers = workers
        self._seconds = rest
        self._profile = profile

    async def measure(self, nodes: int, tasks: int) -> Row:
        start = await self._leader.ask(usage=True)
        await self._workers.ask(join=nodes)
        await self._until(lambda found: found["ready"] == nodes)
        joined = await self._leader.ask(usage=True)
        idle, idle_bytes = await self._rest()
        rested = await self._leader.ask(usage=True)
        before = loopback()
        sampling = self._sample()
        body = {
            "Name": "grown",
            "TaskTemplate": {"ContainerSpec": {"Image": "any"}, "RestartPolicy": {"Condition": "any", "Delay": 0}},
            "Mode": {"Replicated": {"Replicas": tasks}},
        }
        given = await self._leader.ask(call=["POST", "/services/create", body])
        assert given["status"] == 201, given
        await self._until(lambda found: found["assigned"] == tasks)
        placed = await self._leader.ask(usage=True)
        await self._until(lambda found: found["states"].get("running", 0) == tasks)
        running = await self._leader.ask(usage=True)
        spoken = loopback() - before
        if sampling is not None:
            await sampling.wait()
        busy, _ = await self._rest()
        losing = await self._leader.ask(usage=True)
        await self._workers.ask(lose=1)
        await self._until(lambda found: found["ready"] < nodes)
        await self._until(lambda found: found["states"].get("running", 0) == tasks)
        found_again = await self._leader.ask(usage=True)
        await self._leader.ask(call=["DELETE", "/services/grown", None])
        await self._until(lambda found: not found["states"])
        removed = await self._leader.ask(usage=True)
        return Row(
            nodes=nodes,
            tasks=tasks,
            join=joined["now"] - start["now"],
            idle_processor=idle,
            idle_bytes=idle_bytes / nodes,
            idle_memory=rested["memory"],
            placed=placed["now"] - rested["now"],
            running=running["now"] - rested["now"],
            processor=running["processor"] - rested["processor"],
            memory=running["memory"],
            bytes_a_task=spoken / tasks,
            busy_processor=busy,
            lost=found_again["now"] - losing["now"],
            removed=removed["now"] - found_again["now"],
        )

    async def _rest(self) -> tuple[float, float]:
        """Per cent of a core that the leader takes at rest, and bytes a second of all nodes together."""
        await asyncio.sleep(SETTLING)
        first, sent = await self._leader.ask(usage=True), loopback()
        await asyncio.sleep(self._seconds)
        last, later = await self._leader.ask(usage=True), loopback()
        seconds = last["now"] - first["now"]
        return 100 * (last["processor"] - first["processor"]) / seconds, (later - sent) / seconds

    async def _until(self, enough: Callable[[Any], bool]) -> None:
        async with asyncio.timeout(LIMIT):
            while not enough(await self._leader.ask(count=True)):  # noqa: ASYNC110 - the leader is another process
                await asyncio.sleep(POLL)

    def _sample(self) -> Any:
        """py-spy on the leader for ten seconds, beside what is measured."""
        if self._profile is None:
            return None
        command = ["py-spy", "record", "--pid", str(self._leader.pid), "--duration", "10", "--format", "raw"]
        return _Sampler(subprocess.Popen([*command, "--output", str(self._profile)], stdout=subprocess.DEVNULL))


@dataclass
class _Sampler:
    process: subprocess.Popen[bytes]

    async def wait(self) -> None:
        await asyncio.to_thread(self.process.wait)


async def one_size(nodes: int, tasks: int, profile: Path | None, rest: float) -> Row:
    """`rest`: seconds over which the leader is measured at rest."""
    leader = await Child.start("leader")
    try:
        token = (await leader.hear())["token"]
        workers = await Child.start("workers", token)
        try:
            return await Size(leader, workers, profile, rest).measure(nodes, tasks)
        finally:
            await workers.stop()
    finally:
        await leader.stop()


def exponent(rows: list[Row], of: Callable[[Row], float], by: Callable[[Row], float]) -> float:
    """The k of y = c·x^k that fits best, by least squares of the logarithms: 1 is in proportion, 2 is quadratic."""
    points = [(math.log(by(row)), math.log(max(of(row), 1e-9))) for row in rows]
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else math.nan


def table(rows: list[Row]) -> str:
    head = (
        "| nodes | tasks | join | idle leader | B/s a node | leader's memory idle, full | placed | all RUNNING "
        "| leader's processor for it | B a task | leader at rest, full | node lost → tasks RUNNING | removed |"
    )
    lines = [head, "|" + " --- |" * 13]
    for row in rows:
        lines.append(
            f"| {row.nodes:,} | {row.tasks:,} | {row.join:.1f} s | {row.idle_processor:.1f} % | {row.idle_bytes:.0f} "
            f"| {row.idle_memory:.0f}, {row.memory:.0f} MiB | {row.placed:.2f} s | {row.running:.2f} s "
            f"| {row.processor:.2f} s | {row.bytes_a_task:,.0f} | {row.busy_processor:.1f} % | {row.lost:.1f} s "
            f"| {row.removed:.1f} s |"
        )
    return "\n".join(lines)


def by_tasks(row: Row) -> float:
    return row.tasks


def by_nodes(row: Row) -> float:
    return row.nodes


def beyond(rows: list[Row], nodes: int) -> str:
    """An estimate, as a row of a table: what so many nodes with as many tasks each as in the largest size would take.

    Grows by the fitted power, and at least in proportion; memory by what each node and each task added there.
    """
    last, first = rows[-1], rows[0]
    factor = nodes / last.nodes

    def grown(of: Callable[[Row], float], by: Callable[[Row], float]) -> float:
        return of(last) * factor ** max(1.0, exponent(rows, of, by))

    a_node = (last.idle_memory - first.idle_memory) / (last.nodes - first.nodes)
    a_task = (last.memory - last.idle_memory) / last.tasks
    memory = first.idle_memory + a_node * (nodes - first.nodes) + a_task * last.tasks * factor
    return (
        f"| {nodes:,} | {last.tasks * factor:,.0f} | {grown(lambda row: row.join, by_nodes):.0f} s "
        f"| {grown(lambda row: row.idle_processor, by_nodes):.0f} % "
        f"| {last.idle_bytes * nodes / 1e6:.1f} MB/s | {memory:,.0f} MiB "
        f"| {grown(lambda row: row.processor, by_tasks):.0f} s "
        f"| {grown(lambda row: row.removed, by_tasks):.0f} s |"
    )


def document(rows: list[Row], date: str) -> str:
    fits = [
        ("time to place", "tasks", exponent(rows, lambda row: row.placed, by_tasks)),
        ("time to all RUNNING", "tasks", exponent(rows, lambda row: row.running, by_tasks)),
        ("leader's processor to get there", "tasks", exponent(rows, lambda row: row.processor, by_tasks)),
        ("memory that tasks add", "tasks", exponent(rows, lambda row: row.memory - row.idle_memory, by_tasks)),
        ("removal", "tasks", exponent(rows, lambda row: row.removed, by_tasks)),
        ("idle leader's processor", "nodes", exponent(rows, lambda row: row.idle_processor, by_nodes)),
        ("bytes a node and second", "nodes", exponent(rows, lambda row: row.idle_bytes, by_nodes)),
        ("time to join all", "nodes", exponent(rows, lambda row: row.join, by_nodes)),
    ]
    fitted = "\n".join(f"| {what} | {by} | {k:.2f} |" for what, by, k in fits)
    estimates = "\n".join(beyond(rows, rows[-1].nodes * times) for times in (3, 5))
    limit = round(100 / rows[-1].idle_processor * rows[-1].nodes, -3)
    return f"""# How cost grows

Made by `make bench-growth` on {date}. A real leader in one process; in another, nodes with real sessions
(certificates, TLS, WebSockets, beats) that pretend to run their tasks: RUNNING a third of a second after they are told.
No engine, no gossip and no data plane take part: what they cost does not fall on the leader.

Machine: {report.machine()}. Leader and all nodes share it, so times are those of a leader that has about one core.

{table(rows)}

Fitted `cost = c · size^k` (1: in proportion, below: cheaper by the piece as it grows):

| What | by | k |
| --- | --- | --- |
{fitted}

## Past that, on paper

Nothing below was run. It takes the largest size, and lets each cost grow by its fitted power, and at least in
proportion; memory by what each node and task added. It assumes that no limit comes in between: that the leader has a
whole core, that its log's disk keeps up as it did here, and that nodes report as often as here (each task twice until
it runs; real ones up to six times).

| nodes | tasks | join | idle leader | all sessions | leader's memory | its processor to place all | removal |
| --- | --- | --- | --- | --- | --- | --- | --- |
{estimates}

A leader is one Python process, so it ends where it is busy by the beats of its nodes alone. By the figures above that
is near {limit:,.0f} nodes; a sensible half of it leaves room for work.
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="growth", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--tasks", type=int, nargs="+", default=[10, 30], help="tasks a node")
    parser.add_argument("--rest", type=float, default=15.0, help="seconds over which the leader is measured at rest")
    parser.add_argument("--out", type=Path, default=None, help="write the document there, instead of the table here")
    parser.add_argument("--profile", action="store_true", help="sample the leader with py-spy into .cache/")
    options = parser.parse_args()
    if options.out and len(set(options.nodes)) < 2:
        parser.error("--out tells how cost grows with nodes: give --nodes at least two different numbers")
    if os.environ.get("SWARM_GROWTH") != "inside":
        os.environ["SWARM_GROWTH"] = "inside"
        again = ["-m", "tests.bench.growth", *sys.argv[1:]]
        inside = 'ip link set lo up && exec "$@"'
        unshare = shutil.which("unshare") or sys.exit("unshare is needed (package util-linux)")
        os.execv(unshare, [unshare, "--net", "sh", "-c", inside, "sh", sys.executable, *again])
    rows = []
    for nodes in options.nodes:
        for each in options.tasks:
            profile = ROOT / ".cache" / f"growth-{nodes}x{each}.txt" if options.profile else None
            rows.append(asyncio.run(one_size(nodes, nodes * each, profile, options.rest)))
            print(json.dumps({k: round(v, 3) for k, v in asdict(rows[-1]).items()}), flush=True)
    print(table(rows))
    if options.out:
        options.out.write_text(document(rows, datetime.date.today().isoformat()))


if __name__ == "__main__":
    main()
