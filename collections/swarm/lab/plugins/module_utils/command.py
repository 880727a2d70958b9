"""Running programs and saying clearly what went wrong."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


class LabError(Exception):
    """Something the person at the keyboard can act on: what was tried, what was found, what to do."""


def environment(**extra: str) -> dict[str, str]:
    """This process's environment, with `extra`, without docker's own settings, which would lead the CLI elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")} | extra


def run(
    argv: Sequence[str],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 60,
) -> str:
    """Run a program and return its standard output.

    Raises LabError with the program's own words when it is missing, fails, or takes longer than `timeout` seconds.
    """
    done = attempt(argv, stdin=stdin, env=env, timeout=timeout)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip() or "nothing printed"
        raise LabError(f"'{' '.join(argv)}' failed with code {done.returncode}: {said}")
    return done.stdout


def attempt(
    argv: Sequence[str],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 60,
) -> subprocess.CompletedProcess[str]:
    """Run a program whose failure is an answer. Raises LabError only when it is missing or hangs."""
    try:
        return subprocess.run(
            list(argv),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            env=environment() if env is None else env,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise LabError(f"'{argv[0]}' is not installed on this machine; `tests/lab/lab up` installs it") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"'{' '.join(argv)}' gave no answer within {timeout:.0f} s") from error


def run_to_file(argv: Sequence[str], path: Path, *, timeout: float = 60) -> None:
    """Run a program and keep its standard output, any bytes, in a file. Raises LabError as `run` does."""
    with path.open("wb") as output:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            env=environment(),
            timeout=timeout,
            check=False,
        )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip() or "nothing printed"
        raise LabError(f"'{' '.join(argv)}' failed with code {done.returncode}: {said}")
