# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading lists of the cluster's objects, for the modules whose names end in _info."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.swarm.cluster.plugins.module_utils.client import (
    CONNECTION_SPEC,
    ApiError,
    Client,
    ClientError,
    Unreachable,
)

LISTING_SPEC = {
    "name": {"type": "list", "elements": "str"},
    "labels": {"type": "dict"},
}


def labels_of(item):
    """Labels of an object, wherever its kind keeps them."""
    return (item.get("Spec") or item).get("Labels") or {}


def has_labels(labels, wanted):
    """Whether all wanted labels are there; a value of None asks only for the name."""
    return all(key in labels and value in (None, labels[key]) for key, value in (wanted or {}).items())


def chosen(items, names, wanted, call_names):
    """Those that have one of the names (all without) and all of the labels. `call_names` tells an item's names."""
    return [
        item
        for item in items
        if (not names or set(names) & set(call_names(item))) and has_labels(labels_of(item), wanted)
    ]


def spec_names(item):
    """Id and name of an object with a spec."""
    return [item["ID"], item["Spec"].get("Name", "")]


def answer(key, read, call_names=spec_names, extra_spec=None, order=None):
    """The whole of an _info module: `read(client, params)` gives the objects, `key` is what they are returned as.

    In check mode there may be no cluster yet; the list is empty then.
    """
    module = AnsibleModule(
        argument_spec={**CONNECTION_SPEC, **LISTING_SPEC, **(extra_spec or {})}, supports_check_mode=True
    )
    params = module.params
    client = Client(params["socket"], params["timeout"])
    try:
        items = chosen(read(client, params), params["name"], params["labels"], call_names)
    except (Unreachable, ApiError) as error:
        if not (module.check_mode and getattr(error, "outside", True)):
            module.fail_json(msg=str(error))
        items = []
    except ClientError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **{key: sorted(items, key=order or call_names)})
