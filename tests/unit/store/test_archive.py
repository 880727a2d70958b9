"""A backup can be read back whole with its secret, and in no other case at all."""

import io

import pytest

from swarm_agent.store import archive
from swarm_agent.store.archive import ArchiveError, Kdf

PARTS = [b"first" * 100, b"", b"third"]
SECRET = b"correct horse battery"


def head(**changes):
    fields = {
        "created": "2026-01-01T00:00:00Z",
        "cluster_id": "c",
        "node_id": "n",
        "hostname": "host1",
        "index": 7,
        "term": 2,
        "kdf": Kdf(b"salt" * 4, n=16),
    }
    return archive.Head(**fields | changes)


def made(**changes) -> bytes:
    return b"".join(archive.write(head(**changes), PARTS, SECRET))


def taken(data: bytes, secret: bytes = SECRET):
    found, parts = archive.read(io.BytesIO(data), secret)
    return found, list(parts)


def test_what_was_written_comes_back():
    assert taken(made()) == (head(), PARTS)


def test_the_head_can_be_read_without_the_secret():
    assert archive.read_head(io.BytesIO(made())).cluster_id == "c"


def test_the_content_cannot_be_seen_in_the_file():
    assert b"third" not in made() and SECRET not in made()


def test_another_secret_opens_nothing():
    with pytest.raises(ArchiveError, match="passphrase or key is not this snapshot's"):
        taken(made(), b"incorrect horse")


def test_a_file_cut_anywhere_is_noticed():
    data = made()
    for end in range(len(data)):
        with pytest.raises(ArchiveError):
            taken(data[:end])


def test_any_changed_byte_is_noticed():
    data = made()
    for place in range(len(data)):
        with pytest.raises(ArchiveError):
            taken(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])


def test_nothing_may_follow():
    with pytest.raises(ArchiveError, match="something follows"):
        taken(made() + b"x")


def test_a_forged_head_cannot_ask_for_all_memory():
    with pytest.raises(ArchiveError, match="more work"):
        next(archive.write(head(kdf=Kdf(b"s", n=1 << 30)), PARTS, SECRET))
