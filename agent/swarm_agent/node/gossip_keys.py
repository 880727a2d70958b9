"""Changes the key that gossip is encrypted with every 12 hours, without a message that somebody cannot read.

| step | keys | who can go on |
|---|---|---|
| 0 | [old] | when the key has been used for PERIOD |
| 1 | [old, new] | when every live host has both: all can read the new one |
| 2 | [new, old] | when every live host encrypts with the new one: nothing needs the old one any more |
| 0 | [new] | |

The keys are in the cluster object and reach hosts with Welcome. Each host gossips the name of the list that it holds,
so the leader sees who has which. A host that gossip takes for dead is not waited for: it gets the present keys with the
session that it needs anyway. Step and time are stored too, so another leader goes on where this one stopped.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Sequence

from msgspec.structs import replace

from swarm_agent.manager.keeper import Keeper
from swarm_agent.model import times
from swarm_agent.model.objects import ZERO_TIME, Cluster
from swarm_agent.store.store import Store
from swarm_agent.store.tx import Tx

log = logging.getLogger(__name__)

PERIOD = 12 * 3600 * times.SECOND
LOOK = 5.0  # seconds between looks; a change takes two of them
KEY_SIZE = 32


def name_of(keys: Sequence[bytes]) -> str:
    """Tells lists of keys apart without giving them away."""
    return hashlib.sha256(b"swarm gossip keys" + b"".join(keys)).hexdigest()[:16]


def encode_meta(data_path: str, keys: Sequence[bytes]) -> bytes:
    """What a host tells of itself with its membership in gossip: its data path address and the keys it holds."""
    return f"{data_path} {name_of(keys)}".encode()


def decode_meta(meta: bytes) -> tuple[str, str]:
    """Data path address and name of the keys; empty what is not told."""
    data_path, _, name = meta.decode("ascii", "replace").partition(" ")
    return data_path, name


def have_all(metas: Iterable[bytes], keys: Sequence[bytes]) -> bool:
    """Whether all hosts with these metas hold these keys."""
    wanted = name_of(keys)
    return all(decode_meta(meta)[1] == wanted for meta in metas)


def raw(cluster: Cluster) -> list[bytes]:
    """The cluster's gossip keys."""
    return [base64.b64decode(key) for key in cluster.gossip_keys]


def is_due(cluster: Cluster, now: int, period: int, settled: Callable[[Sequence[bytes]], bool]) -> bool:
    """Whether the next step may be taken. Pure, but for what `settled` looks at; times in nanoseconds."""
    if not cluster.gossip_keys or not settled(raw(cluster)):
        return False
    if cluster.gossip_step:
        return True
    since = cluster.gossip_changed_at or cluster.created_at
    return since != ZERO_TIME and now - times.parse_rfc3339(since) >= period


def next_step(cluster: Cluster, fresh: str, now: int) -> Cluster:
    """The cluster after the next step. `fresh` is a new key, base64."""
    keys = cluster.gossip_keys
    if cluster.gossip_step == 0:
        return replace(cluster, gossip_step=1, gossip_keys=[keys[0], fresh])
    if cluster.gossip_step == 1:
        return replace(cluster, gossip_step=2, gossip_keys=[keys[1], keys[0]])
    return replace(cluster, gossip_step=0, gossip_keys=keys[:1], gossip_changed_at=times.rfc3339(now))


class GossipKeys(Keeper):
    """The loop on the leader. `settled(keys)` says whether every live host holds exactly these keys."""

    NAME = "gossip-keys"

    def __init__(
        self,
        store: Store,
        settled: Callable[[Sequence[bytes]], bool],
        *,
        period: int = PERIOD,
        look: float = LOOK,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        super().__init__(store, every=look, retry=look)
        self._settled = settled
        self._period = period
        self._clock = clock

    async def look(self) -> None:
        for cluster in self._store.view().all(Cluster):
            if is_due(cluster, self._clock(), self._period, self._settled):
                step = await self._store.update(functools.partial(self._take, seen=cluster))
                if step == 0:
                    log.info("gossip is under a new key on all live hosts")

    def _take(self, tx: Tx, seen: Cluster) -> int:
        cluster = tx.get(Cluster, seen.id)
        if cluster is None or cluster.gossip_keys != seen.gossip_keys:
            return -1
        fresh = base64.b64encode(secrets.token_bytes(KEY_SIZE)).decode()
        return tx.update(next_step(cluster, fresh, self._clock())).gossip_step
