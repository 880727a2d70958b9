"""What a member does with its disk before it takes part: read it, or found a cluster, or go on alone after a
catastrophe.
"""

from __future__ import annotations

from typing import Any

from .errors import REJOIN, FatalError
from .log import Log
from .messages import NOBODY, Entry, EntryKind, HardState, Member, Membership, encode_membership
from .snapshotting import StateMachine
from .storage import Loaded, Storage


def boot(
    storage: Storage, machine: StateMachine, member_id: int, bootstrap: str | None, *, force_new_cluster: bool
) -> tuple[Loaded, Any]:
    """The member's log, and the state of its snapshot (None without one). Blocks; see `RaftNode.start` for the
    options.
    """
    loaded = storage.load()
    if loaded.empty and bootstrap is not None:
        _found(loaded, storage, member_id, bootstrap)
    elif force_new_cluster and not loaded.empty:
        _go_on_alone(loaded, storage, member_id, bootstrap)
    if loaded.reader is None:
        return loaded, None
    try:
        return loaded, machine.load(loaded.reader.chunks())
    except FatalError:
        raise
    except Exception as error:
        raise FatalError(
            f"the snapshot at index {loaded.snapshot.index} in {storage.path} cannot be loaded: {error}. {REJOIN}"
        ) from error
    finally:
        loaded.reader.close()


def _found(loaded: Loaded, storage: Storage, member_id: int, address: str) -> None:
    """The first entry of a new cluster: this member is its only one."""
    first = Membership((Member(member_id, address),))
    loaded.entries = [Entry(1, 1, EntryKind.MEMBERSHIP, encode_membership(first))]
    loaded.hard_state = HardState(1, NOBODY, 1)
    storage.bootstrap(loaded.entries, loaded.hard_state)


def _go_on_alone(loaded: Loaded, storage: Storage, member_id: int, address: str | None) -> None:
    """Append a membership of this member alone. As its only voter it will commit that, and everything before it."""
    log = Log(loaded.snapshot, loaded.entries)
    known = log.membership.get(member_id)
    alone = Membership((Member(member_id, address or (known.address if known is not None else "")),))
    term = max(loaded.hard_state.term, log.last_term) + 1
    entry = Entry(log.last + 1, term, EntryKind.MEMBERSHIP, encode_membership(alone))
    loaded.hard_state = HardState(term, NOBODY, loaded.hard_state.commit)
    loaded.entries = [*loaded.entries, entry]
    storage.bootstrap([entry], loaded.hard_state)
