"""Docker's own clients at the front door, before this machine's engine: both command lines and docker-py."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import tarfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import docker
import docker.errors
import pytest
from aiohttp import web

from tests.unit.api.kit import NODE_ID, Door, HttpEngine, open_door

ENGINE = Path("/run/docker.sock")
T = TypeVar("T")
PROGRAMS = sorted({path for name in ("/usr/local/bin/docker", "/usr/bin/docker") if (path := shutil.which(name))})


@dataclass(frozen=True, slots=True)
class Cli:
    """A docker program that talks to the front door."""

    program: str
    socket: Path

    async def __call__(self, *arguments: str, code: int = 0, stdin: bytes = b"") -> str:
        """What it printed; both outputs together when it is to fail."""
        process = await asyncio.create_subprocess_exec(
            self.program,
            "--host",
            f"unix://{self.socket}",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(stdin), 60)
        printed = out.decode() if code == 0 else (out + err).decode()
        assert process.returncode == code, f"docker {' '.join(arguments)}: {(out + err).decode()}"
        return printed.strip()


@pytest.fixture
async def real_door(tmp_path: Path) -> AsyncIterator[Door]:
    """A manager before this machine's engine."""
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(ENGINE)) != 0:
            pytest.skip(f"no engine at {ENGINE}")
    async with open_door(tmp_path, ENGINE) as door:
        assert (await door.call("POST", "/swarm/init", {}))[0] == 200
        yield door


@pytest.fixture(params=PROGRAMS)
def cli(request: pytest.FixtureRequest, real_door: Door) -> Cli:
    return Cli(request.param, real_door.path)


async def test_info_shows_the_cluster(cli: Cli) -> None:
    info = await cli("info")
    for line in (
        "Swarm: active",
        f"NodeID: {NODE_ID}",
        "Is Manager: true",
        "ClusterID: cluster",
        "Managers: 1",
        "Nodes: 1",
        "Default Address Pool: 10.0.0.0/8",
        "Task History Retention Limit: 5",
        "Snapshot Interval: 10000",
        "Heartbeat Tick: 1",
        "Election Tick: 10",
        "Heartbeat Period: 5 seconds",
        "Expiry Duration: 3 months",
        "Node Address: 10.1.1.1",
        "10.1.1.1:2377",
    ):
        assert line in info


async def test_nodes(cli: Cli) -> None:
    assert re.search(rf"^{NODE_ID} \*\s+first\s+Ready\s+Active\s+Leader", await cli("node", "ls"), re.M)
    await cli("node", "update", "--availability", "drain", "--label-add", "disk=ssd", "first")
    shown = await cli("node", "inspect", "--pretty", "self")
    assert re.search(r"Availability:\s+Drain", shown) and "disk=ssd" in shown
    assert "attempting to demote the last manager of the swarm" in await cli("node", "demote", "first", code=1)


async def test_services(cli: Cli) -> None:
    create = ("service", "create", "--detach", "--quiet", "--no-resolve-image")
    id_ = await cli(*create, "--name", "web", "--replicas", "2", "--publish", "8080:80", "alpine", "ping", "host")
    assert re.fullmatch(r"[0-9a-z]{25}", id_)
    assert re.search(r"web\s+replicated\s+0/2\s+alpine:latest", await cli("service", "ls"))
    pretty = await cli("service", "inspect", "--pretty", "web")
    assert re.search(r"Args:\s+ping host", pretty) and re.search(r"Parallelism:\s+1", pretty)
    assert "web scaled to 5" in await cli("service", "scale", "--detach", "web=5")
    await cli("service", "update", "--detach", "--quiet", "--no-resolve-image", "--image", "alpine:3", "web")
    assert "alpine:3" in await cli("service", "ls")
    await cli("service", "rollback", "--detach", "--quiet", "web")
    assert "alpine:latest" in await cli("service", "ls")
    assert "port '8080' is already in use by service 'web'" in await cli(*create, "-p", "8080:1", "alpine", code=1)
    assert "no such service: nope" in await cli("service", "inspect", "nope", code=1)
    assert await cli("service", "rm", "web") == "web"


