"""The tiny images that tests run: made here, file by file, since no registry can be reached.

    alpine:latest                  busybox: sh, ping, wget, nc, httpd, sleep …
    redis:3.0.6  redis:3.0.7       listen (an echo) until told to stop; two ids, so one can be updated to the other
    redis:broken                   dies at once with code 1
    whoami:latest                  tells its container and its peer over HTTP and UDP (images/whoami.py)

Each is an archive as `docker save` writes it, kept in `.cache/lab/tiny/`. Busybox and Python are taken from the host
image, so nothing is downloaded. An archive is named by a hash of what went in; an image's id is the hash of its
configuration, as everywhere, so whether a host has it already is known without loading it.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.swarm.lab.plugins.module_utils.command import LabError, attempt, run, run_to_file
from ansible_collections.swarm.lab.plugins.module_utils.engine import cli, docker
from ansible_collections.swarm.lab.plugins.module_utils.hosts import socket_target
from ansible_collections.swarm.lab.plugins.module_utils.state import Home

SOURCES = Path(__file__).parent / "images"
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LOAD_SECONDS = 900  # an image; a second is usual, but four hosts may load at once on a machine that is busy
_EPOCH = "2000-01-01T00:00:00Z"
# What the HTTP server never imports, and is half of the standard library.
_LIBRARY_WITHOUT = ("lib2to3", "idlelib", "test", "unittest", "pydoc_data", "ensurepip", "distutils", "tkinter")


@dataclass(frozen=True, slots=True)
class Recipe:
    """One image. `files` are sources copied to a path with mode 0755; `python` adds an interpreter."""

    command: tuple[str, ...]
    env: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    ports: tuple[str, ...] = ()
    python: bool = False


def _redis(version: str, source: str = "redis-server") -> Recipe:
    return Recipe(("redis-server",), (f"VERSION={version}",), ((source, "usr/local/bin/redis-server"),), ("6379/tcp",))


RECIPES = {
    "alpine:latest": Recipe(("/bin/sh",)),
    "redis:3.0.6": _redis("3.0.6"),
    "redis:3.0.7": _redis("3.0.7"),
    "redis:broken": _redis("broken", "redis-broken"),
    "whoami:latest": Recipe(
        ("python3", "/usr/local/lib/whoami.py"),
        ("PORT=80",),
        (("whoami.py", "usr/local/lib/whoami.py"),),
        ("80/tcp", "80/udp"),
        python=True,
    ),
}


@dataclass(frozen=True, slots=True)
class Archive:
    """An image on disk: the archive, the image's id, and what a registry wants of it."""

    name: str
    path: Path
    image_id: str

    def members(self) -> tuple[bytes, list[bytes]]:
        """The configuration and the layers, as stored."""
        with tarfile.open(self.path) as archive:
            [manifest] = json.loads(_member(archive, "manifest.json"))
            return _member(archive, manifest["Config"]), [_member(archive, layer) for layer in manifest["Layers"]]


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    content = archive.extractfile(name)
    assert content is not None, f"{name} is no regular file"
    return content.read()


def full_name(name: str) -> str:
    """`alpine` means `alpine:latest`. Raises LabError, naming those that exist, for an image that is not made here."""
    name = name if ":" in name else f"{name}:latest"
    if name not in RECIPES:
        raise LabError(f"no recipe for image '{name}'; there are: {', '.join(RECIPES)}")
    return name


def build(home: Home, host_image: str, names: Iterable[str]) -> list[Archive]:
    """The archives of these images, made where they are not in the cache."""
    return [_build_one(home, host_image, full_name(name)) for name in names]


def load(host: str, engine_socket: Path, archives: Iterable[Archive], tell: Callable[[str], object]) -> list[str]:
    """Load images into the engine of a host; the names of those it did not have. `tell` hears of each before it."""
    engine = ["docker", "--host", f"unix://{engine_socket}"]
    if attempt([*engine, "version"]).returncode != 0:
        raise LabError(f"{host} runs no engine ({engine_socket} is silent); site.yml starts it, load the images then")
    loaded = []
    for archive in archives:
        present = attempt([*engine, "image", "inspect", "--format", "{{.Id}}", archive.name])
        if present.stdout.strip() != archive.image_id:
            tell(f"{host}: loading {archive.name}")
            run([*engine, "load", "--quiet", "--input", str(archive.path)], timeout=_LOAD_SECONDS)
            loaded.append(archive.name)
    return loaded


def load_all(
    home: Home, names: Iterable[str], archives: list[Archive], tell: Callable[[str], object] = lambda text: None
) -> dict[str, list[str]]:
    """Load images on several hosts at once; what each did not have."""
    names = list(names)
    sockets = [socket_target(home, name, "engine.sock") for name in names]
    with ThreadPoolExecutor(4) as pool:
        loaded = pool.map(lambda name, socket: load(name, socket, archives, tell), names, sockets)
        return dict(zip(names, loaded, strict=True))


