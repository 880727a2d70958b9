"""The same requests to a real Docker Swarm and to our front door; status and JSON have to be the same.

Swarm is this machine's dockerd, started in swarm mode in namespaces of its own. Ours is the front door on a
store in memory, without orchestrators: so what the allocator and the updater add is left out, as is what names a
machine. Every other difference is listed in `ACCEPTED`, with its reason. What is asked is in swarm_story.py.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.beside.story import differences
from tests.unit.api.kit import http_engine, open_door
from tests.unit.api.swarm_story import STORY, Step

ADDRESS = "10.200.0.1"

# --- what may differ -------------------------------------------------------------------------------------------------

ELSEWHERE = {
    "TLSInfo": "certificates are this cluster's own",
    "JoinTokens": "tokens are this cluster's own",
    "Description": "the node's own facts",
    "Addr": "the node's own address",
    "Endpoint": "filled in by the allocator, which does not run here",
    "UpdateStatus": "set by the update supervisor, which does not run here",
    "com.docker.network.driver.overlay.vxlanid_list": "chosen by the allocator, which does not run here",
}
DEFAULTS = (
    "CAConfig.NodeCertExpiry: only ours 7776000000000000",
    "Dispatcher.HeartbeatPeriod: only ours 5000000000",
    "Raft.ElectionTick: real 0 ours 10",
    "Raft.HeartbeatTick: real 0 ours 1",
    "Raft.LogEntriesForSlowFollowers: only ours 500",
    "Raft.SnapshotInterval: only ours 10000",
    "TaskDefaults.LogDriver: only ours",
)
NO_CA = "what is no certificate is refused; Swarm takes it for nothing"
ACCEPTED = [
    (r"POST (/v[\d.]+)?/services/create", ".Warnings: only ours null", "engines from 23 on show that there are none"),
    (r"GET (/v[\d.]+)?/swarm$", ".DefaultAddrPool", "20.10 shows the default pools as null, later engines by name"),
    (
        r".*filters=",
        ".message: real \"Invalid filter '",
        "20.10 writes Invalid filter, later engines invalid filter",
    ),
    (r".*filters=\{$", ".message", "the words of Go's JSON decoder"),
    (r".*", ".message: real \"json: cannot unmarshal", "the words of Go's JSON decoder"),
    (r"POST /services/create", ".message: real \"unexpected EOF", "the words of Go's JSON decoder"),
    (r"POST /secrets/create", ".message: real \"illegal base64", "the words of Go's JSON decoder"),
    (r"POST /v1.2\d/services/create", ".Warnings: real [\"image alpine:latest could", "no look-up on the server"),
    (r"POST /services/web/update", ".message: real \"got EOF while", "later engines read no body as an empty object"),
    (r"GET /v1.2/", ": real \"client version 1.2 is too old. Minimum", "20.10 has an older minimum"),
    *((r"GET /swarm", f".Spec.{what}", "left out: shown as it counts, in Swarm as 0") for what in DEFAULTS),
    *(
        (r"POST /swarm/update", start + "rpc error: code = InvalidArgument desc = could not parse the", NO_CA)
        for start in (': real null ours {"message": "', "status 200, ours 400: {'message': '")
    ),
    (r"GET /nodes/HOSTNAME", ".message: real \"node ", "each has its own name"),
    (r"GET /networks/bare", ".IPAM.Config", "chosen by the allocator, which does not run here"),
    (r"GET /services", ".Spec.TaskTemplate.ContainerSpec.Privileges.NoNewPrivileges: only ours", "not in 20.10"),
    (r"GET /services/other", ".Spec.TaskTemplate.Networks[0].Target: real \"ID\" ours \"bridge", "no object there"),
    (r"GET /networks", ".Options", "chosen by the allocator, which does not run here"),
    (r"POST /services/create", "status 500, ours 404: {'message': 'network nope", "the client's mistake, so no 500"),
    (r"POST /services/web/update", "status 500, ours 400", "an unknown option is the client's mistake, so no 500"),
    (r"POST /services/web/update", "status 500, ours 404: {'message': 'network nope", "the client's mistake: no 500"),
]  # fmt: skip


def normal(value: Any, key: str = "") -> Any:
    """Without what must differ: ids, times, versions, and what `ELSEWHERE` names; objects in order of name."""
    if isinstance(value, dict):
        return {name: normal(item, name) for name, item in value.items() if name not in ELSEWHERE}
    if isinstance(value, list):
        items = [normal(item) for item in value]
        named = items and all(isinstance(item, dict) and "Spec" in item for item in items)
        return sorted(items, key=lambda item: str(item["Spec"].get("Name"))) if named else items
    if isinstance(value, str):
        value = re.sub(r"\b[a-z0-9]{24,25}\b", "ID", value)
        return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", value)
    return "VERSION" if key == "Index" else value


def is_accepted(call: str, difference: str) -> bool:
    return any(re.match(pattern, call) and difference.startswith(start) for pattern, start, _ in ACCEPTED)


# --- two clusters ----------------------------------------------------------------------------------------------------


@dataclass
class Side:
    """One of the two, and the versions that its objects have now."""

    session: aiohttp.ClientSession

    async def ask(self, step: Step) -> tuple[int, Any]:
        method, path, body = step
        if "NODE" in path or "@node" in path or "HOSTNAME" in path:
            (node,) = (await self._call("GET", "/nodes", None))[1]
            path = path.replace("HOSTNAME", node["Description"]["Hostname"].upper())
            path = path.replace("NODE", node["ID"]).replace("@node", str(node["Version"]["Index"]))
        for mark, where in (
            ("@web", "/services/web"),
            ("@old", "/services/old"),
            ("@secret", "/secrets/s-1"),
            ("@config", "/configs/c-1"),
            ("@swarm", "/swarm"),
        ):
            if mark in path:
                _, found = await self._call("GET", where, None)
                path = path.replace(mark, str(found.get("Version", {}).get("Index")))
        status, answer = await self._call(method, path, body)
        async with asyncio.timeout(10):
            while _is_unsettled(answer):
                status, answer = await self._call(method, path, body)
        return status, answer

    async def _call(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data is not None else {}
        async with self.session.request(method, f"http://side{path}", data=data, headers=headers) as reply:
            text = await reply.text()
        return reply.status, json.loads(text) if text and reply.content_type == "application/json" else text or None


def _is_unsettled(answer: Any) -> bool:
    """A network that Swarm has yet to allocate, or tasks of a removed service that it has yet to delete."""
    if isinstance(answer, dict):
        return bool(answer.get("Driver") == "")
    return isinstance(answer, list) and any(
        isinstance(it, dict) and it.get("DesiredState") == "remove" for it in answer
    )


START = """
ip link set lo up && ip address add {address}/24 dev lo
exec dockerd --data-root {home}/data --exec-root {home}/exec --pidfile {home}/pid --host unix://{home}/docker.sock \
    --bridge=none --iptables=false --ip-masq=false --storage-driver vfs
