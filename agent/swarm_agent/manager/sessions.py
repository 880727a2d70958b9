"""One node's session with the leader: messages in both directions on one channel, until either side ends it.

The node says Hello; the leader marks it ready, and answers with Welcome and the complete assignments. From then on a
reader takes what comes and a writer sends what the outbox (assignments.py) finds missing whenever it was marked. Marks
made while a message is being sent are served together afterwards: a slow node gets fewer, larger messages, never a
backlog.

A message that cannot be understood ends this session, with the reason in the log, and nothing else: the node will come
again. A new session of the same node ends the old one, which may be a connection that died without a word.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from swarm_agent.model.objects import NodeDescription
from swarm_agent.model.session import (
    Describe,
    FromNode,
    Heartbeat,
    Hello,
    Statuses,
    TaskStatusUpdate,
    ToNode,
    decode_from_node,
    encode_message,
)
from swarm_agent.store.store import Store

from .assignments import Outbox

log = logging.getLogger(__name__)

HELLO_TIMEOUT = 10.0
"""Seconds in which a node must introduce itself after it has connected."""


class Channel(Protocol):
    """A connection to a node, authenticated by whoever opened it."""

    async def send(self, data: bytes) -> None: ...

    async def receive(self) -> bytes | None:
        """The next message; None when the connection is closed."""


class SessionError(Exception):
    """The session cannot go on. The text says why."""


class Listener(Protocol):
    """What a session tells the dispatcher."""

    def heard(self, node_id: str) -> None:
        """A message came."""

    async def register(self, node_id: str, hello: Hello) -> bool:
        """The node introduced itself; False when there is no such node."""

    async def describe(self, node_id: str, description: NodeDescription) -> None:
        """The node's description changed."""

    def report(self, node_id: str, updates: list[TaskStatusUpdate]) -> None:
        """Observed states of tasks."""


class Session:
    """One connection of one node. `run` returns when it has ended."""

    def __init__(self, node_id: str, channel: Channel, outbox: Outbox, store: Store, listener: Listener) -> None:
        self.node_id = node_id
        self.outbox = outbox
        self._channel = channel
        self._store = store
        self._listener = listener
        self._wake = asyncio.Event()
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.registered = False
        self.closed_by_node = False
        self._asides: list[ToNode] = []

    def say(self, message: ToNode) -> None:
        """Send a message that is not part of the node's state, once it has been told that."""
        self._asides.append(message)
        self._wake.set()

    def wake(self) -> None:
        """The outbox was marked."""
        self._wake.set()

    def end(self, reason: str) -> None:
        """Close the session from this side."""
        if not self._ended.done():
            self._ended.set_result(reason)

    async def run(self) -> None:
        """Serve the session until the node, the dispatcher (`end`) or an error ends it. Raises only CancelledError."""
        work = asyncio.create_task(self._serve(), name=f"session-{self.node_id}")
        try:
            await asyncio.wait((work, self._ended), return_when=asyncio.FIRST_COMPLETED)
            if self._ended.done():
                log.info("session of node %s ended: %s", self.node_id, self._ended.result())
        finally:
            work.cancel()
            (outcome,) = await asyncio.gather(work, return_exceptions=True)
            self._ended.cancel()
        if isinstance(outcome, Exception):
            log.warning("session of node %s ended: %s", self.node_id, _reason(outcome))

    async def _serve(self) -> None:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT):
                hello = await self._receive()
        except TimeoutError:
            raise SessionError(f"no Hello within {HELLO_TIMEOUT:.0f} s") from None
        if hello is None:
            return
        if not isinstance(hello, Hello):
            raise SessionError(f"it began with {type(hello).__name__} where Hello was expected")
        if not await self._listener.register(self.node_id, hello):
            raise SessionError("this node is not, or no longer, a member of the cluster")
        self.registered = True
        log.info("node %s has reported from %s", self.node_id, hello.advertise)
        await _first_of(self._read, self._write)

    async def _read(self) -> None:
        while (message := await self._receive()) is not None:
            if isinstance(message, Statuses):
                self._listener.report(self.node_id, message.updates)
            elif isinstance(message, Describe):
                await self._listener.describe(self.node_id, message.description)
            elif not isinstance(message, Heartbeat):
                raise SessionError(f"unexpected {type(message).__name__} within a session")
        self.closed_by_node = True

    async def _write(self) -> None:
        while True:
            self._wake.clear()
            for message in self.outbox.next(self._store.view()):
                await self._channel.send(encode_message(message))
            while self._asides:
                await self._channel.send(encode_message(self._asides.pop(0)))
            await self._wake.wait()

    async def _receive(self) -> FromNode | None:
        data = await self._channel.receive()
        if data is None:
            return None
        self._listener.heard(self.node_id)
        return decode_from_node(data)


async def _first_of(*works: Callable[[], Awaitable[None]]) -> None:
    """Run until one returns or fails, then cancel the others."""
    tasks = [asyncio.ensure_future(work()) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _reason(error: Exception) -> str:
    if isinstance(error, msgspec.MsgspecError):
        return f"a message could not be read: {error}"
    return str(error) or type(error).__name__
