"""Endpoint tables between nodes: publishing, spreading, repairing, hiding and showing the rows of all owners.

Every packet's header names the version of its sender's rows, so a gap is noticed with the next packet from the owner,
whatever it is about. The repair asks the owner (then others) for what comes after our watermark: by UDP when the
answer fits a packet, else by TCP. Rows of an owner that is not live are hidden, not forgotten: when it returns with
the same process they are right, and repair brings what changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable

from . import messages as m
from .acks import Acks
from .kernel import Kernel
from .members import Peer
from .spread import Rank
from .tables import BASELINE, Key, Log
from .types import Address, Row, RowsChanged, RowTooLarge, State, StreamKind, Version

MAX_PULLS = 4
GIVE_UP_DEAD = 3  # tries for rows of an owner that is gone
MAX_REPLACES = 32


class _Repair:
    __slots__ = ("pause", "tries")

    def __init__(self, pause: float) -> None:
        self.tries = 0
        self.pause = pause


class Rows:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.own = Log(kernel.me.id, kernel.me.epoch)
        self.acks = Acks(kernel, self.own)
        self._logs: dict[str, Log] = {}
        self._repairs: dict[str, _Repair] = {}
        self._pulling: set[str] = set()
        self._replaces: dict[int, tuple[int, ...]] = {}
        self.on_identity: Callable[[], None] = lambda: None  # our epoch and incarnation have changed

    # -- the owner's side

    def publish(self, table: str, key: str, value: bytes | None) -> Version:
        """Create, replace, or with None withdraw an own row. An unchanged value is no change. Raises RowTooLarge."""
        config = self.kernel.config
        if not table or len(table) > 255 or not key or len(key) > 255:
            raise ValueError(f"table {table!r} and key {key!r} must have 1 to 255 characters")
        if value is not None and len(value) > config.value_limit:
            raise RowTooLarge(
                f"row {key!r} of table {table!r} has {len(value)} bytes, the limit is {config.value_limit}"
            )
        if value is not None and self.own.size + len(value) > config.own_bytes_limit:
            raise RowTooLarge(
                f"row {key!r} of table {table!r} would take this node's rows over {config.own_bytes_limit} bytes in all"
            )
        old = self.own.entries.get((table, key))
        if (old.value if old is not None else None) == value:
            return Version(self.own.epoch, old.sequence) if old is not None else self.own.version
        return self._write(table, key, value)

    def baseline(self) -> Version:
        """All rows that this process will have from the start are published: those of an earlier process may go."""
        return self._write(*BASELINE, b"")

    def _write(self, table: str, key: str, value: bytes | None) -> Version:
        kernel = self.kernel
        record, before = self.own.write(table, key, value)
        if before and kernel.queue.cancel(("row", self.own.owner, before)):
            replaced = (*self._replaces.pop(before, ()), before)[-MAX_REPLACES:]
            record = m.Record(record.owner, record.epoch, record.seq, table, key, value, replaced)
            self._replaces[record.seq] = replaced
            if len(self._replaces) > 1024:
                self._replaces = {n: r for n, r in self._replaces.items() if ("row", self.own.owner, n) in kernel.queue}
        self.own.trim(kernel.config.tombstone_limit)
        self._own_moved()
        if not kernel.broadcast(("row", self.own.owner, record.seq), "", Rank.OWN, record):
            kernel.announce()
        if (table, key) != BASELINE:
            kernel.effects.append(RowsChanged())
        return self.own.version

    def restamp(self, epoch: int) -> None:
        """Peers remember rows of ours from a process with a later epoch: ours must be later still."""
        kernel = self.kernel
        if epoch <= self.own.epoch:
            return
        kernel.me.epoch = epoch
        kernel.me.incarnation = max(kernel.me.incarnation, epoch) + 1
        self.own.restamp(epoch)
        self.acks.reset()
        self._own_moved()
        self.on_identity()

    def _own_moved(self) -> None:
        self.kernel.row_sequence = self.own.watermark
        self.kernel.update_own_digest()

    # -- all rows

    def rows(self, table: str) -> list[Row]:
        """Visible rows of all owners, by owner and key."""
        found = list(self.own.rows(table))
        for owner, log in self._logs.items():
            if self._visible(owner):
                found.extend(log.rows(table))
        found.sort(key=lambda row: (row.owner, row.key))
        return found

    def log(self, owner: str) -> Log | None:
        return self.own if owner == self.own.owner else self._logs.get(owner)

    def logs(self) -> list[Log]:
        return [self.own, *self._logs.values()]

    def snapshot(self) -> dict[str, Version]:
        return {owner: log.version for owner, log in self._logs.items()}

    def _visible(self, owner: str) -> bool:
        peer = self.kernel.members.get(owner)
        return peer is not None and peer.live

    def member_changed(self, id: str) -> None:
        """A member appeared, came back, or is gone: its rows are shown or hidden."""
        self.acks.members_changed()
        log = self._logs.get(id)
        self._update_digest(id)
        if log is not None and (log.entries or log.watermark):
            self.kernel.effects.append(RowsChanged())

    def process(self, id: str, epoch: int) -> None:
        """That member runs as this process now."""
        self.acks.forget_peer(id)
        log = self._logs.get(id)
        if log is not None:
            self._switch(log, epoch)
        self._update_digest(id)

    def forget(self, id: str) -> None:
        self._logs.pop(id, None)
        self._repairs.pop(id, None)
        self.acks.forget_owner(id)

    def orphans(self) -> list[str]:
        return [owner for owner in self._logs if self.kernel.members.get(owner) is None]

    def _log(self, owner: str) -> Log | None:
        """The log of that owner, made when missing; rows may come before their owner's membership does."""
        log = self._logs.get(owner)
        if log is None:
            peer = self.kernel.members.get(owner)
            if peer is None and len(self._logs) > len(self.kernel.members) + self.kernel.config.unknown_limit:
                return None
            log = self._logs[owner] = Log(owner, peer.epoch if peer is not None else 0)
        return log

    def _switch(self, log: Log, epoch: int) -> None:
        if not log.switch(epoch):
            return
        if not self._visible(log.owner):
            log.drop_stale()  # its host was gone: nothing on screen to keep from blinking, and those tasks ended
        else:
            self.kernel.timers.after(self.kernel.config.takeover_grace, self._end_grace, log, epoch)

    def _end_grace(self, log: Log, epoch: int) -> None:
        if log.epoch == epoch and log.drop_stale() and self._visible(log.owner):
            self.kernel.effects.append(RowsChanged())

    def _update_digest(self, owner: str) -> None:
        kernel = self.kernel
        peer = kernel.members.get(owner)
        if peer is None:
            kernel.digest.drop(owner)
        elif peer.live:
            log = self._logs.get(owner)
            watermark = log.watermark if log is not None and log.epoch == peer.epoch else 0
            kernel.digest.put(owner, peer.info, peer.epoch, watermark)
        else:
            kernel.digest.drop(owner)

    # -- messages

    def on_record(self, record: m.Record, sender: str) -> None:
        kernel = self.kernel
        if record.owner == self.own.owner:
            if record.epoch > self.own.epoch:
                self.restamp(record.epoch + 1)
            return
        log = self._log(record.owner)
        if log is None:
            return
        self._switch(log, record.epoch)
        news, changed = log.merge_record(record)
        if not news:
            return
        kernel.counters["rows_received"] += 1
        for old in record.replaces:
            kernel.queue.cancel(("row", record.owner, old))
        skip = frozenset((sender, record.owner))
        kernel.broadcast(("row", record.owner, record.seq), "", Rank.RELAYED, record, skip)
        self._after_merge(log, changed)

    def on_delta(self, delta: m.Delta) -> None:
        if delta.owner == self.own.owner:
            if delta.epoch > self.own.epoch:
                self.restamp(delta.epoch + 1)
            return
        log = self._log(delta.owner)
        if log is None:
            return
        self._switch(log, delta.epoch)
        news, changed = log.merge_delta(delta)
        if news or changed:
            self.kernel.counters["rows_repaired"] += len(delta.rows)
            self._after_merge(log, changed)

    def _after_merge(self, log: Log, changed: bool) -> None:
        log.trim(self.kernel.config.tombstone_limit)
        self._update_digest(log.owner)
        # Without a visible change too: the host acknowledges versions, and some change nothing for it.
        if self._visible(log.owner):
            self.kernel.effects.append(RowsChanged())
        self._repair(log)

    def on_pull(self, pull: m.Pull, to: Address | None) -> list[m.Message]:
        """Answer by packet to that address, or by the returned messages when the question came by stream."""
        log = self.log(pull.owner)
        if log is None or log.version <= (pull.epoch, pull.have):
            return []
        delta = log.delta_since(pull.epoch, pull.have)
        if to is None:
            return [delta]
        if len(m.encode(delta)) + m.PACKET_FRAME <= self.kernel.room():
            self.kernel.send(to, delta)
        else:
            self.kernel.send(to, m.TooBig(pull.owner))
        return []

    def on_too_big(self, owner: str, sender: Peer) -> None:
        log = self._logs.get(owner)
        if log is None or not log.behind or owner in self._pulling or len(self._pulling) >= MAX_PULLS:
            return
        self._pulling.add(owner)
        pull = m.Pull(owner, log.epoch, log.watermark)
        self.kernel.open_stream(StreamKind.PULL, sender.address, sender.id, [pull])

    def pull_ended(self, request: bytes) -> None:
        for message in m.unpack(request, m.STREAM_FRAME)[1]:
            if isinstance(message, m.Pull):
                self._pulling.discard(message.owner)

    # -- repair

    def heard_version(self, owner: str, epoch: int, sequence: int) -> None:
        """Somebody who must know says that the owner's rows have this version."""
        version = Version(epoch, sequence)
        if owner == self.own.owner or sequence == 0:
            return
        log = self._logs.get(owner)
        if log is None:
            log = self._log(owner)
            if log is None:
                return
        if version > log.heard:
            log.heard = version
        self._repair(log)

    def _repair(self, log: Log) -> None:
        if log.behind and log.owner not in self._repairs:
            repair = self._repairs[log.owner] = _Repair(self.kernel.config.repair_delay)
            self.kernel.timers.after(repair.pause, self._ask, log.owner, repair)

    def _ask(self, owner: str, repair: _Repair) -> None:
        kernel = self.kernel
        if self._repairs.get(owner) is not repair:
            return
        log = self._logs.get(owner)
        holder = kernel.members.get(owner)
        gone = holder is None or not holder.live
        if log is None or not log.behind or (gone and repair.tries >= GIVE_UP_DEAD):
            if log is not None and gone:
                log.heard = log.version  # nobody left to know more
            del self._repairs[owner]
            return
        if gone or holder is None or repair.tries % 3 == 2:
            picked = kernel.members.pick(1, {owner})
            holder = picked[0] if picked else None
        if holder is not None:
            kernel.counters["pulls"] += 1
            kernel.tell(holder, m.Pull(owner, log.epoch, log.watermark))
        repair.tries += 1
        repair.pause = min(repair.pause * 2, kernel.config.repair_max)
        kernel.timers.after(repair.pause, self._ask, owner, repair)

    # -- diagnosis

    def explain(self, table: str, key: str, owner: str) -> str:
        """Why a row is, or is not, in rows(table) here. For people."""
        name = f"row {key!r} of table {table!r} by {owner}"
        log = self.log(owner)
        peer = self.kernel.members.get(owner)
        if log is None:
            known = (
                "is no known member"
                if peer is None
                else f"is {peer.state.name.lower()} and has published nothing that came here"
            )
            return f"{name} is missing: {owner} {known}."
        version = f"{log.watermark} of {log.heard.sequence} changes of process {log.epoch}"
        entry = log.entries.get((table, key))
        if entry is None:
            hint = (
                "it was never published, or withdrawn long ago" if not log.behind else "it may be in those not yet here"
            )
            return f"{name} is missing: this node has {version}; {hint}."
        place = f"change {entry.sequence} of process {entry.epoch}"
        if entry.value is None:
            return f"{name} is missing: {owner} withdrew it with {place}."
        if owner != self.own.owner and not self._visible(owner):
            state = "not a known member" if peer is None else State(peer.state).name.lower()
            return f"{name} is hidden: {owner} is {state}; it is here as {place} and shows when {owner} returns."
        stale = (
            " It is of an earlier process, kept until the new one has published all." if entry.epoch < log.epoch else ""
        )
        behind = " This node waits for newer changes." if log.behind else ""
        return f"{name} is visible: {place}; this node has {version}.{stale}{behind}"

    def held(self) -> dict[str, int]:
        rows = sum(1 for log in self.logs() for entry in log.entries.values() if entry.value is not None)
        return {
            "rows": rows,
            "owners": len(self._logs) + 1,
            "repairs": len(self._repairs),
            "pulls_running": len(self._pulling),
        }

    def row_keys(self, owner: str) -> list[Key]:
        log = self.log(owner)
        return (
            []
            if log is None
            else sorted(key for key, e in log.entries.items() if e.value is not None and key != BASELINE)
        )
