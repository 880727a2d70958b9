"""Logs of services and tasks: GET /services/{id}/logs and /tasks/{id}/logs (swarm.md §3.14).

Every task's log is read from the engine of its node, over a stream of its own, and what comes is passed on at once; so
lines of one task are in order, lines of different tasks as they arrive, as in Swarm. With `follow`, tasks that appear
later join in, and a stream that broke (the leader changed) is opened again where it stopped.

The engine is always asked for time stamps and details: its payload is then `TIME k=v,k2=v2 message`. From that the
payload for the client is made: the time stamp and the details if wanted, the latter with three more pairs, which tell
the client where the line came from. A log of a terminal has no frames, and its bytes pass unchanged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from socket import socket
from urllib.parse import quote_plus

from swarm_agent.manager.control.lookup import find
from swarm_agent.model.errors import ClusterError, NotFound
from swarm_agent.model.objects import Node, Service, Task
from swarm_agent.model.times import parse_rfc3339
from swarm_agent.store.store import Store
from swarm_agent.store.view import Change, Reader

from .engine import EngineClient, EngineDown, EngineRefused
from .message import Request, Stream

log = logging.getLogger(__name__)

MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED_SINCE = (1, 42)  # older clients are told "raw" for both, as the engine does
PATH = re.compile(r"/(services|tasks)/([^/]+)/logs")

STDOUT, STDERR, SYSTEM = 1, 2, 3
HEADER = 8
QUEUED = 256  # frames that may wait for the client before the engines are made to wait
RETRY = 0.5  # seconds before a broken stream is opened again

_TIME = re.compile(r"\d{1,18}(\.\d{1,9})?")

ConnectEngine = Callable[[str], Awaitable[socket]]


@dataclass(frozen=True, slots=True)
class Options:
    """What the client wants of the log. `tail` is "all" or a number, `since` and `until` seconds since the epoch or
    empty. Swarm has no `until`; it is here as in logs of a container.
    """

    stdout: bool
    stderr: bool
    follow: bool
    timestamps: bool
    details: bool
    tail: str
    since: str
    until: str = ""


def read_options(request: Request) -> Options:
    """The query. Raises ClusterError with Swarm's texts, which makes them 500."""
    if not request.flag("stdout") and not request.flag("stderr"):
        raise ClusterError("Bad parameters: you must choose at least one stream")
    tail = request.query.get("tail", "") or "all"
    if tail != "all":
        if re.fullmatch(r"[+-]?\d{1,18}", tail) is None:
            raise ClusterError('tail value must be a positive integer or "all"')
        if int(tail) < 0:
            raise ClusterError("negative tail values not supported")
    since, until = request.query.get("since", ""), request.query.get("until", "")
    for name, moment in (("since", since), ("until", until)):
        if moment and _TIME.fullmatch(moment) is None:
            why = f'strconv.ParseInt: parsing "{moment.partition(".")[0]}": invalid syntax'
            raise ClusterError(f"could not parse {name} timestamp: {why}")
    return Options(
        stdout=request.flag("stdout"),
        stderr=request.flag("stderr"),
        follow=request.flag("follow"),
        timestamps=request.flag("timestamps"),
        details=request.flag("details"),
        tail=tail,
        since=since,
        until=until if until.strip("0.") else "",  # 0 is no moment, as in the engine
    )


