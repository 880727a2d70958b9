"""Stored objects: Cluster, Node, Service, Task, Network, Secret, Config (API: the same names under /swarm, /nodes, …).

All are immutable; a change is a new object. `version.index` is the raft log index of the object's last write, shared by
all objects of one transaction. Fields named "_…" in JSON are the managers' own and never shown (model.base.public).
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from .base import Object, always
from .specs import (
    ConfigSpec,
    Driver,
    EndpointSpec,
    GenericResource,
    IPAMOptions,
    NetworkSpec,
    NodeSpec,
    Platform,
    PortConfig,
    Resources,
    SecretSpec,
    ServiceSpec,
    SwarmSpec,
    TaskSpec,
)
from .states import TaskState

ZERO_TIME = "0001-01-01T00:00:00Z"


class Version(Object, frozen=True):
    index: int = 0


class Stored(Object, frozen=True):
    """What every stored object has. Times are RFC 3339 with nanoseconds, UTC."""

    KIND: ClassVar[str] = ""

    id: str = ""
    version: Version = always(Version)
    created_at: str = always(lambda: ZERO_TIME)
    updated_at: str = always(lambda: ZERO_TIME)


# --- networks --------------------------------------------------------------------------------------------------------


class NetworkDriverState(Object, frozen=True):
    name: str = ""
    options: dict[str, str] = {}


class Network(Stored, frozen=True):
    """A cluster network (API: swarm.Network). Its VNI is in the driver state's vxlanid_list option, as in Swarm."""

    KIND: ClassVar[str] = "network"

    spec: NetworkSpec = always(NetworkSpec)
    driver_state: NetworkDriverState = always(NetworkDriverState)
    ipam_options: IPAMOptions | None = msgspec.field(default=None, name="IPAMOptions")


class NetworkAttachment(Object, frozen=True):
    """A task's place on a network. `addresses` are CIDR, "10.0.1.3/24"."""

    network: Network = always(Network)
    addresses: list[str] = []


# --- services --------------------------------------------------------------------------------------------------------


class EndpointVirtualIP(Object, frozen=True):
    network_id: str = ""
    addr: str = ""


class Endpoint(Object, frozen=True):
    """A service's allocated ports and addresses."""

    spec: EndpointSpec = always(EndpointSpec)
    ports: list[PortConfig] = []
    virtual_ips: list[EndpointVirtualIP] = []


class UpdateStatus(Object, frozen=True):
    """State: updating, paused, completed, rollback_started, rollback_paused, rollback_completed."""

    state: str = ""
    started_at: str | None = None
    completed_at: str | None = None
    message: str = ""


class ServiceStatus(Object, frozen=True):
    """Counted when a client asks for it (GET /services?status=1); never stored."""

    running_tasks: int = always(int)
    desired_tasks: int = always(int)
    completed_tasks: int = always(int)


class JobStatus(Object, frozen=True):
    job_iteration: Version = always(Version)
    last_execution: str = ""


class Service(Stored, frozen=True):
    KIND: ClassVar[str] = "service"

    spec: ServiceSpec = always(ServiceSpec)
    previous_spec: ServiceSpec | None = None
    endpoint: Endpoint = always(Endpoint)
    update_status: UpdateStatus | None = None
    service_status: ServiceStatus | None = None
    job_status: JobStatus | None = None
    # Moves only when the spec changes; tasks remember the one they were made from (staleness, restart counters).
    # (A default value, not a factory: only that is left out of the API's JSON.)
    spec_version: Version = msgspec.field(default=Version(), name="_SpecVersion")
    previous_spec_version: Version | None = msgspec.field(default=None, name="_PreviousSpecVersion")
    # X-Registry-Auth as the client sent it, passed on to the nodes that pull.
    registry_auth: str = msgspec.field(default="", name="_RegistryAuth")
    # A job with a schedule (extensions.CRON): the time up to which the schedule was followed, and the iteration that
    # may run; earlier ones are over, and the next one waits for its time.
    scheduled_to: str = msgspec.field(default="", name="_ScheduledTo")
    released: int = msgspec.field(default=-1, name="_Released")
    # Since when (RFC 3339) it is being moved for balance because somebody asked for it; empty: it is not.
    rebalance: str = msgspec.field(default="", name="_Rebalance")


# --- tasks -----------------------------------------------------------------------------------------------------------


class ContainerStatus(Object, frozen=True):
    container_id: str = always(str)
    pid: int = always(int)
    exit_code: int = always(int)


class PortStatus(Object, frozen=True):
    ports: list[PortConfig] = []


class TaskStatus(Object, frozen=True):
    """What was observed of a task. `err` is for people and is shown by `docker service ps`."""

    timestamp: str = ""
    state: TaskState = always(lambda: TaskState.NEW)
    message: str = ""
    err: str = ""
    container_status: ContainerStatus | None = None
    port_status: PortStatus = always(PortStatus)


