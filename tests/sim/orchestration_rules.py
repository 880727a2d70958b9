"""What must hold after every single write, whatever happens to a cluster (see test_orchestration_sim.py)."""

from __future__ import annotations

from collections import Counter

from swarm_agent.manager.defaults import Order, update_config
from swarm_agent.manager.nodeset import is_active
from swarm_agent.manager.tasks import Mode, has_ended, is_live, iteration_of, mode_of
from swarm_agent.model.extensions import OVERLAP, schedule
from swarm_agent.model.objects import Node, Service, Task
from swarm_agent.model.states import TaskState as S
from swarm_agent.model.times import SECOND, parse_rfc3339
from swarm_agent.store.view import Change

from .orchestration_world import World


def check_states(changes: list[Change]) -> None:
    """Observed and desired states only rise, and a task stays what it is and where it is."""
    for change in changes:
        if change.kind is Task and change.old is not None and change.new is not None:
            old, new = change.old, change.new
            assert new.desired_state.rank >= old.desired_state.rank, f"desired state of {old.id} fell"
            assert new.status.state.rank >= old.status.state.rank, f"state of {old.id} fell"
            assert (new.slot, new.spec, new.spec_version) == (old.slot, old.spec, old.spec_version), old.id
            assert old.node_id in ("", new.node_id), f"task {old.id} moved"


