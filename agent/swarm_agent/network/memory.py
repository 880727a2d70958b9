"""What the data plane was made from, kept over a restart of the agent, so that the restart disturbs no traffic.

A fresh agent hears of the other hosts one by one. Until it has heard from a host, that host's rows are taken from
memory, for at most `SETTLE` seconds; without this the first plan would remove every remote endpoint and the next ones
bring them back. The file belongs on a file system that does not outlive the kernel (below /run).
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import msgspec

from .tables import NetworkTables

log = logging.getLogger("swarm.network")

SETTLE = 10.0
"""Seconds after the start in which remembered rows stand in for hosts that were not heard yet."""


def with_memory(tables: NetworkTables, remembered: NetworkTables) -> NetworkTables:
    """The tables, completed from memory for hosts without any row in them."""
    heard = {owner for owner, _ in tables.endpoints} | {owner for owner, _ in tables.peers}
    known = {row.task_id for _, row in tables.endpoints}
    return replace(
        tables,
        networks=tables.networks or remembered.networks,
        own=tables.own or remembered.own,
        hosts={**remembered.hosts, **tables.hosts},
        endpoints=[
            *tables.endpoints,
            *(item for item in remembered.endpoints if item[0] not in heard and item[1].task_id not in known),
        ],
        peers=[*tables.peers, *(item for item in remembered.peers if item[0] not in heard)],
    )


def is_settled(tables: NetworkTables, remembered: NetworkTables) -> bool:
    """Whether every remembered host was heard, so that memory adds nothing any more."""
    heard = {owner for owner, _ in tables.endpoints} | {owner for owner, _ in tables.peers}
    return heard.issuperset(owner for owner, _ in (*remembered.endpoints, *remembered.peers))


def load(path: Path) -> NetworkTables | None:
    """What was saved, or None when there is nothing that can be read."""
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=NetworkTables)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        log.warning("remembered network tables in %s are not used: %s", path, error)
        return None


def save(path: Path, tables: NetworkTables) -> None:
    """Replace the file; a crash leaves the old or the new one."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.msgpack.encode(tables))
    os.replace(fresh, path)
