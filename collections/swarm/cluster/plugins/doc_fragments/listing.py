# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options by which objects are chosen from a list."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  name:
    description:
      - Names or ids of those to return. Left out, all are returned.
    type: list
    elements: str
  labels:
    description:
      - Only those that have all of these labels. The value V(null) asks for a label whatever its value is.
    type: dict
"""
