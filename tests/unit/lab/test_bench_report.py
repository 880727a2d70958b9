"""What a new run of the benchmark keeps of the document of the last one."""

from __future__ import annotations

from pathlib import Path

from tests.bench.report import by_hand


def test_what_people_wrote_at_the_end_is_kept_and_nothing_else(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    assert by_hand(document) == ""
    document.write_text("# Beside Docker Swarm\n\n| old | figures |\n")
    assert by_hand(document) == ""
    document.write_text("# Beside Docker Swarm\n\n| old | figures |\n\n## What falls short, and why\n\n- Much.\n")
    assert by_hand(document) == "\n## What falls short, and why\n\n- Much.\n"
