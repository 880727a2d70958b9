"""HTTP over the agent's unix socket, for commands."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PIECE = 1 << 20  # bytes taken at once from a long answer


class CommandError(Exception):
    """The command cannot be carried out; the text says why and what to do."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("agent", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Agent:
    """The agent of this host, at its front door."""

    def __init__(self, path: Path, timeout: float = 60.0) -> None:
        self._path = path
        self._timeout = timeout

    def call(self, method: str, path: str, body: bytes | None = None, content_type: str = "application/json") -> bytes:
        """One request; returns the body. Raises CommandError with the agent's words on any failure."""
        connection = _UnixConnection(self._path, self._timeout)
        headers = {"Content-Type": content_type} if body is not None else {}
        try:
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            content = response.read()
        except FileNotFoundError:
            raise CommandError(f"no agent at {self._path}; see: systemctl status swarm-agent") from None
        except PermissionError:
            raise CommandError(f"{self._path}: permission denied; be root or in the group docker") from None
        except (OSError, http.client.HTTPException) as error:
            raise CommandError(f"{method} {path} at {self._path}: {error}") from None
        finally:
            connection.close()
        if response.status >= 400:
            raise CommandError(_message(content, response.status))
        return content

    def stream(self, path: str, body: bytes) -> Iterator[bytes]:
        """A POST of JSON whose answer is long: its body in pieces. Raises CommandError, also in between."""
        connection = _UnixConnection(self._path, self._timeout)
        try:
            connection.request("POST", path, body=body, headers={"Content-Type": "application/json"})
            response = connection.getresponse()
            if response.status >= 400:
                raise CommandError(_message(response.read(), response.status))
            while piece := response.read(PIECE):
                yield piece
        except (OSError, http.client.HTTPException) as error:
            raise CommandError(f"POST {path} at {self._path}: {error or type(error).__name__}") from None
        finally:
            connection.close()

    def json(self, path: str) -> Any:
        """A GET whose answer is JSON."""
        return json.loads(self.call("GET", path))


def _message(content: bytes, status: int) -> str:
    try:
        return str(json.loads(content)["message"])
    except (ValueError, KeyError, TypeError):
        return content.decode("utf-8", "replace").strip() or f"the agent answered {status}"
