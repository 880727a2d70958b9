"""The fuzzer's judge (tests/fuzz/gossip_packets.py) on its seeds, on random changes of them, and on what it found."""

from __future__ import annotations

import random

import pytest

from swarm_agent.gossip.seal import Keyring, Refused, StreamSealer
from tests.fuzz.gossip_packets import judge, seeds

FOUND: list[bytes] = []
"""Inputs that once broke something. None so far."""


def test_every_kind_of_message_by_every_way_keeps_the_bounds() -> None:
    for data in [*seeds(), *FOUND]:
        judge(data)


@pytest.mark.parametrize("seed", range(4))
def test_mangled_messages_keep_the_bounds(seed: int) -> None:
    rng = random.Random(seed)
    kinds = seeds()
    for _ in range(100):
        data = bytearray(rng.choice(kinds))
        for _ in range(rng.randrange(1, 6)):
            place = rng.randrange(1, len(data))
            if rng.random() < 0.7:
                data[place] = rng.randrange(256)
            else:
                data[place:place] = rng.randbytes(rng.randrange(1, 9))
        judge(bytes(data))


def test_frames_without_content_do_not_pile_up() -> None:
    """A holder of the key could send them without end, and each was kept."""
    client = StreamSealer(b"lab", Keyring([bytes(32)]), True, b"c" * 16)
    server = StreamSealer(b"lab", Keyring([bytes(32)]), False, b"s" * 16)
    client.greet(server.hello)
    server.greet(client.hello)
    cipher = client._cipher
    assert cipher is not None
    with pytest.raises(Refused):
        server.open(cipher.encrypt(client._nonce(True, 0), b"", b"lab"))
    server = StreamSealer(b"lab", Keyring([bytes(32)]), False, b"s" * 16)
    server.greet(client.hello)
    for number in range(3):
        assert server.open(cipher.encrypt(client._nonce(True, number), b"\0", b"lab")) is None
    assert server._size == 3, "they count towards the limit"
