"""A cluster of one on a real disk: start, restart, snapshots, keys, and a disk that fails."""

import asyncio
import os
import random
import stat
import threading

import pytest

from swarm_agent.model.objects import Service
from swarm_agent.model.specs import ServiceSpec
from swarm_agent.raft import writing
from swarm_agent.raft.driver import RaftNode
from swarm_agent.raft.errors import DiskFailed, FatalError, LeadershipLost, LogCorrupt, NotLeader
from swarm_agent.raft.files import OsFiles
from swarm_agent.raft.messages import Heartbeat, encode_message
from swarm_agent.raft.settings import Settings
from swarm_agent.store.snapshot import SnapshotError
from swarm_agent.store.store import Store

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
QUICK = Settings(tick=0.01, segment_size=64 * 1024)


class Nowhere:
    def send(self, member, data):
        raise AssertionError("a cluster of one has nobody to talk to")


async def start(path, *, member=1, keys=(KEY,), settings=QUICK, transport=None, **options):
    store = Store()
    transport = transport or Nowhere()
    node = await RaftNode.start(
        path, member, keys, store, transport, rng=random.Random(1), bootstrap="a:2377", settings=settings, **options
    )
    store.proposer = node
    return node, store


async def leading(node):
    led = asyncio.Event()
    node.on_leadership(lambda leads: led.set() if leads else led.clear())
    await asyncio.wait_for(led.wait(), 5)


def create(store, name):
    return store.update(lambda tx: tx.create(Service(id=name, spec=ServiceSpec(name=name))))


async def test_a_new_cluster_leads_at_once_without_waiting_for_an_election_timeout(tmp_path):
    slow = Settings(tick=60.0)
    node, store = await start(tmp_path / "raft", settings=slow)
    await leading(node)
    await create(store, "web")
    assert (node.leader_id, node.is_leader, node.status().members[0].address) == (1, True, "a:2377")
    await node.stop()


async def test_acknowledged_writes_survive_a_restart_with_their_versions(tmp_path):
    node, store = await start(tmp_path / "raft")
    await leading(node)
    made = [await create(store, f"s{n}") for n in range(10)]
    await node.stop()
    node, store = await start(tmp_path / "raft")
    await leading(node)
    assert store.view().all(Service) == made
    await create(store, "more")
    assert (await store.read()).count(Service) == 11
    await node.stop()


async def test_many_concurrent_writers_all_get_their_answer(tmp_path):
    node, store = await start(tmp_path / "raft")
    await leading(node)
    results = await asyncio.gather(*(create(store, f"s{n}") for n in range(500)))
    assert len({r.id for r in results}) == 500 == store.view().count(Service)
    await node.stop()


async def test_snapshots_are_made_and_old_segments_removed(tmp_path):
    path = tmp_path / "raft"
    settings = Settings(tick=0.01, segment_size=8192, snapshot_interval=20, keep_entries=5)
    node, store = await start(path, settings=settings)
    await leading(node)
    for n in range(70):
        await create(store, f"s{n}")
    await until(lambda: node.status().first > 50)
    await until(lambda: len(files(path, ".snap")) == 1 and int(files(path, ".wal")[0].split(".")[0], 16) > 1)
    await node.stop()
    node, store = await start(path, settings=settings)
    await leading(node)
    assert store.view().count(Service) == 70
    await node.stop()


def files(path, suffix):
    return sorted(name for name in os.listdir(path) if name.endswith(suffix))


async def until(fact):
    async with asyncio.timeout(5):
        while not fact():  # noqa: ASYNC110 (facts on disk raise no event)
            await asyncio.sleep(0.005)


async def test_nothing_on_disk_is_readable_by_others_or_in_clear(tmp_path):
    path = tmp_path / "raft"
    node, store = await start(path, settings=Settings(tick=0.01, segment_size=8192, snapshot_interval=5))
    await leading(node)
    for n in range(20):
        await create(store, f"very-secret-name-{n}")
    await until(lambda: files(path, ".snap"))
    await node.stop()
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for file in path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert b"very-secret-name" not in file.read_bytes()


async def test_after_a_key_rotation_the_old_key_is_not_needed(tmp_path):
    path = tmp_path / "raft"
    node, store = await start(path)
    await leading(node)
    await asyncio.gather(*(create(store, f"s{n}") for n in range(30)))
    writes = [asyncio.ensure_future(create(store, f"during{n}")) for n in range(20)]
    await node.rotate_keys([OTHER_KEY, KEY])
    await asyncio.gather(*writes)
    await create(store, "after")
    await node.stop()
    with pytest.raises(LogCorrupt, match="which is not among those given"):
        await start(path, keys=[KEY])
    node, store = await start(path, keys=[OTHER_KEY])
    await leading(node)
    assert store.view().count(Service) == 51
    await node.stop()


async def test_a_second_process_on_the_same_log_is_refused(tmp_path):
    node, _ = await start(tmp_path / "raft")
    with pytest.raises(FatalError, match="in use by another process"):
        await start(tmp_path / "raft")
    await node.stop()


