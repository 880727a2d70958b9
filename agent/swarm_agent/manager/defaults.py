"""Swarm's defaults for what a spec leaves out (reference/swarm.md §3.2).

Specs are stored as they were given; whoever acts on one reads it through these functions. Durations are nanoseconds.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeVar

from swarm_agent.model.objects import Cluster, Service
from swarm_agent.model.specs import TaskSpec, UpdateConfig
from swarm_agent.model.times import SECOND

RESTART_DELAY = 5 * SECOND
MONITOR = 5 * SECOND
STOP_GRACE_PERIOD = 10 * SECOND
TASK_HISTORY_LIMIT = 5
STOP_TIMEOUT = 60 * SECOND
"""How long a replacement waits for its predecessor to stop before it is started all the same (SwarmKit's figure)."""


class Condition(enum.StrEnum):
    """When a task that ended is replaced."""

    NONE = "none"
    ON_FAILURE = "on-failure"
    ANY = "any"


class FailureAction(enum.StrEnum):
    """What an update does when too many of its tasks fail."""

    PAUSE = "pause"
    CONTINUE = "continue"
    ROLLBACK = "rollback"


class Order(enum.StrEnum):
    """Whether an update stops the old task before or after it starts the new one."""

    STOP_FIRST = "stop-first"
    START_FIRST = "start-first"


@dataclass(frozen=True, slots=True)
class Restart:
    """A restart policy. `attempts` and `window` 0: without limit; over the whole history."""

    condition: Condition
    delay: int
    attempts: int
    window: int


@dataclass(frozen=True, slots=True)
class Update:
    """How a service is updated. `parallelism` 0: all slots at once."""

    parallelism: int
    delay: int
    failure_action: FailureAction
    monitor: int
    max_failure_ratio: float
    order: Order

    @property
    def watch(self) -> int:
        """How long an update goes on after its last slot: the monitor period, but longer than the delay."""
        return self.monitor if self.delay < self.monitor else self.delay + SECOND


E = TypeVar("E", bound=enum.StrEnum)


def _known(kind: type[E], value: str, default: E) -> E:
    """The member of this value. The API refuses unknown ones; if one is stored all the same, the default keeps the
    loops going."""
    try:
        return kind(value)
    except ValueError:
        return default


_DEFAULT_UPDATE = UpdateConfig(parallelism=1)


def restart_policy(spec: TaskSpec) -> Restart:
    """The task's restart policy."""
    policy = spec.restart_policy
    if policy is None:
        return Restart(Condition.ANY, RESTART_DELAY, 0, 0)
    return Restart(
        condition=_known(Condition, policy.condition, Condition.ANY),
        delay=RESTART_DELAY if policy.delay is None else policy.delay,
        attempts=policy.max_attempts or 0,
        window=policy.window or 0,
    )


def update_config(service: Service, *, rollback: bool = False) -> Update:
    """How the service is updated or rolled back."""
    config = (service.spec.rollback_config if rollback else service.spec.update_config) or _DEFAULT_UPDATE
    return Update(
        parallelism=config.parallelism,
        delay=config.delay,
        failure_action=_known(FailureAction, config.failure_action, FailureAction.PAUSE),
        monitor=config.monitor or MONITOR,
        max_failure_ratio=config.max_failure_ratio,
        order=_known(Order, config.order, Order.STOP_FIRST),
    )


def history_limit(cluster: Cluster | None, spec: TaskSpec) -> int:
    """How many tasks a slot keeps, the live one included; negative: all. A service that counts its restart attempts
    keeps what it needs to count them."""
    attempts = restart_policy(spec).attempts
    if attempts:
        return attempts + 1
    limit = None if cluster is None else cluster.spec.orchestration.task_history_retention_limit
    return TASK_HISTORY_LIMIT if limit is None else limit