def split_frames(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The complete frames (stream, payload) at the beginning, and what is left: 1 byte stream, 3 zero, 4 length."""
    frames = []
    at = 0
    while len(data) >= at + HEADER:
        end = at + HEADER + int.from_bytes(data[at + 4 : at + 8], "big")
        if len(data) < end:
            break
        frames.append((data[at], data[at + HEADER : end]))
        at = end
    return frames, data[at:]


def frame(stream: int, payload: bytes) -> bytes:
    """One frame of a multiplexed stream."""
    return bytes((stream, 0, 0, 0)) + len(payload).to_bytes(4, "big") + payload


def origin(task: Task) -> dict[str, str]:
    """The pairs that tell a client where a line came from."""
    prefix = "com.docker.swarm"
    return {f"{prefix}.node.id": task.node_id, f"{prefix}.service.id": task.service_id, f"{prefix}.task.id": task.id}


def render(payload: bytes, pairs: dict[str, str], options: Options) -> bytes:
    """The client's payload, from the engine's `TIME k=v,k2=v2 message`."""
    stamp, _, rest = payload.partition(b" ")
    details, _, message = rest.partition(b" ")
    line = message
    if options.details:
        own = [f"{quote_plus(key)}={quote_plus(value)}".encode() for key, value in pairs.items()]
        line = b",".join(sorted([*filter(None, details.split(b",")), *own])) + b" " + line
    return stamp + b" " + line if options.timestamps else line


def incomplete(reasons: Iterable[str]) -> bytes:
    """The end of a log that lacks something, in Swarm's words."""
    return (
        "Error grabbing logs: rpc error: code = Unknown desc = warning: incomplete log stream. some logs could not be "
        f"retrieved for the following reasons: {', '.join(reasons)}\n"
    ).encode()


def content_type(tty: bool, version: tuple[int, int]) -> str:
    """What a client of this API version is told about the stream."""
    return MULTIPLEXED if not tty and version >= MULTIPLEXED_SINCE else RAW


async def open_logs(request: Request, options: Options, store: Store, connect: ConnectEngine) -> Stream:
    """Answer a request whose path matches PATH. Raises ClusterError."""
    found = PATH.fullmatch(request.path)
    assert found is not None, request.path
    view = await store.read()
    service_id = task_id = ""
    if found[1] == "services":
        service = find(view, Service, found[2])
        service_id, container = service.id, service.spec.task_template.container_spec
    else:
        task = find(view, Task, found[2])
        task_id, container = task.id, task.spec.container_spec
    tty = container is not None and container.tty
    logs = _Logs(store, connect, options, service_id=service_id, task_id=task_id, tty=tty)
    return Stream(logs.parts(), content_type=content_type(tty, request.version))


class _Logs:
    """One client's log: readers of tasks fill a queue that the client empties."""

    def __init__(
        self, store: Store, connect: ConnectEngine, options: Options, *, service_id: str, task_id: str, tty: bool
    ) -> None:
        self._store = store
        self._connect = connect
        self._options = options
        self._service_id = service_id
        self._task_id = task_id
        self._tty = tty
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUED)
        self._readers: dict[str, asyncio.Task[None]] = {}
        self._reasons: dict[str, None] = {}
        self._changed = asyncio.Event()

    async def parts(self) -> AsyncGenerator[bytes, None]:
        """Bytes for the client until there are no more, or with `follow` until the service or task is gone."""
        unsubscribe = self._store.subscribe(self._store_changed)
        work = asyncio.create_task(self._run(), name="logs")
        try:
            while (part := await self._queue.get()) is not None:
                yield part
        finally:
            unsubscribe()
            tasks = [work, *self._readers.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _store_changed(self, changes: list[Change]) -> None:
        for change in changes:
            if change.kind is Task:
                task = change.new if change.new is not None else change.old
                if task.id == self._task_id or (self._service_id and task.service_id == self._service_id):
                    self._changed.set()
            elif change.kind is Service and change.id == self._service_id:
                self._changed.set()

    async def _run(self) -> None:
        try:
            self._start_readers(later=False)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience()):
                    while self._options.follow and not self._is_over():
                        await self._changed.wait()
                        self._changed.clear()
                        self._start_readers(later=True)
            await asyncio.gather(*self._readers.values())
            if self._reasons and not self._options.follow:
                await self._put(SYSTEM, incomplete(self._reasons))
        except Exception:
            log.exception("reading logs failed")
        finally:
            await self._queue.put(None)

    def _patience(self) -> float | None:
        """Seconds for which tasks may yet appear that have something to say; None: for ever."""
        return max(float(self._options.until) - time.time(), 0) if self._options.until else None

    def _selected(self, view: Reader) -> list[Task]:
        if self._service_id:
            return view.find(Task, service_id=self._service_id)
        task = view.get(Task, self._task_id)
        return [task] if task is not None else []

    def _is_over(self) -> bool:
        """Nothing can come any more but from the readers that run."""
        view = self._store.view()
        if self._service_id:
            return view.get(Service, self._service_id) is None
        task = view.get(Task, self._task_id)
        return task is None or task.status.state.is_terminal or task.id in self._readers

    def _start_readers(self, *, later: bool) -> None:
        view = self._store.view()
        for task in sorted(self._selected(view), key=lambda one: one.created_at):
            if task.id in self._readers or task.spec.container_spec is None:
                continue
            if not task.node_id:
                if self._task_id:  # a service's log is of tasks that have begun, as in Swarm
                    self._reasons[f"task {task.id} has not been scheduled"] = None
            elif _has_container(task):
                self._readers[task.id] = asyncio.create_task(self._read(task, later), name=f"log-{task.id}")

    async def _read(self, task: Task, later: bool) -> None:
        """Read a task's log to its end; what is in the way becomes a reason at the end of the whole."""
        reader = _Reader(task, self._options, self._tty, self._put, tail="all" if later else self._options.tail)
        while True:
            node = self._store.view().get(Node, task.node_id)
            try:
                if node is None or node.status.state == "down":
                    raise NotFound(f"node {task.node_id} is not available")
                await reader.read(self._connect)
            except EngineRefused as refusal:
                if refusal.status != 404:  # 404: its container is gone, and its log with it
                    self._reasons[f"task {task.id}: {refusal}"] = None
                return
            except NotFound as error:
                self._reasons[str(error)] = None
                return
            except ClusterError as error:
                broke = isinstance(error, EngineDown)
                self._reasons[f"node {task.node_id} disconnected unexpectedly" if broke else str(error)] = None
                if not self._options.follow or self._tty or self._store.view().get(Task, task.id) is None:
                    return
            else:
                if not self._goes_on(task, reader):
                    return
            await asyncio.sleep(RETRY)

    def _goes_on(self, task: Task, reader: _Reader) -> bool:
        """Whether a log that its engine has ended is followed on: engines end that of a container which is made and not
        yet started.
        """
        view = self._store.view()
        now = view.get(Task, task.id)
        if not self._options.follow or now is None or now.status.state.is_terminal or self._patience() == 0:
            return False
        return view.get(Service, task.service_id) is not None and not (self._tty and reader.began)

    async def _put(self, stream: int, payload: bytes) -> None:
        await self._queue.put(payload if self._tty else frame(stream, payload))


