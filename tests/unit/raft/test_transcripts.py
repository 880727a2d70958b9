"""The scripts in transcripts/ and their expected output (see transcript.py)."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SCRIPTS = sorted((HERE / "transcripts").glob("*.txt"))

_spec = importlib.util.spec_from_file_location("raft_transcript", HERE / "transcript.py")
transcript = importlib.util.module_from_spec(_spec)
sys.modules["raft_transcript"] = transcript
_spec.loader.exec_module(transcript)


def play(text):
    """The script with the output of today."""
    story = transcript.Story()
    blocks = []
    for block in text.strip("\n").split("\n\n"):
        comments = [line for line in block.splitlines() if line.startswith("#")]
        commands = [line for line in block.split("----")[0].splitlines() if line and not line.startswith("#")]
        if not commands:
            blocks.append("\n".join(comments))
            continue
        assert len(commands) == 1, f"one command a block, not {commands}"
        blocks.append("\n".join([*comments, commands[0], "----", *story.run(commands[0])]))
    return "\n\n".join(blocks) + "\n"


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.stem for script in SCRIPTS])
def test_transcript(script):
    expected = script.read_text()
    actual = play(expected)
    if os.environ.get("UPDATE_TRANSCRIPTS"):
        script.write_text(actual)
    else:
        assert actual == expected


def test_there_are_scripts():
    assert len(SCRIPTS) >= 8
