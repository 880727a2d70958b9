# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Engine API over a unix socket, with the standard library only, so that hosts need no packages for our modules.

Traps: paths carry no API version, which makes the server use its newest; and an object's version must be the current
one to update it, or the server answers 500 "update out of sequence" (a conflict: read again, decide again).
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from urllib.parse import quote, urlencode

SOCKET = "/run/swarm-agent/docker.sock"
CONFLICT = "update out of sequence"
OUTSIDE = 'Use "docker swarm init" or "docker swarm join"'
PASSING = ("Manager is being prepared or has trouble connecting", "The swarm does not have a leader")
PATIENCE = 15  # seconds in which a reading that meets an election is tried again
CONNECTION_SPEC = {
    "socket": {"type": "path", "default": SOCKET},
    "timeout": {"type": "int", "default": 60},
}


class ClientError(Exception):
    """A call did not give what was asked for; the text says which call and what came back."""


class Unreachable(ClientError):
    """Nobody listens on the socket."""


class ApiError(ClientError):
    """The server refused. `status` is the HTTP code, `reason` the server's own sentence."""

    def __init__(self, call, status, reason):
        super().__init__(f"{call}: {reason} (status {status})")
        self.status = status
        self.reason = reason

    @property
    def conflict(self):
        """True when the object was changed by somebody else since it was read."""
        return self.status in (409, 500) and CONFLICT in self.reason

    @property
    def outside(self):
        """True when the host is in no cluster."""
        return self.status == 503 and OUTSIDE in self.reason

    @property
    def passing(self):
        """True when the managers are just electing a leader, or this one is just starting."""
        return self.status in (500, 503) and any(text in self.reason for text in PASSING)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    """Calls on one socket. A new connection for each: they cost nothing on a unix socket and cannot be stale."""

    def __init__(self, path=SOCKET, timeout=60):
        self.path = path
        self.timeout = timeout

    def get(self, path, **query):
        """GET; the decoded answer. An election that is under way is waited for."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self.call("GET", path, query)
            except ApiError as error:
                if not error.passing or time.monotonic() > deadline:
                    raise
            time.sleep(0.2)

    def post(self, path, body=None, **query):
        """POST with a JSON body; the decoded answer, None when it is empty."""
        return self.call("POST", path, query, body)

    def delete(self, path, **query):
        """DELETE."""
        return self.call("DELETE", path, query)

    def call(self, method, path, query=None, body=None):
        """One request. Filters may be given as dicts. Raises Unreachable, ApiError, ClientError."""
        texts = {
            key: json.dumps(value) if isinstance(value, (dict, bool)) else str(value)
            for key, value in (query or {}).items()
            if value is not None
        }
        target = quote(path) + (f"?{urlencode(texts)}" if texts else "")
        call = f"{method} {path} on {self.path}"
        connection = _UnixConnection(self.path, self.timeout)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, target, payload, {"Content-Type": "application/json"} if payload else {})
            response = connection.getresponse()
            data = response.read()
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise Unreachable(f"{call}: nobody listens there ({error.strerror}); is swarm-agent running?") from None
        except TimeoutError:
            raise ClientError(f"{call}: no answer within {self.timeout} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise ClientError(f"{call}: {error or type(error).__name__}") from None
        finally:
            connection.close()
        return _decode(call, response.status, data)


def _decode(call, status, data):
    try:
        value = json.loads(data) if data.strip() else None
    except ValueError:
        value = data.decode("utf-8", "replace").strip()
    if status < 400:
        return value
    reason = value.get("message") if isinstance(value, dict) else value
    raise ApiError(call, status, reason or http.client.responses.get(status, "no reason given"))


def by_name(value):
    """A filter for an exact name or a prefix of it; the caller compares."""
    return {"name": {value: True}}
