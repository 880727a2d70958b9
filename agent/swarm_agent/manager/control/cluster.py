"""The cluster's settings: what `swarm init` starts with, and what `swarm update` changes (swarm.md §1.2)."""

from __future__ import annotations

import random

from msgspec.structs import replace

from swarm_agent.model.errors import NO_SWARM, BadRequest, InvalidArgument, Unavailable, Unimplemented
from swarm_agent.model.objects import Cluster, JoinTokens, Version
from swarm_agent.model.specs import SwarmSpec
from swarm_agent.model.times import SECOND
from swarm_agent.pki.tokens import new_token
from swarm_agent.store.tx import Tx
from swarm_agent.store.view import Reader

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
) -> Cluster:
    """Replace the spec and rotate tokens. Clients send the whole spec; zero values mean the defaults, as in Swarm.

    Raises OutOfSequence, BadRequest, InvalidArgument, Unimplemented.
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
    if spec.ca_config.force_rotate != cluster.spec.ca_config.force_rotate:
        raise Unimplemented("rotating the root certificate is not supported by this version")
    tokens = cluster.join_tokens or JoinTokens()
    if rotate_worker_token:
        tokens = replace(tokens, worker=new_token(cluster.ca_cert, rng))
    if rotate_manager_token:
        tokens = replace(tokens, manager=new_token(cluster.ca_cert, rng))
    return tx.update(replace(cluster, spec=spec, join_tokens=tokens, version=Version(index=version)))


def _checked(spec: SwarmSpec) -> SwarmSpec:
    """The spec with defaults for its zero values. Raises when it cannot be accepted."""
    if spec.name not in ("", "default"):
        raise BadRequest('swarm spec must be named "default"')
    ca = spec.ca_config
    for external in ca.external_cas:
        if external.protocol.lower() != "cfssl":
            raise BadRequest(f'invalid protocol: "{external.protocol}"')
    if ca.external_cas:
        raise Unimplemented("external certificate authorities are not supported by this version")
    if ca.signing_ca_cert or ca.signing_ca_key:
        raise Unimplemented("bringing an own root certificate is not supported by this version")
    if ca.node_cert_expiry and ca.node_cert_expiry < MIN_CERT_EXPIRY:
        raise InvalidArgument("minimum certificate expiry time is: 1h0m0s")
    if spec.dispatcher.heartbeat_period < 0:
        raise InvalidArgument("heartbeat time period cannot be a negative duration")
    if spec.encryption_config.auto_lock_managers:
        raise Unimplemented("locking managers is not supported by this version")
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
