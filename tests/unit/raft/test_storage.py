"""The log and snapshots on a real disk: what is read back, what a crash may leave, and what is refused."""

import os

import pytest

from swarm_agent.raft.errors import DiskFailed, FatalError, LogCorrupt
from swarm_agent.raft.files import OsFiles
from swarm_agent.raft.messages import Entry, EntryKind, HardState, Member, Membership, SnapshotMeta
from swarm_agent.raft.sealing import HEAD, MAGIC, record_size
from swarm_agent.raft.storage import Storage
from swarm_agent.raft.wal import Batch

KEY, OTHER = b"k" * 32, b"o" * 32
SEGMENT = 8192


def entry(index, term=1, data=b"x"):
    return Entry(index, term, EntryKind.DATA, data)


class Disk:
    def __init__(self, path):
        self.path = path / "raft"
        self.storage = None

    def load(self, *, keys=(KEY,), member=1):
        if self.storage is not None:
            self.storage.close()
        self.storage = Storage(OsFiles(self.path), keys, member, SEGMENT)
        try:
            return self.storage.load()
        except FatalError:
            self.storage.close()
            self.storage = None
            raise

    def write(self, *entries, term=1, vote=0, snapshot=None):
        self.storage.write([Batch(HardState(term, vote, 0), snapshot, entries)])

    def segments(self):
        return sorted(self.path.glob("*.wal"))

    def snapshot(self, index, *chunks, term=1):
        writer = self.storage.snapshots.writer(SnapshotMeta(index, term, Membership((Member(1),))), "own")
        for chunk in chunks:
            writer.add(chunk)
        writer.finish()


@pytest.fixture
def disk(tmp_path):
    disk = Disk(tmp_path)
    loaded = disk.load()
    assert loaded.empty and loaded.entries == []
    yield disk
    if disk.storage is not None:
        disk.storage.close()


def test_entries_and_hard_state_come_back(disk):
    disk.write(entry(1), entry(2), term=3, vote=7)
    disk.write(entry(3))
    disk.write(term=4, vote=2)
    loaded = disk.load()
    assert loaded.entries == [entry(1), entry(2), entry(3)]
    assert (loaded.hard_state.term, loaded.hard_state.vote, loaded.empty) == (4, 2, False)


def test_later_entries_replace_earlier_ones_of_the_same_index_and_all_after_them(disk):
    disk.write(entry(1), entry(2), entry(3), entry(4))
    disk.write(entry(2, term=2))
    assert disk.load().entries == [entry(1), entry(2, term=2)]


def test_a_full_segment_is_followed_by_another_that_repeats_the_hard_state(disk):
    disk.write(term=9, vote=4)
    for index in range(1, 40):
        disk.write(entry(index, data=b"d" * 1000), term=9, vote=4)
    assert len(disk.segments()) > 3
    disk.storage.snapshots.writer(SnapshotMeta(39, 1), "own").finish()
    disk.storage.compacted(39, 0)
    assert len(disk.segments()) == 1
    loaded = disk.load()
    assert (loaded.hard_state.term, loaded.hard_state.vote, loaded.snapshot.index) == (9, 4, 39)


def test_an_entry_larger_than_a_segment_fits(disk):
    big = entry(1, data=b"b" * (SEGMENT * 5))
    disk.write(big)
    disk.write(entry(2))
    assert disk.load().entries == [big, entry(2)]


def damage(path, offset, data=None):
    """Overwrite what is there: with `data`, or one byte with another one."""
    with path.open("r+b") as file:
        file.seek(offset)
        data = data or bytes([file.read(1)[0] ^ 0xFF])
        file.seek(offset)
        file.write(data)


def used(path):
    """Where the last record ends. (Not where zeros begin: a record may end with some.)"""
    data, offset = path.read_bytes(), 64
    while data[offset : offset + 4] == MAGIC:
        offset += record_size(data[offset : offset + HEAD])
    return offset


@pytest.mark.parametrize("back", [1, 20, 60])
def test_a_torn_last_record_is_cut_off_and_writing_goes_on(disk, back):
    disk.write(entry(1))
    kept = used(disk.segments()[0])
    disk.write(entry(2, data=b"t" * 100))
    damage(disk.segments()[0], used(disk.segments()[0]) - back)
    assert disk.load().entries == [entry(1)]
    assert used(disk.segments()[0]) <= kept
    disk.write(entry(2, term=2))
    assert disk.load().entries == [entry(1), entry(2, term=2)]


def test_a_damaged_middle_is_refused_with_words_on_how_to_recover(disk):
    disk.write(entry(1))
    offset = used(disk.segments()[0])
    disk.write(entry(2))
    disk.write(entry(3))
    damage(disk.segments()[0], offset + 30)
    with pytest.raises(
        LogCorrupt, match=r"checksum differs, and an intact record follows.*join again.*restore a backup"
    ):
        disk.load()


