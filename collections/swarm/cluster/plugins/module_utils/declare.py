# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What modules that declare something share: read, plan, apply, read again; check mode; the retry after a conflict.

A module's own class derives from `Declaration`, says in a method per state what it wants, and notes every change
before it makes it. `carry_out` turns that into the answer of the module. In check mode a host may have no agent and no
cluster yet, because an earlier task of the same playbook would have made it; reading gives nothing then instead of
failing.
"""

from __future__ import annotations

from ansible_collections.swarm.cluster.plugins.module_utils.client import (
    ApiError,
    Client,
    ClientError,
    Unreachable,
)
from ansible_collections.swarm.cluster.plugins.module_utils.waiting import TimedOut, until

ATTEMPTS = 10


class Declaration:
    """Parameters, the client, and what was noted: actions (sentences), before and after (for the diff)."""

    def __init__(self, module):
        self.module = module
        self.params = module.params
        self.check = module.check_mode
        self.client = Client(module.params["socket"], module.params["timeout"])
        self.actions = []
        self.before = {}
        self.after = {}
        self.warnings = []

    def ask(self, path, nothing=None, **query):
        """GET; in check mode `nothing` when there is no agent or no cluster yet."""
        try:
            return self.client.get(path, **query)
        except (Unreachable, ApiError) as error:
            if self.check and getattr(error, "outside", True):
                return nothing
            raise

    def named(self, path, name):
        """The object of exactly this name in a list, None when there is none."""
        found = self.ask(path, [], filters={"name": {name: True}})
        return next((item for item in found if (item.get("Spec") or item).get("Name") == name), None)

    def note(self, action, before=None, after=None):
        """Something that is done, or would be in check mode."""
        self.actions.append(action)
        self.before.update(before or {})
        self.after.update(after or {})

    def retry(self, attempt):
        """Call `attempt` again as long as somebody else changed the object between its reading and its writing."""
        for count in range(ATTEMPTS):
            noted = list(self.actions), dict(self.before), dict(self.after)
            try:
                return attempt()
            except ApiError as error:
                if not error.conflict or count + 1 == ATTEMPTS:
                    raise
                self.actions, self.before, self.after = noted
        raise AssertionError("not reached")

    def wait_until(self, ask, subject):
        """Wait until `ask` gives (True, what was seen); the last thing seen is in the failure."""
        try:
            return until(ask, self.params["wait_timeout"])
        except TimedOut as error:
            last = error.last if isinstance(error.last, str) else "; ".join(map(str, error.last)) or "nothing"
            raise ClientError(f"{subject} after {self.params['wait_timeout']} s; last seen: {last}") from None

    def guard_cluster(self, wanted):
        """Refuse to touch another cluster than the one that is meant."""
        if not wanted:
            return
        swarm = (self.ask("/info", {}) or {}).get("Swarm") or {}
        found = (swarm.get("Cluster") or {}).get("ID")
        if found and found != wanted:
            raise ClientError(
                f"this host manages cluster {found}, not {wanted}: nothing was changed. Ask a manager of {wanted}."
            )

    def result(self):
        """Further values to return; asked after the work is done."""
        return {}


def carry_out(module, declaration, work):
    """Run `work`, and answer for the module."""
    try:
        work()
        result = declaration.result()
    except (ClientError, ValueError) as error:
        module.fail_json(
            msg=str(error),
            actions=declaration.actions,
            diff={"before": declaration.before, "after": declaration.after},
        )
    for warning in declaration.warnings:
        module.warn(warning)
    module.exit_json(
        changed=bool(declaration.actions),
        actions=declaration.actions,
        diff={"before": declaration.before, "after": declaration.after},
        **result,
    )