class Task(Stored, frozen=True):
    """One run of a service's template in one slot. A task never moves and never restarts: a new task replaces it."""

    KIND: ClassVar[str] = "task"

    labels: dict[str, str] = always(dict)
    spec: TaskSpec = always(TaskSpec)
    service_id: str = ""
    slot: int = 0
    node_id: str = ""
    status: TaskStatus = always(TaskStatus)
    desired_state: TaskState = always(lambda: TaskState.NEW)
    networks_attachments: list[NetworkAttachment] = []
    generic_resources: list[GenericResource] = []
    job_iteration: Version | None = None
    volumes: None = always(lambda: None)  # cluster volumes, which there are none of; engines from 23 on show them
    # Internal: the service as it was when the task was made.
    spec_version: Version | None = msgspec.field(default=None, name="_SpecVersion")
    service_name: str = msgspec.field(default="", name="_ServiceName")
    service_labels: dict[str, str] = msgspec.field(default_factory=dict, name="_ServiceLabels")
    endpoint: Endpoint | None = msgspec.field(default=None, name="_Endpoint")
    registry_auth: str = msgspec.field(default="", name="_RegistryAuth")
    # Not before this time (RFC 3339) may a replacement be lifted from READY to RUNNING: the restart delay, kept in
    # the store so that it survives a change of leader.
    restart_after: str = msgspec.field(default="", name="_RestartAfter")
    # Why the task was made (tasks.Cause); for people and for counting.
    cause: str = msgspec.field(default="", name="_Cause")
    # UpdateStatus.started_at of the update whose worker made this task; empty for tasks made for another reason.
    update: str = msgspec.field(default="", name="_Update")
    # Of a plain container's place on a network: the IPv4 address that its user wants it to have.
    wanted_address: str = msgspec.field(default="", name="_WantedAddress")
    # The cluster's default log driver when the task was made, used when the spec names none.
    log_driver: Driver | None = msgspec.field(default=None, name="_LogDriver")

    @property
    def name(self) -> str:
        """The container's name in Swarm's form: SERVICE.SLOT.TASK, or SERVICE.NODE.TASK for global services."""
        return f"{self.service_name}.{self.slot or self.node_id}.{self.id}"


# --- nodes -----------------------------------------------------------------------------------------------------------


class PluginDescription(Object, frozen=True):
    type: str = ""
    name: str = ""


class EngineDescription(Object, frozen=True):
    engine_version: str = ""
    labels: dict[str, str] = {}
    plugins: list[PluginDescription] = []


class NodeTLSInfo(Object, frozen=True):
    """PEM of the root that the node trusts, and its issuer's subject and key (base64 of DER)."""

    trust_root: str = ""
    cert_issuer_subject: str = ""
    cert_issuer_public_key: str = ""


class NodeDescription(Object, frozen=True):
    hostname: str = ""
    platform: Platform = always(Platform)
    resources: Resources = always(Resources)
    engine: EngineDescription = always(EngineDescription)
    tls_info: NodeTLSInfo = always(NodeTLSInfo)


class NodeStatus(Object, frozen=True):
    """State: unknown, down, ready, disconnected."""

    state: str = ""
    message: str = ""
    addr: str = ""


class ManagerStatus(Object, frozen=True):
    leader: bool = False
    reachability: str = ""
    addr: str = ""


class Node(Stored, frozen=True):
    KIND: ClassVar[str] = "node"

    spec: NodeSpec = always(NodeSpec)
    description: NodeDescription = always(NodeDescription)
    status: NodeStatus = always(NodeStatus)
    manager_status: ManagerStatus | None = None
    # Internal: this host's own address on each cluster network in use on it (network id → "10.0.0.2/24"),
    # and the raft member id while it is a manager.
    attachments: dict[str, str] = msgspec.field(default_factory=dict, name="_Attachments")
    raft_id: int = msgspec.field(default=0, name="_RaftID")


# --- secrets and configs ---------------------------------------------------------------------------------------------


class Secret(Stored, frozen=True):
    KIND: ClassVar[str] = "secret"

    spec: SecretSpec = always(SecretSpec)


class Config(Stored, frozen=True):
    KIND: ClassVar[str] = "config"

    spec: ConfigSpec = always(ConfigSpec)


# --- the cluster -----------------------------------------------------------------------------------------------------


class JoinTokens(Object, frozen=True):
    worker: str = always(str)
    manager: str = always(str)

    def __repr__(self) -> str:
        return "JoinTokens(…)"


class Cluster(Stored, frozen=True):
    """The one cluster object (API: GET /swarm). Key material is internal and lives only in the managers' store."""

    KIND: ClassVar[str] = "cluster"

    spec: SwarmSpec = always(SwarmSpec)
    tls_info: NodeTLSInfo = msgspec.field(default_factory=NodeTLSInfo, name="TLSInfo")
    root_rotation_in_progress: bool = always(bool)
    default_addr_pool: list[str] = []
    subnet_size: int = 0
    data_path_port: int = 0
    join_tokens: JoinTokens | None = None
    ca_cert: str = msgspec.field(default="", name="_CACert")
    ca_key: str = msgspec.field(default="", name="_CAKey")
    # While the root is being changed: the next one, and its certificate as the present one signs it.
    next_ca_cert: str = msgspec.field(default="", name="_NextCACert")
    next_ca_key: str = msgspec.field(default="", name="_NextCAKey")
    cross_signed: str = msgspec.field(default="", name="_CrossSigned")
    gossip_keys: list[str] = msgspec.field(default_factory=list, name="_GossipKeys")
    gossip_step: int = msgspec.field(default=0, name="_GossipStep")  # of a change of keys, see node/gossip_keys.py
    gossip_changed_at: str = msgspec.field(default="", name="_GossipChangedAt")
    unlock_key: str = msgspec.field(default="", name="_UnlockKey")
    # Node ids whose certificates are refused, with the RFC 3339 time until which they could still be valid.
    blacklisted: dict[str, str] = msgspec.field(default_factory=dict, name="_Blacklisted")

    @property
    def wanted_root(self) -> tuple[str, str]:
        """Certificate and key that node certificates are signed with now. The key is empty when others have it."""
        return (self.next_ca_cert, self.next_ca_key) if self.next_ca_cert else (self.ca_cert, self.ca_key)

    @property
    def trust_bundle(self) -> str:
        """The roots that nodes trust now."""
        return self.ca_cert + self.next_ca_cert


KINDS: dict[str, type[Stored]] = {kind.KIND: kind for kind in (Cluster, Node, Service, Task, Network, Secret, Config)}
