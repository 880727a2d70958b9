"""The driver of one task: asks `machine.decide` for the next step and carries it out, until the task is removed.

One asyncio task per cluster task. It sleeps on `_changed`, which the worker sets when the assignment changed or the
engine said something of the container. Two errors are no fault of the task: an engine that is away (wait for it, then
choose the step again) and a preparation that became pointless because the task is to stop.
Traps: sights of a container can arrive out of order (our own look and one caused by an event), so each look takes a
number before it asks and an older answer never replaces a newer one. A create call is never cancelled: it would leave
a container that nobody knows.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import msgspec

from swarm_agent.model.objects import Config, Network, Node, Secret, Task, TaskStatus
from swarm_agent.model.rows import EndpointRow
from swarm_agent.model.specs import ContainerSpec
from swarm_agent.model.states import TaskState
from swarm_agent.model.times import rfc3339

from . import container, machine, templates
from .engine import EngineApi, EngineError, EngineGone
from .files import FilesError, FileStore, MissingDependency, plan_files
from .gotemplate import TemplateError
from .interfaces import Endpoints, TaskNetworks
from .machine import Decision, Facts, Step
from .observe import HealthState, Life, View, container_status, default_gateway, endpoint_row, port_status, view_of
from .pull import Puller
from .traffic import LISTEN_PATIENCE, SERVE_PATIENCE, Traffic

log = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_SECONDS = 1.0  # between attempts of a stop or a removal that the engine refuses


class PrepareError(Exception):
    """The container cannot be made; the text is the task's error."""


class _Interrupted(Exception):
    """The task is not wanted any more."""


