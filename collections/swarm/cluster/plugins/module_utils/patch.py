# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of a module as places in a spec: one table gives the change, `changed`, check mode and the diff.

An option that is left out leaves its place alone; one that is given overlays it. Places are compared by meaning: what
a server leaves out has its default, unordered lists are sets, sizes and durations are numbers. Nothing here does I/O.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


def same(value):
    """The value as it is."""
    return value


def unordered(value):
    """A list of plain values whose order has no meaning."""
    return sorted(value or [], key=repr)


@dataclass(frozen=True)
class Option:
    """One option: its name ("update_config.delay" is a suboption), its place in the spec, and how to translate it."""

    name: str
    path: str
    to_api: Callable[[Any], Any] = same
    default: Any = None  # what a server means when the place is empty
    canonical: Callable[[Any], Any] = same  # equal results mean the same
    show: Callable[[Any], Any] = same  # for the diff


@dataclass
class Plan:
    """What to send, and what differs, by option."""

    wanted: dict
    before: dict = field(default_factory=dict)
    after: dict = field(default_factory=dict)

    @property
    def changed(self):
        return bool(self.before or self.after)


def read(spec, path):
    """The value at a dotted place, None when it is not there."""
    for key in path.split("."):
        if not isinstance(spec, dict) or key not in spec:
            return None
        spec = spec[key]
    return spec


def write(spec, path, value, blanks=None):
    """Put a value at a dotted place. `blanks` are contents for objects on the way that are not there yet."""
    *parents, last = path.split(".")
    way = []
    for key in parents:
        way.append(key)
        if not isinstance(spec.get(key), dict):
            spec[key] = copy.deepcopy((blanks or {}).get(".".join(way), {}))
        spec = spec[key]
    spec[last] = value


def erase(spec, path):
    """Take the value at a dotted place away."""
    *parents, last = path.split(".")
    for key in parents:
        if not isinstance(spec.get(key), dict):
            return
        spec = spec[key]
    spec.pop(last, None)


def given(params, name):
    """The value that the user gave for an option or suboption, None when left out."""
    return read(params, name)


def differences(options, before, after):
    """(before, after) of the options in which two specs differ, for a diff."""
    lost, gained = {}, {}
    for option in options:
        old, new = (
            option.default if read(spec, option.path) is None else read(spec, option.path) for spec in (before, after)
        )
        if option.canonical(old) != option.canonical(new):
            lost[option.name], gained[option.name] = option.show(old), option.show(new)
    return lost, gained


def plan(options, params, current, blanks=None, whole=False):
    """Overlay what the user gave on the current spec.

    With `whole` what the user gave is all there is: places of options that were left out are emptied.
    """
    result = Plan(copy.deepcopy(current))
    for option in options:
        value = given(params, option.name)
        if value is None and not whole:
            continue
        wanted = option.default if value is None else option.to_api(value)
        found = read(current, option.path)
        if found is None:
            found = option.default
        if option.canonical(found) == option.canonical(wanted):
            continue
        if value is None and option.default in (None, {}):
            erase(result.wanted, option.path)
        else:
            # A default that is written out means the same everywhere; an object that lost a part may not: an
            # UpdateConfig without its parallelism means "all at once".
            write(result.wanted, option.path, wanted, blanks)
        result.before[option.name] = option.show(found)
        result.after[option.name] = option.show(wanted)
    return result
