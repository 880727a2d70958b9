# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's daemon.json: what to write, and whether the engine has to be restarted for it or only told to reload."""

from __future__ import annotations

import json

# What dockerd takes over on SIGHUP without a restart (its own list, see "dockerd --help" and the reload code).
RELOADABLE = frozenset(
    {
        "debug",
        "labels",
        "live-restore",
        "max-concurrent-downloads",
        "max-concurrent-uploads",
        "max-download-attempts",
        "default-runtime",
        "runtimes",
        "authorization-plugins",
        "insecure-registries",
        "registry-mirrors",
        "shutdown-timeout",
        "features",
    }
)


def parse(text):
    """The options in a daemon.json's text. Raises ValueError when it is no JSON object."""
    options = json.loads(text) if text.strip() else {}
    if not isinstance(options, dict):
        raise ValueError("it holds no JSON object")
    return options


def render(options):
    """The text of a daemon.json."""
    return json.dumps(options, indent=2, sort_keys=True) + "\n" if options else ""


def changed_keys(before, after):
    """Names of the options that differ."""
    return sorted(key for key in {*before, *after} if before.get(key) != after.get(key))


def needed_action(keys):
    """What a running engine needs for a change of these options: "", "reload" or "restart"."""
    if not keys:
        return ""
    return "reload" if RELOADABLE.issuperset(keys) else "restart"
