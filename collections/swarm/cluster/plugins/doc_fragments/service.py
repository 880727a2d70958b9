# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation of a service's options, made from the table that the modules work by."""

from __future__ import annotations

import json

from ansible_collections.swarm.cluster.plugins.module_utils.fields import documentation
from ansible_collections.swarm.cluster.plugins.module_utils.service_table import FIELDS


class ModuleDocFragment:
    # JSON is YAML, and needs no package.
    # Annotated, since the yamllint of ansible-test reads plain assignments, and takes them for literal texts.
    DOCUMENTATION: str = json.dumps({"options": documentation(FIELDS)})
