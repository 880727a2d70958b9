"""The gossip driver on real sockets beside Debian's `serf` (memberlist) with its defaults, both in one run on loopback.

    make bench-gossip        or: python -m tests.bench.gossip_real [--nodes 50] [--quiet 20] [--kills 3] [--starve 30]

Both clusters are up at the same time and suffer the same at the same moments, so the machine's load strikes both:

1. quiet: CPU and memory per node, from /proc;
2. kill -9 of one node of each: time until the first and until the last of the others knows, and who never does;
3. starvation: some nodes are stopped (SIGSTOP) for up to 2 s again and again, and every core has two hogs: members
   declared dead that live.

Ours are the drivers alone, without an agent around them: victims in a process of their own, the rest in two processes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "agent")]

from swarm_agent.gossip import Config, GossipNode, Member, State  # noqa: E402

VICTIMS = 6  # nodes with a process of their own: half are killed, half are stopped
CROWDS = 2
OURS, SERF = 27_000, 28_000  # first port of each
HOST = "127.0.0.1"
KEY = bytes(32)
TICK = os.sysconf("SC_CLK_TCK")
SERF_EVENT = re.compile(r"serf: EventMember(Join|Failed|Leave|Reap): (\S+) ")


# -- a process with some of our drivers in it


async def drive(names: list[str]) -> None:
    """Run these nodes until ended; one line of JSON per change that they see."""

    def tell(observer: str, subject: str, state: str) -> None:
        print(json.dumps([observer, subject, state]), flush=True)

    nodes = []
    for name in names:
        port = OURS + int(name)
        # The host of a killed process has power and says so here; what is measured is one that has none.
        config = Config(suspicion_away=0.0)
        node = GossipNode(name, (HOST, port), (HOST, port), "bench", [KEY], config=config)
        await node.start()

        def changed(member: Member, old: State | None, name: str = name) -> None:
            if old is None or member.state in (State.DEAD, State.ALIVE):
                tell(name, member.id, "dead" if member.state is State.DEAD else "alive")

        node.on_members(changed)
        nodes.append(node)
    for node in nodes:
        node.set_seeds([(HOST, OURS)])
        await node.join([(HOST, OURS)], timeout=30)
    await asyncio.Event().wait()


# -- the two clusters as the bench sees them


class Cluster:
    """Processes, and what the nodes in them say of each other."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.processes: dict[str, asyncio.subprocess.Process] = {}  # by the first of its nodes
        self.nodes: dict[str, list[str]] = {}
        self.alive: dict[str, set[str]] = {}
        self.deaths: list[tuple[float, str, str]] = []
        self._readers: list[asyncio.Task[None]] = []

    async def spawn(self, nodes: list[str], command: list[str], parse: Callable[[str, str], list[str] | None]) -> None:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        self.processes[nodes[0]] = process
        self.nodes[nodes[0]] = nodes
        for node in nodes:
            self.alive[node] = {node}
        self._readers.append(asyncio.create_task(self._read(nodes[0], process, parse)))

    async def _read(
        self, first: str, process: asyncio.subprocess.Process, parse: Callable[[str, str], list[str] | None]
    ) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            said = parse(first, line.decode("utf-8", "replace"))
            if said is None:
                continue
            observer, subject, state = said
            if state == "dead":
                self.deaths.append((time.monotonic(), observer, subject))
                self.alive[observer].discard(subject)
            else:
                self.alive[observer].add(subject)

    def whole(self, count: int) -> bool:
        return len(self.alive) == count and all(len(seen) == count for seen in self.alive.values())

    def cpu(self, first: str) -> float:
        """Seconds of CPU that a process has used."""
        fields = Path(f"/proc/{self.processes[first].pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def rss(self, first: str) -> float:
        """MiB."""
        pages = int(Path(f"/proc/{self.processes[first].pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def signal(self, first: str, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.processes[first].send_signal(number)

    async def stop(self) -> None:
        for first in self.processes:
            self.signal(first, signal.SIGCONT)
            self.signal(first, signal.SIGKILL)
        await asyncio.gather(*(process.wait() for process in self.processes.values()))
        await asyncio.gather(*self._readers)


def parse_ours(first: str, line: str) -> list[str] | None:
    with contextlib.suppress(ValueError):
        said: list[str] = json.loads(line)
        return said
    print(line, end="", file=sys.stderr)
    return None


def parse_serf(first: str, line: str) -> list[str] | None:
    found = SERF_EVENT.search(line)
    if found is None:
        return None
    return [first, found[2], "alive" if found[1] == "Join" else "dead"]


async def start_ours(count: int) -> Cluster:
    cluster = Cluster("this")
    names = [str(number) for number in range(count)]
    crowd = names[: count - VICTIMS]
    groups = [crowd[place::CROWDS] for place in range(CROWDS)] + [[name] for name in names[count - VICTIMS :]]
    for group in groups:
        await cluster.spawn(group, [sys.executable, __file__, "--drive", ",".join(group)], parse_ours)
    return cluster


async def start_serf(count: int) -> Cluster:
    cluster = Cluster("serf")
    for number in range(count):
        command = ["serf", "agent", f"-node={number}", f"-bind={HOST}:{SERF + number}",
                   f"-rpc-addr={HOST}:{SERF + 1000 + number}", "-log-level=info"]  # fmt: skip
        if number:
            command.append(f"-join={HOST}:{SERF}")
        await cluster.spawn([str(number)], command, parse_serf)
        if not number:
            await asyncio.sleep(1.0)  # the others join it, and serf gives up at once when it is not there
    return cluster


# -- what is measured


async def until(fact: Callable[[], bool], limit: float) -> bool:
    end = time.monotonic() + limit
    while not fact() and time.monotonic() < end:  # noqa: ASYNC110 - facts of other processes
        await asyncio.sleep(0.02)
    return fact()


def false_deaths(deaths: Iterable[tuple[float, str, str]], living: set[str]) -> int:
    """Living members declared dead, once per 5 s however many say it."""
    last: dict[str, float] = {}
    found = 0
    for at, _, subject in sorted(deaths):
        if subject in living and at - last.get(subject, -1e9) > 5.0:
            found += 1
        last[subject] = at
    return found


async def kill(cluster: Cluster, victim: str) -> tuple[float, float, int]:
    """Seconds until the first and the last of those who learn it, and how many do not within 40 s."""
    seen = len(cluster.deaths)
    start = time.monotonic()
    cluster.signal(victim, signal.SIGKILL)
    others = set(cluster.alive) - {victim}

    def known() -> dict[str, float]:
        found: dict[str, float] = {}
        for at, observer, subject in cluster.deaths[seen:]:
            if subject == victim and observer in others:
                found.setdefault(observer, at - start)
        return found

    await until(lambda: len(known()) == len(others), 40)
    times = known()
    del cluster.alive[victim]
    return min(times.values(), default=40.0), max(times.values(), default=40.0), len(others) - len(times)


async def hiccups(cluster: Cluster, victims: list[str], seconds: float, longest: float) -> None:
    """Stops of up to `longest` again and again."""

    async def one(victim: str, rng: random.Random) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            cluster.signal(victim, signal.SIGSTOP)
            await asyncio.sleep(rng.uniform(longest / 2, longest))
            cluster.signal(victim, signal.SIGCONT)
            await asyncio.sleep(rng.uniform(0.1, 0.5))

    await asyncio.gather(*(one(victim, random.Random(victim)) for victim in victims))


@contextlib.asynccontextmanager
async def hogs(count: int):  # type: ignore[no-untyped-def]
    """Processes that want a whole core each."""
    made = [await asyncio.create_subprocess_exec(sys.executable, "-c", "while True: pass") for _ in range(count)]
    try:
        yield
    finally:
        for process in made:
            process.kill()
            await process.wait()


async def main_async(options: argparse.Namespace) -> None:
    count = options.nodes
    clusters = [await start_ours(count)]
    rows: dict[str, dict[str, str]] = {}

    def put(label: str, cluster: Cluster, text: str) -> None:
        rows.setdefault(label, {})[cluster.name] = text

    try:
        clusters.append(await start_serf(count))
        for cluster in clusters:
            if not await until(lambda cluster=cluster: cluster.whole(count), 120):
                counts = sorted(len(seen) for seen in cluster.alive.values())
                raise SystemExit(f"{cluster.name}: not all see all after 120 s: {counts}")
        await asyncio.sleep(3)
        living = {str(number) for number in range(count)}
        firsts = [str(number) for number in range(count - VICTIMS, count)]
        before = [[cluster.cpu(first) for first in firsts] for cluster in clusters]
        marks = [len(cluster.deaths) for cluster in clusters]
        await asyncio.sleep(options.quiet)
        for cluster, spent, mark in zip(clusters, before, marks, strict=True):
            used = [(cluster.cpu(first) - old) / options.quiet * 100 for first, old in zip(firsts, spent, strict=True)]
            put("CPU per node, quiet, % of a core", cluster, f"{statistics.mean(used):.2f}")
            put("memory of a process with one node, MiB", cluster, f"{statistics.mean(map(cluster.rss, firsts)):.1f}")
            put("false deaths, quiet", cluster, str(false_deaths(cluster.deaths[mark:], living)))
        crowd = clusters[0].nodes["0"]
        alone = statistics.mean(map(clusters[0].rss, firsts))
        put("memory per further node in it, MiB", clusters[0],
            f"{max(0.0, clusters[0].rss('0') - alone) / (len(crowd) - 1):.2f}")  # fmt: skip

        first, last, missed = ({c.name: [] for c in clusters} for _ in range(3))  # type: ignore[var-annotated]
        for victim in firsts[: options.kills]:
            results = await asyncio.gather(*(kill(cluster, victim) for cluster in clusters))
            for cluster, (a, b, lacking) in zip(clusters, results, strict=True):
                first[cluster.name].append(a)
                last[cluster.name].append(b)
                missed[cluster.name].append(lacking)
            living.discard(victim)
            await asyncio.sleep(2)
        for cluster in clusters:
            name = cluster.name
            put("kill to first that knows, s (median)", cluster, f"{statistics.median(first[name]):.2f}")
            put("kill to all know, s (median / worst)", cluster,
                f"{statistics.median(last[name]):.2f} / {max(last[name]):.2f}")  # fmt: skip
            put("of which never knew within 40 s", cluster, str(sum(missed[name])))

        marks = [len(cluster.deaths) for cluster in clusters]
        starved = firsts[options.kills :]
        async with hogs(2 * (os.cpu_count() or 1)):
            await asyncio.gather(*(hiccups(c, starved, options.starve, options.stop) for c in clusters))
        await asyncio.sleep(5)
        label = f"false deaths, {len(starved)} nodes stop up to {options.stop:g} s for {options.starve:g} s, CPU hogs"
        for cluster, mark in zip(clusters, marks, strict=True):
            put(label, cluster, str(false_deaths(cluster.deaths[mark:], living)))
            if not await until(lambda cluster=cluster: cluster.whole(len(living)), 60):
                put("not whole again 60 s later", cluster, "yes")
    finally:
        for cluster in clusters:
            await cluster.stop()
    print(f"{count} nodes each, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    print("| | this | serf |\n| --- | --- | --- |")
    for text, cells in rows.items():
        print(f"| {text} | {cells.get('this', '-')} | {cells.get('serf', '-')} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drive", help=argparse.SUPPRESS)
    parser.add_argument("--nodes", type=int, default=50)
    parser.add_argument("--quiet", type=float, default=20.0, help="seconds")
    parser.add_argument("--kills", type=int, default=3, choices=range(1, VICTIMS))
    parser.add_argument("--starve", type=float, default=30.0, help="seconds")
    parser.add_argument("--stop", type=float, default=2.0, help="longest stop, seconds")
    options = parser.parse_args()
    if options.drive:
        asyncio.run(drive(options.drive.split(",")))
        return
    if shutil.which("serf") is None:
        raise SystemExit("serf is not installed: apt-get install serf, or make bench-gossip, which does it")
    asyncio.run(main_async(options))


if __name__ == "__main__":
    main()
