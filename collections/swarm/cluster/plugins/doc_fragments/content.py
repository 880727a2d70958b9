# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that secrets and configs share."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  name:
    description:
      - Its name.
    type: str
    required: true
  state:
    description:
      - Whether it shall be there.
    type: str
    choices: [present, absent]
    default: present
  data:
    description:
      - The content as text. This or O(data_base64) is needed with O(state=present). For a file on the controller, use
        the lookup P(ansible.builtin.file#lookup).
    type: str
  data_base64:
    description:
      - The content in base64, for what is not text.
    type: str
  labels:
    description:
      - Labels, exactly these. They can change while services use it.
    type: dict
  versioned:
    description:
      - What to do with another content, which cannot take the place of the old one while a service uses it. With
        V(false) the change is refused then. With V(true) the name gets a number, C(NAME_v1), C(NAME_v2) and on; the
        module returns the newest, for services to use, and removes old ones that no service uses.
    type: bool
    default: false
  versions_to_keep:
    description:
      - With O(versioned=true), how many old versions are kept although nothing uses them.
    type: int
    default: 3
  template:
    description:
      - Whether the content is a template that each task fills in, with Docker's words in double braces.
    type: bool
    default: false
"""