def test_damage_in_a_segment_that_is_not_the_last_is_refused(disk):
    for index in range(1, 20):
        disk.write(entry(index, data=b"d" * 1000))
    first = disk.segments()[0]
    damage(first, used(first) - 10)
    with pytest.raises(LogCorrupt, match="a later segment exists"):
        disk.load()


def test_the_directorys_own_name_is_durable_before_anything_is_written(tmp_path, monkeypatch):
    synced = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), sync(fd)))
    OsFiles(tmp_path / "raft").close()
    assert synced == [str(tmp_path)]


def test_a_full_disk_is_told_with_what_to_do(tmp_path):
    files = OsFiles(tmp_path / "raft")
    (tmp_path / "raft" / "0001.wal").symlink_to("/dev/full")
    file = files.open("0001.wal")
    with pytest.raises(DiskFailed, match=r"could not write .*/0001\.wal: No space left on device\..*check the disk"):
        file.write(0, b"x")
    file.close()
    files.close()


def test_closing_twice_closes_nothing_of_others(tmp_path):
    files = OsFiles(tmp_path / "raft")
    files.close()
    with (tmp_path / "other").open("w") as other:  # takes the number that has become free
        files.close()
        other.write("unharmed")
    assert (tmp_path / "other").read_text() == "unharmed"


def test_a_missing_segment_is_refused(disk):
    for index in range(1, 30):
        disk.write(entry(index, data=b"d" * 1000))
    disk.segments()[1].unlink()
    with pytest.raises(LogCorrupt, match="the segment before it is missing"):
        disk.load()


def test_a_segment_that_was_not_finished_is_ignored(disk):
    disk.write(entry(1))
    (disk.path / "0000000000000002.wal.tmp").write_bytes(b"half")
    assert disk.load().entries == [entry(1)]
    assert not list(disk.path.glob("*.tmp"))


def test_a_record_moved_to_another_place_is_refused(disk):
    disk.write(entry(1))
    start = used(disk.segments()[0])
    disk.write(entry(2, data=b"same"))
    middle = used(disk.segments()[0])
    record = disk.segments()[0].read_bytes()[start:middle]
    damage(disk.segments()[0], middle, record)
    with pytest.raises(LogCorrupt, match="moved or forged"):
        disk.load()


def test_a_wrong_key_is_named_as_such_and_several_keys_may_be_given(disk):
    disk.write(entry(1))
    with pytest.raises(LogCorrupt, match="which is not among those given"):
        disk.load(keys=[OTHER])
    assert disk.load(keys=[OTHER, KEY]).entries == [entry(1)]


def test_what_a_snapshot_stands_for_is_kept_only_in_it(disk):
    disk.write(*(entry(index) for index in range(1, 6)))
    disk.snapshot(3, b"one", b"two")
    loaded = disk.load()
    assert loaded.snapshot.index == 3
    assert [e.index for e in loaded.entries] == [1, 2, 3, 4, 5]
    assert list(loaded.reader.chunks()) == [b"one", b"two"]


def test_a_snapshot_beyond_the_log_voids_it_and_the_log_goes_on_after_it(disk):
    disk.write(entry(1), entry(2))
    disk.snapshot(10, b"state", term=5)
    assert disk.load().entries == []
    disk.write(entry(11, term=5), term=5)
    assert disk.load().entries == [entry(11, term=5)]


def test_a_log_that_lacks_its_snapshot_is_refused(disk):
    disk.write(snapshot=SnapshotMeta(10, 1))
    disk.write(entry(11))
    with pytest.raises(LogCorrupt, match="begins after entry 10, and no snapshot"):
        disk.load()


def test_a_snapshot_is_not_there_before_it_is_complete(disk):
    writer = disk.storage.snapshots.writer(SnapshotMeta(5, 1), "own")
    writer.add(b"half")
    assert disk.load().reader is None
    assert not list(disk.path.glob("*.snap*"))


@pytest.mark.parametrize("at", [20, 100, -10])
def test_a_damaged_snapshot_is_refused(disk, at):
    disk.write(*(entry(index) for index in range(1, 6)))
    disk.snapshot(5, b"one" * 50, b"two")
    path = next(disk.path.glob("*.snap"))
    damage(path, at if at > 0 else path.stat().st_size + at)
    with pytest.raises(LogCorrupt, match=r"snapshot .* cannot be read"):
        list(disk.load().reader.chunks())


def test_old_snapshots_are_kept_as_asked(disk):
    disk.write(*(entry(index) for index in range(1, 6)))
    for index in (1, 2, 3, 4):
        disk.snapshot(index)
    disk.storage.compacted(4, 1)
    assert [int(path.name[:16], 16) for path in sorted(disk.path.glob("*.snap"))] == [3, 4]
