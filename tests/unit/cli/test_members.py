"""`swarmctl members` against answers of the agent."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from swarm_agent.cli import members
from swarm_agent.cli.client import CommandError
from swarm_agent.cli.main import build_parser

USUAL = {
    "Incarnation": 1700000000000, "Since": 5.0, "Heard": 0.4, "VerdictIn": None, "Accusers": [], "Flaps": 0.0,
    "Stall": 0.0, "Rows": 3, "Version": 7, "Newest": 7, "Applied": 6, "Acked": 4,
}  # fmt: skip


def member(id: str, state: str = "alive", **other: Any) -> dict[str, Any]:
    return {**USUAL, "Id": id, "Address": f"10.0.0.{len(id)}:7946", "State": state, **other}


class Agent:
    """Counters grow by 10 with each look."""

    def __init__(self, manager: bool = True) -> None:
        self.manager = manager
        self.looks = 0
        self.asked: list[str] = []

    def json(self, path: str) -> Any:
        self.asked.append(path)
        if path == "/nodes":
            if not self.manager:
                raise CommandError("This node is not a swarm manager.")
            return [{"ID": "aa", "Description": {"Hostname": "host1"}}]
        if path.startswith("/swarm-agent/v1/explain"):
            return {"Lines": ["aa is this node: health score 0 (well)", "[brackets] stay"]}
        self.looks += 1
        counters = dict.fromkeys(members.RATES, 10 * self.looks) | {"refused_replayed": 2, "deaths": 1}
        queues = {"membership": 0, "own": 1, "relayed": 2}
        people = [
            member("aa"),
            member("bbb", "suspect", VerdictIn=1.2, Accusers=["aa"], Stall=4.5),
            member("cccc", "dead", Since=61.0, Version=5, Heard=None),
        ]
        return {"Id": "aa", "Health": 0, "Stall": 0, "Version": 7, "Queues": queues, "Counters": counters,
                "Members": people}  # fmt: skip


def show(agent: Agent, *arguments: str) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    members.run(agent, build_parser().parse_args(["members", *arguments]), console)  # type: ignore[arg-type]
    return console.export_text()


def test_states_reasons_queues_and_rates_are_shown() -> None:
    text = show(Agent(), "--seconds", "0.01")
    for words in ("health: 0 (well)", "own 1, relayed 2", "packets/s out", "host1", "6/7", "2 replayed", "never",
                  "accused by aa, dead in 1.2 s; stopped up to 4.5 s", "for 61 s; 2 changes missing here"):  # fmt: skip
        assert words in text


def test_on_a_worker_it_works_without_names() -> None:
    text = show(Agent(manager=False), "--seconds", "0")
    assert "suspect" in text and "host1" not in text and "packets/s" not in text


def test_explain_prints_what_the_agent_says_as_it_is() -> None:
    agent = Agent()
    assert show(agent, "--explain", "a/b").splitlines()[1] == "[brackets] stay"
    assert agent.asked == ["/swarm-agent/v1/explain?term=a/b"]


def test_explain_of_nothing_is_refused() -> None:
    with pytest.raises(CommandError, match="needs a node or a task"):
        show(Agent(), "--explain", " ")


def test_rates_are_per_second() -> None:
    assert members.rates_between({"probes": 4}, {"probes": 10}, 2.0)["probes"] == 3.0
