"""A thread that carries out calls one after the other and tells the event loop when each is done.

An executor does the same with a lock, a condition and two futures for each call; here it is one entry in a queue. A
write of the log lies on the way of every request, so that is a tenth of a leader's time. The thread does not keep the
process alive: after a failed sync the process ends at once, also when the disk still hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

R = TypeVar("R")

Done = Callable[[Any, BaseException | None], None]
"""What is called in the loop with a call's result, or with its error."""


class Worker:
    """Made in a running loop; the thread starts with the first call."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._calls: SimpleQueue[tuple[Callable[[], Any], Done] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def submit(self, call: Callable[[], Any], done: Done) -> None:
        """Carry out a call after those given before, and tell `done`. After `stop` nothing happens."""
        if self._stopped:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._calls.put((call, done))

    def run(self, call: Callable[[], R]) -> asyncio.Future[R]:
        """The same for those who await. The call is carried out also when nobody waits any more; after `stop` it is
        cancelled.
        """
        future: asyncio.Future[R] = self._loop.create_future()
        if self._stopped:
            future.cancel()
            return future

        def done(result: R, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        self.submit(call, done)
        return future

    async def stop(self) -> None:
        """Return when all calls given so far are done and the thread has ended."""
        self._stopped = True
        self._calls.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while (item := self._calls.get()) is not None:
            call, done = item
            try:
                result, failure = call(), None
            except BaseException as error:
                result, failure = None, error
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
                self._loop.call_soon_threadsafe(done, result, failure)
            del item, call, done, result, failure  # nothing is kept alive while this waits
