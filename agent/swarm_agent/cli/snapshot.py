"""`swarmctl snapshot save|check|restore FILE`: the cluster's state in an encrypted file.

    swarmctl snapshot save --key-file /root/backup.key cluster.snapshot
    swarmctl snapshot check --key-file /root/backup.key cluster.snapshot
    swarmctl snapshot restore --key-file /root/backup.key cluster.snapshot

The secret is a key file's content, the variable SWARMCTL_PASSPHRASE, or asked for. `save` reads the whole file back and
only then gives it its name, so a file with that name is a good one.
"""

from __future__ import annotations

import argparse
import base64
import getpass
import json
import os
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from swarm_agent.store.archive import ArchiveError, Head, read
from swarm_agent.store.snapshot import SnapshotError
from swarm_agent.store.store import Store
from swarm_agent.store.tables import KINDS

from .client import Agent, CommandError

HELP = "save, check and restore the cluster's state"
VARIABLE = "SWARMCTL_PASSPHRASE"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The three actions and what each takes."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    saving = actions.add_parser("save", help="save the state of the running cluster; on a manager")
    checking = actions.add_parser("check", help="read a file whole and say what is in it")
    restoring = actions.add_parser("restore", help="found the cluster again, on a host that is in none")
    for action in (saving, checking, restoring):
        action.add_argument("file", type=Path, metavar="FILE")
        action.add_argument("--key-file", type=Path, help=f"file with the secret (else ${VARIABLE}, or you are asked)")
    for name in ("listen", "advertise", "data-path"):
        restoring.add_argument(f"--{name}-addr", default="", help="as of `docker swarm init`")


def run(agent: Agent, arguments: argparse.Namespace, console: Console) -> None:
    """Carry out the action. Raises CommandError."""
    {"save": save, "check": check, "restore": restore}[arguments.action](agent, arguments, console)


def save(agent: Agent, arguments: argparse.Namespace, console: Console) -> None:
    """Fetch, check, and give the file its name."""
    secret = secret_of(arguments, confirm=True)
    target: Path = arguments.file
    partial = target.with_name(target.name + ".partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            for piece in agent.stream("/swarm-agent/v1/snapshot", _json(Secret=_text(secret))):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        head, counts = inspect(partial, secret)
        partial.replace(target)
    except OSError as error:
        raise CommandError(f"{error.filename or target}: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
    show(target, head, counts, console)


def check(agent: Agent, arguments: argparse.Namespace, console: Console) -> None:
    """Read everything, change nothing; needs no agent."""
    head, counts = inspect(arguments.file, secret_of(arguments))
    show(arguments.file, head, counts, console)


def restore(agent: Agent, arguments: argparse.Namespace, console: Console) -> None:
    """Have the agent found the cluster of the file."""
    secret = secret_of(arguments)
    path: Path = arguments.file.absolute()
    inspect(path, secret)
    request = _json(
        Path=str(path),
        Secret=_text(secret),
        ListenAddr=arguments.listen_addr,
        AdvertiseAddr=arguments.advertise_addr,
        DataPathAddr=arguments.data_path_addr,
    )
    node_id = json.loads(agent.call("POST", "/swarm-agent/v1/restore", request))
    console.print(f"The cluster is restored; this node ({node_id}) is its only manager.")
    console.print("Let other hosts join with the tokens of `docker swarm join-token`.")


def inspect(path: Path, secret: bytes) -> tuple[Head, Counter[str]]:
    """Decrypt and decode all of a file: its head, and how many objects of each kind it holds. Raises CommandError."""
    try:
        with path.open("rb") as file:
            head, parts = read(file, secret)
            store = Store()
            store.install(store.load(parts))
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from None
    except (ArchiveError, SnapshotError) as error:
        raise CommandError(f"{path}: {error}") from None
    view = store.view()
    return head, Counter({kind.name: view.count(kind.type) for kind in KINDS.kinds})


def show(path: Path, head: Head, counts: Counter[str], console: Console) -> None:
    """Say what a good file is."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in (
        ("file", f"{path} ({path.stat().st_size} bytes)"),
        ("cluster", head.cluster_id),
        ("saved", f"{head.created} by {head.hostname}"),
        ("log index", str(head.index)),
        ("holds", ", ".join(f"{count} {kind}s" for kind, count in counts.items() if count)),
    ):
        table.add_row(name, value)
    console.print(table)


def secret_of(arguments: argparse.Namespace, *, confirm: bool = False) -> bytes:
    """The secret from where the user has it. Raises CommandError."""
    if arguments.key_file is not None:
        try:
            content = bytes(arguments.key_file.read_bytes())
        except OSError as error:
            raise CommandError(f"{arguments.key_file}: {error.strerror}") from None
        return content.strip()
    if VARIABLE in os.environ:
        return os.environ[VARIABLE].encode()
    try:
        secret = getpass.getpass("Passphrase of the snapshot: ")
        if confirm and getpass.getpass("Again: ") != secret:
            raise CommandError("the two passphrases differ")
    except EOFError:
        raise CommandError(f"no passphrase: use --key-file or ${VARIABLE}") from None
    return secret.encode()


def _json(**fields: str) -> bytes:
    return json.dumps(fields).encode()


def _text(secret: bytes) -> str:
    return base64.b64encode(secret).decode()