def _has_container(task: Task) -> bool:
    return task.status.container_status is not None and bool(task.status.container_status.container_id)


class _Reader:
    """One task's log. It remembers how far it has come, for another try; of a terminal's only whether it `began`."""

    def __init__(
        self, task: Task, options: Options, tty: bool, put: Callable[[int, bytes], Awaitable[None]], *, tail: str
    ) -> None:
        self._task = task
        self._options = options
        self._tty = tty
        self._put = put
        self._tail = tail
        self._since = options.since
        self.began = False

    async def read(self, connect: ConnectEngine) -> None:
        """Pass on what there is. Raises ClusterError."""
        status = self._task.status.container_status
        assert status is not None
        options = self._options
        query = {
            "stdout": str(int(options.stdout)),
            "stderr": str(int(options.stderr)),
            "follow": str(int(options.follow)),
            "timestamps": str(int(options.timestamps or not self._tty)),
            "details": str(int(not self._tty)),
            "tail": self._tail,
        }
        if self._since:
            query["since"] = self._since
        if options.until:
            query["until"] = options.until
        engine = EngineClient(f"node {self._task.node_id}", connect=lambda: connect(self._task.node_id))
        try:
            async with engine.stream(f"/containers/{status.container_id}/logs", query) as body:
                if self._tty:
                    async for chunk in body.iter_any():
                        self.began = True
                        await self._put(STDOUT, chunk)
                    return
                pairs = origin(self._task)
                rest = b""
                async for chunk in body.iter_any():
                    frames, rest = split_frames(rest + chunk)
                    for stream, payload in frames:
                        await self._put(stream, render(payload, pairs, options))
                        self._passed(payload)
        finally:
            await engine.close()

    def _passed(self, payload: bytes) -> None:
        """Another try begins after this line."""
        if self._options.follow:
            try:
                nanoseconds = parse_rfc3339(payload.partition(b" ")[0].decode()) + 1
            except ValueError:
                return
            self._since = f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09d}"
            self._tail = "all"
