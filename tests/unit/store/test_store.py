"""Transactions, versions, views, watches and snapshots of the store, on the in-memory proposer."""

import asyncio
import itertools
import random

import pytest
from msgspec.structs import replace

from swarm_agent.model.errors import AlreadyExists, NotFound, OutOfSequence, Unavailable
from swarm_agent.model.ids import new_id
from swarm_agent.model.objects import Node, Secret, Service, Task
from swarm_agent.model.specs import SecretSpec, ServiceSpec
from swarm_agent.store import store as store_module
from swarm_agent.store.entry import MAX_ENTRY, encode_entry
from swarm_agent.store.errors import StoreError, TooLarge, WatchLagged
from swarm_agent.store.memory import MemoryProposer, memory_store
from swarm_agent.store.snapshot import SnapshotError
from swarm_agent.store.store import Store
from swarm_agent.store.tables import KINDS
from swarm_agent.store.tx import MAX_CHANGES


@pytest.fixture
def clock():
    ticks = itertools.count(1)
    return lambda: f"2026-01-01T00:00:{next(ticks):02d}.000000000Z"


@pytest.fixture
def store(clock):
    return memory_store(clock=clock)


def service(name, id_=None):
    return Service(id=id_ or f"id-{name}", spec=ServiceSpec(name=name))


async def test_a_created_object_carries_the_log_index_and_times(store):
    made = await store.update(lambda tx: tx.create(service("web")))
    stored = store.view().get(Service, made.id)
    assert stored == made
    assert stored.version.index == store.view().index == 1
    assert stored.created_at == stored.updated_at == "2026-01-01T00:00:01.000000000Z"


async def test_an_update_moves_version_and_updated_at_only(store):
    made = await store.update(lambda tx: tx.create(service("web")))
    renamed = replace(made, spec=ServiceSpec(name="site"))
    await store.update(lambda tx: tx.update(renamed))
    stored = store.view().get(Service, made.id)
    assert (stored.version.index, stored.created_at) == (2, made.created_at)
    assert stored.updated_at > made.updated_at
    assert store.view().by_name(Service, "SITE") == stored and store.view().by_name(Service, "web") is None


async def test_an_update_of_an_old_version_is_out_of_sequence(store):
    made = await store.update(lambda tx: tx.create(service("web")))
    await store.update(lambda tx: tx.update(made))
    with pytest.raises(OutOfSequence, match="update out of sequence"):
        await store.update(lambda tx: tx.update(made))


async def test_two_updates_of_the_same_version_in_one_batch_only_the_first_wins(store):
    made = await store.update(lambda tx: tx.create(service("web")))
    results = await asyncio.gather(
        *(store.update(lambda tx: tx.update(made)) for _ in range(3)), return_exceptions=True
    )
    assert [type(result) for result in results] == [Service, OutOfSequence, OutOfSequence]
    assert store.view().index == 2


async def test_writes_that_queue_up_become_one_entry(store):
    await asyncio.gather(*(store.update(lambda tx, n=n: tx.create(service(f"s{n}"))) for n in range(20)))
    assert store.view().count(Service) == 20
    assert len(store.proposer.entries) == 1


async def test_a_batch_closes_at_its_limit_of_changes(store):
    writes = MAX_CHANGES * 2 + 1
    await asyncio.gather(*(store.update(lambda tx, n=n: tx.create(service(f"s{n}"))) for n in range(writes)))
    assert store.view().count(Service) == writes
    assert len(store.proposer.entries) == 3


async def test_a_failing_transaction_drops_only_its_own_changes(store):
    def bad(tx):
        tx.create(service("b"))
        tx.delete(Service, "id-a")
        raise RuntimeError("mine")

    good, failed, later = await asyncio.gather(
        store.update(lambda tx: tx.create(service("a"))),
        store.update(bad),
        store.update(lambda tx: [s.id for s in tx.all(Service)]),
        return_exceptions=True,
    )
    assert isinstance(good, Service) and isinstance(failed, RuntimeError)
    assert later == ["id-a"]
    assert [s.id for s in store.view().all(Service)] == ["id-a"]


async def test_a_transaction_sees_its_own_writes(store):
    def fn(tx):
        tx.create(service("a"))
        tx.create(Task(id="t1", service_id="id-a", node_id="n1"))
        tx.update(replace(tx.get(Task, "t1"), node_id="n2"))
        return tx.find(Task, node_id="n1"), [t.id for t in tx.find(Task, node_id="n2", service_id="id-a")]

    assert await store.update(fn) == ([], ["t1"])
    assert [t.id for t in store.view().find(Task, service_id="id-a", node_id="n2")] == ["t1"]


