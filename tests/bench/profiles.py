"""`make bench-profile`: where the agent's processor time goes, sampled by py-spy on lab hosts; writes docs/profiles.md.

    python -m tests.bench.profiles [--seconds 30] [--out docs/profiles.md]

A manager and a worker at rest, and a manager that creates services for eight clients at once, one that brings up
tasks, and one that removes many services at once. A sample counts for the innermost function of this project on the
stack: what a library or the interpreter does counts for who asked for it.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.lab.clusterkit import with_agents
from tests.lab.labkit import ROOT, Host, Lab

from . import rate, systems
from .services import remove, runs, spec
from .systems import OURS, Stage

HZ = 250
SHOWN = 12
CLIENTS, SERVICES = 8, 500
MANY, REMOVAL = 100, 10.0  # services to remove, and about how many seconds that takes
FRAME = re.compile(r"(?P<function>[^;]+?) \((?P<file>[^;()]*swarm_agent/[^;():]+\.py):(?P<line>\d+)\)")


class Profile:
    """Samples of one process: how many by function of this project, and what share of a core they make."""

    def __init__(self, title: str, seconds: float) -> None:
        self.title = title
        self._seconds = seconds
        self.functions: Counter[str] = Counter()

    def add(self, folded: str) -> None:
        """Take py-spy's raw format: a line a stack, frames from the outermost on, then the number of samples."""
        for line in folded.splitlines():
            stack, _, count = line.rpartition(" ")
            frames = list(FRAME.finditer(stack))
            self.functions[_name(frames[-1]) if frames else "the interpreter and its event loop"] += int(count)

    @property
    def busy(self) -> float:
        """Percent of a core."""
        return 100 * self.functions.total() / (HZ * self._seconds)

    def table(self) -> str:
        total = self.functions.total()
        rows = [f"| {name} | {100 * count / total:.0f} % |" for name, count in self.functions.most_common(SHOWN)]
        head = f"## {self.title}\n\n{total:,} samples, {self.busy:.1f} % of a core.\n"
        return "\n".join([head, "| Function | of the samples |", "| --- | --- |", *rows, ""])


def _name(frame: re.Match[str]) -> str:
    path = frame["file"].rpartition("swarm_agent/")[2]
    return f"`{path}` `{frame['function']}`"


def agent_of(host: Host) -> int:
    """The agent's process as this machine numbers it."""
    inside = host.exec("systemctl show --property MainPID --value swarm-agent").out
    space = host.exec("readlink /proc/self/ns/pid").out
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str((process / "ns/pid").readlink()) != space:
                continue
            numbers = re.search(r"^NSpid:(.*)$", (process / "status").read_text(), re.MULTILINE)
        except OSError:
            continue
        if numbers and numbers[1].split()[-1] == inside:
            return int(process.name)
    raise LookupError(f"{host.name}: the agent's process {inside} is not found")


@asynccontextmanager
async def sampled(host: Host, profile: Profile, seconds: float) -> AsyncIterator[None]:
    """py-spy beside what is done meanwhile, for its whole time."""
    target = ROOT / ".cache" / "profile.txt"
    target.unlink(missing_ok=True)
    options = ["--rate", str(HZ), "--duration", f"{seconds:.0f}", "--format", "raw", "--full-filenames", "--gil"]
    command = ["py-spy", "record", "--pid", str(agent_of(host)), *options, "--output", str(target)]
    null = asyncio.subprocess.DEVNULL
    sampler = await asyncio.create_subprocess_exec(*command, stdout=null, stderr=null)
    try:
        yield
    finally:
        await sampler.wait()
    profile.add(target.read_text())


async def for_a_while(seconds: float, step: Callable[[int], Awaitable[None]]) -> None:
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        await step(number)
        number += 1


async def measure(lab: Lab, seconds: float) -> list[Profile]:
    titles = "A worker at rest", "A manager at rest", "A manager creates services", "A manager brings up tasks"
    rest, manager, creating, placing = (Profile(title, seconds) for title in titles)
    removing = Profile(f"A manager removes {MANY} services of one task", REMOVAL)
    async with Stage(lab, OURS) as stage:
        await stage.init()
        token = (await stage.tokens())["Worker"]
        for host in stage.hosts[1:]:
            await stage.join(host, token)
        await stage.settle()
        await stage.first.post("/services/create", spec("rest", 3))
        await runs(stage, "rest", 3)
        await asyncio.sleep(5)
        for host, profile in ((stage.hosts[1], rest), (stage.hosts[0], manager)):
            async with sampled(host, profile, seconds):
                await asyncio.sleep(seconds)
        leader = stage.hosts[0]

        async def create(number: int) -> None:
            socket = leader.socket("docker.sock")
            _, names = await rate.creates_per_second(socket, f"p{number}", CLIENTS, SERVICES)
            await rate.remove_all(socket, names)

        async def place(number: int) -> None:
            await stage.first.post("/services/create", spec(f"web{number}", 10))
            await runs(stage, f"web{number}", 10)
            await remove(stage, f"web{number}")

        for step, profile in ((create, creating), (place, placing)):
            async with sampled(leader, profile, seconds):
                await for_a_while(seconds, step)

        names = [f"many{number}" for number in range(MANY)]
        for name in names:
            await stage.first.post("/services/create", spec(name, 1))
        for name in names:
            await runs(stage, name, 1)
        async with sampled(leader, removing, REMOVAL):
            for name in names:
                await stage.first.delete(f"/services/{name}")
    return [rest, manager, creating, placing, removing]


def document(profiles: list[Profile], seconds: float) -> str:
    date = datetime.date.today().isoformat()
    head = f"""# Where the agent's time goes

Made by `make bench-profile` on {date}: py-spy looked {HZ} times a second for {seconds:.0f} s (the
last: {REMOVAL:.0f} s) at the agent's process on a lab host, and counted whoever held the interpreter's lock then:
waiting, and what the kernel does without it (the log's sync), are not in it. A sample counts for the innermost function
of this project on the stack; what a library or the interpreter does counts for who asked for it; `main` stands for the
event loop itself. Shares of a core are of this machine at that time.

"""
    return head + "\n".join(profile.table() for profile in profiles)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="profiles", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "profiles.md")
    options = parser.parse_args()
    lab = with_agents(Lab.up(3))
    systems.depart(lab)
    try:
        profiles = asyncio.run(measure(lab, options.seconds))
    finally:
        systems.depart(lab)
        systems.restore(lab)
    text = document(profiles, options.seconds)
    options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
