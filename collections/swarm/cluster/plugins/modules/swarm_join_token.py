#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes join tokens invalid by new ones."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_join_token
short_description: Rotate the tokens by which hosts join
description:
  - Replaces join tokens, so that the old ones admit nobody any more. Hosts in the cluster are not affected.
  - With O(revoke) it is idempotent; a token that is no longer valid stays so. Without, each run makes a new token.
version_added: 0.2.0
author:
  - swarm.cluster contributors (@swarm-cluster)
extends_documentation_fragment:
  - swarm.cluster.attributes
  - swarm.cluster.connection
options:
  role:
    description:
      - Whose token to replace. V(both) is the default unless O(revoke) says which one is meant.
    type: str
    choices: [worker, manager, both]
    default: both
  revoke:
    description:
      - A token that has become known to somebody. It is replaced if it is still valid; else nothing is done.
    type: str
  cluster_id:
    description:
      - When the host manages a cluster with another id, the module fails instead of changing anything.
    type: str
seealso:
  - module: swarm.cluster.swarm_join_token_info
"""

EXAMPLES = r"""
- name: Replace both tokens
  swarm.cluster.swarm_join_token:

- name: Make sure that a token that got into a log admits nobody
  swarm.cluster.swarm_join_token:
    revoke: "{{ leaked_token }}"
"""

RETURN = r"""
rotated:
  description:
    - Roles whose token was replaced, or would be in check mode.
    - M(swarm.cluster.swarm_join_token_info) has the new ones.
  type: list
  elements: str
  returned: always
  sample: [worker, manager]
actions:
  description: What was done, or would be in check mode, a sentence each.
  type: list
  elements: str
  returned: always
  sample: [replaced the worker token]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.swarm.cluster.plugins.module_utils.client import CONNECTION_SPEC
from ansible_collections.swarm.cluster.plugins.module_utils.declare import Declaration, carry_out

ROLES = ("worker", "manager")


def wanted(role, revoke, tokens):
    """Roles whose token has to be replaced. `tokens` maps Worker and Manager to their tokens."""
    if revoke:
        return [name for name in ROLES if tokens.get(name.capitalize()) == revoke.strip()]
    return list(ROLES) if role == "both" else [role]


class Tokens(Declaration):
    """The tokens of the cluster."""

    rotated = ()

    def work(self):
        """Replace those that have to be."""
        self.guard_cluster(self.params["cluster_id"])
        self.retry(self._attempt)

    def _attempt(self):
        cluster = self.ask("/swarm", {"JoinTokens": {}})
        self.rotated = wanted(self.params["role"], self.params["revoke"], cluster["JoinTokens"])
        for role in self.rotated:
            self.note(f"replaced the {role} token", {f"{role} token": "valid"}, {f"{role} token": "replaced"})
        if self.rotated and not self.check:
            query = {f"rotate{role.capitalize()}Token": True for role in self.rotated}
            self.client.post("/swarm/update", cluster["Spec"], version=cluster["Version"]["Index"], **query)

    def result(self):
        """Which ones were replaced."""
        return {"rotated": list(self.rotated)}


def main():
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_SPEC,
            "role": {"type": "str", "choices": [*ROLES, "both"], "default": "both"},
            "revoke": {"type": "str", "no_log": True},
            "cluster_id": {"type": "str"},
        },
        supports_check_mode=True,
    )
    tokens = Tokens(module)
    carry_out(module, tokens, tokens.work)


if __name__ == "__main__":
    main()
