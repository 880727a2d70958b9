"""Labels that say what Swarm's API has no field for."""

from __future__ import annotations

import pytest

from swarm_agent.model.extensions import (
    PLACE_WITHIN_DEFAULT,
    Device,
    Gpus,
    TaskOptions,
    check,
    place_within,
    publish_addresses,
    publish_nodes,
    read_devices,
    read_duration,
    read_gpus,
    read_size,
    task_options,
)
from swarm_agent.model.times import SECOND


@pytest.mark.parametrize(
    ("text", "size"),
    [("65536", 65536), ("64m", 64 << 20), ("64MB", 64 << 20), ("1g", 1 << 30), ("1.5k", 1536), ("2 GiB", 2 << 30)],
)
def test_sizes(text: str, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1h30m", 5400), ("off", 0), ("0", 0), ("1d", 86400)])
def test_durations(text: str, seconds: int) -> None:
    assert read_duration(text) == seconds * SECOND


def test_devices_are_written_as_for_docker_run() -> None:
    assert read_devices("/dev/fuse, /dev/kvm:rw,/dev/sda:/dev/xvda:r") == (
        Device("/dev/fuse", "/dev/fuse"),
        Device("/dev/kvm", "/dev/kvm", "rw"),
        Device("/dev/sda", "/dev/xvda", "r"),
    )


def test_gpus_are_all_a_number_or_these() -> None:
    assert read_gpus("all") == Gpus(count=-1)
    assert read_gpus("2") == Gpus(count=2)
    assert read_gpus("device=0,GPU-1") == Gpus(ids=("0", "GPU-1"))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"swarm.task.shm-size": "1g"}, "label swarm.task.shm-size is not known; known are .*swarm.task.shm_size"),
        ({"swarm.task.shm_size": "big"}, "label swarm.task.shm_size: 'big' is no size"),
        ({"swarm.task.shm_size": "0"}, "above 0"),
        ({"swarm.task.devices": "fuse"}, "'fuse' is no device"),
        ({"swarm.task.devices": "/dev/fuse:/dev/fuse:rx"}, "permissions"),
        ({"swarm.task.privileged": "maybe"}, "neither true nor false"),
        ({"swarm.task.gpus": "0"}, "no GPUs"),
        ({"swarm.task.runtime": "a b"}, "no name of a runtime"),
        ({"swarm.update.place_within": "soon"}, "no duration"),
        ({"swarm.rebalance": "auto"}, "not one of on, off"),
        ({"swarm.job.cron": "* * * * *"}, "only jobs have a schedule"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(labels: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check(labels, job=False)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"swarm.job.cron": "* * *"}, "label swarm.job.cron: .*3 fields"),
        ({"swarm.job.cron": "@daily", "swarm.job.overlap": "queue"}, "not one of skip, replace"),
        ({"swarm.job.missed": "run"}, "says nothing without swarm.job.cron"),
    ],
)
def test_schedules_are_checked_when_they_are_declared(labels: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check(labels, job=True)


def test_other_tools_labels_are_left_alone() -> None:
    check({"swarm.cronjob.enable": "true", "com.example": "x", "swarm.rebalance": "off"}, job=False)


def test_what_is_stored_and_cannot_be_read_counts_as_not_said() -> None:
    labels = {"swarm.task.shm_size": "?", "swarm.task.runtime": "runc", "swarm.update.place_within": "?"}
    assert task_options(labels) == TaskOptions(runtime="runc")
    assert place_within(labels) == PLACE_WITHIN_DEFAULT


def test_ports_may_be_bound_to_addresses_and_networks_of_hosts() -> None:
    labels = {"swarm.publish.addresses": "192.168.7.0/24, 10.0.0.5"}
    check(labels, job=False)
    assert publish_addresses(labels) == ("10.0.0.5/32", "192.168.7.0/24")
    assert publish_addresses({}) == ()


def test_ports_may_be_bound_to_nodes_in_the_words_of_constraints() -> None:
    labels = {"swarm.publish.nodes": "node.role != manager,node.labels.edge==true"}
    check(labels, job=False)
    assert publish_nodes(labels) == ("node.labels.edge==true", "node.role!=manager")
    assert publish_nodes({}) == ()


@pytest.mark.parametrize(
    "text", ["", "edge==true", "node.labels.edge=true", "node.labels.==x", "node.rôle==x", "node.id==a,"]
)
def test_what_is_no_condition_on_nodes_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"label swarm\.publish\.nodes: .* is no condition on nodes"):
        check({"swarm.publish.nodes": text}, job=False)


@pytest.mark.parametrize("text", ["", "10.0.0.5/8", "web", "10.0.0.5,", "fd00::1"])
def test_what_is_no_address_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"label swarm\.publish\.addresses: .* is no IPv4 address or network"):
        check({"swarm.publish.addresses": text}, job=False)
