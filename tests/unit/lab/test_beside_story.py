"""How the lines of the comparison with a real Swarm are read, typed and compared (tests/beside/story.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.beside import story
from tests.beside.story import Answer, Step

FINE = Answer(0, "web\n", "")
BETWEEN = Answer(1, "", "Error response from daemon: rpc error: code = Unknown desc = update out of sequence\n")


def steps(*lines: str) -> list[Step]:
    return story.parse({"chapter": "\n".join(lines)})


def typed(monkeypatch: pytest.MonkeyPatch, line: str, *answers: Answer) -> tuple[Answer, int]:
    """What is kept of a line that is answered so one time after the other, and how often it was typed."""
    given = iter(answers)
    count = 0

    def answer(*_: object) -> Answer:
        nonlocal count
        count += 1
        return next(given)

    monkeypatch.setattr(story, "_type", answer)
    (kept,) = story.tell(steps(line), lambda _: Path("/nowhere"), {})
    return kept, count


def test_a_continued_line_waits_for_its_pattern_without_the_indentation() -> None:
    (step,) = steps("service ps web =>     ^web.1,Running")
    assert step.wanted == "^web.1,Running"


def test_a_line_that_the_cluster_came_between_is_typed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert typed(monkeypatch, "service update web", BETWEEN, BETWEEN, FINE) == (FINE, 3)


def test_other_refusals_are_kept_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = Answer(1, "", "Error: no such service: web\n")
    assert typed(monkeypatch, "service update web", refused) == (refused, 1)


def test_a_line_with_a_pattern_is_typed_until_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story.time, "sleep", lambda _: None)
    assert typed(monkeypatch, "service ls => web", Answer(0, "", ""), FINE) == (FINE, 2)


def test_short_ids_in_the_first_column_are_overwritten_even_of_letters_only() -> None:
    assert story.tidy("abcdefghijkl   web\nk3jx5yq0p2ab   db\n") == ["SHORTID web", "SHORTID db"]
    assert story.tidy("a word of twelve: abcdefghijkl\n") == ["a word of twelve: abcdefghijkl"]
