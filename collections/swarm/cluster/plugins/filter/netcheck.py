# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that read the reports of netcheck from all hosts together."""

from __future__ import annotations

from ansible_collections.swarm.cluster.plugins.module_utils.netcheck import judge, report_text


class FilterModule:
    """What Ansible asks for."""

    def filters(self):
        """Names of the filters."""
        return {"netcheck_findings": judge, "netcheck_text": report_text}
