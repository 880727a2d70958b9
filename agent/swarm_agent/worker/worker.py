"""The worker: keeps this host's containers what the cluster's managers assigned.

It owns one `Runner` per task, follows the engine's event stream, and survives the end of anything around it:
 - the agent restarts: containers run on; the tasks come from the state file, the containers are found by their labels;
 - the engine restarts: runners pause, then every container is looked at again, and only that look decides;
 - the managers are away: what was assigned goes on; states are reported again with the next complete assignment.
The event stream is opened before the containers are listed, so nothing that happens in between is missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import platform
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from swarm_agent.model.objects import Config, Node, NodeDescription, Secret, Task, TaskStatus
from swarm_agent.model.session import Assignments, TaskStatusUpdate
from swarm_agent.model.specs import Platform
from swarm_agent.model.states import TaskState

from . import statefile
from .container import NODE_ID_LABEL, TASK_ID_LABEL, TASK_LABEL
from .describe import describe
from .engine import EngineApi, EngineError, EngineGone, Event, ListedContainer
from .files import FileStore
from .interfaces import Endpoints, TaskNetworks
from .observe import ENGINE_WENT, STOPPED, Life
from .pull import Puller
from .runner import Host, Runner
from .traffic import Traffic

log = logging.getLogger(__name__)

STATE_FILE = "worker.json"
SAVE_DELAY = 0.1  # seconds; changes within it are one write
RECONNECT_FIRST, RECONNECT_LONGEST = 0.05, 1.0  # seconds between looks for an engine that is away
LOOKS_AT_ONCE = 16
# An engine that stops in order stops its containers first, and a program may well answer that with exit 0. It is not
# the end of its work: a task whose container was told to stop, and not by us, has failed. A program has STOP_TAKES
# seconds to end; signals that usually mean "reload" or "report" (HUP, USR1, USR2) do not count.
STOP_TAKES = 60.0
HARMLESS_SIGNALS = ("1", "10", "12")
START_SECONDS = 10.0  # how long `start` waits for an engine that is there but does not answer
LEAVE_GRACE = 3  # seconds that tasks get to end when the host leaves (Swarm kills them at once)
LEAVE_SECONDS = 30.0  # how long `remove_all` waits for tasks to end
LEAVE_ENGINE_SECONDS = 5.0  # and for an engine that is away


class Worker:
    """See the module. `report` gets the tasks' new observed states, those of one turn of the loop in one list."""

    def __init__(
        self,
        *,
        engine: EngineApi,
        node_id: str,
        hostname: str,
        state_dir: Path,
        run_dir: Path,
        networks: TaskNetworks,
        endpoints: Endpoints,
        report: Callable[[list[TaskStatusUpdate]], None],
        resolvers: Callable[[Task], list[str]] | None = None,
        traffic: Traffic | None = None,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`resolvers` names the DNS servers of a task on cluster networks; none means the engine's own. `clock` is
        nanoseconds since the epoch."""
        self._engine = engine
        self._node_id = node_id
        self._report = report
        self._path = state_dir / STATE_FILE
        self._file = statefile.StateFile(self._path)
        self._host = Host(
            engine=engine,
            networks=networks,
            endpoints=endpoints,
            files=FileStore(run_dir / "tasks"),
            puller=Puller(engine, monotonic),
            traffic=traffic or Traffic(),
            hostname=hostname,
            node=Node(id=node_id),
            clock=clock,
            resolvers=resolvers or (lambda task: []),
            changed=self._changed,
            engine_lost=self._engine_lost,
        )
        self._runners: dict[str, Runner] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        # Containers with our labels that no assigned task claims (task id → container id), until a complete assignment.
        self._strays: dict[str, str] = {}
        self._secrets: dict[str, Secret] = {}
        self._configs: dict[str, Config] = {}
        self._dirty: dict[str, Runner] = {}
        self._signalled: dict[str, float] = {}  # task id → when its container was last sent a signal to stop
        self._monotonic = monotonic
        self._described: NodeDescription | None = None
        self._boot = statefile.current_boot()
        self._other_boot = False  # the saved containers ran in an earlier boot of the host
        self._follower: asyncio.Task[None] | None = None
        self._stream: asyncio.Task[None] | None = None
        self._saver: asyncio.Task[None] | None = None
        self._save_wanted = asyncio.Event()
        self._first_look = asyncio.Event()

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take up what ran before, and follow the engine. Returns when the containers were looked at, or when the
        engine turned out to be away or silent (then that happens as soon as it answers)."""
        saved = await asyncio.to_thread(statefile.load, self._path, self._node_id)
        if saved is not None:
            self._other_boot = saved.boot != self._boot
            for task in saved.tasks:
                self._add(task)
        self._saver = asyncio.create_task(self._save_loop(), name="worker state file")
        self._follower = asyncio.create_task(self._follow(), name="engine events")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                await self._first_look.wait()

    async def stop(self) -> None:
        """Stop working; containers run on."""
        tasks = [task for task in (self._follower, self._saver) if task is not None]
        tasks += [*self._running.values(), *self._host.background]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._host.puller.close()
        self._running.clear()
        if self._saver is not None:
            await self._file.save(self._state())
        self._follower = self._saver = None

    async def remove_all(self) -> None:
        """Leave the cluster: end all tasks, remove their containers and files, then stop working."""
        self._host.complete = True
        self._host.longest_grace = LEAVE_GRACE
        for runner in list(self._runners.values()):
            runner.leave()
        self._discard_strays()
        ending = [*self._running.values(), *self._host.background]
        if ending:
            _, late = await asyncio.wait(ending, timeout=LEAVE_SECONDS if await self._engine_back() else 0)
            if late:
                log.warning("%d tasks could not be ended; their containers may be left on this host", len(late))
        await self.stop()
        self._runners.clear()
        await asyncio.to_thread(self._host.files.remove_all)
        await asyncio.to_thread(self._path.unlink, missing_ok=True)

    async def _engine_back(self) -> bool:
        """Whether the engine is there, after a short patience."""
        try:
            async with asyncio.timeout(LEAVE_ENGINE_SECONDS):
                await self._host.up.wait()
        except TimeoutError:
            return False
        return True

    # --- what managers say --------------------------------------------------------------------------------------------

    def node(self, node: Node) -> None:
        """This host's own node object, for templates."""
        self._host.node = node

    def assign(self, assignments: Assignments) -> None:
        """Declare what this host must run. Returns at once; the rest follows in the background."""
        if assignments.complete:
            self._secrets.clear()
            self._configs.clear()
        for gone in assignments.gone_secrets:
            self._secrets.pop(gone, None)
        for gone in assignments.gone_configs:
            self._configs.pop(gone, None)
        self._secrets.update({secret.id: secret for secret in assignments.secrets})
        self._configs.update({config.id: config for config in assignments.configs})
        self._host.secrets, self._host.configs = self._secrets, self._configs
        for task in assignments.tasks:
            runner = self._runners.get(task.id)
            if runner is None:
                self._add(task)
            else:
                runner.assign(task)
        gone_tasks = set(assignments.gone_tasks)
        if assignments.complete:
            if not self._host.complete:
                self._host.spawn(self._discard_files(), "discard files of unknown tasks")
            self._host.complete = True
            gone_tasks |= self._runners.keys() - {task.id for task in assignments.tasks}
            for task in assignments.tasks:
                runner = self._runners[task.id]
                if runner.status.state.rank > task.status.state.rank:
                    self._changed(runner)  # reported before, but never arrived
            self._discard_strays()
        for task_id in gone_tasks:
            if task_id in self._runners:
                self._runners[task_id].leave()
        for runner in self._runners.values():
            runner.wake()
        self._save_wanted.set()

    async def describe(self) -> NodeDescription:
        """This host as its engine describes it; the last known description while the engine is away."""
        try:
            self._described = describe(await self._engine.info(), await self._engine.plugins())
        except EngineError as error:
            log.warning("the engine does not describe its host: %s", error)
        if self._described is None:
            return NodeDescription(
                hostname=self._host.hostname,
                platform=Platform(architecture=platform.machine(), os=platform.system().lower()),
            )
        return self._described

    # --- runners ------------------------------------------------------------------------------------------------------

    def _add(self, task: Task) -> None:
        runner = Runner(self._host, task, task.status)
        self._runners[task.id] = runner
        self._running[task.id] = asyncio.create_task(self._run(runner), name=f"task {task.id}")

    async def _run(self, runner: Runner) -> None:
        task_id = runner.task.id
        await self._host.up.wait()
        while (container_id := self._strays.get(task_id)) is not None:
            try:
                await runner.look(container_id)
                self._strays.pop(task_id, None)
            except EngineGone:
                self._engine_lost()
                await self._host.up.wait()
        await runner.run()
        self._runners.pop(task_id, None)
        self._running.pop(task_id, None)
        self._dirty.pop(task_id, None)
        self._signalled.pop(task_id, None)
        self._save_wanted.set()

    def _changed(self, runner: Runner) -> None:
        if not self._dirty:
            asyncio.get_running_loop().call_soon(self._flush)
        self._dirty[runner.task.id] = runner

    def _flush(self) -> None:
        updates = [TaskStatusUpdate(task_id, runner.status) for task_id, runner in self._dirty.items()]
        self._dirty.clear()
        self._save_wanted.set()
        if updates:
            self._report(updates)

    def statuses(self) -> list[TaskStatusUpdate]:
        """The last observed state of every task here."""
        return [TaskStatusUpdate(task_id, runner.status) for task_id, runner in self._runners.items()]

    def _discard_strays(self) -> None:
        """Remove containers of tasks that this cluster does not know (any more)."""
        for task_id, container_id in list(self._strays.items()):
            if task_id not in self._runners:
                del self._strays[task_id]
                self._host.spawn(self._discard(task_id, container_id), f"discard {container_id[:12]}")

    async def _discard_files(self) -> None:
        """Once, after the first complete assignment: files that a crash left behind."""
        for task_id in await asyncio.to_thread(self._host.files.tasks):
            if task_id not in self._runners and task_id not in self._strays:
                await asyncio.to_thread(self._host.files.remove, task_id)

    async def _discard(self, task_id: str, container_id: str) -> None:
        log.info("container %s belongs to the unknown task %s: removing it", container_id[:12], task_id)
        runner = Runner(self._host, Task(id=task_id, desired_state=TaskState.REMOVE), TaskStatus())
        runner.leave()
        while True:
            await self._host.up.wait()
            try:
                await runner.look(container_id)
                break
            except EngineGone:
                self._engine_lost()
        await runner.run()

    # --- the engine ---------------------------------------------------------------------------------------------------

    def _engine_lost(self) -> None:
        """A call found the engine away. The stream is opened anew, which ends in a look at everything."""
        if self._host.up.is_set():
            self._host.up.clear()
            if self._stream is not None:
                self._stream.cancel()

    async def _follow(self) -> None:
        """Connect, look at all, then react to events; again whenever the engine comes back."""
        pause, again = RECONNECT_FIRST, False
        while True:
            synced = asyncio.Event()
            self._stream = asyncio.create_task(self._listen(after_outage=again, synced=synced), name="engine stream")
            try:
                await self._stream
                log.warning("the engine ended its event stream")
            except asyncio.CancelledError:
                if not self._stream.cancelled() or self._stopping():
                    self._stream.cancel()
                    raise
            except EngineGone as error:
                if synced.is_set() or not self._first_look.is_set():
                    log.warning("the engine is away: %s", error)
            except EngineError as error:
                log.warning("the engine refuses to tell its state: %s", error)
            self._host.up.clear()
            self._first_look.set()
            if synced.is_set():
                pause, again = RECONNECT_FIRST, True
            await asyncio.sleep(pause)
            pause = min(pause * 2, RECONNECT_LONGEST)

    def _stopping(self) -> bool:
        current = asyncio.current_task()
        return current is not None and current.cancelling() > 0

    async def _listen(self, *, after_outage: bool, synced: asyncio.Event) -> None:
        await self._engine.negotiate()
        async for event in self._engine.events([TASK_LABEL]):
            if event is not None:
                self._heard(event)
                continue
            await self._look_at_all(after_outage=after_outage)
            synced.set()
            self._host.up.set()
            self._first_look.set()
            log.info("engine connected, API %d.%d", *self._engine.api_version)

    async def _look_at_all(self, *, after_outage: bool) -> None:
        """Compare all containers of this node with the tasks."""
        listed = await self._engine.list_containers([f"{NODE_ID_LABEL}={self._node_id}"])
        by_task = {(one.labels or {}).get(TASK_ID_LABEL, ""): one for one in listed}
        gate = asyncio.Semaphore(LOOKS_AT_ONCE)

        async def look(runner: Runner, one: ListedContainer) -> None:
            # An end that nobody saw, with the engine or the whole host in between, is not the work's own end.
            was_running = runner.view is None or runner.view.life is not Life.ENDED
            on_the_way = runner.status.state in (TaskState.STARTING, TaskState.RUNNING)
            outage = was_running and on_the_way and (after_outage or self._other_boot)
            async with gate:
                await runner.look(one.id, cut_off=ENGINE_WENT if outage else "")

        self._strays = {task_id: one.id for task_id, one in by_task.items() if task_id not in self._runners}
        await asyncio.gather(
            *(look(runner, by_task[task_id]) for task_id, runner in list(self._runners.items()) if task_id in by_task)
        )
        for task_id, runner in list(self._runners.items()):
            if task_id not in by_task and runner.view is not None:
                runner.see(None)
        self._other_boot = False
        if self._host.complete:
            self._discard_strays()

    def _heard(self, event: Event) -> None:
        """React to a container event. Events only say where to look; what is seen there counts."""
        attributes = event.actor.attributes or {}
        runner = self._runners.get(attributes.get(TASK_ID_LABEL, ""))
        if runner is None:
            return
        if event.action == "kill":
            if attributes.get("signal") not in HARMLESS_SIGNALS:
                self._signalled[runner.task.id] = self._monotonic()
        elif event.action == "destroy":
            if runner.view is not None and runner.view.id == event.actor.id:
                runner.see(None)
        elif event.action in ("die", "start") or event.action.startswith("health_status"):
            if event.action == "start" and runner.status.state is TaskState.STARTING:
                return  # our own start, which looks by itself
            since = self._monotonic() - self._signalled.pop(runner.task.id, -STOP_TAKES)
            cut_off = STOPPED if event.action == "die" and since < STOP_TAKES else ""
            self._host.spawn(self._look(runner, event.actor.id, cut_off), f"look at {event.actor.id[:12]}")

    async def _look(self, runner: Runner, container_id: str, cut_off: str) -> None:
        try:
            await runner.look(container_id, cut_off=cut_off)
        except EngineGone:
            self._engine_lost()
        except EngineError as error:
            log.warning("container %s cannot be inspected: %s", container_id[:12], error)

    # --- the state file -----------------------------------------------------------------------------------------------

    def _state(self) -> statefile.SavedState:
        tasks = [
            msgspec.structs.replace(runner.task, status=runner.status)
            for runner in self._runners.values()
            if not runner.leaving
        ]
        return statefile.snapshot(self._node_id, self._boot, tasks)

    async def _save_loop(self) -> None:
        while True:
            await self._save_wanted.wait()
            await asyncio.sleep(SAVE_DELAY)  # gather what belongs together; nobody waits for the file
            self._save_wanted.clear()
            try:
                await self._file.save(self._state())
            except OSError as error:
                log.error("%s cannot be written: %s; tried again with the next change", self._path, error)