@pytest.mark.parametrize("program", PROGRAMS)
async def test_options_that_only_newer_engines_have(tmp_path: Path, program: str) -> None:
    """The lab's engines speak 1.41, so the CLI refuses these there by itself."""
    engine = HttpEngine(api_version="1.50")
    runner = web.ServerRunner(web.Server(engine.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "engine.sock")).start()
    try:
        async with open_door(tmp_path, tmp_path / "engine.sock") as door:
            await door.call("POST", "/swarm/init", {})
            cli = Cli(program, door.path)
            if "--oom-score-adj" not in await cli("service", "create", "--help"):
                pytest.skip(f"{program} is older than these options")
            create = ("service", "create", "--detach", "--quiet", "--no-resolve-image", "--name", "web")
            options = ("--oom-score-adj", "5", "--health-cmd", "x", "--health-start-interval", "3s")
            await cli(*create, *options, "--mount", "type=tmpfs,target=/t", "alpine")
            container = "{{json .Spec.TaskTemplate.ContainerSpec}}"
            shown = json.loads(await cli("service", "inspect", "--format", container, "web"))
            assert shown["OomScoreAdj"] == 5
            assert shown["Healthcheck"] == {"Test": ["CMD-SHELL", "x"], "StartInterval": 3_000_000_000}
            update = ("service", "update", "--detach", "--quiet", "--no-resolve-image")
            await cli(*update, "--oom-score-adj", "6", "--health-start-interval", "3s", "web")
            shown = json.loads(await cli("service", "inspect", "--format", container, "web"))
            assert shown["OomScoreAdj"] == 6 and shown["Healthcheck"]["StartInterval"] == 3_000_000_000
    finally:
        await runner.cleanup()


async def test_secrets_configs_and_networks(cli: Cli) -> None:
    await cli("secret", "create", "--label", "a=b", "key", "-", stdin=b"hidden")
    await cli("config", "create", "conf", "-", stdin=b"shown")
    await cli("network", "create", "--driver", "overlay", "--subnet", "10.50.0.0/24", "back")
    create = ("service", "create", "--detach", "--quiet", "--no-resolve-image", "--name", "web")
    options = ("--secret", "key", "--config", "conf", "--network", "back", "--network", "name=host")
    await cli(*create, *options, "alpine")
    assert "secret 'key' is in use by the following service: web" in await cli("secret", "rm", "key", code=1)
    assert re.search(r"network \w{25} is in use by service", await cli("network", "rm", "back", code=1))
    assert "back" in await cli("service", "inspect", "--pretty", "web")
    assert re.search(r"back\s+overlay\s+swarm", await cli("network", "ls", "--filter", "scope=swarm"))
    await cli("service", "rm", "web")
    assert await cli("secret", "rm", "key") == "key"
    assert await cli("config", "rm", "conf") == "conf"
    assert await cli("network", "rm", "back") == "back"


async def test_a_stack_is_deployed_and_removed(cli: Cli, tmp_path: Path) -> None:
    compose = tmp_path / "stack.yml"
    (tmp_path / "key").write_text("hidden")
    compose.write_text(
        "version: '3.8'\n"
        "services:\n"
        "  web: {image: alpine, networks: [back], secrets: [key], deploy: {replicas: 3, labels: {a: b}}}\n"
        "networks: {back: {}}\n"
        "secrets: {key: {file: ./key}}\n"
    )
    deploy = ("stack", "deploy", "--resolve-image", "never", "--compose-file", str(compose), "demo")
    assert "Creating service demo_web" in await cli(*deploy)
    assert re.search(r"demo\s+1", await cli("stack", "ls"))
    assert re.search(r"demo_web\s+replicated\s+0/3", await cli("stack", "services", "demo"))
    assert "Updating service demo_web" in await cli(*deploy)
    await cli("stack", "rm", "demo")
    assert "demo" not in await cli("stack", "ls") + await cli("network", "ls") + await cli("secret", "ls")


async def test_tokens_and_settings(cli: Cli) -> None:
    token = await cli("swarm", "join-token", "-q", "worker")
    rotated = await cli("swarm", "join-token", "-q", "--rotate", "worker")
    assert token != rotated and rotated.startswith("SWMTKN-1-")
    await cli("swarm", "update", "--task-history-limit", "7", "--dispatcher-heartbeat", "10s")
    info = await cli("info")
    assert "Task History Retention Limit: 7" in info and "Heartbeat Period: 10 seconds" in info
    assert "already part of a swarm" in await cli("swarm", "init", code=1)


async def test_the_engines_own_commands_pass_through(cli: Cli, tmp_path: Path) -> None:
    direct = Cli(cli.program, ENGINE)
    for command in (("ps", "--all", "--quiet"), ("images", "--quiet"), ("volume", "ls", "--quiet")):
        assert await cli(*command) == await direct(*command)
    listed = await cli("network", "ls", "--quiet", "--filter", "scope=local")
    assert listed == await direct("network", "ls", "--quiet", "--filter", "scope=local")