def _build_one(home: Home, host_image: str, name: str) -> Archive:
    recipe = RECIPES[name]
    digest = hashlib.sha256(f"{name} {host_image} {recipe}".encode())
    for path in (Path(__file__), *(SOURCES / source for source, _ in recipe.files)):
        digest.update(path.read_bytes())
    stem = f"{name.replace(':', '-')}-"
    path = home.cache / "tiny" / f"{stem}{digest.hexdigest()[:12]}.tar"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in path.parent.glob(f"{stem}*.tar"):
            old.unlink()
        partial = path.with_suffix(".part")
        _write_archive(partial, name, recipe, _layer(home, host_image, recipe))
        partial.rename(path)
    with tarfile.open(path) as archive:
        [manifest] = json.loads(_member(archive, "manifest.json"))
    return Archive(name, path, f"sha256:{manifest['Config'].removesuffix('.json')}")


def _write_archive(path: Path, name: str, recipe: Recipe, layer: bytes) -> None:
    config = {
        "architecture": docker("version", "--format", "{{.Server.Arch}}").strip(),
        "os": "linux",
        "created": _EPOCH,
        "config": {
            "Env": [_PATH, *recipe.env],
            "Cmd": list(recipe.command),
            "ExposedPorts": {port: {} for port in recipe.ports},
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created": _EPOCH, "comment": "made by the lab"}],
    }
    text = json.dumps(config, sort_keys=True).encode()
    config_name = f"{hashlib.sha256(text).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as archive:
        for member, content in (
            (config_name, text),
            ("layer.tar", layer),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            _add(archive, member, content)


def _layer(home: Home, host_image: str, recipe: Recipe) -> bytes:
    """The image's one layer: an uncompressed tar of its root file system."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as layer:
        for directory, mode in (("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777), ("usr", 0o755)):
            _add_directory(layer, directory, mode)
        busybox = _read_from_host_image(home, host_image, ["bin/busybox"])
        _copy(busybox, layer)
        applets = run(_in_host_image(host_image, ["busybox", "--list"])).split()
        for applet in applets:
            if applet != "busybox":
                _add_link(layer, f"bin/{applet}", "busybox")
        _add(layer, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n", 0o644)
        _add(layer, "etc/group", b"root:x:0:\nnogroup:x:65534:\n", 0o644)
        if recipe.python:
            _add_python(home, host_image, layer)
        for source, target in recipe.files:
            _add(layer, target, (SOURCES / source).read_bytes(), 0o755)
    return buffer.getvalue()


def _add_python(home: Home, host_image: str, layer: tarfile.TarFile) -> None:
    """Python of the host image: the interpreter, its libraries where the loader looks for them, its modules."""
    interpreter = run(_in_host_image(host_image, ["readlink", "--canonicalize", "/usr/bin/python3"])).strip()
    libraries = [
        word
        for line in run(_in_host_image(host_image, ["ldd", interpreter])).splitlines()
        for word in line.split()
        if word.startswith("/")
    ]
    tree = f"usr/lib/{Path(interpreter).name}"
    wanted = [interpreter.lstrip("/"), *(path.lstrip("/") for path in libraries), tree]
    _copy(_read_from_host_image(home, host_image, wanted, without=_LIBRARY_WITHOUT), layer)
    _add_link(layer, "usr/bin/python3", Path(interpreter).name)


def _in_host_image(host_image: str, argv: list[str]) -> list[str]:
    return cli("run", "--rm", "--network", "none", "--entrypoint", argv[0], host_image, *argv[1:])


def _read_from_host_image(
    home: Home, host_image: str, paths: list[str], without: Iterable[str] = ()
) -> tarfile.TarFile:
    scratch = home.cache / "tiny" / "from-host-image.tar"
    # Links on the way to a path are followed, so each file lands where its name says.
    tar = ["tar", "--create", "--dereference", "--hard-dereference", "--directory", "/"]
    run_to_file(_in_host_image(host_image, [*tar, *(f"--exclude=*/{name}" for name in without), *paths]), scratch)
    try:
        return tarfile.open(scratch)
    finally:
        scratch.unlink()  # open files outlive their names


def _copy(source: tarfile.TarFile, layer: tarfile.TarFile) -> None:
    with source:
        for member in source:
            layer.addfile(member, source.extractfile(member) if member.isfile() else None)


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    archive.addfile(member, io.BytesIO(content))


def _add_directory(archive: tarfile.TarFile, name: str, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode = tarfile.DIRTYPE, mode
    archive.addfile(member)


def _add_link(archive: tarfile.TarFile, name: str, target: str) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode = tarfile.SYMTYPE, target, 0o777
    archive.addfile(member)