class Rules:
    """Rules that need the state around a change. `calm`: nothing fails and no node is lost, so tasks may be counted
    strictly."""

    def __init__(self, world: World, *, calm: bool = False, counting: bool = False) -> None:
        """`counting`: replicas per node are counted too (where the real scheduler places)."""
        self._world = world
        self._counting = counting
        self._calm = calm
        self._full: dict[str, int] = {}

    def check(self, changes: list[Change]) -> None:
        """To be called with each applied entry."""
        check_states(changes)
        self._check_forgotten(changes)
        self._check_overlap(changes)
        view = self._world.store.view()
        touched = {(it.new or it.old).service_id: None for it in changes if it.kind is Task}
        created = {it.new.service_id for it in changes if it.kind is Task and it.old is None}
        for service_id in touched:
            service = view.get(Service, service_id)
            if service is None:
                continue
            tasks = view.find(Task, service_id=service_id)
            self._check_slots(service, tasks, service_id in created)
            self._check_pace(service, tasks)
            self._check_max_replicas(service, tasks)
            if mode_of(service) in (Mode.REPLICATED, Mode.GLOBAL):
                self._check_parallelism(service, tasks)
            if self._calm:
                self._check_health(service, tasks)

    def _check_forgotten(self, changes: list[Change]) -> None:
        """A task leaves the store only when its node is known to run it no more. (Its end may be in the same entry,
        unseen.)"""
        for change in changes:
            if change.kind is Task and change.new is None and not has_ended(change.old):
                runs = any(change.id in host.containers for host in self._world.hosts.values())
                assert not runs, f"task {change.id} was forgotten while it runs"

    def _check_overlap(self, changes: list[Change]) -> None:
        """A job's schedule starts no run beside the one before, unless it may replace that. (Runs that an update left
        behind are none of its business.)"""
        before = {change.old.id: change.old for change in changes if change.kind is Task and change.old is not None}
        for change in changes:
            if change.kind is not Service or change.old is None or change.new is None:
                continue
            old, new = change.old, change.new
            started = iteration_of(new) > iteration_of(old) == old.released and new.scheduled_to != old.scheduled_to
            if not started or new.spec.labels.get(OVERLAP) == "replace":
                continue
            for task in self._world.store.view().find(Task, service_id=new.id):
                was = before.get(task.id, task)
                of_old_run = was.job_iteration is not None and was.job_iteration.index == old.released
                assert not (of_old_run and is_live(was) and not has_ended(was) and not has_ended(task)), (
                    f"job {new.id[:4]} was started while task {task.id} of the run before was under way"
                )

    def _check_slots(self, service: Service, tasks: list[Task], created: bool) -> None:
        mode = mode_of(service)
        live = [task for task in tasks if is_live(task) and not has_ended(task)]
        slots = Counter(task.node_id if mode.is_per_node else task.slot for task in live)
        order = update_config(service).order
        most = 1 if mode.is_job else 3 if order is Order.START_FIRST else 2
        wanted = Counter(
            task.node_id if mode.is_per_node else task.slot for task in live if task.desired_state is S.RUNNING
        )
        crowded = [slot for slot, count in wanted.items() if count > (2 if order is Order.START_FIRST else 1)]
        assert not crowded, f"slots {crowded} of {service.id[:4]} have more than may run"
        assert all(count <= most for count in slots.values()), f"a slot of {service.id[:4]} is crowded: {slots}"
        if created:
            rising = Counter(
                task.node_id if mode.is_per_node else task.slot for task in live if task.status.state is not S.RUNNING
            )
            assert all(count == 1 for count in rising.values()), (
                f"several come up in slots {rising} of {service.id[:4]}"
            )
        if created and mode is Mode.REPLICATED:
            replicas = (service.spec.mode.replicated.replicas if service.spec.mode.replicated else 1) or 0
            assert len(slots) <= replicas, f"{len(slots)} slots of {service.id[:4]}, {replicas} wanted"
        if created and mode is Mode.REPLICATED_JOB and service.spec.mode.replicated_job:
            allowed = service.spec.mode.replicated_job.max_concurrent or 1
            assert len(slots) <= allowed, f"{len(slots)} runs of {service.id[:4]} at a time, {allowed} allowed"
        placement = service.spec.task_template.placement
        if self._world.placing and placement is not None and placement.max_replicas:
            per_node = Counter(task.node_id for task in live if task.node_id)
            assert all(count <= placement.max_replicas for count in per_node.values()), (
                f"too many on a node: {per_node}"
            )

    def _check_pace(self, service: Service, tasks: list[Task]) -> None:
        """A slot's task is replaced only when it had its turn: the delays of restarts add up."""
        last: dict[int | str, Task] = {}
        for task in sorted(tasks, key=lambda task: task.created_at):
            if task.desired_state is S.REMOVE:
                continue
            slot = task.node_id if mode_of(service).is_per_node else task.slot
            before = last.get(slot)
            last[slot] = task
            if before is None or (before.cause, task.cause) != ("restart", "restart"):
                continue
            if before.updated_at < task.created_at:
                continue  # it takes the place of another one, that ended only now
            early = parse_rfc3339(before.restart_after) - parse_rfc3339(task.created_at)
            # A transaction is stamped when it begins, and what it plans looks at the clock after that.
            assert early <= SECOND // 1000, f"restart {early / SECOND} s too early in slot {slot} of {service.id[:4]}"

    def _check_max_replicas(self, service: Service, tasks: list[Task]) -> None:
        """No node has more tasks of the service that are to run than it may (the simple placement does not know)."""
        placement = service.spec.task_template.placement
        if not self._counting or not self._world.placing or placement is None or not placement.max_replicas:
            return
        there = Counter(task.node_id for task in tasks if task.node_id and is_active(task) and not has_ended(task))
        assert all(count <= placement.max_replicas for count in there.values()), (
            f"more than {placement.max_replicas} tasks of {service.id[:4]} on a node: {there}"
        )

    def _check_parallelism(self, service: Service, tasks: list[Task]) -> None:
        status = service.update_status
        if status is None or not status.started_at:
            return
        config = update_config(service, rollback=status.state.startswith("rollback"))
        coming = [
            task
            for task in tasks
            if task.update == status.started_at
            and task.cause == "update"
            and is_live(task)
            and task.status.state.rank < S.RUNNING.rank
        ]
        assert not config.parallelism or len(coming) <= config.parallelism, (
            f"{len(coming)} slots of {service.id[:4]} are updated at a time, {config.parallelism} allowed"
        )

    def _check_health(self, service: Service, tasks: list[Task]) -> None:
        """From the moment it was complete, a service that is only updated never has fewer tasks running than its order
        allows, and a slot never more containers."""
        if mode_of(service) is not Mode.REPLICATED or service.spec.mode.replicated is None:
            return
        replicas = service.spec.mode.replicated.replicas or 0
        running = sum(1 for task in tasks if task.desired_state is S.RUNNING and task.status.state is S.RUNNING)
        if running == replicas:
            self._full[service.id] = replicas
        if self._full.get(service.id) != replicas:
            return
        config = update_config(service)
        parallelism = config.parallelism or replicas
        least = replicas if config.order is Order.START_FIRST else max(0, replicas - parallelism)
        assert running >= least, f"{running} tasks of {service.id[:4]} run, at least {least} should"
        start_first = config.order is Order.START_FIRST
        containers = Counter(
            task.slot
            for task in tasks
            for host in self._world.hosts.values()
            # start-first: one that is being stopped may still be there when the next update begins
            if task.id in host.containers and (is_live(task) or not start_first)
        )
        most = 2 if start_first else 1
        assert all(count <= most for count in containers.values()), f"containers in slots: {containers}"