"""


@pytest.fixture(scope="module")
def real_swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a dockerd in swarm mode."""
    if not all(shutil.which(program) for program in ("dockerd", "docker", "unshare", "ip")):
        pytest.skip("needs dockerd, docker, unshare and ip")
    if subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to make namespaces")
    home = tmp_path_factory.mktemp("swarm")
    script = START.format(address=ADDRESS, home=home)
    with (home / "log").open("wb") as log:
        engine = subprocess.Popen(["unshare", "--net", "--mount", "sh", "-c", script], stdout=log, stderr=log)
    try:
        docker = ["docker", "--host", f"unix://{home}/docker.sock"]
        init = [*docker, "swarm", "init", "--advertise-addr", ADDRESS, "--listen-addr", ADDRESS]
        for _ in range(300):
            if engine.poll() is not None:
                pytest.fail(f"dockerd ended:\n{(home / 'log').read_text()[-2000:]}")
            if subprocess.run([*docker, "version"], capture_output=True, check=False).returncode == 0:
                break
        subprocess.run(init, capture_output=True, check=True, timeout=60)
        yield home / "docker.sock"
    finally:
        engine.terminate()
        try:
            engine.wait(20)
        except subprocess.TimeoutExpired:
            engine.kill()
            engine.wait()


@pytest.fixture
async def sides(real_swarm: Path, tmp_path: Path) -> AsyncIterator[tuple[Side, Side]]:
    """Real and ours, both with nothing in them but the cluster itself."""
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(real_swarm))) as session,
        http_engine(tmp_path / "engine.sock") as engine,
        open_door(tmp_path, tmp_path / "engine.sock") as door,
    ):
        engine.unused.clear()
        await door.call("POST", "/swarm/init", {})
        yield Side(session), Side(door.session)


async def test_both_answer_alike(sides: tuple[Side, Side]) -> None:
    real, ours = sides
    found = []
    for chapter, steps in STORY.items():
        for step in steps:
            call = f"{step[0]} {step[1]}"
            (real_status, real_answer), (our_status, our_answer) = await real.ask(step), await ours.ask(step)
            unlike = list(differences(normal(real_answer), normal(our_answer)))
            if real_status != our_status:
                unlike.append(f"status {real_status}, ours {our_status}: {our_answer}")
            unlike = [item for item in unlike if not is_accepted(call, item)]
            found += [f"{chapter}: {call} {json.dumps(str(step[2]))[:100]}\n    {item}" for item in unlike]
    assert not found, "\n".join(found)
