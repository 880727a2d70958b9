# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long each task took, at the end of a run."""

from __future__ import annotations

DOCUMENTATION = r"""
name: times
type: aggregate
short_description: How long each task took
description:
  - Prints at the end of a run how long it took, how many tasks ran on hosts, and the tasks that took longest. Tasks of
    one name count together.
  - Turn it on with C(callbacks_enabled = swarm.cluster.times) in C(ansible.cfg), or for one run with
    C(ANSIBLE_CALLBACKS_ENABLED=swarm.cluster.times).
version_added: 0.2.0
author:
  - swarm.cluster contributors (@swarm-cluster)
options:
  show:
    description: How many tasks to show, the longest first. V(0) shows all.
    type: int
    default: 10
    env:
      - name: SWARM_TIMES_SHOW
    ini:
      - section: callback_swarm_times
        key: show
"""

from ansible.plugins.callback import CallbackBase
from ansible_collections.swarm.cluster.plugins.module_utils.stopwatch import Stopwatch


class CallbackModule(CallbackBase):
    """What Ansible calls."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "swarm.cluster.times"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self):
        super().__init__()
        self.watch = Stopwatch()

    def v2_playbook_on_task_start(self, task, is_conditional):
        """A task begins."""
        self.watch.start(task.get_name().strip())

    def v2_playbook_on_handler_task_start(self, task):
        """So does a handler."""
        self.watch.start(task.get_name().strip())

    def v2_playbook_on_stats(self, stats):
        """The run is over."""
        self._display.banner("TIMES")
        for line in self.watch.lines(self.get_option("show")):
            self._display.display(line)
