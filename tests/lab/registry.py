"""A registry beside the hosts, which they reach as registry.lab:5000, and a way to put tiny images into it.

It is Debian's docker-registry, run from the host image in a container of its own on the lab's network, without TLS: an
engine pulls from it when its `insecure-registries` has that name. Images go in over the registry's HTTP API from
their archives, so an image can be in the registry and on no host.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import time
from collections.abc import Iterator

from ansible_collections.swarm.lab.plugins.module_utils import hosts
from ansible_collections.swarm.lab.plugins.module_utils.command import LabError
from ansible_collections.swarm.lab.plugins.module_utils.engine import docker
from ansible_collections.swarm.lab.plugins.module_utils.identity import (
    REGISTRY_NAME,
    REGISTRY_PORT,
    container_name,
    network_name,
    registry_address,
)
from ansible_collections.swarm.lab.plugins.module_utils.state import Home
from tiny import Archive

_START_SECONDS = 30
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
ADDRESS = f"{REGISTRY_NAME}:{REGISTRY_PORT}"


def start(home: Home) -> str:
    """Run the registry, if it does not run, and wait until it answers; the name that hosts use."""
    with home.locked():
        state = home.load()
        if not state.hosts:
            raise LabError("no lab here; make one with `tests/lab/lab up`")
        arguments = [
            *("--hostname", "registry", "--network", network_name(home.identity)),
            *("--ip", registry_address(state.network), "--entrypoint", "/usr/bin/docker-registry"),
            *(state.image, "serve", "/etc/lab/registry.yml"),
        ]
        name, config = container_name(home.identity, "registry"), hosts.fingerprint(arguments)
        known = hosts.machines(home).get("registry")
        if known and (known.state != "running" or known.config != config):
            docker("rm", "--force", "--volumes", name)
            known = None
        if known is None:
            labels = [*hosts.labels_of(home, "registry"), "--label", f"swarmlab.config={config}"]
            docker("run", "--detach", "--name", name, *labels, *arguments)
        _wait(home)
    return ADDRESS


def stop(home: Home) -> None:
    """Remove the registry and all that is in it."""
    with home.locked():
        if "registry" in hosts.machines(home):
            docker("rm", "--force", "--volumes", container_name(home.identity, "registry"))


def push(home: Home, archive: Archive) -> str:
    """Put an image into the registry; the reference under which hosts pull it. Raises LabError when it is refused."""
    repository, tag = archive.name.split(":")
    config, layers = archive.members()
    with _connection(home) as connection:
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _upload(connection, repository, config) | {"mediaType": _CONFIG},
            "layers": [_upload(connection, repository, layer) | {"mediaType": _LAYER} for layer in layers],
        }
        headers = {"Content-Type": _MANIFEST}
        _ask(connection, "PUT", f"/v2/{repository}/manifests/{tag}", json.dumps(manifest).encode(), headers)
    return f"{ADDRESS}/{archive.name}"


def _upload(connection: http.client.HTTPConnection, repository: str, content: bytes) -> dict[str, object]:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    where = _ask(connection, "POST", f"/v2/{repository}/blobs/uploads/").headers["Location"]
    path = where[where.index("/v2/") :]
    headers = {"Content-Type": "application/octet-stream"}
    _ask(connection, "PUT", f"{path}{'&' if '?' in path else '?'}digest={digest}", content, headers)
    return {"digest": digest, "size": len(content)}


def _ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
) -> http.client.HTTPResponse:
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    said = response.read()
    if response.status >= 300:
        raise LabError(f"the registry answered {method} {path} with {response.status}: {said.decode(errors='replace')}")
    return response


@contextlib.contextmanager
def _connection(home: Home) -> Iterator[http.client.HTTPConnection]:
    state = home.load()
    if not state.subnet:
        raise LabError("no lab here; make one with `tests/lab/lab up`")
    connection = http.client.HTTPConnection(registry_address(state.network), REGISTRY_PORT, timeout=20)
    try:
        yield connection
    except OSError as error:
        raise LabError(f"the registry does not answer ({error}); start it with `tests/lab/lab registry up`") from error
    finally:
        connection.close()


def _wait(home: Home) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            with _connection(home) as connection:
                _ask(connection, "GET", "/v2/")
            return
        except LabError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
