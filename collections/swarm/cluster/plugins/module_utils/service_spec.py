# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parameters of swarm_service; its documentation says the same in words."""

from __future__ import annotations

SERVICE_SPEC = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "image": {"type": "str"},
    "command": {"type": "list", "elements": "str"},
    "args": {"type": "list", "elements": "str"},
    "env": {"type": "dict"},
    "working_dir": {"type": "str"},
    "user": {"type": "str"},
    "groups": {"type": "list", "elements": "str"},
    "hostname": {"type": "str"},
    "hosts": {"type": "dict"},
    "dns": {"type": "list", "elements": "str"},
    "dns_search": {"type": "list", "elements": "str"},
    "dns_options": {"type": "list", "elements": "str"},
    "tty": {"type": "bool"},
    "init": {"type": "bool"},
    "read_only": {"type": "bool"},
    "stop_signal": {"type": "str"},
    "stop_grace_period": {"type": "str"},
    "sysctls": {"type": "dict"},
    "cap_add": {"type": "list", "elements": "str"},
    "cap_drop": {"type": "list", "elements": "str"},
    "container_labels": {"type": "dict"},
    "labels": {"type": "dict"},
    "mode": {"type": "str", "choices": ["replicated", "global", "replicated-job", "global-job"]},
    "replicas": {"type": "int"},
    "max_concurrent": {"type": "int"},
    "mounts": {
        "type": "list",
        "elements": "dict",
        "options": {
            "target": {"type": "str", "required": True},
            "source": {"type": "str"},
            "type": {"type": "str", "choices": ["bind", "volume", "tmpfs"], "default": "volume"},
            "readonly": {"type": "bool", "default": False},
            "propagation": {"type": "str", "choices": ["rprivate", "private", "rshared", "shared", "rslave", "slave"]},
            "no_copy": {"type": "bool", "default": False},
            "labels": {"type": "dict"},
            "driver_config": {
                "type": "dict",
                "options": {
                    "name": {"type": "str"},
                    "options": {"type": "dict"},
                },
            },
            "tmpfs_size": {"type": "str"},
            "tmpfs_mode": {"type": "str"},
        },
    },
    "networks": {
        "type": "list",
        "elements": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "aliases": {"type": "list", "elements": "str"},
        },
    },
    "endpoint_mode": {"type": "str", "choices": ["vip", "dnsrr"]},
    "publish": {
        "type": "list",
        "elements": "dict",
        "options": {
            "target_port": {"type": "int", "required": True},
            "published_port": {"type": "int"},
            "protocol": {"type": "str", "choices": ["tcp", "udp", "sctp"], "default": "tcp"},
            "mode": {"type": "str", "choices": ["ingress", "host"], "default": "ingress"},
        },
    },
    "placement": {
        "type": "dict",
        "options": {
            "constraints": {"type": "list", "elements": "str"},
            "spread": {"type": "list", "elements": "str"},
            "replicas_max_per_node": {"type": "int"},
        },
    },
    "limits": {
        "type": "dict",
        "options": {
            "cpus": {"type": "float"},
            "memory": {"type": "str"},
            "pids": {"type": "int"},
        },
    },
    "reservations": {
        "type": "dict",
        "options": {
            "cpus": {"type": "float"},
            "memory": {"type": "str"},
        },
    },
    "healthcheck": {
        "type": "dict",
        "options": {
            "test": {"type": "list", "elements": "str"},
            "interval": {"type": "str"},
            "timeout": {"type": "str"},
            "start_period": {"type": "str"},
            "retries": {"type": "int"},
        },
    },
    "logging": {
        "type": "dict",
        "options": {
            "driver": {"type": "str"},
            "options": {"type": "dict"},
        },
    },
    "restart_config": {
        "type": "dict",
        "options": {
            "condition": {"type": "str", "choices": ["none", "on-failure", "any"]},
            "delay": {"type": "str"},
            "max_attempts": {"type": "int"},
            "window": {"type": "str"},
        },
    },
    "update_config": {
        "type": "dict",
        "options": {
            "parallelism": {"type": "int"},
            "delay": {"type": "str"},
            "failure_action": {"type": "str", "choices": ["pause", "continue", "rollback"]},
            "monitor": {"type": "str"},
            "max_failure_ratio": {"type": "float"},
            "order": {"type": "str", "choices": ["stop-first", "start-first"]},
        },
    },
    "rollback_config": {
        "type": "dict",
        "options": {
            "parallelism": {"type": "int"},
            "delay": {"type": "str"},
            "failure_action": {"type": "str", "choices": ["pause", "continue"]},
            "monitor": {"type": "str"},
            "max_failure_ratio": {"type": "float"},
            "order": {"type": "str", "choices": ["stop-first", "start-first"]},
        },
    },
    "secrets": {
        "type": "list",
        "elements": "dict",
        "no_log": False,
        "options": {
            "name": {"type": "str", "required": True},
            "target": {"type": "str"},
            "uid": {"type": "str", "default": "0"},
            "gid": {"type": "str", "default": "0"},
            "mode": {"type": "str", "default": "0444"},
        },
    },
    "configs": {
        "type": "list",
        "elements": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "target": {"type": "str"},
            "uid": {"type": "str", "default": "0"},
            "gid": {"type": "str", "default": "0"},
            "mode": {"type": "str", "default": "0444"},
        },
    },
    "force_update": {"type": "bool", "default": False},
    "wait": {"type": "bool", "default": True},
    "wait_timeout": {"type": "int", "default": 300},
}
