"""Tells a story of CLI commands to a cluster, and compares what two clusters made of it.

What must differ between any two clusters is written over first: ids, times, versions, tokens, certificates, addresses
that allocators choose. The columns of tables lose their widths. What is left has to be the same, line by line, or path
by path where the output is JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import select
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

PATIENCE = 45.0  # seconds for an output to become what a line waits for

OUT_OF_SEQUENCE = "update out of sequence"
"""The cluster itself wrote the object between the CLI's reading and its writing. Such a line is typed again."""

_LINE = re.compile(
    r"(?:(?P<host>\d): )?(?:= (?P<name>\w+) )?(?P<command>.*?)"
    r"(?: <(?: (?P<input>.*?))?)?(?: => (?P<wanted>.*?))?(?P<mark> [?!])?"
)


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a story; see cli_story.py."""

    chapter: str
    text: str
    host: int
    command: str
    name: str
    stdin: str | None
    wanted: str
    loose: bool
    endless: bool

    @property
    def words(self) -> list[str]:
        return shlex.split(self.command)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command did: its exit code (of a request its status), outputs, and whether it is what was waited for."""

    code: int
    out: str
    err: str
    came: bool = True


def parse(chapters: dict[str, str]) -> list[Step]:
    """The steps of a story, in order."""
    return [_step(chapter, line) for chapter, lines in chapters.items() for line in lines.strip().splitlines() if line]


def _step(chapter: str, line: str) -> Step:
    found = _LINE.fullmatch(line)
    assert found is not None, line
    takes_input = " <" in line
    return Step(
        chapter=chapter,
        text=line,
        host=int(found["host"] or 1),
        command=found["command"],
        name=found["name"] or "",
        stdin=(found["input"] or "") if takes_input else None,
        wanted=(found["wanted"] or "").strip(),  # a continued line brings its indentation
        loose=found["mark"] == " ?",
        endless=found["mark"] == " !",
    )


def tell(steps: list[Step], sockets: Callable[[int], Path], names: dict[str, str]) -> list[Answer]:
    """Type the whole story into the CLI; `sockets` tells where the API of host N is, `names` what {…} stand for."""
    names = dict(names)
    answers = []
    for step in steps:
        answer = _type(step, sockets, names)
        deadline = time.monotonic() + PATIENCE
        while OUT_OF_SEQUENCE in answer.err and time.monotonic() < deadline:
            answer = _type(step, sockets, names)
        while step.wanted and not re.search(step.wanted, _one_line(answer.out)):
            if step.endless or time.monotonic() > deadline:
                answer = Answer(answer.code, answer.out, answer.err, came=False)
                break
            time.sleep(0.2)
            answer = _type(step, sockets, names)
        if step.name:
            names[step.name] = answer.out.strip()
        answers.append(answer)
    return answers


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _type(step: Step, sockets: Callable[[int], Path], names: dict[str, str]) -> Answer:
    words = [_filled(word, names) for word in step.words]
    if words[0] == "api":
        return _ask(sockets(step.host), words[1], words[2], _filled(step.stdin or "", names))
    command = ["docker", "--host", f"unix://{sockets(step.host)}", *words]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
    if step.endless:
        return _listen(command, step.wanted, environment)
    done = subprocess.run(
        command, input=step.stdin or "", capture_output=True, text=True, timeout=120, env=environment, check=False
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def _filled(text: str, names: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: names[found[1]], text)


def _ask(socket_path: Path, method: str, path: str, body: str) -> Answer:
    """One request to the API itself: the status as exit code, and what came as output."""

    async def ask() -> Answer:
        headers = {"Content-Type": "application/json"} if body else {}
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket_path))) as session,
            session.request(method, f"http://side{path}", data=body.encode() or None, headers=headers) as reply,
        ):
            return Answer(reply.status, await reply.text(), "")

    return asyncio.run(ask())


def _listen(command: list[str], wanted: str, environment: dict[str, str]) -> Answer:
    """Run a command that does not end by itself until its output is what is wanted, and stop it."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment) as process:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        heard, deadline = b"", time.monotonic() + PATIENCE
        while not re.search(wanted, _one_line(heard.decode())) and time.monotonic() < deadline:
            if not select.select([process.stdout], [], [], 1)[0]:
                continue
            part = process.stdout.read()
            if part == b"":
                break
            heard += part or b""
        process.terminate()
    return Answer(0, heard.decode(), "")


# --- what two clusters have in common --------------------------------------------------------------------------------

_OVERWRITTEN = [
    (re.compile(pattern, re.S), word)
    for pattern, word in (
        (r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", "CERTIFICATE"),
        (r"SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}", "TOKEN"),
        (r"SWMKEY-1-[A-Za-z0-9+/]{43}", "KEY"),
        (r"\b[0-9a-f]{64}\b", "HEXID"),
        (r"\b[0-9a-z]{25}\b", "ID"),
        (r"(?<=\.\d\.)[0-9a-z]{12}\b", "SHORTID"),
        (r"\b(?=[a-z]*\d)(?=\d*[a-z])[0-9a-z]{12}\b", "SHORTID"),
        (r"(?m:^)[0-9a-z]{12}\b", "SHORTID"),  # in the first column also one of letters only: one in 50 is
        (r"(?<=@)host\d\b", "HOST"),
        (r"(?<=Issuer Subject:)\s+\S+", " OWN"),
        (r"(?<=Issuer Public Key:)\s+\S+", " OWN"),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?[+-]\d{4})?( UTC|Z)?( utc)?", "TIME"),
        (r"(Less than a second|About an? \w+|\d+ \w+) ago", "AGO"),
    )
]
_PROGRESS = re.compile(r"(overall progress: .*|\d+/\d+:.*|verify: .*|\s*|\w*: .*\[[=> ]*\].*|rollback: .*)")
_BY_CHANCE = frozenset({"Env", "Networks", "Peers", "Tasks", "VirtualIPs"})
"""Members of documents whose order comes from random ids, or from the CLI's own maps."""
_LINES_BY_CHANCE = re.compile(r"(service logs|stack|(service |node )?ps) ")