async def test_nothing_is_proposed_when_nothing_is_changed(store):
    assert await store.update(lambda tx: tx.count(Service)) == 0
    await store.update(lambda tx: (tx.create(service("a")), tx.delete(Service, "id-a")))
    assert store.proposer.entries == []


async def test_names_are_unique_regardless_of_case(store):
    await store.update(lambda tx: tx.create(service("web")))
    with pytest.raises(AlreadyExists, match="name conflicts with an existing object: service WEB already exists"):
        await store.update(lambda tx: tx.create(service("WEB", "other")))


async def test_a_name_is_free_again_after_its_object_is_gone(store):
    await store.update(lambda tx: tx.create(service("web")))

    def swap(tx):
        tx.delete(Service, "id-web")
        tx.create(service("web", "second"))

    await store.update(swap)
    assert store.view().by_name(Service, "web").id == "second"


async def test_missing_objects_are_reported(store):
    with pytest.raises(NotFound, match="service nope not found"):
        await store.update(lambda tx: tx.delete(Service, "nope"))
    with pytest.raises(NotFound):
        await store.update(lambda tx: tx.update(service("nope")))
    assert store.view().get(Service, "nope") is None


async def test_unknown_indexes_and_kinds_are_programming_errors(store):
    with pytest.raises(TypeError, match="no index 'colour'"):
        store.view().find(Task, colour="red")
    with pytest.raises(TypeError, match="not a kind"):
        store.view().get(ServiceSpec, "x")


async def test_prefix_lookup_prefers_the_exact_id(store):
    await store.update(lambda tx: [tx.create(service(n, n)) for n in ("abc", "abcd", "xyz")])
    ids = lambda prefix: [s.id for s in store.view().by_prefix(Service, prefix)]  # noqa: E731
    assert ids("abc") == ["abc"] and ids("ab") == ["abc", "abcd"] and ids("q") == []


async def test_a_view_stays_as_it_was(store):
    first = await store.update(lambda tx: tx.create(service("a")))
    await store.update(lambda tx: tx.create(Task(id="t", node_id="n1")))
    view = store.view()
    await store.update(lambda tx: (tx.update(replace(first, spec=ServiceSpec(name="z"))), tx.create(service("b"))))
    await store.update(lambda tx: tx.update(replace(tx.get(Task, "t"), node_id="n2")))
    await store.update(lambda tx: tx.delete(Service, "id-a"))
    assert view.all(Service) == [first] and view.get(Service, "id-b") is None and view.by_name(Service, "a") == first
    assert [t.id for t in view.find(Task, node_id="n1")] == ["t"] and view.find(Task, node_id="n2") == []
    assert view.index == 2 and view.count(Service) == 1
    assert [s.id for s in store.view().all(Service)] == ["id-b"]


async def test_a_transaction_above_the_entry_limit_is_refused_alone(store):
    big = Secret(id="big", spec=SecretSpec(name="big", data="x" * MAX_ENTRY))
    results = await asyncio.gather(
        store.update(lambda tx: tx.create(big)),
        store.update(lambda tx: tx.create(service("a"))),
        return_exceptions=True,
    )
    assert isinstance(results[0], TooLarge) and isinstance(results[1], Service)
    assert str(results[0]) == "rpc error: code = Unknown desc = raft: raft message is too large and can't be sent"


async def test_the_limit_is_swarms_one_and_a_half_mebibytes(store):
    def secret(id_: str, size: int) -> Secret:
        return Secret(id=id_, spec=SecretSpec(name=id_, data="x" * size))

    await store.update(lambda tx: tx.create(secret("fits", 3 * 512 * 1024 - 2048)))
    with pytest.raises(TooLarge):
        await store.update(lambda tx: tx.create(secret("more", 3 * 512 * 1024)))


async def test_large_transactions_are_spread_over_entries_within_the_limit(store):
    def secret(n):
        return Secret(id=f"s{n}", spec=SecretSpec(name=f"s{n}", data="x" * 700_000))

    await asyncio.gather(*(store.update(lambda tx, n=n: tx.create(secret(n))) for n in range(5)))
    assert store.view().count(Secret) == 5
    assert all(len(entry) <= MAX_ENTRY + 4096 for entry in store.proposer.entries)
    assert len(store.proposer.entries) >= 3


