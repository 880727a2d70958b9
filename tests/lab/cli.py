"""`tests/lab/lab`: make hosts on this machine, and do to them what happens to hosts.

`up` runs playbooks/lab.yml, so the lab is made the way the rest of the project is. The other verbs are plain Python
over the role's own modules, since a test that cuts a link should not wait for a playbook. Standard library only.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import registry
import tiny
from ansible_collections.swarm.lab.plugins.module_utils import engine, hosts, links
from ansible_collections.swarm.lab.plugins.module_utils.command import LabError
from ansible_collections.swarm.lab.plugins.module_utils.identity import host_names
from ansible_collections.swarm.lab.plugins.module_utils.state import Home, State


def main(root: Path, argv: Sequence[str]) -> int:
    """Run one verb; the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.verb(Home(root), arguments) or 0
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A line of `status`. `state` is the engine's word, or missing; `cut_from` names hosts it hears nothing from."""

    host: str
    state: str
    address: str
    engine: bool
    agent: bool
    cut_from: tuple[str, ...]


# --- verbs -----------------------------------------------------------------------------------------------------------


def up(home: Home, arguments: argparse.Namespace) -> int:
    """Make the hosts, or adopt those there are, and wait until they are ready."""
    host_names(arguments.hosts)
    variables = {"lab_hosts": arguments.hosts, "lab_managers": arguments.managers, "lab_subnet": arguments.subnet}
    command = [_ansible_playbook(home.root), "playbooks/lab.yml", "--extra-vars", json.dumps(variables)]
    code = subprocess.run(command, cwd=home.root, check=False).returncode
    return code or status(home, argparse.Namespace(json=False))


def down(home: Home, _: argparse.Namespace) -> None:
    """Remove hosts, volumes, network, registry and `.lab`; stop the engine if the lab started it and it is idle."""
    if not home.directory.exists() and not engine.answers():
        print("nothing to remove")
        return
    if not engine.answers():
        engine.start(home)  # what is to be removed lives in the engine's data
    found = hosts.remove_all(home)
    stopped = engine.stop(home)
    home.forget(keep="engine." if engine.owned(home) else "")
    print("removed the lab" if found else "no hosts were left", "and stopped the engine" if stopped else "")


def status(home: Home, arguments: argparse.Namespace) -> int:
    """Print each host's state, address, and whether its engine and agent serve their sockets. Code 3: one is down."""
    state = home.load()
    present = hosts.machines(home) if engine.answers() else {}
    rows = [_row(home, state, present, name) for name in state.hosts]
    if arguments.json:
        told = [dataclasses.asdict(row) for row in rows]
        print(json.dumps({"subnet": state.subnet, "hosts": told, "registry": "registry" in present}, indent=1))
    elif rows:
        print(f"{'HOST':8}{'STATE':10}{'ADDRESS':17}{'ENGINE':8}{'AGENT':8}HEARS NOTHING FROM")
        for row in rows:
            served = [f"{'up' if up else '-':8}" for up in (row.engine, row.agent)]
            print(f"{row.host:8}{row.state:10}{row.address:17}{''.join(served)}{', '.join(row.cut_from)}".rstrip())
    else:
        print("no lab here; make one with `tests/lab/lab up`")
    return 0 if rows and all(row.state == "running" for row in rows) else 3


def execute(home: Home, arguments: argparse.Namespace) -> int:
    """Run a command on a host, with this terminal and the command's own exit code."""
    hosts.machine(home, arguments.host)
    tty = sys.stdin.isatty() and sys.stdout.isatty()
    return subprocess.run(hosts.command_in(home, arguments.host, arguments.command, tty=tty), check=False).returncode


def cut(home: Home, arguments: argparse.Namespace) -> None:
    """Drop all frames between a host and another, or all others."""
    known = home.load().hosts
    _check(arguments.host, known)
    if arguments.other:
        _check(arguments.other, known)
        links_cut = links.between(arguments.host, arguments.other, one_way=arguments.one_way)
    else:
        links_cut = links.around(arguments.host, known, one_way=arguments.one_way)
    hosts.set_cuts(home, lambda state: state.cuts | links_cut)


def heal(home: Home, _: argparse.Namespace) -> None:
    """Mend all links."""
    hosts.set_cuts(home, lambda _: frozenset())


def power(action: str) -> object:
    """A verb that does one thing to each of the hosts named."""

    def verb(home: Home, arguments: argparse.Namespace) -> None:
        for host in arguments.host:
            getattr(hosts, action)(home, host)

    return verb


