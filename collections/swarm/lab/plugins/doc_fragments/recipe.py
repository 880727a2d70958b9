# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that tell what an image is made of."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  source:
    description: Folder with the package list, the customising scripts and the files that they install.
    type: path
    required: true
  suite:
    description: Debian release.
    type: str
    required: true
  mirrors:
    description: Mirrors or sources files for mmdebstrap. Empty means its defaults.
    type: list
    elements: str
    default: []
"""