def overwritten(text: str) -> str:
    """The text without what must differ."""
    for pattern, word in _OVERWRITTEN:
        text = pattern.sub(word, text)
    return text


def tidy(text: str) -> list[str]:
    """An output's lines without what must differ, without the widths of columns and the steps of progress."""
    lines = [re.sub(r"\s+", " ", line).strip() for line in overwritten(text).splitlines()]
    lines = [re.sub(r"^(Env|Networks): (.*)", _sorted_words, line) for line in lines]
    return [line for line in lines if not _PROGRESS.fullmatch(line)]


def _sorted_words(found: re.Match[str]) -> str:
    return f"{found[1]}: {' '.join(sorted(found[2].split()))}"


def documents(text: str) -> Any:
    """The output as JSON, when it is some; else None."""
    if text[:1] not in "[{":
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None


def normal(value: Any, drop: frozenset[str], key: str = "") -> Any:
    """A document without what must differ, and without members named in `drop`."""
    if isinstance(value, dict):
        return {name: normal(item, drop, name) for name, item in value.items() if name not in drop}
    if isinstance(value, list):
        items = [normal(item, drop) for item in value]
        return sorted(items, key=json.dumps) if key in _BY_CHANCE else items
    if isinstance(value, str):
        return overwritten(value)
    return "VERSION" if key == "Index" else value


def differences(real: Any, ours: Any, at: str = "") -> Iterator[str]:
    """Paths at which two documents differ, with both values."""
    if isinstance(real, dict) and isinstance(ours, dict):
        for name in sorted({*real, *ours}):
            if name in real and name in ours:
                yield from differences(real[name], ours[name], f"{at}.{name}")
            else:
                side = "real" if name in real else "ours"
                yield f"{at}.{name}: only {side} {json.dumps((real if side == 'real' else ours)[name])}"
    elif isinstance(real, list) and isinstance(ours, list) and len(real) == len(ours):
        for number, pair in enumerate(zip(real, ours, strict=True)):
            yield from differences(*pair, f"{at}[{number}]")
    elif real != ours:
        yield f"{at}: real {json.dumps(real)} ours {json.dumps(ours)}"


def compare(step: Step, real: Answer, ours: Answer, drop: frozenset[str]) -> Iterator[str]:
    """In what the answers to one line differ."""
    for side, answer in (("real", real), ("ours", ours)):
        if not answer.came:
            yield f"{side} never became {step.wanted!r}: {answer.out!r} {answer.err!r}"
    if real.code != ours.code:
        yield f"code: real {real.code} ours {ours.code}: {(real.err if real.code else ours.err).strip()}"
    if step.loose or step.wanted:
        return
    pair = documents(real.out), documents(ours.out)
    if None not in pair:
        yield from differences(*(normal(value, drop) for value in pair))
    else:
        lines = tidy(real.out), tidy(ours.out)
        yield from differences(*_ordered(step, *lines), "out")
    yield from differences(*_ordered(step, tidy(real.err), tidy(ours.err)), "err")


def _ordered(step: Step, *lines: list[str]) -> list[list[str]]:
    """Lines of logs stand as they came, tasks in the order of their ids, a stack's parts in that of a Go map."""
    return [sorted(some) if _LINES_BY_CHANCE.match(step.command) else some for some in lines]


# --- which commands and flags there are ------------------------------------------------------------------------------


def commands_of(family: str) -> list[str]:
    """The commands of a family, from the CLI's help."""
    text = _help(family)
    return re.findall(r"^  (\w[\w-]*)\*?\s", text.partition("Commands:\n")[2].partition("\n\n")[0] + "\n", re.M)


def flags_of(family: str, command: str) -> list[tuple[str, ...]]:
    """A command's flags, each with its short and its long spelling, from the CLI's help."""
    found = re.findall(r"^ {2,6}(?:(-\w), )?(--[\w-]+)", _help(family, command), re.M)
    return [tuple(filter(None, pair)) for pair in found]


def _help(*words: str) -> str:
    """Without a server the CLI shows everything that it knows, whatever the version."""
    environment = {**os.environ, "DOCKER_HOST": "unix:///nowhere", "DOCKER_API_VERSION": newest_version()}
    done = subprocess.run(["docker", *words, "--help"], capture_output=True, text=True, env=environment, check=True)
    return done.stdout


def newest_version() -> str:
    """The newest API version that the CLI speaks."""
    form = ["docker", "--host", "unix:///nowhere", "version", "--format", "{{.Client.DefaultAPIVersion}}"]
    return subprocess.run(form, capture_output=True, text=True, check=False).stdout.strip()


def used_flags(words: list[str]) -> set[str]:
    """The flags in a command line, up to the name of an image or the first word after it."""
    return {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
