"""An asyncio client of the Engine API on a host's socket, for tests that ask many things at once.

It speaks to the agent's socket or to a plain engine's, which is why the same cases can be driven on both. A host that
was powered off and on has a new socket, so the path is asked for anew whenever the last one has failed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp

VERSION = "/v1.41"


class ApiError(Exception):
    """The API answered, with a status of 400 or more."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class Unanswered(Exception):
    """No answer came: refused, cut, or too late. A change that was asked for may yet happen."""


class Api:
    """`socket` tells the path of the socket as it is now; it may raise while the host is off. `timeout` in seconds."""

    def __init__(self, socket: Callable[[], Path], *, timeout: float = 10, connections: int = 100) -> None:
        self._socket = socket
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Api:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get(self, path: str, timeout: float | None = None) -> Any:
        return await self.call("GET", path, timeout=timeout)

    async def post(self, path: str, body: Any = None, timeout: float | None = None) -> Any:
        return await self.call("POST", path, body, timeout)

    async def delete(self, path: str, timeout: float | None = None) -> Any:
        return await self.call("DELETE", path, timeout=timeout)

    async def call(self, method: str, path: str, body: Any = None, timeout: float | None = None) -> Any:
        """The decoded answer. Raises ApiError when it is a refusal, Unanswered when there is none."""
        limit = self._timeout if timeout is None else aiohttp.ClientTimeout(total=timeout)
        try:
            session = self._open()
            async with session.request(method, f"http://host{VERSION}{path}", json=body, timeout=limit) as answer:
                data = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError, RuntimeError) as error:
            await self.close()
            raise Unanswered(f"{method} {path}: {error!r}") from error
        text = data.decode()
        if answer.status >= 400:
            try:
                message = json.loads(text)["message"]
            except (ValueError, KeyError, TypeError):
                message = text
            raise ApiError(answer.status, message)
        try:
            return json.loads(text) if text.strip() else None
        except ValueError:
            return text

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            try:
                path = self._socket()
            except Exception as error:
                raise Unanswered(f"no socket: {error}") from error
            connector = aiohttp.UnixConnector(path=str(path), limit=self._connections)
            self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout)
        return self._session