async def test_without_a_leader_writes_and_linearizable_reads_fail_and_views_work(store):
    await store.update(lambda tx: tx.create(service("a")))
    store.proposer.refusal = Unavailable("no quorum")
    with pytest.raises(Unavailable):
        await store.update(lambda tx: tx.create(service("b")))
    with pytest.raises(Unavailable):
        await store.read()
    assert store.view().count(Service) == 1
    store.proposer.refusal = None
    await store.update(lambda tx: tx.create(service("b")))
    assert (await store.read()).count(Service) == 2


async def test_subscribers_get_every_change_of_an_entry_at_once_and_in_order(store):
    seen = []
    stop = store.subscribe(seen.append)
    await store.update(lambda tx: (tx.create(service("a")), tx.create(Task(id="t"))))
    await store.update(lambda tx: (tx.delete(Task, "t"), tx.update(tx.get(Service, "id-a"))))
    stop()
    await store.update(lambda tx: tx.create(service("b")))
    shapes = [[(c.kind, c.id, c.old is not None, c.new is not None) for c in changes] for changes in seen]
    assert shapes == [
        [(Service, "id-a", False, True), (Task, "t", False, True)],
        [(Task, "t", True, False), (Service, "id-a", True, True)],
    ]


async def test_a_broken_subscriber_harms_nobody(store, caplog):
    def broken(changes):
        raise RuntimeError("subscriber bug")

    seen = []
    store.subscribe(broken)
    store.subscribe(seen.append)
    await store.update(lambda tx: tx.create(service("a")))
    assert len(seen) == 1 and "subscriber bug" in caplog.text


async def test_watch_yields_only_wanted_kinds(store):
    async with store.watch({Task}) as changes:
        await store.update(lambda tx: (tx.create(service("a")), tx.create(Task(id="t"))))
        batch = await anext(changes)
    assert [c.id for c in batch] == ["t"]


async def test_encoded_json_is_kept_with_the_stored_object(store):
    made = await store.update(lambda tx: tx.create(Task(id="t", service_name="web")))
    stored = store.view().get(Task, made.id)
    data = store.encoded(stored)
    assert b"_ServiceName" not in data and b'"ID":"t"' in data
    assert store.encoded(stored) is data
    await store.update(lambda tx: tx.update(stored))
    assert b'"Index":2' in store.encoded(store.view().get(Task, "t"))
    assert b'"Index":1' in store.encoded(stored)


async def test_members_that_apply_the_same_entries_are_equal(store):
    rng = random.Random(7)
    ids = [new_id(rng) for _ in range(5)]
    for n, id_ in enumerate(ids):
        await store.update(lambda tx, id_=id_, n=n: tx.create(Task(id=id_, slot=n, service_name="internal")))
    await store.update(lambda tx: tx.delete(Task, ids[2]))
    follower = Store()
    for index, entry in enumerate(store.proposer.entries, 1):
        follower.apply(index, entry)
    assert follower.view().all(Task) == store.view().all(Task)
    assert b"".join(follower.snapshot()) == b"".join(store.snapshot())


async def test_a_snapshot_restores_everything_internal_fields_included(store):
    await store.update(lambda tx: [tx.create(Task(id=f"t{n}", service_id="s", registry_auth="a")) for n in range(150)])
    await store.update(lambda tx: tx.create(Node(id="n")))
    data = b"".join(store.snapshot())
    copy = Store()
    copy.install(copy.load(data[n : n + 1000] for n in range(0, len(data), 1000)))
    assert copy.view().all(Task) == store.view().all(Task)
    assert len(copy.view().find(Task, service_id="s")) == 150
    assert copy.view().index == store.view().index == 2


async def test_a_snapshot_is_of_the_moment_it_was_asked_for(store):
    await store.update(lambda tx: tx.create(service("a")))
    stream = store.snapshot()
    await store.update(lambda tx: tx.create(service("b")))
    copy = Store()
    copy.install(copy.load(stream))
    assert [s.id for s in copy.view().all(Service)] == ["id-a"]


@pytest.mark.parametrize("damage", [lambda d: d[:-10], lambda d: d + b"\0\0\0\2{}", lambda d: d[20:], lambda d: b""])
async def test_a_damaged_snapshot_is_refused(store, damage):
    await store.update(lambda tx: tx.create(service("a")))
    with pytest.raises(SnapshotError):
        store.load([damage(b"".join(store.snapshot()))])


