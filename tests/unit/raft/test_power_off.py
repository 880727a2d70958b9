"""A real process is killed with SIGKILL while it writes; what it acknowledged must be there afterwards."""

import asyncio
import random
import signal
import sys
from pathlib import Path

import swarm_agent
from swarm_agent.model.objects import Service
from swarm_agent.model.specs import ServiceSpec
from swarm_agent.raft.driver import RaftNode
from swarm_agent.raft.settings import Settings
from swarm_agent.store.store import Store

ROUNDS = 4


class Nowhere:
    def send(self, member, data):
        pass


async def start(path):
    store = Store()
    settings = Settings(tick=0.01, segment_size=16384, snapshot_interval=50, keep_entries=5)
    node = await RaftNode.start(
        path, 1, [b"k" * 32], store, Nowhere(), rng=random.Random(1), bootstrap="a", settings=settings
    )
    store.proposer = node
    led = asyncio.Event()
    node.on_leadership(lambda leads: led.set() if leads else None)
    await led.wait()
    return node, store


async def write_for_ever(path, round_):
    """The process that is killed: eight clients, each name printed when it is acknowledged."""
    _, store = await start(path)
    numbers = iter(range(10**9))

    async def client():
        for number in numbers:
            name = f"r{round_}n{number}"
            await store.update(lambda tx, name=name: tx.create(Service(id=name, spec=ServiceSpec(name=name))))
            sys.stdout.write(name + "\n")
            sys.stdout.flush()

    await asyncio.gather(*(client() for _ in range(8)))


async def test_nothing_acknowledged_is_lost_when_the_process_is_killed(tmp_path):
    path = tmp_path / "raft"
    acknowledged = []
    rng = random.Random(5)
    for round_ in range(ROUNDS):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            str(path),
            str(round_),
            stdout=asyncio.subprocess.PIPE,
            env={"PYTHONPATH": str(Path(swarm_agent.__file__).parent.parent)},
        )
        for _ in range(rng.randint(60, 400)):
            line = await asyncio.wait_for(process.stdout.readline(), 20)
            assert line, "the writer ended by itself"
            acknowledged.append(line.decode().strip())
        process.send_signal(signal.SIGKILL)
        rest = await process.stdout.read()
        acknowledged += rest.decode().split("\n")[:-1]
        assert await process.wait() == -signal.SIGKILL
    node, store = await start(path)
    stored = {service.id for service in store.view().all(Service)}
    assert not set(acknowledged) - stored
    assert len(acknowledged) > 60 * ROUNDS
    # At most what was under way at the moment of death is there without having been acknowledged.
    assert len(stored) <= len(acknowledged) + 8 * ROUNDS
    await node.stop()


if __name__ == "__main__":
    asyncio.run(write_for_ever(Path(sys.argv[1]), int(sys.argv[2])))
