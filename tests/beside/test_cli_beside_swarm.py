"""Every command and flag of the CLI's swarm families, typed on our cluster and on a real Swarm of the same hosts.

The story (cli_story.py) is told to our agents first; then the hosts' engines are put into swarm mode and hear it too.
Exit codes, outputs and the objects that `inspect` shows have to be the same, apart from what `ACCEPTED` explains.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import systems
from tests.beside import story
from tests.beside.cli_story import CHAPTERS, FILES
from tests.lab.clusterkit import outside
from tests.lab.labkit import Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1200)]

FAMILIES = ("swarm", "node", "service", "stack", "secret", "config")
STEPS = story.parse(CHAPTERS)

DROPPED = frozenset(
    {
        "TLSInfo",  # certificates are each cluster's own
        "Addr", "EndpointIP", "VIP", "com.docker.network.driver.overlay.vxlanid_list",  # chosen by allocators
        "Containers", "EndpointID", "LocalLBIndex",  # of `network inspect`: Swarm's own parts on each host
    }
)  # fmt: skip
"""Members of documents that are not compared."""

ACCEPTED: list[tuple[str, str, str]] = [
    (
        r".*--filter odd=odd|.*-f odd=odd",
        r"err\[0\]: real .*Invalid filter",
        "20.10 writes Invalid, engines from 23 on invalid",
    ),
    (
        r"network create .*--subnet 10.66.0.0/99",
        r"err\[0\]: ",
        "20.10 refuses it before the managers, in its own words",
    ),
    (
        r"network inspect ingress",
        r"\[0\]\.Labels: real \{\} ours null",
        "Swarm shows the host's own part of the network",
    ),
    (
        r"network inspect (--verbose )?shop_front",
        r"\[0\]\.IPAM\.Config\[0\]\.(Gateway: real \"10\.30\.\d+\.\d+\" ours \"10\.30\.\d+\.\d+\"|"
        r"Subnet: real \"10\.30\.\d+\.\d+/26\" ours \"10\.30\.\d+\.\d+/26\")$",
        "both take a free part of the cluster's pool: here the first one, Swarm the next after the last that it gave",
    ),
    (
        r"api ",
        r"\.message: real \"(unexpected (EOF|end of JSON input)|json: cannot unmarshal)",
        "the words of Go's JSON decoder",
    ),
    (
        r"api POST /services/create",
        r"\.Warnings: only ours null",
        "engines from 23 on show that there are none",
    ),
    (
        r"api POST /swarm/(init|join) ",
        r"code: real 500 ours 400",
        "the client's mistake, so no 500",
    ),
    (
        r"api POST /swarm/init .*0.0.0.0:odd",
        r"\.message: real \"manager stopped: failed to listen",
        "refused before anything is started",
    ),
    (r"inspect --type task", r"\.Runtime: only ours", "Swarm leaves the runtime out of tasks, not of services"),
]
"""Pattern of the line, pattern of the difference, and why it is accepted. docs/compatibility.md tells users of them."""


@pytest.fixture(scope="module")
def told(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[story.Answer], list[story.Answer]]]:
    """What the real Swarm answered, and what we did."""
    folder = tmp_path_factory.mktemp("story")
    for name, content in FILES.items():
        (folder / name).write_text(content)
    names = {"tmp": str(folder), **{f"a{number}": lab.host(f"host{number}").address for number in (1, 2, 3)}}
    outside(lab)
    ours = story.tell(STEPS, sockets(lab, systems.OURS), names)
    systems.depart(lab)
    try:
        systems.switch(lab, systems.SWARM)
        yield story.tell(STEPS, sockets(lab, systems.SWARM), names), ours
    finally:
        systems.depart(lab)
        systems.restore(lab)


def sockets(lab: Lab, system: systems.System):
    def find(number: int) -> Path:
        return lab.host(f"host{number}").socket(system.socket)

    return find


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_both_answer_alike(told, chapter: str) -> None:
    found = []
    for step, real, ours in zip(STEPS, *told, strict=True):
        if step.chapter != chapter:
            continue
        unlike = [item for item in story.compare(step, real, ours, DROPPED) if not is_accepted(step, item)]
        found += [f"{step.text}\n    {item}" for item in unlike]
    assert not found, "\n".join(found)


def is_accepted(step: story.Step, difference: str) -> bool:
    return any(re.match(line, step.text) and re.match(item, difference) for line, item, _ in ACCEPTED)


def test_the_story_has_every_command_and_every_flag_of_the_cli() -> None:
    used: dict[tuple[str, str], set[str]] = {}
    for step in STEPS:
        if step.words[0] in FAMILIES:
            used.setdefault((step.words[0], step.words[1]), set()).update(story.used_flags(step.words))
    missing = []
    for family in FAMILIES:
        commands = story.commands_of(family)
        assert len(commands) >= 3, f"the help of docker {family} was not understood"
        for command in commands:
            if (family, command) not in used:
                missing.append(f"{family} {command}")
            flags = [spelling for flag in story.flags_of(family, command) for spelling in flag]
            missing += [f"{family} {command} {flag}" for flag in flags if flag not in used.get((family, command), ())]
    assert not missing, missing
