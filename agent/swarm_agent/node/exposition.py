"""Prometheus' text format, version 0.0.4, written by hand.

prometheus-client would add some 3 MiB to every worker's memory for a registry that we do not need: all our values live
in the parts already and are read when somebody asks. What is left is this page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, str]


class Family(NamedTuple):
    """One metric: `kind` is counter, gauge or histogram; `samples` are (suffix of the name, labels, value)."""

    name: str
    kind: str
    help: str
    samples: list[tuple[str, Labels, float]]


def gauge(name: str, help: str, value: float) -> Family:
    return Family(name, "gauge", help, [("", {}, value)])


def gauges(name: str, help: str, label: str, values: Mapping[str, float]) -> Family:
    """One value per value of that label."""
    return Family(name, "gauge", help, [("", {label: key}, value) for key, value in sorted(values.items())])


def counter(name: str, help: str, value: float) -> Family:
    return Family(name, "counter", help, [("", {}, value)])


def counters(name: str, help: str, label: str, values: Mapping[str, float]) -> Family:
    return Family(name, "counter", help, [("", {label: key}, value) for key, value in sorted(values.items())])


def render(families: Iterable[Family]) -> str:
    """The whole answer."""
    lines: list[str] = []
    for family in families:
        lines.append(f"# HELP {family.name} {_escape(family.help)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        for suffix, labels, value in family.samples:
            inner = ",".join(f'{key}="{_escape(text, quotes=True)}"' for key, text in labels.items())
            lines.append(f"{family.name}{suffix}{{{inner}}} {_number(value)}" if inner else
                         f"{family.name}{suffix} {_number(value)}")  # fmt: skip
    return "\n".join(lines) + "\n"


def _escape(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