def check_converged(world: World) -> str:
    """Empty when everything is as declared on the nodes that are up; otherwise what is not."""
    view = world.store.view()
    up = {node.id for node in view.all(Node) if node.status.state != "down"}
    for service in view.all(Service):
        tasks = [task for task in view.find(Task, service_id=service.id) if task.desired_state is not S.REMOVE]
        live = [task for task in tasks if is_live(task)]
        mode = mode_of(service)
        status = service.update_status
        if status is not None and status.state in ("updating", "rollback_started"):
            return f"{service.id[:4]} is still {status.state}"
        if mode is Mode.REPLICATED_JOB and service.spec.mode.replicated_job is not None:
            if schedule(service.spec.labels) is not None and service.released != iteration_of(service):
                continue  # it waits for its first time
            total = service.spec.mode.replicated_job.total_completions or 1
            if sorted(task.slot for task in tasks if task.status.state is S.COMPLETE) != list(range(total)):
                return f"job {service.id[:4]} has not completed"
            continue
        if mode is Mode.GLOBAL:
            where = sorted(task.node_id for task in live)
            if where != sorted(up):
                return f"{service.id[:4]} is on {where}"
        else:
            replicas = (service.spec.mode.replicated.replicas if service.spec.mode.replicated else 1) or 0
            if sorted(task.slot for task in live) != list(range(1, replicas + 1)) and len(live) != replicas:
                return f"{service.id[:4]} has {len(live)} tasks, {replicas} wanted"
        image = service.spec.task_template.container_spec
        for task in live:
            if task.status.state is not S.RUNNING or task.desired_state is not S.RUNNING or task.node_id not in up:
                return f"{task.id[:4]} does not run"
            if task.spec.container_spec != image or task.spec.force_update != service.spec.task_template.force_update:
                return f"{task.id[:4]} is outdated"
        per_slot = Counter(task.node_id if mode is Mode.GLOBAL else task.slot for task in tasks)
        if any(count > 5 for count in per_slot.values()):
            return f"{service.id[:4]} keeps too much history: {per_slot}"
    stopping = [it.id[:4] for it in view.all(Task) if not is_live(it) and not has_ended(it) and it.node_id in up]
    if stopping:
        return f"tasks still stop: {stopping}"
    known = {task.id for task in view.all(Task) if task.status.state is S.RUNNING and task.node_id in up}
    there = {task_id for host in world.hosts.values() if host.node_id in up for task_id in host.containers}
    if known != there:
        return f"containers and tasks differ: {known ^ there}"
    unknown = [it.id for it in view.all(Task) if view.get(Service, it.service_id) is None and it.node_id in up]
    return f"tasks without service: {unknown}" if unknown else ""
