"""Ten thousand mangled requests through the real front door, on its socket, in front of the real control and store.

Every call of the endpoint table (api/routes.py, api/local.py) is taken in turn, with a body that is first right and
then mangled: fields dropped, doubled, misspelt or of another type, numbers out of range, half a document, no document.
Paths, queries, versions, content types and framings are mangled too. After it: no answer was a 500 of our own, no
refused request left a trace in the store, and nothing was left behind: tasks, files, memory.

The seed is in the name of the failing request's message; test_fuzz.py does the same to the handlers alone, with
Hypothesis, which finds the smallest document that breaks them.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import gc
import json
import os
import random
import string
import tracemalloc
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from swarm_agent.api import local, routes
from swarm_agent.model.objects import KINDS
from tests.unit.api.kit import NODE_ID, Door
from tests.unit.api.swarm_story import EVERYTHING, web

REQUESTS = 10_000
CLIENTS = 8

SWARMS_OWN_500 = (
    "rpc error: code = Unknown desc = ",  # a version conflict, or a constraint that cannot be read
    "Invalid ",  # words in filters
    "Bad parameters: you must choose at least one stream",
    "tail value must be",
    "negative tail values",
    "could not parse ",
)

ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64,
    -(2**63) - 1, 1e300, 0.5, "", "web", "\0", "é\ud800",
    "a" * 300,
    "../..", "🐳", [], {}, [None], {"": ""}, [[[[]]]], {"Name": {"Name": "Name"}}, "node.role==worker", "99999h",
]  # fmt: skip

RIGHT: dict[str, Any] = {
    "/services/create": EVERYTHING,
    "/services/{id}/update": web(),
    "/nodes/{id}/update": {"Role": "manager", "Availability": "active", "Labels": {"a": "b"}, "Name": "n"},
    "/secrets/create": {"Name": "s", "Labels": {"a": "b"}, "Data": "YQ==", "Templating": {"Name": "golang"}},
    "/secrets/{id}/update": {"Name": "key", "Labels": {"a": "b"}},
    "/configs/create": {"Name": "c", "Labels": {"a": "b"}, "Data": "YQ=="},
    "/configs/{id}/update": {"Name": "conf", "Labels": {"a": "b"}},
    "/swarm/update": {
        "Name": "default",
        "Orchestration": {"TaskHistoryRetentionLimit": 5},
        "Raft": {"SnapshotInterval": 10000, "KeepOldSnapshots": 0, "LogEntriesForSlowFollowers": 500},
        "Dispatcher": {"HeartbeatPeriod": 5 * 10**9},
        "CAConfig": {"NodeCertExpiry": 7776000000000000, "ExternalCAs": [{"Protocol": "cfssl", "URL": "https://x"}]},
        "EncryptionConfig": {"AutoLockManagers": True},
    },
    "/swarm/init": {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "10.1.1.1", "Spec": {}, "SubnetSize": 24},
    "/swarm/join": {"ListenAddr": "0.0.0.0:2377", "RemoteAddrs": ["10.1.1.1:2377"], "JoinToken": "t"},
    "/swarm/unlock": {"UnlockKey": "SWMKEY-1-x"},
    "/networks/create": {
        "Name": "net",
        "Driver": "overlay",
        "Attachable": True,
        "Labels": {"a": "b"},
        "Options": {"x": "y"},
        "IPAM": {"Driver": "default", "Config": [{"Subnet": "10.9.0.0/24", "Gateway": "10.9.0.1"}]},
    },
    "/containers/create": {"Image": "alpine", "HostConfig": {"NetworkMode": "net"}},
    "/networks/{id}/connect": {"Container": "x", "EndpointConfig": {"Aliases": ["a"]}},
    "/networks/{id}/disconnect": {"Container": "x", "Force": True},
}
STREAMS = ("/events", "/swarm-agent/v1/snapshot", "/swarm-agent/v1/restore")
"""Answers without an end, and calls that tests of their own mangle."""
LEAVES = ("/swarm/leave",)


def calls() -> list[tuple[str, str]]:
    """Method and path (with {id}) of everything that the front door answers itself."""
    table = [(route.method, route.pattern.pattern.replace("(?P<id>[^/]+)", "{id}")) for route in routes.CLUSTER]
    table += [*local._LOCAL, *local._NETWORKS, ("GET", "/networks/{id}"), ("DELETE", "/networks/{id}")]
    table += [("GET", "/services/{id}/logs"), ("GET", "/tasks/{id}/logs"), ("POST", "/containers/create")]
    table += [("POST", "/networks/{id}/connect"), ("POST", "/networks/{id}/disconnect")]
    return [(method, path) for method, path in table if path not in (*STREAMS, *LEAVES)]


class Mangler:
    """Makes requests from a seed."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def request(self, method: str, path: str, terms: list[str], versions: list[str]) -> bytes:
        """The bytes of one request that is more or less wrong. The server can tell where it ends."""
        rng = self._rng
        body = self._body(path) if method == "POST" else b""
        target = path.replace("{id}", quote(rng.choice([*terms, self._junk()]), safe="") or "x")
        prefix = rng.choice(["", "", "/v1.41", "/v1.30", "/v1.24", "/v1.51", "/v1.99", "/v0.1", "/v99999.1", "/vX"])
        query = "&".join(
            f"{quote(key)}={quote(self._value(key, versions))}" for key in rng.sample(QUERIES, rng.randrange(4))
        )
        kind = rng.choice([*["application/json"] * 12, "text/plain", "", "application/json; charset=utf-8", "x" * 50])
        head = [f"{method} {prefix}{target}{'?' + query if query else ''} HTTP/1.1", "Host: door"]
        if body or rng.random() < 0.1:
            head.append(f"Content-Type: {kind}")
        if rng.random() < 0.05:
            head.append(f"X-Registry-Auth: {base64.b64encode(os.urandom(20)).decode()}")
        if body and rng.random() < 0.2:
            cut = rng.randrange(len(body) + 1)
            chunks = [part for part in (body[:cut], body[cut:]) if part]
            head.append("Transfer-Encoding: chunked")
            body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in chunks) + b"0\r\n\r\n"
        else:
            head.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*head, "Connection: close", "", ""]).encode() + body

    def _body(self, path: str) -> bytes:
        rng = self._rng
        value = copy.deepcopy(RIGHT.get(path, {}))
        for _ in range(rng.choice([0, 1, 1, 1, 2, 3, 8])):
            value = self._mangled(value)
        data = json.dumps(value).encode()
        dice = rng.random()
        if dice < 0.05:
            data = data[: rng.randrange(len(data) + 1)]
        elif dice < 0.08:
            data = bytes(rng.randrange(256) for _ in range(rng.randrange(40)))
        elif dice < 0.10:
            data = b"[" * rng.choice([1, 500, 5000])
        elif dice < 0.11:
            data += b" " * 100_000 + rng.choice([b"", b"{}", b"x"])
        return data

    def _mangled(self, value: Any) -> Any:
        """One change somewhere in a document."""
        rng = self._rng
        spots = list(_spots(value))
        if not spots:
            return rng.choice(ODD)
        owner, key = rng.choice(spots)
        what = rng.randrange(6)
        if what == 0 and isinstance(owner, dict):
            owner[rng.choice([str(key).lower(), str(key) + "s", self._junk()])] = owner.pop(key)
        elif what == 1:
            del owner[key]
        elif what == 2:
            owner[key] = [owner[key], owner[key]]
        elif what == 3:
            owner[key] = {"Name": owner[key]}
        else:
            owner[key] = copy.deepcopy(rng.choice(ODD))
        return value

    def _junk(self) -> str:
        return "".join(self._rng.choice(string.printable) for _ in range(self._rng.randrange(1, 12)))

    def _value(self, key: str, versions: list[str]) -> str:
        rng = self._rng
        if key == "version" and rng.random() < 0.7:
            return rng.choice(versions)
        if key == "filters":
            names = ("name", "id", "label", "mode", "role", "service", "node", "desired-state", "scope", "x", "until")
            filters: Any = {rng.choice(names): rng.choice([["web"], {"web": True}, ["\0"], "x", [1], {"a": 1}, None])}
            return json.dumps(rng.choice([filters, filters, filters, [], "x", {"name": {}}]))[
                : rng.choice([999, 999, 8])
            ]
        return rng.choice(
            ["1", "true", "0", "odd", "previous", "spec", "-1", "all", "1.5", "\0", "9" * 30, self._junk()]
        )