def images(home: Home, arguments: argparse.Namespace) -> None:
    """Load the tiny images into the engines of hosts."""
    state = home.load()
    if not state.hosts:
        raise LabError("no lab here; make one with `tests/lab/lab up`")
    chosen = arguments.host or list(state.hosts)
    for host in chosen:
        _check(host, state.hosts)
    archives = tiny.build(home, state.image, arguments.only or tiny.RECIPES)
    for host, names in tiny.load_all(home, chosen, archives, _tell).items():
        print(f"{host}: {', '.join(names) or 'has them all'}")


def archives(home: Home, arguments: argparse.Namespace) -> None:
    """Print the paths of tiny images as archives for `docker load`, for hosts that are not this lab's."""
    for archive in tiny.build(home, arguments.base, arguments.image):
        print(archive.path)


def registry_verb(home: Home, arguments: argparse.Namespace) -> None:
    """Run a registry beside the hosts, or put tiny images into it."""
    if arguments.action == "up":
        print(registry.start(home))
    elif arguments.action == "down":
        registry.stop(home)
    else:
        names = arguments.image or list(tiny.RECIPES)
        for archive in tiny.build(home, home.load().image, names):
            print(registry.push(home, archive))


# --- parts -----------------------------------------------------------------------------------------------------------


def _row(home: Home, state: State, present: dict[str, hosts.Machine], name: str) -> Row:
    word = present[name].state if name in present else "missing"
    engine_up, agent_up = (
        word == "running" and hosts.serves(home, name, kind) for kind in ("engine.sock", "docker.sock")
    )
    silent = tuple(sorted(other for other, to in state.cuts if to == name))
    return Row(name, word, state.hosts[name], engine_up, agent_up, silent)


def _tell(text: str) -> None:
    print(text, flush=True)


def _check(name: str, known: dict[str, str]) -> None:
    if name not in known:
        raise LabError(f"no host '{name}'; there are: {', '.join(known) or 'none, run `tests/lab/lab up`'}")


def _ansible_playbook(root: Path) -> str:
    places = [root / ".venv" / "bin", Path(sys.executable).parent, *map(Path, os.environ.get("PATH", "").split(":"))]
    for place in places:
        if (place / "ansible-playbook").is_file():
            return str(place / "ansible-playbook")
    raise LabError("no ansible-playbook in .venv, beside this Python or on PATH; `make venv` installs it")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab", description="Hosts on this machine, to try and test a cluster on.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def add(name: str, verb: object, help_text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=help_text, description=help_text)
        sub.set_defaults(verb=verb)
        return sub

    sub = add("up", up, "make the hosts, or adopt those there are, and wait until they are ready")
    sub.add_argument("--hosts", type=int, default=3, metavar="N", help="how many (3)")
    sub.add_argument("--managers", type=int, default=1, metavar="N", help="how many are managers in the inventory (1)")
    sub.add_argument("--subnet", default="", metavar="CIDR", help="a /24 for them (one that is free)")
    add("down", down, "remove everything the lab made; the image stays cached")
    sub = add("status", status, "what runs, where, and which links are cut")
    sub.add_argument("--json", action="store_true")
    sub = add("exec", execute, "run a command on a host")
    sub.add_argument("host")
    sub.add_argument("command", nargs="+", metavar="CMD", help="after --")
    sub = add("cut", cut, "drop all frames between a host and another, or all others")
    sub.add_argument("host")
    sub.add_argument("other", nargs="?")
    sub.add_argument("--one-way", action="store_true", help="only what HOST sends")
    add("heal", heal, "mend all links")
    for name, help_text in (
        ("freeze", "stop all processes of hosts in their tracks"),
        ("thaw", "let frozen hosts go on"),
        ("kill", "power hosts off at once"),
        ("start", "power hosts on again, with their disks, and wait until they are ready"),
    ):
        add(name, power(name), help_text).add_argument("host", nargs="+")
    sub = add("images", images, "load the tiny images on hosts whose engine runs")
    sub.add_argument("host", nargs="*", help="all when none is named")
    sub.add_argument("--only", action="append", metavar="IMAGE", help=f"of {', '.join(tiny.RECIPES)}; may be repeated")
    sub = add("archives", archives, "print the paths of tiny images as archives for `docker load`")
    sub.add_argument("--base", required=True, metavar="TAG", help="the lab's host image that they are taken from")
    sub.add_argument("image", nargs="+")
    sub = add("registry", registry_verb, "run a registry that hosts reach as registry.lab:5000, push tiny images to it")
    sub.add_argument("action", choices=["up", "down", "push"])
    sub.add_argument("image", nargs="*", help="for push; all when none is named")
    return parser
