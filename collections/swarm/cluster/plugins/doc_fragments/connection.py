# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a module finds the cluster."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  socket:
    description:
      - Path of the unix socket on the host that answers the Engine API. By default the agent's; it has to be a
        manager's for everything that reads or changes the cluster's objects.
    type: path
    default: /run/swarm-agent/docker.sock
  timeout:
    description:
      - Seconds after which one call is given up.
    type: int
    default: 60
"""
