"""The image that lab hosts are started from: a small Debian, built once, found again by a hash of what it is made of.

mmdebstrap makes a root file system from Debian packages, `files/host-image/customize` finishes it, and the machine's
engine imports it. The tag is a hash over the package list, the suite, the mirrors and the scripts: a change of any
builds a new image, no change costs one look-up. The tarball stays in `.cache/lab/`, for an engine that lost its images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .command import run
from .engine import docker, docker_attempt
from .state import Home

REPOSITORY = "swarmlab/host"
BUILD_SECONDS = 1200
# Documentation and translations are half the files of a Debian and no use here; licences stay.
_LEAVE_OUT = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the image is made of.

    `source` is the folder with `packages`, `customize`, perhaps `setup`, and the files they install; `base` one whose
    packages, and perhaps files, are used as well.
    """

    source: Path
    suite: str
    mirrors: tuple[str, ...] = ()
    base: Path | None = None

    @property
    def folders(self) -> tuple[Path, ...]:
        return (self.base, self.source) if self.base else (self.source,)

    def packages(self) -> list[str]:
        lines = [line.strip() for folder in self.folders for line in (folder / "packages").read_text().splitlines()]
        return sorted({line for line in lines if line and not line.startswith("#")})

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr((self.suite, self.mirrors, _LEAVE_OUT)).encode())
        for path in [path for folder in self.folders for path in sorted(folder.iterdir())]:
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        return digest.hexdigest()[:12]

    @property
    def tag(self) -> str:
        return f"{REPOSITORY}:{self.fingerprint}"


# Parameters of the modules that make images; their documentation is the fragment `recipe`.
RECIPE_SPEC: dict[str, dict[str, object]] = {
    "source": {"type": "path", "required": True},
    "suite": {"type": "str", "required": True},
    "mirrors": {"type": "list", "elements": "str", "default": []},
}


def recipe_of(params: Mapping[str, Any], base: Path | None = None) -> Recipe:
    """The recipe that a module's parameters tell."""
    return Recipe(Path(params["source"]), params["suite"], tuple(params["mirrors"]), base)


def present(recipe: Recipe) -> bool:
    """Whether the machine's engine has the image."""
    return docker_attempt("image", "inspect", "--format", "{{.Id}}", recipe.tag).returncode == 0


def ensure(home: Home, recipe: Recipe) -> bool:
    """Make sure the machine's engine has the image; whether that took anything. A first build takes about a minute."""
    if present(recipe):
        return False
    tarball = home.cache / f"host-{recipe.fingerprint}.tar"
    if not tarball.exists():
        _build(recipe, tarball)
    docker("import", str(tarball), recipe.tag, timeout=300)
    return True


def _build(recipe: Recipe, tarball: Path) -> None:
    tarball.parent.mkdir(parents=True, exist_ok=True)
    for old in tarball.parent.glob("host-*.tar*"):
        old.unlink()
    partial = tarball.with_suffix(".tar.part")
    run(mmdebstrap(recipe, "tar", partial), timeout=BUILD_SECONDS)
    partial.rename(tarball)


def mmdebstrap(recipe: Recipe, form: str, target: Path) -> Sequence[str]:
    """The command line that makes the recipe's root file system, as a `tar` or a `directory`."""
    setup = recipe.source / "setup"
    return [
        "mmdebstrap",
        "--variant=apt",
        f"--format={form}",
        f"--include={','.join(recipe.packages())}",
        '--aptopt=APT::Install-Recommends "false"',
        *(f"--dpkgopt={option}" for option in _LEAVE_OUT),
        *([f"--setup-hook={setup}"] if setup.exists() else []),
        f"--customize-hook={recipe.source / 'customize'}",
        recipe.suite,
        str(target),
        *recipe.mirrors,
    ]