QUERIES = [
    "version", "rollback", "registryAuthFrom", "rotateWorkerToken", "rotateManagerToken", "rotateManagerUnlockKey",
    "force", "filters", "status", "insertDefaults", "stdout", "stderr", "tail", "since", "details", "timestamps",
    "scope", "verbose",
]  # fmt: skip


def _spots(value: Any):  # type: ignore[no-untyped-def]
    """(owner, key) of every member and item within a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _spots(inner)


async def ask(door: Door, data: bytes) -> tuple[int, Any]:
    """Status and JSON of the answer to these bytes."""
    reader, writer = await asyncio.open_unix_connection(str(door.path))
    try:
        writer.write(data)
        answer = await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split(b" ")[1])
    if b"application/json" not in head or data.startswith(b"HEAD"):
        return status, None
    return status, json.loads(body)


def state(door: Door) -> tuple[int, list[Any]]:
    view = door.store.view()
    return view.index, [view.all(kind) for kind in KINDS.values()]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def fill(door: Door) -> None:
    for path, body in (
        ("/services/create", web()),
        ("/secrets/create", {"Name": "key", "Data": "YQ=="}),
        ("/configs/create", {"Name": "conf", "Data": "YQ=="}),
        ("/networks/create", {"Name": "back", "Driver": "overlay"}),
    ):
        status, answer = await door.call("POST", path, body)
        assert status in (201, 409), answer


async def run_requests(door: Door, count: int, seed: int) -> dict[int, int]:
    """Send them, one after the other, so that a trace in the store can be told whose it is. Returns how many answers
    there were of each status."""
    mangler, rng = Mangler(random.Random(seed)), random.Random(seed)
    table = calls()
    seen: dict[int, int] = {}
    for number in range(count):
        if number % 250 == 0:
            await fill(door)
        method, path = table[number % len(table)]
        service = door.store.view().all(KINDS["service"])
        versions = ["1", str(door.store.view().index), *[str(item.version.index) for item in service[:1]]]
        data = mangler.request(method, path, ["web", "key", "conf", "back", NODE_ID, "first", "ingress"], versions)
        before = state(door)
        status, answer = await ask(door, data)
        seen[status] = seen.get(status, 0) + 1
        what = f"request {number} of seed {seed}: {data[:2000]!r}\nanswer {status} {answer}"
        if status >= 400 and method != "HEAD":
            assert isinstance(answer, dict) and answer.get("message"), what
            assert state(door) == before, f"a trace of a refused change\n{what}"
        if status >= 500:
            assert status in (500, 501, 503), what
            assert status != 500 or answer["message"].startswith(SWARMS_OWN_500), what
        if rng.random() < 0.01:
            for kind in KINDS.values():
                for item in door.store.view().all(kind):
                    json.loads(door.store.encoded(item))
    return seen


@pytest.mark.timeout(300)
async def test_ten_thousand_mangled_requests(swarm: Door, caplog: pytest.LogCaptureFixture) -> None:
    await run_requests(swarm, 500, seed=1)  # what is loaded once is loaded now
    tasks, files = await settled(lambda: (len(asyncio.all_tasks()), open_files()))
    gc.collect()
    tracemalloc.start()
    try:
        await run_requests(swarm, 500, seed=2)
        await purge(swarm)
        gc.collect()
        used = tracemalloc.get_traced_memory()[0]
        seen = await run_requests(swarm, REQUESTS // 10, seed=3)
        await purge(swarm)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - used
    finally:
        tracemalloc.stop()
    for status, more in (await run_requests(swarm, REQUESTS - 1500 - REQUESTS // 10 + 500, seed=4)).items():
        seen[status] = seen.get(status, 0) + more
    assert seen[200] > 200 and seen[400] > 500 and seen[404] > 100, f"the requests miss the point: {seen}"
    assert await settled(lambda: (len(asyncio.all_tasks()), open_files())) == (tasks, files)
    assert grown < 500_000, f"{grown} bytes more after a thousand requests"
    assert "failed" not in caplog.text, caplog.text


async def purge(door: Door) -> None:
    """Remove what the requests made, and forget the log, which a real store keeps on disk."""
    for kind in ("services", "secrets", "configs"):
        for item in (await door.call("GET", f"/{kind}"))[1]:
            await door.call("DELETE", f"/{kind}/{item['ID']}")
    await door.call("POST", "/networks/prune")
    door.store.proposer.entries.clear()  # type: ignore[union-attr]


async def settled(look: Callable[[], tuple[int, int]]) -> tuple[int, int]:
    """The value when it has stopped to fall: connections end a little after their answers."""
    last = look()
    for _ in range(100):
        await asyncio.sleep(0.05)
        now = look()
        if now == last:
            return now
        last = now
    return last
