"""The pages are true: every command has a test that runs it, every link leads somewhere, the reference is current."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.docs_commands import COVERS, PAGES, ROOT, Command, commands, cover


@pytest.mark.parametrize("command", commands(), ids=lambda command: f"{command.page}: {command.text}")
def test_every_command_is_run_by_a_test(command: Command) -> None:
    found = cover(command)
    assert found, "no test runs it; write one, and name it in tests/docs_commands.py"
    place = ROOT / found.test
    texts = [path.read_text() for path in (place.rglob("*.py") if place.is_dir() else [place])]
    assert any(found.text in text for text in texts), f"{found.test} has no {found.text!r}"


def test_no_cover_without_a_command() -> None:
    allowed = {r"ansible-playbook .*playbooks/netcheck\.yml.*"}
    idle = [item.pattern for item in COVERS if not any(re.fullmatch(item.pattern, found.text) for found in commands())]
    assert set(idle) <= allowed


@pytest.mark.parametrize(
    "command",
    [item for item in commands() if "ansible-playbook" in item.text],
    ids=lambda command: f"{command.page}: {command.text}",
)
def test_playbooks_and_their_variables_exist(command: Command) -> None:
    playbook = re.search(r"\S+\.yml(?= |$)(?<!mine\.yml)(?<!lab\.yml)", command.text)
    assert playbook and (ROOT / playbook.group()).exists()
    tasks = [*(ROOT / "playbooks").rglob("*.yml"), *(ROOT / "roles").rglob("*.yml"), ROOT / "site.yml"]
    known = "\n".join(path.read_text() for path in tasks)
    for variable in re.findall(r'-e (?:\'\{")?(\w+)', command.text):
        assert re.search(rf"\b{variable}\b", known), variable


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_module_reference_is_current() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "docs" / "module_reference.py"), "--check"], check=False)
    assert done.returncode == 0, "write it anew: make reference"


def test_targets_of_make() -> None:
    text = (ROOT / "Makefile").read_text()
    named = {word for page in PAGES for word in re.findall(r"`make ([a-z-]+)", page.read_text())}
    named |= {item.text.split()[1] for item in commands() if item.text.startswith("make ")}
    assert named and [name for name in sorted(named) if not re.search(rf"^{name}:", text, re.MULTILINE)] == []


def test_the_sample_inventory_names_settings_that_exist() -> None:
    text = (ROOT / "inventories" / "three-nodes.yml").read_text()
    hosts = yaml.safe_load(text)["all"]["children"]
    assert [*hosts["managers"]["hosts"], *hosts["workers"]["hosts"]] == ["node1", "node2", "node3"]
    named = set(re.findall(r"# ((?:engine|agent|certificates|cluster|preflight)_\w+):", text))
    known = {name for path in (ROOT / "roles").glob("*/defaults/main.yml") for name in yaml.safe_load(path.read_text())}
    assert named and named <= known


def test_every_setting_of_a_role_is_in_the_sample_inventory() -> None:
    text = (ROOT / "inventories" / "three-nodes.yml").read_text()
    for role in ("preflight", "engine", "certificates", "agent", "cluster"):
        for name in yaml.safe_load((ROOT / "roles" / role / "defaults" / "main.yml").read_text()):
            assert name in text, f"{name} of the role {role}"
