"""Runs the data plane's tests on Debian's own kernel, which has what this machine's may lack (IPVS, WireGuard).

    python -m tests.lab.on_kernel [what pytest is to be told]

One virtual machine of the lab is booted (roles/lab, driver qemu), gets this tree and the packages that the tests need,
runs pytest, and is taken away again. It has no network to install anything from, so packages are copied as they are in
this environment; their compiled parts fit because the machine runs Debian bookworm's Python 3.11. These tests make
their hosts from network namespaces and need no lab. An emulated processor is ten times slower and more: the tests are
told to be patient, nothing else differs.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".cache" / "kernel"  # `lab down` removes .lab
NEEDED = ("swarm-agent", "pytest", "pytest-asyncio", "pytest-timeout", "hypothesis", "scapy")
TREE = ("agent", "tests", "pyproject.toml")
TESTS = ("test_network_mesh.py", "test_wire.py", "test_sealed_network.py", "test_conntrack.py", "test_network_ipv6.py")
PACKAGES = "usr/local/lib/python3.11/dist-packages"  # where Debian's Python looks without being told
PATIENCE = 20
MINUTES = 60  # for all tests together


def playbook(*variables: str) -> None:
    settings = ["lab_driver=qemu", "lab_hosts=1", f"lab_directory={FOLDER}", f"lab_inventory={FOLDER}.yml", *variables]
    arguments = [word for setting in settings for word in ("-e", setting)]
    subprocess.run([f"{sys.prefix}/bin/ansible-playbook", "playbooks/lab.yml", *arguments], cwd=ROOT, check=True)


def ssh(command: str) -> list[str]:
    port = json.loads((FOLDER / "fleet.json").read_text())["port"] + 1
    options = ["-i", str(FOLDER / "id_ed25519"), "-o", f"UserKnownHostsFile={FOLDER / 'known_hosts'}"]
    options += ["-o", "BatchMode=yes", "-o", "ServerAliveInterval=30", "-p", str(port)]
    return ["ssh", *options, "root@127.0.0.1", command]


def distributions() -> Iterator[metadata.Distribution]:
    """The needed packages and what they need in turn, as installed here."""
    waiting, seen = [Requirement(name) for name in NEEDED], set()
    while waiting:
        wanted = waiting.pop()
        for extra in wanted.extras or {""}:
            if (wanted.name.lower(), extra) in seen:
                continue
            seen.add((wanted.name.lower(), extra))
            found = metadata.distribution(wanted.name)
            needs = [Requirement(text) for text in found.requires or ()]
            waiting += [need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})]
            yield found


def copy() -> None:
    """Put packages and tree into the virtual machine."""
    unpack = subprocess.Popen(ssh("tar -xz -C /"), stdin=subprocess.PIPE)
    with tarfile.open(fileobj=unpack.stdin, mode="w|gz") as archive:
        done = set()
        for distribution in distributions():
            for file in distribution.files or ():
                path = Path(str(file.locate()))
                if ".." not in file.parts and path.is_file() and path not in done:
                    done.add(path)
                    archive.add(path, f"{PACKAGES}/{file}")
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", *TREE],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        for name in listed.stdout.splitlines():
            if (ROOT / name).is_file():
                archive.add(ROOT / name, f"root/tree/{name}")
    assert unpack.stdin is not None
    unpack.stdin.close()
    if unpack.wait():
        raise SystemExit("the tree did not get into the virtual machine")


def main(arguments: list[str]) -> int:
    if sys.version_info[:2] != (3, 11):
        raise SystemExit(f"compiled packages are copied to Debian's Python 3.11; this is {sys.version.split()[0]}")
    named = any(argument.startswith("tests/") for argument in arguments)
    chosen = ["-v", *arguments, *([] if named else [f"tests/lab/{name}" for name in TESTS])]
    try:
        playbook("lab_state=present")
        copy()
        # The conftest is for tests with lab hosts and would need Ansible.
        options = "--noconftest -p tests.lab.bed_fixture -p no:cacheprovider -o timeout=0"
        pytest = f"timeout {MINUTES * 60} python3 -m pytest {options}"
        settings = f"PYTHONPATH=/root/tree/agent PATIENCE={PATIENCE}"
        command = f"cd /root/tree && uname -r && {settings} {pytest} {shlex.join(chosen)}"
        return subprocess.run(ssh(command), check=False).returncode
    finally:
        if not os.environ.get("KEEP"):
            playbook("lab_state=absent")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
