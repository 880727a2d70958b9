"""Scheduled jobs: a job service with the label `swarm.job.cron` runs when its time comes (model/cron.py; moby #23880).

Each time that is due starts the job's next iteration, so what a run is, how it is retried and what `docker service ps`
shows is as for any job. Two labels decide the doubtful cases:

    swarm.job.missed   a time passed while nobody led the cluster: `run` the last one late (the default), or `skip` it
    swarm.job.overlap  the run before is still under way: `skip` this time (the default), or `replace` the old run

Level-triggered: `Service.scheduled_to` is the time up to which the schedule was followed, so whoever leads looks what
was due since. An update of the service takes effect with the next run and ends none; a forced one runs at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from swarm_agent.model.cron import Schedule
from swarm_agent.model.extensions import MISSED, OVERLAP, schedule
from swarm_agent.model.objects import JobStatus, Service, Task, Version
from swarm_agent.model.times import SECOND, parse_rfc3339, rfc3339

from .draft import Draft
from .tasks import has_ended, is_live, iteration_of

ON_TIME = 60 * SECOND
"""A run that starts at most so late was not missed: the leader may have changed just then."""


@dataclass(frozen=True, slots=True)
class Due:
    """What is due. `at`: the last due time; `run`: whether it starts a run; `why_not` says why it does not."""

    at: int
    run: bool
    why_not: str = ""


def what_is_due(plan: Schedule, labels: Mapping[str, str], *, since: int, now: int, busy: bool) -> Due | None:
    """The decision at `now` (all times ns), None when nothing was due after `since`. `busy`: a run is under way."""
    at = plan.last_before(since, now)
    if at is None:
        return None
    if now - at > ON_TIME and labels.get(MISSED) == "skip":
        return Due(at, run=False, why_not="it was missed")
    if busy and labels.get(OVERLAP) != "replace":
        return Due(at, run=False, why_not="the run before was still under way")
    return Due(at, run=True)


def follow_schedule(draft: Draft) -> bool:
    """Start the run that is due, if one is. True when tasks of the present iteration may be made: always for a job
    without a schedule."""
    service = draft.service
    assert service is not None
    plan = schedule(service.spec.labels)
    if plan is None:
        return True
    present = iteration_of(service)
    busy = service.released == present and any(is_under_way(task) for task in draft.tasks.values())
    due = what_is_due(plan, service.spec.labels, since=followed_to(service), now=draft.now, busy=busy)
    if due is not None:
        service = draft.change_service(scheduled_to=rfc3339(due.at))
        if due.run:
            present += 1
            job = JobStatus(job_iteration=Version(index=present), last_execution=draft.now_text)
            service = draft.change_service(released=present, job_status=job)
    following = plan.next_after(draft.now)
    if following is not None:
        draft.wake_at(following)
    return service.released == present


def followed_to(service: Service) -> int:
    """The time (ns) up to which the service's schedule was followed."""
    return parse_rfc3339(service.scheduled_to or service.created_at)


def is_under_way(task: Task) -> bool:
    """A job's task on its way to completion."""
    return is_live(task) and not has_ended(task)
