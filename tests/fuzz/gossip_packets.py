"""Coverage-guided fuzzing of everything that bytes from the network reach in the gossip: make fuzz
(FUZZ_SECONDS=120).

    python tests/fuzz/gossip_packets.py CORPUS [-max_total_time=120] [libFuzzer options]

The first byte chooses the way in: a datagram as it is; a payload under the right key; a TCP message; the answer to a
TCP exchange of ours; the frames of a stream. A node with members, rows and a running suspicion receives it, then
lives on for some seconds. What must hold is in `judge`: nothing escapes but what the driver expects, bytes of a
stranger change nothing, memory and packets stay within their bounds. A crash leaves its input as a file; add it to
`FOUND` in tests/unit/gossip/test_fuzz_cases.py, so that it stays a test.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "agent")]

try:
    import atheris
except ImportError:  # the cases that were found run without it
    atheris = None

if atheris is not None:
    with atheris.instrument_imports(include=["swarm_agent.gossip"]):
        from swarm_agent.gossip import messages as m
        from swarm_agent.gossip.core import Core
        from swarm_agent.gossip.seal import SESSION_SIZE, Keyring, Refused, Sealer, StreamSealer
        from swarm_agent.gossip.types import OpenStream, StreamKind
else:
    from swarm_agent.gossip import messages as m
    from swarm_agent.gossip.core import Core
    from swarm_agent.gossip.seal import SESSION_SIZE, Keyring, Refused, Sealer, StreamSealer
    from swarm_agent.gossip.types import OpenStream, StreamKind

KEY = bytes(32)
LABEL = b"fuzz"
PEER = ("10.0.0.1", 7946)
HEADER = m.begin(m.Header("n1", 5, 5, 3, 99))
MOST_MEMBERS = 70_000  # a Sync of 64 KiB cannot name more; what one input may add


def node() -> Core:
    """A node that has something to lose: members alive, suspect, dead; own rows and others'."""
    core = Core(
        "me", "10.0.0.9", 7946, label=LABEL, ring=Keyring([KEY]), rng=random.Random(1), now=0.0, incarnation=100,
        session=b"m" * SESSION_SIZE,
    )  # fmt: skip
    core.start(0.0)
    for number in range(1, 5):
        core.membership.alive(m.Alive(f"n{number}", 5, f"10.0.0.{number}", 7946, 5, b"meta"))
    core.membership.suspect("n2", 5, "n1")
    core.membership.dead("n3", 5, "n1")
    core.rows.publish("t", "own", b"v")
    core.rows.on_record(m.Record("n1", 5, 1, "t", "k", b"v"), "n1")
    core.take()
    return core


def sealer() -> Sealer:
    return Sealer(LABEL, Keyring([KEY]), b"s" * SESSION_SIZE)


def picture(core: Core) -> object:
    logs = [(log.owner, log.version, log.heard, sorted(log.entries)) for log in core.rows.logs()]
    return core.members(), logs, core.kernel.digest.value, core.kernel.queue.lengths()


def stream_frames(data: bytes) -> None:
    """Frames as the server reads them: the first one sealed under the key, the rest as they come."""
    client = StreamSealer(LABEL, Keyring([KEY]), True, b"c" * 16)
    server = StreamSealer(LABEL, Keyring([KEY]), False, b"s" * 16)
    try:
        server.greet(data[:17])
    except Refused:
        server.greet(client.hello)
    client.greet(server.hello)
    sealed = client.seal(data)
    for frame in (sealed[4:], data[17:]):
        try:
            server.open(frame)
        except Refused:
            return


def judge(data: bytes) -> None:
    """One input. Raises AssertionError, or whatever escaped."""
    way, data = (data[0] % 5, data[1:]) if data else (0, data)
    core = node()
    before = picture(core)
    core.kernel.timers.wake(0.1)
    if way == 0:
        core.receive(0.1, PEER, data)
        assert core.kernel.counters["packets_received"] == 1
        assert picture(core) == before, "bytes without the key changed something"
        assert core.take() == [], "bytes without the key were answered"
        return
    if way == 1:
        core.receive(0.1, PEER, sealer().seal(data[:1400]))
    elif way == 4:
        stream_frames(data)
        return
    else:
        try:
            if way == 2:
                core.serve(0.1, data)
            else:
                request = OpenStream(StreamKind.SYNC, PEER, "n1", core.kernel.stream_payload(core.sync.opening()))
                core.stream_reply(0.1, request, data)
        except m.Malformed:
            assert picture(core) == before, "a malformed message changed something"
    live_on(core)


def live_on(core: Core) -> None:
    """Some seconds of life after the input, and the bounds."""
    now = 0.1
    for _ in range(25):
        deadline = core.next_deadline()
        if deadline is None or deadline > 3.0:
            break
        now = max(now, deadline)
        core.tick(now)
        for effect in core.take():
            packet = getattr(effect, "data", b"")
            assert len(packet) <= core.kernel.config.packet_size, "a packet over its budget"
    config = core.kernel.config
    assert max(core.kernel.queue.lengths()) <= config.queue_limit
    assert len(core.kernel.members) <= MOST_MEMBERS
    assert len(core.rows.logs()) <= len(core.kernel.members) + config.unknown_limit + 2
    assert core.members()[0].incarnation >= 100, "somebody lowered this node's incarnation"
    core.stats()


def seeds() -> list[bytes]:
    """One input per way and kind of message, to begin with."""
    said: list[m.Message] = [
        m.Ping(1, "me"), m.PingReq(2, "n3", "10.0.0.3", 7946), m.Ack(3), m.Nack(4),
        m.Alive("n9", 5, "10.0.0.1", 7946, 5, b"meta", 20), m.Alive("me", 500, "10.0.0.2", 7946, 500, b""),
        m.Suspect("n1", 5, "n4"), m.Suspect("me", 2**62, "n1"), m.Dead("n1", 9, "n1"), m.Dead("n4", 9, "n2"),
        m.Record("n1", 5, 2, "t", "k", b"w", (1,)), m.Record("me", 900, 8, "t", "k", None),
        m.Applied("n1", "me", 100, 1), m.AskApplied("me", "n1", 5, 1), m.Pull("me", 100, 0),
        m.Delta("n1", 5, 0, 8, (m.DeltaRow(8, "t", "k", b"v"),)),
        m.TooBig("n1"), m.Who(), m.Sync((m.SyncEntry("n7", 5, 5, 0, 5, 8), m.SyncEntry("me", 1, 1, 2, 1, 1))),
        m.Want((m.SyncEntry("me", 5, 5, 0, 5, 8),), True),
    ]  # fmt: skip
    encoded = [m.encode(message) for message in said]
    packets = [m.pack(HEADER, [one]) for one in encoded] + [m.pack(HEADER, encoded)]
    streams = [m.pack(HEADER, [one], m.STREAM_FRAME) for one in encoded] + [m.pack(HEADER, encoded, m.STREAM_FRAME)]
    return (
        [b"\0" + sealer().seal(packet)[:-1] for packet in packets[:3]]
        + [b"\1" + packet for packet in packets]
        + [bytes((way,)) + stream for way in (2, 3) for stream in streams]
        + [b"\4" + bytes(17), b"\4\1" + bytes(40)]
    )


def main() -> None:
    if atheris is None:
        sys.exit("atheris is not installed: pip install '.[fuzz]', or make fuzz, which does it")
    folder = Path(next((argument for argument in sys.argv[1:] if not argument.startswith("-")), ".cache/fuzz"))
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()):
        (folder / f"seed{number}").write_bytes(seed)
    atheris.Setup(sys.argv, judge)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