async def test_installing_a_snapshot_tells_watchers_the_differences(store):
    await store.update(lambda tx: [tx.create(service(n)) for n in ("a", "b", "c")])
    behind = Store()
    behind.apply(1, store.proposer.entries[0])
    await store.update(
        lambda tx: (tx.delete(Service, "id-a"), tx.update(tx.get(Service, "id-b")), tx.create(service("d")))
    )
    seen = []
    behind.subscribe(seen.append)
    old_view = behind.view()
    behind.install(behind.load(store.snapshot()))
    assert [(c.id, c.old is not None, c.new is not None) for c in seen[0]] == [
        ("id-a", True, False),
        ("id-b", True, True),
        ("id-d", False, True),
    ]
    assert old_view.count(Service) == 3 and old_view.get(Service, "id-d") is None


async def test_an_entry_made_on_another_state_is_skipped_by_all(clock):
    class Interfering(MemoryProposer):
        async def propose(self, data):
            if len(self.entries) == 1:
                self.index += 1
                self._apply(self.index, encode_entry(1, []))
            return await super().propose(data)

    proposer = Interfering()
    store = Store(proposer, registry=KINDS, clock=clock)
    proposer.attach(store.apply)
    await store.update(lambda tx: tx.create(service("a")))
    with pytest.raises(OutOfSequence):
        await store.update(lambda tx: tx.create(service("b")))
    assert store.view().count(Service) == 1


async def test_a_caller_that_gives_up_while_waiting_writes_nothing(store):
    task = asyncio.ensure_future(store.update(lambda tx: tx.create(service("a"))))
    await asyncio.sleep(0)
    blocked = asyncio.ensure_future(store.update(lambda tx: tx.create(service("b"))))
    await asyncio.sleep(0)
    blocked.cancel()
    await task
    await store.update(lambda tx: tx.create(service("c")))
    assert [s.id for s in store.view().all(Service)] == ["id-a", "id-c"]
    assert blocked.cancelled()


async def test_close_refuses_what_still_waits(store):
    running = asyncio.ensure_future(store.update(lambda tx: tx.create(service("a"))))
    await asyncio.sleep(0)
    await store.close()
    with pytest.raises((asyncio.CancelledError, StoreError)):
        await running
    assert store.view().count(Service) == 0


class Stuck(MemoryProposer):
    """A log that commits nothing before it is told to."""

    def __init__(self):
        super().__init__()
        self.go = asyncio.Event()

    async def propose(self, data):
        await self.go.wait()
        return await super().propose(data)


async def test_writes_beyond_the_limit_are_refused_and_the_others_carried_out(monkeypatch):
    monkeypatch.setattr(store_module, "MAX_QUEUE", 3)
    stuck = Stuck()
    store = Store(stuck)
    stuck.attach(store.apply)
    first = asyncio.ensure_future(store.update(lambda tx: tx.create(service("first"))))
    await asyncio.sleep(0)
    while store.queued:  # noqa: ASYNC110 (until the first is under way)
        await asyncio.sleep(0)
    waiting = [asyncio.ensure_future(store.update(lambda tx, n=n: tx.create(service(f"s{n}")))) for n in range(5)]
    while not waiting[-1].done():  # noqa: ASYNC110 (no event tells)
        await asyncio.sleep(0)
    for refused in waiting[3:]:
        assert "too many writes are waiting (3); try again later" in str(refused.exception())
    stuck.go.set()
    await asyncio.gather(first, *waiting[:3])
    assert store.view().count(Service) == 4


async def test_a_watcher_that_does_not_keep_up_is_told_so(store, monkeypatch):
    monkeypatch.setattr(store_module, "MAX_BACKLOG", 2)
    async with store.watch({Service}) as changes:
        for n in range(4):
            await store.update(lambda tx, n=n: tx.create(service(f"s{n}")))
        with pytest.raises(WatchLagged, match="must read the state anew"):
            async for _ in changes:
                pass


async def test_one_object_beyond_the_limit_is_refused_and_nothing_is_lost(store):
    with pytest.raises(TooLarge, match="raft: raft message is too large and can't be sent"):
        await store.update(lambda tx: tx.create(replace(service("big"), id="i" * (MAX_ENTRY + 1))))
    await store.update(lambda tx: tx.create(service("small")))
    assert [each.spec.name for each in store.view().all(Service)] == ["small"]
