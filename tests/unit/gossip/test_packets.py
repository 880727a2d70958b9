"""Messages, sealing, replay; and what a stranger, or a holder of the key who talks nonsense, can do: nothing."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm_agent.gossip import messages as m
from swarm_agent.gossip.core import Core
from swarm_agent.gossip.seal import (
    OVERHEAD,
    WINDOW,
    Keyring,
    Refused,
    ReplayGuard,
    Sealer,
    StreamSealer,
)

KEY, KEY2, KEY3 = bytes(32), bytes([1]) * 32, bytes([2]) * 32
HEADER = m.Header("n1", 5, 5, 7, 99)
MESSAGES: list[m.Message] = [
    m.Ping(1, "n2"),
    m.PingReq(2, "n3", "10.0.0.3", 7946),
    m.Alive("n1", 5, "10.0.0.1", 7946, 5, b"meta"),
    m.Suspect("n2", 3, ""),
    m.Dead("n2", 3, "n2"),
    m.Record("n1", 5, 7, "t", "k", None, (5, 6)),
    m.Record("n1", 5, 8, "t", "k", b"v" * 1000),
    m.Delta("n1", 5, 0, 8, (m.DeltaRow(8, "t", "k", b"v"),)),
    m.Want((m.SyncEntry("n1", 5, 5, 0, 5, 8),), True),
    m.Who(),
]


def sealer(label: bytes = b"lab", keys: list[bytes] | None = None, session: bytes = b"s" * 12) -> Sealer:
    return Sealer(label, Keyring(keys or [KEY]), session)


@pytest.mark.parametrize("frame", [m.PACKET_FRAME, m.STREAM_FRAME])
def test_what_is_packed_is_unpacked(frame: int) -> None:
    payload = m.pack(m.begin(HEADER), [m.encode(x) for x in MESSAGES], frame)
    assert m.unpack(payload, frame) == (HEADER, MESSAGES, 0)


def test_a_message_from_the_future_is_skipped_and_the_rest_is_read() -> None:
    future = msgspec.msgpack.encode([200, "what", 1])
    wrong = msgspec.msgpack.encode([1, -5, "n2"])
    payload = m.pack(m.begin(HEADER), [future, m.encode(m.Ack(3)), wrong])
    assert m.unpack(payload) == (HEADER, [m.Ack(3)], 2)


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_broken_frame_voids_the_packet(cut: int) -> None:
    payload = m.pack(m.begin(HEADER), [m.encode(m.Ping(1, "a-rather-long-node-identity-of-40-chars"))])
    with pytest.raises(m.Malformed):
        m.unpack(payload[:-cut])


def test_too_many_messages_void_the_packet() -> None:
    with pytest.raises(m.Malformed, match="255"):
        m.unpack(m.pack(m.begin(HEADER), [m.encode(m.Who())] * 256))


def test_sealed_packets_open_with_any_key_of_the_ring_and_the_overhead_is_known() -> None:
    packet = sealer(keys=[KEY2]).seal(b"hello")
    assert len(packet) == len(b"hello") + OVERHEAD
    receiver = sealer(keys=[KEY, KEY2], session=b"r" * 12)
    assert receiver.open(packet) == (b"s" * 12, 1, b"hello")
    assert receiver.secondary == 1
    with pytest.raises(Refused, match="undecryptable"):
        sealer(keys=[KEY, KEY3]).open(packet)


def test_another_cluster_with_the_same_key_is_not_understood() -> None:
    with pytest.raises(Refused):
        sealer(b"other").open(sealer(b"lab").seal(b"hello"))


def test_a_key_taken_from_the_ring_opens_nothing_more() -> None:
    ring = Keyring([KEY, KEY2])
    receiver = Sealer(b"lab", ring, b"r" * 12)
    sender = sealer(keys=[KEY2])
    receiver.open(sender.seal(b"one"))
    ring.replace([KEY])
    with pytest.raises(Refused):
        receiver.open(sender.seal(b"two"))


@given(st.integers(0, 60 + OVERHEAD - 1), st.integers(1, 255))
def test_no_bit_of_a_packet_may_change(place: int, flip: int) -> None:
    packet = bytearray(sealer().seal(b"x" * 60))
    packet[place] ^= flip
    with pytest.raises(Refused):
        sealer(session=b"r" * 12).open(bytes(packet))


def test_keys_of_the_wrong_size_or_none_are_refused_with_words() -> None:
    with pytest.raises(ValueError, match="16 bytes, it must have 32"):
        Keyring([bytes(16)])
    with pytest.raises(ValueError, match="empty"):
        Keyring([])


@given(st.lists(st.integers(1, 3 * WINDOW), max_size=200))
def test_no_sequence_number_passes_twice(sequence: list[int]) -> None:
    guard = ReplayGuard()
    passed: set[int] = set()
    for number in sequence:
        try:
            guard.check(b"s", number, "n1")
        except Refused:
            assert number in passed or max(passed) - number >= WINDOW
        else:
            assert number not in passed
            passed.add(number)


def test_a_session_belongs_to_its_sender_and_ends_with_the_next_one() -> None:
    guard = ReplayGuard()
    guard.check(b"one", 1, "n1")
    with pytest.raises(Refused, match="impostor"):
        guard.check(b"one", 2, "n2")
    guard.check(b"two", 1, "n1")
    with pytest.raises(Refused, match="replayed"):
        guard.check(b"one", 3, "n1")


def streams(client_keys: list[bytes], server_keys: list[bytes]) -> tuple[StreamSealer, StreamSealer]:
    client = StreamSealer(b"lab", Keyring(client_keys), True, b"c" * 16)
    server = StreamSealer(b"lab", Keyring(server_keys), False, b"s" * 16)
    client.greet(server.hello)
    server.greet(client.hello)
    return client, server


def frames(data: bytes) -> list[bytes]:
    found = []
    while data:
        size = int.from_bytes(data[:4], "big")
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 300_000])
def test_stream_messages_of_any_size_arrive_and_the_answer_uses_the_client_s_key(size: int) -> None:
    client, server = streams([KEY2, KEY], [KEY, KEY2])
    message = random.Random(size).randbytes(size)
    assert [server.open(frame) for frame in frames(client.seal(message))][-1] == message
    assert [client.open(frame) for frame in frames(server.seal(message[::-1]))][-1] == message[::-1]


def test_frames_cannot_be_repeated_or_turned_around() -> None:
    client, server = streams([KEY], [KEY])
    frame = frames(client.seal(b"hello"))[0]
    assert server.open(frame) == b"hello"
    with pytest.raises(Refused):
        server.open(frame)
    with pytest.raises(Refused):
        client.open(frame)


# -- a whole node under fire


def node() -> Core:
    core = Core(
        "me", "10.0.0.9", 7946, label=b"lab", ring=Keyring([KEY]), rng=random.Random(1), now=0.0, incarnation=100,
        session=b"m" * 12,
    )  # fmt: skip
    core.start(0.0)
    core.membership.alive(m.Alive("n1", 5, "10.0.0.1", 7946, 5, b""))
    core.take()
    return core


def test_a_packet_is_acted_upon_once() -> None:
    core = node()
    packet = sealer().seal(m.pack(m.begin(HEADER), [m.encode(m.Ping(1, "me"))]))
    core.receive(0.1, ("10.0.0.1", 7946), packet)
    assert core.take()
    core.receive(0.2, ("10.0.0.1", 7946), packet)
    assert core.take() == []
    assert core.kernel.counters["refused_replayed"] == 1


def picture(core: Core) -> tuple[object, ...]:
    members = [(member.id, member.state, member.incarnation) for member in core.members()]
    logs = [(log.owner, log.version, log.heard, sorted(log.entries)) for log in core.rows.logs()]
    return members, logs, core.kernel.digest.value, core.kernel.queue.lengths()


@given(st.binary(max_size=1500))
@settings(max_examples=300)
def test_a_stranger_s_bytes_change_nothing_but_a_counter(data: bytes) -> None:
    core = node()
    before = picture(core)
    core.receive(0.1, ("10.6.6.6", 1), data)
    assert picture(core) == before
    assert core.take() == []
    assert core.kernel.counters["refused_foreign"] + core.kernel.counters["refused_undecryptable"] == 1


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_nonsense_under_the_right_key_changes_nothing_and_raises_nothing(data: bytes) -> None:
    core = node()
    before = picture(core)
    core.receive(0.1, ("10.6.6.6", 1), sealer().seal(data))
    core.receive(0.1, ("10.6.6.6", 1), sealer().seal(m.pack(m.begin(HEADER), [data]))[:-1])
    assert picture(core)[0] == before[0]


numbers = st.integers(0, 2**63 - 1) | st.integers(0, 20)
ids = st.sampled_from(["me", "n1", "n2", "ü", "x" * 128])
entries = st.builds(m.SyncEntry, ids, numbers, numbers, st.integers(0, 3), numbers, numbers)
delta_rows = st.builds(m.DeltaRow, numbers, st.just("t"), st.sampled_from("abc"), st.none() | st.just(b"v"))
some_message = st.one_of(
    st.builds(m.Ping, numbers, ids),
    st.builds(m.PingReq, numbers, ids, st.just("10.0.0.1"), st.integers(1, 65535)),
    st.builds(m.Ack, numbers),
    st.builds(m.Nack, numbers),
    st.builds(m.Alive, ids, numbers, st.just("10.0.0.1"), st.integers(1, 65535), numbers, st.binary(max_size=20)),
    st.builds(m.Suspect, ids, numbers, ids | st.just("")),
    st.builds(m.Dead, ids, numbers, ids),
    st.builds(
        m.Record, ids, numbers, numbers, st.sampled_from(["", "t"]), st.sampled_from(["", "k"]),
        st.none() | st.binary(max_size=20), st.lists(numbers, max_size=5).map(tuple),
    ),
    st.builds(m.Applied, ids, ids, numbers, numbers),
    st.builds(m.AskApplied, ids, ids, numbers, numbers),
    st.builds(m.Pull, ids, numbers, numbers),
    st.builds(
        m.Delta, ids, numbers, numbers, numbers,
        st.lists(delta_rows, max_size=4).map(tuple),
    ),
    st.builds(m.TooBig, ids),
    st.just(m.Who()),
    st.builds(m.Sync, st.lists(entries, max_size=4).map(tuple)),
    st.builds(m.Want, st.lists(entries, max_size=4).map(tuple), st.booleans()),
)  # fmt: skip


@given(st.lists(st.tuples(st.lists(some_message, max_size=5), st.floats(0, 3)), max_size=12))
@settings(max_examples=300, deadline=None)
def test_no_sequence_of_valid_messages_breaks_a_node(story: list[tuple[list[m.Message], float]]) -> None:
    """Whatever a holder of the key says: no exception, bounded memory, packets within their budget."""
    core = node()
    peer = sealer()
    now = 0.1
    for said, pause in story:
        packed = m.pack(m.begin(HEADER), [m.encode(x) for x in said])
        core.receive(now, ("10.0.0.1", 7946), peer.seal(packed))
        core.serve(now, m.pack(m.begin(HEADER), [m.encode(x) for x in said], m.STREAM_FRAME))
        now += pause
        while (deadline := core.next_deadline()) is not None and deadline <= now:
            core.tick(deadline)
        for effect in core.take():
            data = getattr(effect, "data", b"")
            assert len(data) <= core.kernel.config.packet_size
    assert len(core.kernel.queue) < 500
    assert core.members()[0].incarnation >= 100