async def test_the_log_of_another_member_is_refused(tmp_path):
    node, _ = await start(tmp_path / "raft", member=1)
    await leading(node)
    await node.stop()
    with pytest.raises(FatalError, match="log of raft member 1, not of 2"):
        await start(tmp_path / "raft", member=2)


async def test_after_stop_nothing_is_accepted(tmp_path):
    node, store = await start(tmp_path / "raft")
    await leading(node)
    await node.stop()
    with pytest.raises(NotLeader):
        await create(store, "late")
    assert node.leader_id == 0 and not node.is_leader


async def test_stop_waits_for_a_snapshot_that_is_being_written(tmp_path):
    # A thread that is still syncing would hold the directory's lock, and write into files that are closed.
    settings = Settings(tick=0.01, segment_size=8192, snapshot_interval=2, keep_entries=1)
    for round_ in range(25):
        node, store = await start(tmp_path / "raft", settings=settings)
        await leading(node)
        assert store.view().count(Service) == 3 * round_
        for n in range(3):
            await create(store, f"r{round_}s{n}")
        await node.stop()
        assert node.error is None


async def test_a_snapshot_that_this_version_cannot_read_is_refused_with_words(tmp_path):
    class Newer(Store):
        def load(self, chunks):
            raise SnapshotError("unknown kind 'volume'; made by a newer version?")

    path = tmp_path / "raft"
    node, store = await start(path, settings=Settings(tick=0.01, segment_size=8192, snapshot_interval=5))
    await leading(node)
    for n in range(10):
        await create(store, f"s{n}")
    await until(lambda: files(path, ".snap"))
    await node.stop()
    with pytest.raises(FatalError, match=r"cannot be loaded: unknown kind 'volume'.*join again"):
        await RaftNode.start(path, 1, [KEY], Newer(), Nowhere(), rng=random.Random(1))


class FailingFiles(OsFiles):
    """A disk whose syncs fail once told to."""

    def __init__(self, path):
        super().__init__(path)
        self.failing = False

    def create(self, name):
        return FailingFile(super().create(name), self)


class FailingFile:
    def __init__(self, file, files):
        self._file, self._files = file, files

    def sync(self):
        if self._files.failing:
            raise DiskFailed("could not sync: Input/output error")
        self._file.sync()

    def __getattr__(self, name):
        return getattr(self._file, name)


async def test_a_failed_sync_ends_the_node_and_acknowledges_nothing(tmp_path):
    files = FailingFiles(tmp_path / "raft")
    died = []
    node, store = await start(files, fatal=died.append)
    await leading(node)
    await create(store, "good")
    files.failing = True
    with pytest.raises(LeadershipLost):
        await create(store, "bad")
    assert isinstance(died[0], DiskFailed) and not node.is_leader
    with pytest.raises(NotLeader):
        await create(store, "later")
    await node.stop()
    node, store = await start(tmp_path / "raft")
    await leading(node)
    assert store.view().get(Service, "good") is not None
    await node.stop()


class HangingFiles(FailingFiles):
    """A disk whose syncs hang while told to."""

    def __init__(self, path):
        super().__init__(path)
        self.go = threading.Event()
        self.go.set()

    def create(self, name):
        return HangingFile(OsFiles.create(self, name), self)


class HangingFile(FailingFile):
    def sync(self):
        self._files.go.wait()
        self._file.sync()


async def test_a_leader_whose_disk_hangs_gives_up_and_leads_again_when_it_goes_on(tmp_path):
    files = HangingFiles(tmp_path / "raft")
    node, store = await start(files, settings=Settings(tick=0.01, stall=0.05))
    await leading(node)
    files.go.clear()
    with pytest.raises(LeadershipLost):
        await create(store, "web")
    assert not node.is_leader
    files.go.set()
    await leading(node)
    assert store.view().get(Service, "web") is not None  # unknown to its caller, and written after all
    await node.stop()


async def test_while_a_disk_hangs_no_more_than_so_much_waits_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "MAX_WAITING", 20)
    files = HangingFiles(tmp_path / "raft")
    node, store = await start(files, transport=Deaf())
    await leading(node)
    files.go.clear()
    for round_ in range(500):  # of a leader whose term is not on this disk yet: each answer has to wait for it
        node.deliver(encode_message(Heartbeat(2, 1, 9, 0, round_)))
    assert 0 < len(node._writer._waiting) <= 20
    files.go.set()
    await leading(node)
    await create(store, "web")
    await node.stop()


class Deaf:
    def send(self, member, data):
        pass


async def test_who_waits_for_a_change_is_cancelled_also_when_the_change_comes_at_that_moment(tmp_path):
    """A loop that misses its cancellation goes on for ever, and who stops it waits for it."""
    node, _ = await start(tmp_path / "raft", settings=Settings(tick=60.0))
    await leading(node)

    async def follow():
        while True:
            await node.changed(60)

    follower = asyncio.create_task(follow())
    await asyncio.sleep(0)
    node.on_leadership(lambda leads: leads or follower.cancel())
    await node.stop()
    await asyncio.wait([follower], timeout=2)
    assert follower.cancelled()
