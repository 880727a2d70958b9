# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One table of options gives a module its argument spec, its documentation and its places in a spec.

A `Field` says what an option is called, means and accepts; when it has a `path`, also where its value stands in an
object of the API. Three products come from a table of fields: `argument_spec` for AnsibleModule, `documentation` for a
documentation fragment, and `options` for `patch.plan`. So the three cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ansible_collections.swarm.cluster.plugins.module_utils.patch import Option, same


@dataclass(frozen=True)
class Field:
    """One option. `empty` is what a server means when the place is empty; `default` is the option's own default.

    A dict whose `fields` have paths is a group: each of them is an option of its own ("update_config.delay"). A list of
    dicts has its path itself, and its `fields` say what an item looks like.
    """

    name: str
    describe: str
    type: str = "str"
    path: str = ""
    to_api: Callable[[Any], Any] = same
    empty: Any = None
    canonical: Callable[[Any], Any] = same
    show: Callable[[Any], Any] = same
    choices: tuple = ()
    default: Any = None
    required: bool = False
    elements: str = ""
    fields: tuple = ()
    no_log: bool | None = None


def argument_spec(fields):
    """The argument spec of these options."""
    return {field.name: _spec(field) for field in fields}


def _spec(field):
    spec = {"type": field.type}
    if field.choices:
        spec["choices"] = list(field.choices)
    if field.default is not None:
        spec["default"] = field.default
    if field.required:
        spec["required"] = True
    if field.elements:
        spec["elements"] = field.elements
    if field.no_log is not None:
        spec["no_log"] = field.no_log
    if field.fields:
        spec["options"] = argument_spec(field.fields)
    return spec


def documentation(fields):
    """The same for people, in the shape that a module's documentation has."""
    return {field.name: _document(field) for field in fields}


def _document(field):
    entry = {"description": [text.strip() for text in field.describe.split("\n") if text.strip()], "type": field.type}
    if field.choices:
        entry["choices"] = list(field.choices)
    if field.default is not None:
        entry["default"] = field.default
    if field.required:
        entry["required"] = True
    if field.elements:
        entry["elements"] = field.elements
    if field.fields:
        entry["suboptions"] = documentation(field.fields)
    return entry


def options(fields):
    """The places of these options in a spec."""
    found = []
    for field in fields:
        if field.path:
            found.append(Option(field.name, field.path, field.to_api, field.empty, field.canonical, field.show))
        elif field.type == "dict":
            found += [
                Option(f"{field.name}.{part.name}", part.path, part.to_api, part.empty, part.canonical, part.show)
                for part in field.fields
                if part.path
            ]
    return tuple(found)


def defaults(fields, params):
    """Parameters as AnsibleModule would hand them over: options that are left out are there, with their default.

    For parameters that do not come from a user's task but from a compose file. Raises ValueError for unknown names.
    """
    known = {field.name: field for field in fields}
    unknown = sorted(set(params) - set(known))
    if unknown:
        raise ValueError(f"unknown: {', '.join(unknown)}")
    return {name: _value(field, params.get(name)) for name, field in known.items()}


def _value(field, value):
    if value is None:
        return field.default
    if field.fields and field.type == "dict":
        return defaults(field.fields, value)
    if field.fields and field.type == "list":
        return [defaults(field.fields, item) for item in value]
    return value