@dataclass(slots=True)
class Host:
    """What all runners of a host share."""

    engine: EngineApi
    networks: TaskNetworks
    endpoints: Endpoints
    files: FileStore
    puller: Puller
    traffic: Traffic
    hostname: str
    node: Node
    clock: Callable[[], int]
    resolvers: Callable[[Task], list[str]]
    changed: Callable[[Runner], None]
    engine_lost: Callable[[], None]
    # Set while the engine is reachable and all containers were looked at since it came.
    up: asyncio.Event = field(default_factory=asyncio.Event)
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    configs: Mapping[str, Config] = field(default_factory=dict)
    complete: bool = False  # a manager has told all that this node must run
    longest_grace: int | None = None  # seconds; shortens every task's own grace period while the host leaves
    background: set[asyncio.Task[Any]] = field(default_factory=set)

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run beside the caller; kept until done, and cancelled when the worker stops."""
        task = asyncio.create_task(work, name=name)
        self.background.add(task)
        task.add_done_callback(self.background.discard)
        return task


class Runner:
    """One task on this host. `status` is what was last observed and reported."""

    def __init__(self, host: Host, task: Task, status: TaskStatus) -> None:
        self.host = host
        self.task = task
        self.status = status
        self.view: View | None = None
        self.row: EndpointRow | None = None  # as activated
        self.unhealthy = False
        self.leaving = False
        self._changed = asyncio.Event()
        self._tickets = itertools.count(1)
        self._shown = 0

    # --- what the worker tells ----------------------------------------------------------------------------------------

    def assign(self, task: Task) -> None:
        """The task as a manager has it now. A manager may know more than we do (it rejected or orphaned the task)."""
        self.task = task
        if task.status.state.rank > self.status.state.rank:
            self.status = task.status
        self.wake()

    def leave(self) -> None:
        """The task is gone from the cluster: end it and remove all that is left of it."""
        self.leaving = True
        self.wake()

    def wake(self) -> None:
        self._changed.set()

    def see(self, view: View | None) -> None:
        """A sight of the container that is newer than all before."""
        self._shown = next(self._tickets)
        self.view = view
        self.wake()

    async def look(self, container_id: str | None = None, *, cut_off: str = "") -> None:
        """Ask the engine how the container is. `cut_off`: what ended it from outside, if it has ended."""
        known = container_id or (self.view.id if self.view else None)
        if known is None:
            return
        ticket = next(self._tickets)
        try:
            view: View | None = view_of(await self.host.engine.inspect(known))
        except EngineGone:
            raise
        except EngineError as error:
            if error.status != 404:
                raise
            view = None
        if ticket <= self._shown:
            return
        self._shown = ticket
        if view is not None and view.life is Life.ENDED:
            known_cause = self.view.cut_off if self.view is not None else ""
            view = replace(view, cut_off=known_cause or cut_off)
        self.view = view
        self.wake()

    # --- the loop -----------------------------------------------------------------------------------------------------

    @property
    def unwanted(self) -> bool:
        return self.leaving or self.task.desired_state.rank >= TaskState.SHUTDOWN.rank

    def facts(self) -> Facts:
        return Facts(
            state=self.status.state,
            desired=self.task.desired_state,
            container=self.view,
            networked=container.attaches(self.task),
            announced=self.row is not None,
            active=self.row is not None and self.row.active,
            unhealthy=self.unhealthy,
        )

    async def run(self) -> None:
        """Returns when the task left and nothing of it remains."""
        while True:
            await self.host.up.wait()
            self._changed.clear()
            try:
                if self.leaving:
                    await self._remove()
                    return
                decision = machine.decide(self.facts())
                if decision.step is Step.WAIT:
                    await self._changed.wait()
                else:
                    await self._carry_out(decision)
            except EngineGone as error:
                log.info("task %s: waiting for the engine: %s", self.task.id, error)
                self.host.engine_lost()
            except _Interrupted:
                continue
            except Exception as error:
                await self._fault(error)

    async def _fault(self, error: Exception) -> None:
        """A step failed in a way that nobody foresaw: the task fails, visibly; what cannot fail is tried again."""
        log.exception("task %s (%s): unexpected error", self.task.id, self.task.name)
        if self.leaving or self.unwanted or self.status.state.is_terminal:
            await asyncio.sleep(RETRY_SECONDS)
        else:
            self._report(machine.failed(self.status.state, f"{type(error).__name__}: {error}"))

    async def _carry_out(self, decision: Decision) -> None:
        match decision.step:
            case Step.REPORT:
                self._report(decision)
            case Step.PREPARE:
                await self._prepare(decision)
            case Step.START:
                await self._start()
            case Step.ANNOUNCE:
                # Not waited for: a host that is slow to hear of it must not delay the start. The call is made before
                # the next step's calls, since every step that can follow first gives up its turn.
                assert self.view is not None
                self.row = endpoint_row(self.task, self.view, active=False)
                self.host.spawn(self.host.endpoints.activate(self.row), f"announce {self.task.id}")
            case Step.ACTIVATE:
                assert self.view is not None
                await self._activate(self.view)
            case Step.WITHDRAW:
                await self._withdraw()
            case Step.STOP:
                await self._stop()
            case Step.STOP_UNHEALTHY:
                log.info("task %s (%s): unhealthy, stopping it", self.task.id, self.task.name)
                self.unhealthy = True
                await self._stop()
            case Step.WAIT:
                raise AssertionError("waiting is the loop's")

    def _report(self, decision: Decision) -> None:
        assert decision.state is not None
        status = TaskStatus(
            timestamp=rfc3339(self.host.clock()),
            state=decision.state,
            message=decision.message,
            err=decision.err,
        )
        if decision.state.rank >= TaskState.STARTING.rank:
            status = msgspec.structs.replace(
                status,
                container_status=container_status(self.view) or self.status.container_status,
                port_status=port_status(self.view),
            )
        self.status = status
        if decision.err or decision.state in (TaskState.RUNNING, TaskState.COMPLETE, TaskState.SHUTDOWN):
            log.info("task %s (%s): %s %s", self.task.id, self.task.name, decision.state, decision.err)
        self.host.changed(self)

    # --- preparing ----------------------------------------------------------------------------------------------------

    async def _prepare(self, after: Decision) -> None:
        try:
            spec = self.task.spec.container_spec
            if spec is None:
                raise PrepareError("this node runs containers only; the task has no container spec")
            values = templates.context(self.task, self.host.node, self.host.hostname)
            try:
                spec = templates.expand_spec(spec, values)
            except TemplateError as error:
                rejected = machine.failed(self.status.state, str(error))
                self._report(replace(rejected, message="resolving controller failed"))
                return
            if self.view is not None and self.view.life is Life.CREATED:
                # A start of the agent or engine cut its making off; it may lack networks.
                await self.host.engine.remove(self.view.id)
                self.see(None)
            if self.view is None:
                await self._make(spec, values)
        except MissingDependency as error:
            if self.host.complete:
                self._report(machine.failed(self.status.state, str(error)))
            else:  # after a restart of the agent secrets come with the next session
                await self._changed.wait()
            return
        except (PrepareError, FilesError, TemplateError) as error:
            self._report(machine.failed(self.status.state, str(error)))
            return
        except EngineGone:
            raise
        except EngineError as error:
            await self._engine_alive(error)
            self._report(machine.failed(self.status.state, error.message))
            return
        self._report(after)

    async def _make(self, spec: ContainerSpec, values: Mapping[str, Any]) -> None:
        """Image, networks and files, then the container."""
        task, host = self.task, self.host
        files = plan_files(spec, host.secrets, host.configs, values)
        reference = container.image_reference(spec.image)
        _, networks = await self._interruptible(
            _both(host.puller.fetch(reference, task.registry_auth), self._attach_networks())
        )
        mounts = await asyncio.to_thread(host.files.write, task.id, files) if files else []
        plan = container.plan(
            task,
            spec,
            api_version=host.engine.api_version,
            networks=networks,
            files=mounts,
            resolvers=host.resolvers(task) if container.attaches(task) else (),
        )
        if self.unwanted:
            raise _Interrupted
        try:
            created = await host.engine.create(plan.name, plan.body)
        except EngineGone:
            raise
        except EngineError as error:
            if error.status != 409:
                raise
            await self._adopt_by_name(plan.name, error)
            return
        try:
            for network, endpoint in plan.connects:
                await host.engine.connect(network, created, endpoint)
        except EngineGone:
            raise
        except EngineError:
            await host.engine.remove(created)
            raise
        self.see(View(created, Life.CREATED))

    async def _adopt_by_name(self, name: str, conflict: EngineError) -> None:
        """The name is taken: by ourselves before a crash (then it is ours), or by something else."""
        found = await self.host.engine.inspect(name)
        if (found.config.labels or {}).get(container.TASK_ID_LABEL) != self.task.id:
            raise conflict
        self.see(view_of(found))
        raise _Interrupted  # choose again with this container in sight

    async def _attach_networks(self) -> list[container.EngineNetwork]:
        # The ingress network last: the first one is the container's own.
        attachments = sorted(self.task.networks_attachments, key=lambda one: one.network.spec.ingress)

        async def engine_name(network: Network) -> str:
            return await self.host.networks.attach(network.id) if container.on_cluster(network) else network.spec.name

        try:
            names = await asyncio.gather(*(engine_name(one.network) for one in attachments))
        except EngineError:
            raise
        except Exception as error:
            raise PrepareError(str(error) or type(error).__name__) from error
        found = []
        for name, one in zip(names, attachments, strict=True):
            wishes = container.wishes(self.task, one.network)
            options = {key: value for wish in wishes for key, value in wish.driver_opts.items()}
            found.append(container.engine_network(name, one.addresses, options))
        return found

    async def _interruptible(self, work: Coroutine[Any, Any, T], still: Callable[[], bool] = lambda: True) -> T:
        """Await `work`, but give it up as soon as the task is not wanted any more, or `still` is not true."""
        doing = asyncio.create_task(work)
        try:
            while True:
                waiting = asyncio.create_task(self._changed.wait())
                try:
                    await asyncio.wait({doing, waiting}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    waiting.cancel()
                if doing.done():
                    return doing.result()
                if self.unwanted or not still():
                    raise _Interrupted
                self._changed.clear()
        finally:
            if not doing.done():
                doing.cancel()
                await asyncio.gather(doing, return_exceptions=True)

    # --- running and stopping -----------------------------------------------------------------------------------------

    async def _start(self) -> None:
        assert self.view is not None
        try:
            await self.host.engine.start(self.view.id)
            await self.look()
        except EngineGone:
            raise
        except EngineError as error:
            await self._engine_alive(error)
            await self.look()
            self._report(machine.failed(self.status.state, f"starting container failed: {error.message}"))

    async def _activate(self, view: View) -> None:
        """Let traffic in, as soon as the server listens; a healthcheck has shown that already."""
        row = endpoint_row(self.task, view, active=True, gateway=await asyncio.to_thread(_gateway, view.pid))
        if row.addresses and view.health is HealthState.NONE and self.status.state is TaskState.STARTING:
            published = {port.target for port in row.ports if port.mode != "host" and port.protocol == "tcp"}
            wanted, patience = (published, LISTEN_PATIENCE) if published else (view.exposed, SERVE_PATIENCE)
            if wanted:
                ready = self.host.traffic.until_listening(view.pid, wanted, patience)
                if not await self._interruptible(ready, still=lambda: self.view == view):
                    log.info("task %s (%s): gets traffic without listening", self.task.id, self.task.name)
        await self.host.endpoints.activate(row)
        self.row = row

    async def _stop(self) -> None:
        """Out of traffic, wait for answers under way, then signal, grace, kill. All within the stop grace: the wait
        gets up to half of it, the container the rest."""
        assert self.view is not None
        grace = container.stop_grace_seconds(self.task.spec.container_spec)
        if self.host.longest_grace is not None:
            grace = min(grace, self.host.longest_grace)
        if self.row is not None and self.row.active:
            await self.host.endpoints.deactivate(self.task.id)
            self.row = msgspec.structs.replace(self.row, active=False)
            if self.row.addresses and self.view.life is Life.RUNNING and not self.unhealthy:
                began = time.monotonic()
                await self.host.traffic.until_drained(self.view.pid, grace / 2)
                grace = max(grace // 2, math.ceil(grace - (time.monotonic() - began)))
        try:
            await self.host.engine.stop(self.view.id, grace)
        except EngineGone:
            raise
        except EngineError as error:
            if error.status != 404:
                log.warning("task %s: stop of container %s failed: %s", self.task.id, self.view.id[:12], error)
                await self._engine_alive(error)
                await asyncio.sleep(RETRY_SECONDS)
        await self.look()

    async def _withdraw(self) -> None:
        self.row = None
        await self.host.endpoints.withdraw(self.task.id)

    async def _remove(self) -> None:
        while self.view is not None:
            try:
                if self.view.life is Life.RUNNING:
                    await self._stop()
                if self.view is not None:
                    await self.host.engine.remove(self.view.id)
                self.view = None
            except EngineGone:
                raise
            except EngineError as error:
                log.warning("task %s: removal of its container failed: %s", self.task.id, error)
                await self._engine_alive(error)
                await asyncio.sleep(RETRY_SECONDS)
        if self.row is not None:
            await self._withdraw()
        await asyncio.to_thread(self.host.files.remove, self.task.id)

    async def _engine_alive(self, error: EngineError) -> None:
        """A dying engine answers with errors of all kinds: raises `EngineGone` unless it still answers."""
        if error.status >= 500:
            await self.host.engine.ping()


def _gateway(pid: int) -> str:
    """The gateway of a process's default route, or "" when it has none or is gone."""
    try:
        with open(f"/proc/{pid}/net/route") as routes:
            return default_gateway(routes.read())
    except OSError:
        return ""


async def _both(first: Coroutine[Any, Any, Any], second: Coroutine[Any, Any, T]) -> tuple[Any, T]:
    """Both at the same time; the first error cancels the other."""
    one: asyncio.Task[Any] = asyncio.create_task(first)
    two: asyncio.Task[T] = asyncio.create_task(second)
    try:
        await asyncio.gather(one, two)
    except BaseException:
        one.cancel()
        two.cancel()
        await asyncio.gather(one, two, return_exceptions=True)
        raise
    return one.result(), two.result()
