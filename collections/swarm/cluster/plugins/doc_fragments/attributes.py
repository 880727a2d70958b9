# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all modules of the collection have in common."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
attributes:
  check_mode:
    description: Can run in check mode and tell what would change, without changing it.
    support: full
  diff_mode:
    description: Returns what changed (or, in check mode, would change).
    support: full
  idempotent:
    description: Run twice, the second time changes nothing.
    support: full
  platform:
    description: Where the module runs.
    support: full
    platforms: Linux
options: {}
"""
    INFO = r"""
attributes:
  check_mode:
    description: Can run in check mode; it changes nothing in any mode.
    support: full
  diff_mode:
    description: Returns what changed; nothing ever does.
    support: N/A
  idempotent:
    description: Run twice, the second time changes nothing.
    support: full
  platform:
    description: Where the module runs.
    support: full
    platforms: Linux
options: {}
"""
