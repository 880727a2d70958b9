"""One owner's log and its replicas: any order, any loss, any repair, and the watermark never promises too much."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from swarm_agent.gossip import messages as m
from swarm_agent.gossip.tables import BASELINE, Log
from swarm_agent.gossip.types import Version


def values(log: Log) -> dict[str, bytes]:
    return {row.key: row.value for row in log.rows("t")}


def owner(*changes: tuple[str, bytes | None]) -> tuple[Log, list[m.Record]]:
    log = Log("o", 5)
    return log, [log.write("t", key, value)[0] for key, value in changes]


def replica(epoch: int = 5) -> Log:
    return Log("o", epoch)


def test_changes_out_of_order_wait_for_those_before_them() -> None:
    _, records = owner(("a", b"1"), ("b", b"2"), ("a", b"3"))
    log = replica()
    assert log.merge_record(records[2]) == (True, True)
    assert (log.watermark, values(log), log.behind) == (0, {"a": b"3"}, True)
    log.merge_record(records[0])
    assert (log.watermark, values(log)) == (1, {"a": b"3"})
    log.merge_record(records[1])
    assert (log.watermark, log.behind) == (3, False)


def test_a_late_copy_cannot_bring_a_withdrawn_row_back() -> None:
    _, records = owner(("a", b"1"), ("a", None))
    log = replica()
    for record in records:
        log.merge_record(record)
    log.trim(0)
    assert log.entries == {}
    assert log.merge_record(records[0]) == (False, False)
    assert values(log) == {}


def test_a_change_stands_for_those_it_replaces() -> None:
    _, records = owner(("a", b"1"), ("a", b"2"), ("a", b"3"))
    log = replica()
    log.merge_record(m.Record("o", 5, 3, "t", "a", b"3", (1, 2)))
    assert log.version == Version(5, 3)
    assert log.merge_record(records[1]) == (False, False)


def test_a_replica_behind_the_kept_withdrawals_gets_a_snapshot() -> None:
    source, records = owner(("a", b"1"), ("b", b"2"), ("a", None), ("c", b"3"))
    late = replica()
    late.merge_record(records[0])
    source.trim(0)
    delta = source.delta_since(5, late.watermark)
    assert delta.since == 0
    late.merge_delta(delta)
    assert values(late) == {"b": b"2", "c": b"3"} and late.version == source.version
    # It does not know of the withdrawal itself, so it must not serve a delta across it.
    assert late.delta_since(5, 1).since == 0


def test_a_small_delta_carries_only_what_is_missing() -> None:
    source, records = owner(("a", b"1"), ("b", b"2"), ("a", None))
    late = replica()
    late.merge_record(records[0])
    late.merge_record(records[1])
    delta = source.delta_since(5, 2)
    assert (delta.since, [row.key for row in delta.rows]) == (2, ["a"])
    assert late.merge_delta(delta) == (True, True)
    assert values(late) == {"b": b"2"}


def test_a_snapshot_does_not_make_a_row_blink_that_just_changed() -> None:
    _, records = owner(("a", b"1"), ("b", b"2"), ("x", b"3"), ("a", b"4"))
    source = replica()
    for number in (0, 1, 3):  # 3 is not here yet, 4 is ahead
        source.merge_record(records[number])
    late = replica()
    late.merge_record(records[0])
    late.merge_delta(source.delta_since(0, 0))
    assert values(late) == {"a": b"4", "b": b"2"} and late.watermark == 2


def test_rows_of_the_earlier_process_stay_until_the_baseline() -> None:
    _, records = owner(("kept", b"1"), ("gone", b"1"))
    log = replica()
    for record in records:
        log.merge_record(record)
    again = Log("o", 9)
    kept = again.write("t", "kept", b"2")[0]
    base = again.write(*BASELINE, b"")[0]
    assert log.switch(9)
    log.merge_record(base)
    assert values(log) == {"kept": b"1", "gone": b"1"}, "the baseline counts once nothing before it is missing"
    assert log.merge_record(kept) == (True, True)
    assert values(log) == {"kept": b"2"}
    assert log.merge_record(records[0]) == (False, False), "the earlier process is over"


def test_restamping_keeps_sequences() -> None:
    source, _ = owner(("a", b"1"), ("b", b"2"))
    source.restamp(77)
    late = Log("o", 77)
    late.merge_delta(source.delta_since(0, 0))
    assert late.version == Version(77, 2) and values(late) == {"a": b"1", "b": b"2"}


changes = st.lists(
    st.tuples(st.sampled_from("abc"), st.none() | st.binary(min_size=1, max_size=2)), min_size=1, max_size=40
)


@given(changes, st.integers(), st.floats(0, 0.8), st.integers(0, 6))
@settings(max_examples=400)
def test_any_delivery_ends_right_and_the_watermark_never_lies(
    story: list[tuple[str, bytes | None]], seed: int, loss: float, keep: int
) -> None:
    """Three replicas get records in any order with loss, and deltas from any of them at any time."""
    rng = random.Random(seed)
    source = Log("o", 5)
    history: list[dict[str, tuple[int, bytes | None]]] = [{}]
    replicas = [replica() for _ in range(3)]
    pending: list[tuple[int, m.Record]] = []
    for key, value in story:
        record, _ = source.write("t", key, value)
        history.append({**history[-1], key: (record.seq, value)})
        pending += [(n, record) for n in range(3) if rng.random() > loss]
        source.trim(keep)
        for _ in range(rng.randrange(4)):
            if pending:
                number, got = pending.pop(rng.randrange(len(pending)))
                replicas[number].merge_record(got)
        if rng.random() < 0.3:
            giver, taker = rng.choice([source, *replicas]), rng.choice(replicas)
            if giver.version > taker.version:
                taker.merge_delta(giver.delta_since(taker.epoch, taker.watermark))
                assert taker.version >= giver.version
        for log in replicas:
            for key_, (sequence, _) in history[log.watermark].items():
                entry = log.entries.get(("t", key_))
                if entry is not None:
                    assert entry.sequence >= sequence
                else:  # forgotten: only right if it is withdrawn as of then
                    assert history[log.watermark][key_][1] is None
    for log in replicas:
        if source.version > log.version:
            log.merge_delta(source.delta_since(log.epoch, log.watermark))
        assert log.version == source.version and values(log) == values(source)
        assert not log.ahead
        assert log.size == sum(len(t) + len(k) + len(e.value or b"") for (t, k), e in log.entries.items())
        assert log.tombstones == sum(e.value is None for e in log.entries.values())
