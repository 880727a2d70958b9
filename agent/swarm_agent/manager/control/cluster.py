"""The cluster's settings: what `swarm init` starts with, and what `swarm update` changes (swarm.md §1.2)."""

from __future__ import annotations

import datetime
import random

from msgspec.structs import replace

from swarm_agent.model.errors import NO_SWARM, BadRequest, InvalidArgument, Unavailable
from swarm_agent.model.extensions import REBALANCE
from swarm_agent.model.objects import Cluster, JoinTokens, Version
from swarm_agent.model.specs import SwarmSpec
from swarm_agent.model.times import SECOND
from swarm_agent.pki.authority import one_root
from swarm_agent.pki.locking import KEY_SIZE, format_unlock_key
from swarm_agent.pki.tokens import new_token
from swarm_agent.store.tx import Tx
from swarm_agent.store.view import Reader

from . import roots

HISTORY_LIMIT = 5
SNAPSHOT_INTERVAL = 10_000
SLOW_FOLLOWER_ENTRIES = 500
ELECTION_TICK = 10
HEARTBEAT_TICK = 1
HEARTBEAT_PERIOD = 5 * SECOND
CERT_EXPIRY = 90 * 24 * 3600 * SECOND
MIN_CERT_EXPIRY = 3600 * SECOND


def get_cluster(view: Reader) -> Cluster:
    """The one cluster object. Raises Unavailable when the store does not hold it yet."""
    for cluster in view.all(Cluster):
        return cluster
    raise Unavailable(NO_SWARM)


def complete_spec(spec: SwarmSpec) -> SwarmSpec:
    """The spec of a new cluster: what the client left out gets Swarm's defaults. Raises BadRequest, InvalidArgument."""
    orchestration, raft = spec.orchestration, spec.raft
    if orchestration.task_history_retention_limit is None:
        orchestration = replace(orchestration, task_history_retention_limit=HISTORY_LIMIT)
    if raft.keep_old_snapshots is None:
        raft = replace(raft, keep_old_snapshots=0)
    return _checked(replace(spec, orchestration=orchestration, raft=raft))


def update_cluster(
    tx: Tx,
    version: int,
    spec: SwarmSpec,
    rng: random.Random,
    *,
    rotate_worker_token: bool = False,
    rotate_manager_token: bool = False,
    rotate_unlock_key: bool = False,
) -> Cluster:
    """Replace the spec and rotate tokens, unlock key and root. Clients send the whole spec; zero values mean the
    defaults, as in Swarm.

    Raises OutOfSequence, BadRequest, InvalidArgument.
    """
    cluster = get_cluster(tx)
    orchestration, raft = spec.orchestration, spec.raft
    spec = replace(
        spec,
        orchestration=replace(
            orchestration, task_history_retention_limit=orchestration.task_history_retention_limit or 0
        ),
        raft=replace(raft, keep_old_snapshots=raft.keep_old_snapshots or 0),
    )
    spec = _checked(spec)
    cluster = roots.with_root_of(cluster, spec.ca_config, datetime.datetime.fromisoformat(tx.now))
    spec = replace(spec, ca_config=roots.public_ca(spec.ca_config))
    locks = spec.encryption_config.auto_lock_managers
    keep = locks and cluster.unlock_key and not rotate_unlock_key
    unlock_key = cluster.unlock_key if keep else next_unlock_key(locks, rng)
    tokens = cluster.join_tokens or JoinTokens()
    if rotate_worker_token:
        tokens = replace(tokens, worker=new_token(cluster.ca_cert, rng))
    if rotate_manager_token:
        tokens = replace(tokens, manager=new_token(cluster.ca_cert, rng))
    return tx.update(
        replace(cluster, spec=spec, join_tokens=tokens, unlock_key=unlock_key, version=Version(index=version))
    )


def next_unlock_key(locks: bool, rng: random.Random) -> str:
    """A fresh unlock key, or nothing for managers that do not lock."""
    return format_unlock_key(rng.randbytes(KEY_SIZE)) if locks else ""


def _checked(spec: SwarmSpec) -> SwarmSpec:
    """The spec with defaults for its zero values. Raises when it cannot be accepted."""
    if spec.name not in ("", "default"):
        raise BadRequest('swarm spec must be named "default"')
    if spec.labels.get(REBALANCE, "off") not in ("auto", "off"):
        raise InvalidArgument(f"label {REBALANCE}: {spec.labels[REBALANCE]!r} is neither auto nor off")
    ca = spec.ca_config
    for external in ca.external_cas:
        if external.protocol.lower() != "cfssl":
            raise BadRequest(f'invalid protocol: "{external.protocol}"')
        if not external.url.startswith(("https://", "http://")):
            raise InvalidArgument(f"invalid external CA URL: {external.url!r}")
        if external.ca_cert.strip():
            one_root(external.ca_cert)
    if ca.node_cert_expiry and ca.node_cert_expiry < MIN_CERT_EXPIRY:
        raise InvalidArgument("minimum certificate expiry time is: 1h0m0s")
    if spec.dispatcher.heartbeat_period < 0:
        raise InvalidArgument("heartbeat time period cannot be a negative duration")
    raft = spec.raft
    return replace(
        spec,
        name="default",
        raft=replace(
            raft,
            snapshot_interval=raft.snapshot_interval or SNAPSHOT_INTERVAL,
            log_entries_for_slow_followers=raft.log_entries_for_slow_followers or SLOW_FOLLOWER_ENTRIES,
            election_tick=raft.election_tick or ELECTION_TICK,
            heartbeat_tick=raft.heartbeat_tick or HEARTBEAT_TICK,
        ),
        dispatcher=replace(spec.dispatcher, heartbeat_period=spec.dispatcher.heartbeat_period or HEARTBEAT_PERIOD),
        ca_config=replace(ca, node_cert_expiry=ca.node_cert_expiry or CERT_EXPIRY),
    )
