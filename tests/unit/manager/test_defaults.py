"""Swarm's defaults (reference/swarm.md §3.2), and how much history is kept."""

from __future__ import annotations

import pytest

from swarm_agent.manager.defaults import (
    Condition,
    FailureAction,
    Order,
    Restart,
    Update,
    history_limit,
    restart_policy,
    update_config,
)
from swarm_agent.model.objects import Cluster, Service
from swarm_agent.model.specs import OrchestrationConfig, RestartPolicy, ServiceSpec, SwarmSpec, TaskSpec, UpdateConfig
from swarm_agent.model.times import SECOND


@pytest.mark.parametrize("policy", [None, RestartPolicy()])
def test_tasks_are_restarted_always_after_five_seconds(policy: RestartPolicy | None) -> None:
    wanted = Restart(Condition.ANY, delay=5 * SECOND, attempts=0, window=0)
    assert restart_policy(TaskSpec(restart_policy=policy)) == wanted


@pytest.mark.parametrize("rollback", [False, True])
@pytest.mark.parametrize(("config", "parallelism"), [(None, 1), (UpdateConfig(), 0)])
def test_updates_and_rollbacks_go_one_by_one_stop_first_and_pause_at_the_first_failure(
    config: UpdateConfig | None, parallelism: int, rollback: bool
) -> None:
    service = Service(id="s", spec=ServiceSpec(update_config=config, rollback_config=config))
    assert update_config(service, rollback=rollback) == Update(
        parallelism=parallelism,  # of a config that names none: all at once
        delay=0,
        failure_action=FailureAction.PAUSE,
        monitor=5 * SECOND,
        max_failure_ratio=0,
        order=Order.STOP_FIRST,
    )


@pytest.mark.parametrize(
    ("limit", "attempts", "kept"), [(None, 0, 5), (2, 0, 2), (-1, 0, -1), (5, 1, 2), (5, 9, 10), (-1, 3, 4)]
)
def test_history_is_the_cluster_s_limit_or_one_more_than_the_attempts(
    limit: int | None, attempts: int, kept: int
) -> None:
    cluster = Cluster(spec=SwarmSpec(orchestration=OrchestrationConfig(task_history_retention_limit=limit)))
    assert history_limit(cluster, TaskSpec(restart_policy=RestartPolicy(max_attempts=attempts))) == kept
