"""Key material under an unlock key: mute without it, and readable at every step of a change of the lock."""

import datetime
import os
import shutil
import time

import pytest

from swarm_agent.node.keys import NodeKeys, is_locked, opens
from swarm_agent.node.lock_keeper import KEY_LIFE, lock_name, turn_is_due
from swarm_agent.node.state import StateFolder
from swarm_agent.pki import authority, files, locking
from swarm_agent.pki.authority import Authority, Identity
from swarm_agent.pki.files import NodeCertificate
from swarm_agent.pki.locking import Locked

A, B = b"a" * 32, b"b" * 32
NOW = datetime.datetime.now(datetime.UTC)


def certificate() -> NodeCertificate:
    root, key = Authority.create(NOW), authority.new_key()
    request = authority.new_signing_request(key)
    cert = root.issue(request, Identity("n", "manager", "c"), NOW, datetime.timedelta(days=1))
    return NodeCertificate(root.cert, cert, key)


def test_an_unlock_key_is_written_as_swarm_does():
    text = locking.format_unlock_key(bytes(range(32)))
    assert text == "SWMKEY-1-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    assert locking.parse_unlock_key(f" {text}\n") == bytes(range(32))


@pytest.mark.parametrize("text", ["", "SWMKEY-1-", "SWMKEY-1-AAEC", "SWMKEY-2-" + "A" * 43, "SWMKEY-1-" + "*" * 43])
def test_other_texts_are_no_unlock_keys(text):
    assert locking.parse_unlock_key(text) is None


def test_locked_content_needs_its_key():
    content = locking.wrap(b"secret", A)
    assert b"secret" not in content and locking.is_locked(content)
    assert locking.unwrap(content, A) == b"secret"
    for other in (None, B):
        with pytest.raises(Locked):
            locking.unwrap(content, other)


def test_content_for_two_locks_opens_with_each():
    content = locking.wrap_for(b"secret\n", (A, B))
    assert locking.unwrap(content, A) == locking.unwrap(content, B) == b"secret\n"
    half = locking.wrap_for(b"secret\n", (None, B))
    assert not locking.is_locked(half) and locking.unwrap(half, None) == b"secret\n"


@pytest.fixture
def folder(tmp_path):
    return StateFolder(tmp_path / "state")


@pytest.mark.parametrize(("old", "new"), [(None, A), (A, B), (A, None)])
def test_a_crash_while_the_lock_changes_leaves_what_one_of_the_locks_opens(tmp_path, monkeypatch, old, new):
    present = certificate()
    survived = set()
    for crash in range(1, 20):
        folder = StateFolder(tmp_path / str(crash))
        keys = NodeKeys(folder, old)
        keys.save_certificate(present)
        raft = keys.raft_keys()
        renames, rename = [], os.replace

        def failing(source, target, renames=renames, rename=rename, crash=crash):
            renames.append(target)
            if len(renames) == crash:
                raise KeyboardInterrupt
            rename(source, target)

        monkeypatch.setattr(files.os, "replace", failing)
        try:
            keys.change_lock(new, present)
            done = True
        except KeyboardInterrupt:
            done = False
        monkeypatch.undo()
        fitting = [lock for lock in (old, new) if lock is None or opens(folder, lock)]
        if is_locked(folder):
            fitting = [lock for lock in fitting if lock is not None]
        assert fitting
        found = NodeKeys(folder, fitting[0])
        assert found.raft_keys() == raft
        assert NodeCertificate.load(folder.certificates, fitting[0]) == present
        survived.add(done)
        if done:
            assert is_locked(folder) == (new is not None)
            return
    raise AssertionError("the change never ended")


def test_a_crash_while_a_certificate_is_replaced_leaves_a_pair(tmp_path, monkeypatch):
    old, new = certificate(), certificate()
    for crash in range(1, 20):
        folder = tmp_path / str(crash)
        old.save(folder)
        renames, rename = [], os.replace

        def failing(source, target, renames=renames, rename=rename, crash=crash):
            renames.append(target)
            if len(renames) == crash:
                raise KeyboardInterrupt
            rename(source, target)

        monkeypatch.setattr(files.os, "replace", failing)
        try:
            new.save(folder)
        except KeyboardInterrupt:
            monkeypatch.undo()
            found = NodeCertificate.load(folder)
            assert found is not None and (found.cert, found.key) in ((old.cert, old.key), (new.cert, new.key))
        else:
            monkeypatch.undo()
            assert NodeCertificate.load(folder) == new
            return
    raise AssertionError("the replacement never ended")


def test_key_files_are_for_their_owner_only(folder):
    keys = NodeKeys(folder, A)
    keys.save_certificate(certificate())
    keys.raft_keys()
    keys.begin_turning()
    found = [path for path in folder.root.rglob("*") if path.is_file()]
    assert len(found) == 4 and {path.stat().st_mode & 0o777 for path in found} == {0o600}
    shutil.rmtree(folder.root)


def test_a_turn_of_raft_keys_keeps_the_old_one_until_the_end(folder):
    keys = NodeKeys(folder)
    (old,) = keys.raft_keys().keys
    turning = keys.begin_turning()
    assert turning.keys[1] == old and turning.keys[0] != old
    assert keys.begin_turning() == turning == NodeKeys(folder).raft_keys()  # an interrupted turn goes on with the same
    keys.end_turning(turning, "")
    assert keys.raft_keys().keys == turning.keys[:1]


def test_raft_keys_turn_when_the_lock_is_new_or_the_key_is_old(folder):
    keys = NodeKeys(folder, A).raft_keys()
    now = time.time_ns()
    assert not turn_is_due(keys, A, now)
    assert turn_is_due(keys, B, now)
    assert not turn_is_due(keys, None, now)  # what was under a lock need not be replaced when it goes
    assert turn_is_due(keys, A, now + KEY_LIFE + 10**11)
    assert keys.lock == lock_name(A)


def test_keys_do_not_show_in_what_may_be_logged(folder):
    present = certificate()
    shown = f"{present!r} {NodeKeys(folder).raft_keys()!r} {Authority.create(NOW)!r}"
    assert "PRIVATE" not in shown and present.key not in shown
