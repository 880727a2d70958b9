"""The first objects of a new cluster: itself, its first node, the ingress network. Pure, from the init request."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import random
from dataclasses import dataclass

from msgspec.structs import replace

from swarm_agent.manager.control.roots import public_ca, tls_info
from swarm_agent.model.base import public
from swarm_agent.model.errors import BadRequest
from swarm_agent.model.objects import (
    Cluster,
    JoinTokens,
    ManagerStatus,
    Network,
    Node,
    NodeDescription,
    NodeStatus,
)
from swarm_agent.model.specs import NetworkSpec, NodeSpec, SwarmSpec
from swarm_agent.pki import authority
from swarm_agent.pki.authority import Authority, Identity
from swarm_agent.pki.files import NodeCertificate
from swarm_agent.pki.tokens import new_token
from swarm_agent.store.tx import Tx

DEFAULT_POOL = "10.0.0.0/8"
DEFAULT_SUBNET_SIZE = 24
DEFAULT_DATA_PATH_PORT = 4789
AVAILABILITIES = ("active", "pause", "drain")
GOSSIP_KEYS = 1  # one key to begin with; rotation adds more


@dataclass(frozen=True, slots=True)
class Founding:
    """Everything that the first transaction of a cluster creates."""

    cluster: Cluster
    node: Node
    ingress: Network


def check_pools(pools: list[str], subnet_size: int) -> tuple[list[str], int]:
    """The address pools to use, with Swarm's texts; without any its defaults, whatever the size. Raises BadRequest."""
    if not pools:
        return [DEFAULT_POOL], DEFAULT_SUBNET_SIZE
    size = subnet_size or DEFAULT_SUBNET_SIZE
    if size > 29:
        raise BadRequest(f"subnet size is out of range: {size}")
    networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
    for text in pools:
        try:
            pool = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise BadRequest(f"invalid base pool {text}: invalid CIDR address: {text}") from None
        if str(pool.network_address) != text.partition("/")[0]:
            raise BadRequest(f"invalid base pool {text}: it has host bits set, {pool} has not")
        if size < pool.prefixlen:
            raise BadRequest(f'invalid CIDR: "{text}". Subnet size is too small for pool: {size}')
        for other in networks:
            if pool.version == other.version and pool.overlaps(other):
                raise BadRequest(f"invalid base pool {text}: it overlaps {other}")
        networks.append(pool)
    return [str(pool) for pool in networks], size


def check_data_path_port(port: int) -> int:
    """The VXLAN port to use. Raises BadRequest outside 1024-49151."""
    if port and not 1024 <= port <= 49151:
        raise BadRequest(f"Datapath port number is not in valid range (1024-49151) : {port}")
    return port or DEFAULT_DATA_PATH_PORT


def check_availability(text: str) -> str:
    """Availability of a joining node, `active` when not said. Raises BadRequest."""
    value = text.lower() or "active"
    if value not in AVAILABILITIES:
        raise BadRequest(f'invalid Availability: "{text}"')
    return value


def found(
    *,
    cluster_id: str,
    node_id: str,
    network_id: str,
    spec: SwarmSpec,
    pools: list[str],
    subnet_size: int,
    data_path_port: int,
    availability: str,
    advertise: str,
    manager_addr: str,
    description: NodeDescription,
    authority: Authority,
    unlock_key: str,
    gossip_keys: list[bytes],
    raft_id: int,
    rng: random.Random,
) -> Founding:
    """Make the first objects. `spec` is already complete (defaults applied)."""
    cluster = Cluster(
        id=cluster_id,
        spec=replace(public(spec), ca_config=public_ca(spec.ca_config)),
        tls_info=tls_info(authority.cert, authority.cert),
        default_addr_pool=pools,
        subnet_size=subnet_size,
        data_path_port=data_path_port,
        join_tokens=JoinTokens(worker=new_token(authority.cert, rng), manager=new_token(authority.cert, rng)),
        ca_cert=authority.cert,
        ca_key=authority.key,
        unlock_key=unlock_key,
        gossip_keys=[base64.b64encode(key).decode() for key in gossip_keys],
    )
    node = Node(
        id=node_id,
        spec=NodeSpec(role="manager", availability=availability),
        description=description,
        status=NodeStatus(state="unknown", addr=advertise),
        manager_status=ManagerStatus(leader=True, reachability="reachable", addr=manager_addr),
        raft_id=raft_id,
    )
    ingress = Network(id=network_id, spec=NetworkSpec(name="ingress", ingress=True, scope="swarm"))
    return Founding(cluster, node, ingress)


def sole_manager(tx: Tx, node_id: str) -> None:
    """After a forced new cluster: every other manager is a worker now, and no raft member."""
    for node in tx.all(Node):
        if node.id != node_id and (node.spec.role == "manager" or node.raft_id or node.manager_status is not None):
            spec = replace(node.spec, role="worker")
            tx.update(replace(node, spec=spec, raft_id=0, manager_status=None))


def first_certificate(root: Authority, identity: Identity, now: datetime.datetime) -> NodeCertificate:
    """The first node's, by the root that it founds the cluster with. Makes a key: some milliseconds."""
    key = authority.new_key()
    cert = root.issue(authority.new_signing_request(key), identity, now, datetime.timedelta(days=90))
    return NodeCertificate(root.cert, cert, key)
