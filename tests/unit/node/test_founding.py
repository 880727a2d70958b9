"""The first objects of a cluster, and the limits on what an init may ask."""

import datetime
import random

import pytest

from swarm_agent.model.base import encode
from swarm_agent.model.errors import BadRequest, ClusterError
from swarm_agent.model.objects import NodeDescription
from swarm_agent.model.specs import SwarmSpec
from swarm_agent.node import founding
from swarm_agent.pki.authority import Authority
from swarm_agent.pki.tokens import parse_token

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def first_objects() -> founding.Founding:
    return founding.found(
        cluster_id="c" * 25,
        node_id="n" * 25,
        network_id="i" * 25,
        spec=SwarmSpec(name="default"),
        pools=["10.0.0.0/8"],
        subnet_size=24,
        data_path_port=4789,
        availability="drain",
        advertise="192.168.0.1",
        manager_addr="192.168.0.1:2377",
        description=NodeDescription(hostname="host1"),
        authority=Authority.create(NOW),
        unlock_key="",
        gossip_keys=[b"k" * 32],
        raft_id=7,
        rng=random.Random(1),
    )


def test_the_first_node_manages_and_leads():
    node = first_objects().node
    assert (node.spec.role, node.spec.availability, node.raft_id) == ("manager", "drain", 7)
    assert node.manager_status.leader and node.manager_status.addr == "192.168.0.1:2377"


def test_both_tokens_belong_to_the_clusters_root():
    cluster = first_objects().cluster
    worker, manager = parse_token(cluster.join_tokens.worker), parse_token(cluster.join_tokens.manager)
    assert worker.matches(cluster.ca_cert) and manager.matches(cluster.ca_cert)
    assert worker.secret != manager.secret


def test_clients_never_see_keys():
    cluster = first_objects().cluster
    shown = encode(cluster).decode()
    assert cluster.ca_key and "PRIVATE KEY" not in shown and cluster.gossip_keys[0] not in shown


def test_ingress_is_there_from_the_start():
    ingress = first_objects().ingress
    assert ingress.spec.ingress and ingress.spec.name == "ingress"


def test_pools_have_defaults():
    assert founding.check_pools([], 0) == founding.check_pools([], 40) == (["10.0.0.0/8"], 24)
    assert founding.check_pools(["172.30.0.0/16"], 26) == (["172.30.0.0/16"], 26)


@pytest.mark.parametrize(
    ("pools", "size", "text"),
    [
        (["10.0.0.0/8"], 30, "subnet size is out of range: 30"),
        (["10.0.0.0/26"], 24, "Subnet size is too small for pool"),
        (["nonsense"], 24, "invalid base pool nonsense: invalid CIDR address: nonsense"),
        (["10.0.0.1/8"], 24, "invalid base pool 10.0.0.1/8: it has host bits set, 10.0.0.0/8 has not"),
        (["10.0.0.0/8"], 7, 'invalid CIDR: "10.0.0.0/8". Subnet size is too small for pool: 7'),
        (["10.0.0.0/8", "10.5.0.0/16"], 24, "overlaps"),
    ],
)
def test_bad_pools_are_refused(pools, size, text):
    with pytest.raises(BadRequest, match=text):
        founding.check_pools(pools, size)


def test_the_data_path_port_has_a_range():
    assert founding.check_data_path_port(0) == 4789
    for port in (1, 1023, 49152, 70000, -1):
        with pytest.raises(BadRequest, match="not in valid range"):
            founding.check_data_path_port(port)


def test_availability_is_one_of_three():
    assert founding.check_availability("") == "active"
    assert founding.check_availability("Drain") == "drain"
    with pytest.raises(ClusterError, match="invalid Availability"):
        founding.check_availability("asleep")