async def test_a_large_file_goes_in_and_out_of_a_container(cli: Cli, tmp_path: Path) -> None:
    """A container that never runs, of an image that holds one file: uploads and downloads as with `build` or `load`."""
    image = f"frontdoor-test-{tmp_path.name}:{Path(cli.program).parent.parent.name or 'usr'}"
    big = tmp_path / "big"
    big.write_bytes(bytes(range(256)) * 80_000)
    archive = tmp_path / "root.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(big, "big")
    container = ""
    try:
        await cli("import", str(archive), image)
        container = await cli("create", "--network", "none", image, "/big")
        await cli("cp", str(big), f"{container}:/copy")
        await cli("cp", f"{container}:/copy", str(tmp_path / "back"))
        assert (tmp_path / "back").read_bytes() == big.read_bytes()
        await cli("save", "--output", str(tmp_path / "saved.tar"), image)
        await cli("load", "--quiet", "--input", str(tmp_path / "saved.tar"))
    finally:
        if container:
            await cli("rm", "--force", container)
        await cli("rmi", "--force", image)


# --- docker-py -------------------------------------------------------------------------------------------------------


async def in_thread(real_door: Door, work: Callable[[docker.DockerClient], T]) -> T:
    def run() -> T:
        client = docker.DockerClient(base_url=f"unix://{real_door.path}", version="auto")
        try:
            return work(client)
        finally:
            client.close()

    return await asyncio.to_thread(run)


async def test_docker_py_manages_services(real_door: Door) -> None:
    def work(client: docker.DockerClient) -> None:
        assert client.info()["Swarm"]["NodeID"] == NODE_ID
        assert client.swarm.attrs["ID"].startswith("cluster")
        service = client.services.create("alpine", ["ping", "host"], name="web", labels={"a": "b"})
        assert [item.name for item in client.services.list(filters={"label": "a=b"})] == ["web"]
        assert service.attrs["Spec"]["Labels"] == {"a": "b"}
        assert service.scale(3)
        service.reload()
        assert service.attrs["Spec"]["Mode"] == {"Replicated": {"Replicas": 3}}
        assert service.force_update()
        assert service.tasks() == []
        service.remove()
        with pytest.raises(docker.errors.NotFound) as missing:
            client.services.get("web")
        assert missing.value.explanation == "service web not found"

    await in_thread(real_door, work)


async def test_docker_py_sees_a_version_conflict_as_it_expects_it(real_door: Door) -> None:
    def work(client: docker.DockerClient) -> Any:
        service = client.services.create("alpine", name="web")
        stale = client.api.inspect_service("web")["Version"]["Index"]
        service.update(labels={"a": "b"})
        with pytest.raises(docker.errors.APIError) as conflict:
            client.api.update_service("web", stale, name="web", fetch_current_spec=True)
        return conflict.value

    error = await in_thread(real_door, work)
    assert error.explanation.endswith("update out of sequence")
    assert error.status_code == 500


async def test_docker_py_manages_the_rest(real_door: Door) -> None:
    def work(client: docker.DockerClient) -> None:
        secret = client.secrets.create(name="key", data=b"hidden", labels={"a": "b"})
        config = client.configs.create(name="conf", data=b"shown")
        network = client.networks.create("back", driver="overlay", attachable=True)
        assert client.configs.get(config.id).attrs["Spec"]["Name"] == "conf"
        assert [item.name for item in client.networks.list(names=["back"])] == ["back"]
        assert network.attrs["Scope"] == "swarm"
        assert client.nodes.list(filters={"role": "manager"})[0].attrs["Description"]["Hostname"] == "first"
        for thing in (secret, config, network):
            thing.remove()
        assert client.secrets.list() == []

    await in_thread(real_door, work)


async def test_events_of_cluster_and_engine_in_one_stream(cli: Cli) -> None:
    process = await asyncio.create_subprocess_exec(
        cli.program,
        "--host",
        f"unix://{cli.socket}",
        "events",
        "--format",
        "{{.Type}} {{.Action}}",
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    name = f"frontdoor-test-{cli.socket.parent.name}"
    wanted = {"volume create", "secret create", "secret remove"}
    try:
        async with asyncio.timeout(30):
            await _first_line(process.stdout, cli)
            await cli("volume", "create", "--name", name)
            await cli("secret", "create", "key", "-", stdin=b"x")
            await cli("secret", "rm", "key")
            while wanted:
                wanted.discard((await process.stdout.readline()).decode().strip())
    finally:
        process.terminate()
        await process.wait()
        await cli("volume", "rm", "--force", name)


async def _first_line(lines: asyncio.StreamReader, cli: Cli) -> None:
    """Makes secrets until the stream tells of one: only then does it surely stand, for the client does not say."""
    waiting = asyncio.ensure_future(lines.readline())
    number = 0
    while not waiting.done():
        number += 1
        await cli("secret", "create", f"try{number}", "-", stdin=b"x")
    assert await waiting
