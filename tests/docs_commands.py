"""The commands that the pages for users tell people to type, and which test runs each of them.

A command is a line that begins with `$ ` or `# ` in a block of the kind `console`. A comment behind it, after two
blanks or more, is none of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
FOR_USERS = ("README.md", "operating.md", "coming-from-swarm.md", "troubleshooting.md", "keys.md", "architecture.md")
BLOCK = re.compile(r"^( *)```console\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a page."""

    page: str
    text: str


def commands() -> list[Command]:
    """All commands of the pages for users."""
    found = []
    for page in PAGES:
        if page.name not in FOR_USERS:
            continue
        for block in BLOCK.finditer(page.read_text()):
            for line in block.group(2).splitlines():
                match = re.match(r"\s*[$#] (.*)", line)
                if match:
                    text = re.split(r"\s{2,}(?=[#a-zA-Z])", match.group(1))[0].strip()
                    found.append(Command(page.name, text))
    return found


@dataclass(frozen=True, slots=True)
class Cover:
    """A pattern of commands, the test file that runs them, and a text by which one finds it there."""

    pattern: str
    test: str
    text: str


def _verb(name: str) -> Cover:
    pattern = rf"ansible-playbook (-i \S+ )?playbooks/{name}\.yml\b.*"
    return Cover(pattern, "tests/operations/test_verbs.py", f'verb("{name}"')


COVERS = (
    # Beginning: CI itself does these, on a machine that has nothing.
    Cover(r"apt-get install -y git make python3-venv", ".ci/run", "apt-get install"),
    Cover(r"git clone … swarm && cd swarm", ".ci/run", "from a clean clone"),
    Cover(r"git pull", ".ci/run", "make test"),
    Cover(r"make up|make status|make down|make test", "tests/unit/docs/test_docs.py", "test_targets_of_make"),
    Cover(r"export DOCKER_HOST=unix://\$PWD/\.lab/host1/docker\.sock", "tests/lab/labkit.py", "docker.sock"),
    Cover(r"python3 -m venv \.venv && \.venv/bin/pip install \.", "Makefile", "-m venv"),
    Cover(r"cp inventories/three-nodes\.yml inventories/mine\.yml", "tests/unit/docs/test_docs.py", "three-nodes.yml"),
    # The cluster.
    Cover(r"(\.venv/bin/)?ansible-playbook -i inventories/(mine|lab)\.yml site\.yml( --check --diff)?",
          "tests/lab/test_site.py", '"site.yml", "-e", pinned, "--check", "--diff"'),
    Cover(r"ansible-playbook -i inventories/mine\.yml site\.yml --tags preflight",
          "tests/operations/test_verbs.py", '"site.yml", "--tags", "preflight"'),
    Cover(r"ansible-playbook -i inventories/mine\.yml site\.yml --skip-tags cluster",
          "tests/lab/clusterkit.py", '"site.yml", "--skip-tags", "cluster"'),
    Cover(r"ANSIBLE_CALLBACKS_ENABLED=swarm\.cluster\.times ansible-playbook .*", "tests/operations/test_verbs.py",
          "swarm.cluster.times"),
    Cover(r"ansible-inventory -i inventories/mine\.swarm\.yml --graph", "tests/operations/test_verbs.py",
          "swarm.cluster.nodes"),
    *(_verb(name) for name in ("status", "services", "add_nodes", "drain", "remove_node", "upgrade", "rotate_tokens",
                               "rotate_ca", "adopt", "reset")),
    Cover(r"ansible-playbook (-i \S+ )?playbooks/(backup|restore)\.yml.*", "tests/lab/test_pki.py", "backup"),
    Cover(r"ansible-playbook .*playbooks/netcheck\.yml.*", "tests/lab/test_netcheck.py", "playbooks/netcheck.yml"),
    # The docker command.
    Cover(r"docker( --context swarm)? node ls", "tests/lab/clusterkit.py", '"node", "ls"'),
    Cover(r"docker( --context swarm)? service create --name hello .*", "tests/compat/test_tutorial.py",
          "service create"),
    Cover(r"docker service (ps hello|scale hello=5)", "tests/compat/test_tutorial.py", '"scale", "hello=5"'),
    Cover(r"curl http://ADDRESS:8080/", "playbooks/demo.yml", ":8080/"),
    # Troubleshooting: these lines themselves are run on a host.
    Cover(r"docker --context swarm service ps .*SERVICE|curl http://127\.0\.0\.1:PORT/|swarmctl status|"
          r"systemctl status swarm-agent|journalctl -u swarm-agent -n 50",
          "tests/operations/test_verbs.py", "test_commands_of_troubleshooting"),
    Cover(r"docker --context swarm node rm ID", "tests/lab/test_managers.py", "node rm"),
    Cover(r"docker --context swarm swarm init --force-new-cluster", "tests/lab/test_managers.py",
          "--force-new-cluster"),
    Cover(r"docker pull IMAGE", "tests/lab/test_lab.py", "registry"),
)  # fmt: skip


def cover(command: Command) -> Cover | None:
    """Who runs a command."""
    return next((item for item in COVERS if re.fullmatch(item.pattern, command.text)), None)


def of_page(page: str, pattern: str) -> list[str]:
    """Commands of a page that match, as they stand there."""
    return [item.text for item in commands() if item.page == page and re.fullmatch(pattern, item.text)]
