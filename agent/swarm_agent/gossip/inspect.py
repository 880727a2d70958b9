"""What one node knows of each member, for people: structs for `swarmctl members`, and sentences that say why.

Pure reading of a core. Times are seconds before now, in the core's active time, so a stop of this process does not
count.
"""

from __future__ import annotations

import msgspec

from .core import Core
from .members import Peer
from .suspicion import Suspicion
from .tables import BASELINE, Log
from .types import State


class MemberView(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """One member. `rows`: those held of it; `version` of `newest` changes of its rows are here, `applied` are in this
    host's kernel and names; `acked` of our own changes are in its. `heard`: seconds since it spoke to us itself."""

    id: str
    address: str
    state: str
    incarnation: int
    since: float
    heard: float | None = None
    verdict_in: float | None = None
    accusers: list[str] = []
    flaps: float = 0.0
    stall: float = 0.0
    rows: int = 0
    version: int = 0
    newest: int = 0
    applied: int = 0
    acked: int = 0


class GossipView(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """This node and its members, itself first. `health` 0 is well; timers stretch by health + 1."""

    id: str
    health: int
    stall: float
    version: int
    queues: dict[str, int]
    counters: dict[str, int]
    members: list[MemberView]


def view(core: Core) -> GossipView:
    """Everything at once. Costs one pass over members and rows."""
    kernel = core.kernel
    me = kernel.me
    membership, own, relayed = kernel.queue.lengths()
    log = core.rows.own
    this = MemberView(
        id=me.id,
        address=_join(me.host, me.port),
        state=(State.LEFT if kernel.leaving else State.ALIVE).name.lower(),
        incarnation=me.incarnation,
        since=0.0,
        heard=0.0,
        stall=me.stall / 10,
        rows=_count(log),
        version=log.watermark,
        newest=log.watermark,
        applied=log.watermark,
        acked=log.watermark,
    )
    acked = core.rows.acks.acked()
    peers = sorted(kernel.members, key=lambda peer: peer.id)
    return GossipView(
        id=me.id,
        health=kernel.awareness.score,
        stall=me.stall / 10,
        version=log.watermark,
        queues={"membership": membership, "own": own, "relayed": relayed},
        counters=core.stats(),
        members=[this, *(_member(core, peer, acked.get(peer.id, 0)) for peer in peers)],
    )


def _member(core: Core, peer: Peer, acked: int) -> MemberView:
    kernel = core.kernel
    now = kernel.timers.now
    log = core.rows.log(peer.id)
    applied = core.rows.acks.applied(peer.id)
    suspicion = peer.suspicion
    return MemberView(
        id=peer.id,
        address=_join(peer.host, peer.port),
        state=peer.state.name.lower(),
        incarnation=peer.incarnation,
        since=round(now - peer.since, 1),
        heard=_heard(peer, now),
        verdict_in=_left(suspicion, now) if suspicion is not None else None,
        accusers=sorted(suspicion.accusers) if suspicion is not None else [],
        flaps=round(peer.flapping(now, kernel.config.flap_memory), 1),
        stall=peer.stall / 10,
        rows=_count(log) if log is not None else 0,
        version=log.watermark if log is not None else 0,
        newest=max(log.watermark, log.heard.sequence) if log is not None else 0,
        applied=applied.sequence if applied is not None and log is not None and applied.incarnation == log.epoch else 0,
        acked=acked,
    )


def explain_member(core: Core, id: str) -> list[str]:
    """Why that member is in the state that it is in here. Empty when it is not known."""
    kernel = core.kernel
    now = kernel.timers.now
    if id == kernel.me.id:
        health = f"health score {kernel.awareness.score}" + (" (well)" if not kernel.awareness.score else "")
        return [
            f"{id} is this node: {health}; it has refuted {kernel.counters['refutations']} accusations.",
            *_own(core),
        ]
    peer = kernel.members.get(id)
    if peer is None:
        return []
    heard = _heard(peer, now)
    spoke = "never spoke to this node directly" if heard is None else f"last spoke to this node {heard:.1f} s ago"
    said = [
        f"{id} at {_join(peer.host, peer.port)} is {peer.state.name.lower()} for {now - peer.since:.1f} s; it {spoke}."
    ]
    if peer.suspicion is not None:
        by = ", ".join(sorted(peer.suspicion.accusers)) or "others, by hearsay"
        said.append(f"Accused by {by}; declared dead in {_left(peer.suspicion, now):.1f} s unless it speaks.")
        if peer.accepted > peer.suspicion.start - 1:
            said.append("Its host takes connections, so it has power, but its agent does not answer.")
        if peer.away > peer.suspicion.start - 1:
            said.append("Its host refuses connections, so it has power, but its agent does not run.")
    elif peer.state is State.DEAD:
        said.append("It is called again and again; it returns with its first answer.")
    elif peer.state is State.LEFT:
        said.append("It said farewell itself: its agent left the cluster or was stopped for good.")
    if peer.stall:
        said.append(f"It stopped for up to {peer.stall / 10:.1f} s lately, so it is given more time.")
    flaps = peer.flapping(now, kernel.config.flap_memory)
    if flaps >= 0.1:
        said.append(f"It was accused wrongly lately, so it is given {1 + flaps:.1f} times the usual time.")
    log = core.rows.log(id)
    if log is not None:
        hidden = "" if peer.live else ", hidden until it returns"
        said.append(f"{_count(log)} rows of it are here, {log.watermark} of {max(log.watermark, log.heard.sequence)} "
                    f"changes{hidden}.")  # fmt: skip
    behind = core.rows.own.watermark - core.rows.acks.acked().get(id, 0)
    if peer.live and behind > 0:
        said.append(f"It has not acknowledged the last {behind} changes of this node's rows.")
    return said


def explain_key(core: Core, table: str, key: str) -> list[str]:
    """Where a row of that key is, and why not elsewhere: one sentence per owner that has or had it."""
    found = []
    for log in core.rows.logs():
        if (table, key) in log.entries:
            sentence = core.rows.explain(table, key, log.owner)
            applied = core.rows.acks.applied(log.owner)
            if log.owner == core.kernel.me.id:
                late = sorted(core.rows.acks.missing(log.entries[table, key].sequence))
                sentence += f" Not applied yet by {', '.join(late)}." if late else " All live hosts have applied it."
            elif applied is None or applied < (log.entries[table, key].epoch, log.entries[table, key].sequence):
                sentence += " This host's kernel has not applied it yet."
            found.append(sentence)
    return found


def keys_like(core: Core, table: str, prefix: str) -> list[str]:
    """Keys of that table that begin so, visible or not."""
    keys = {key for log in core.rows.logs() for (name, key) in log.entries if name == table and key.startswith(prefix)}
    return sorted(keys)


def _own(core: Core) -> list[str]:
    late = sorted(core.rows.acks.missing(core.rows.own.watermark))
    return [f"Not all of its rows are applied yet by {', '.join(late)}."] if late else []


def _left(suspicion: Suspicion, now: float) -> float:
    return round(max(0.0, suspicion.deadline - now), 1)


def _heard(peer: Peer, now: float) -> float | None:
    return None if peer.heard < 0 and now - peer.heard > 1e8 else round(now - peer.heard, 1)


def _count(log: Log) -> int:
    return sum(entry.value is not None and key != BASELINE for key, entry in log.entries.items())


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
