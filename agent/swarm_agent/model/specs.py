"""What users declare: service, task, container, node and cluster specs (API: ServiceSpec, NodeSpec, SwarmSpec).

Nothing is defaulted here: the server echoes what it was given (reference/swarm.md §1.3), and the code that acts on a
spec applies Swarm's defaults (§3.2) when it reads it. Durations are nanoseconds, sizes bytes, CPUs 1e-9 of a core.
"""

from __future__ import annotations

import msgspec

from .base import Object, always


class Driver(Object, frozen=True):
    """A named driver with options: log driver, network driver, IPAM, volume, secret, templating."""

    name: str = ""
    options: dict[str, str] = {}


# --- containers ------------------------------------------------------------------------------------------------------


class BindOptions(Object, frozen=True):
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class VolumeOptions(Object, frozen=True):
    no_copy: bool = False
    labels: dict[str, str] = {}
    subpath: str = ""
    driver_config: Driver | None = None


class TmpfsOptions(Object, frozen=True):
    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] = []


class Mount(Object, frozen=True):
    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    tmpfs_options: TmpfsOptions | None = None


class HealthConfig(Object, frozen=True):
    test: list[str] = []
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class FileTarget(Object, frozen=True):
    name: str = always(str)
    uid: str = always(str)
    gid: str = always(str)
    mode: int = always(int)


class SecretReference(Object, frozen=True):
    file: FileTarget | None = None
    secret_id: str = always(str)
    secret_name: str = always(str)


class RuntimeTarget(Object, frozen=True):
    """Marks a config that the runtime itself reads (credential specs)."""


class ConfigReference(Object, frozen=True):
    file: FileTarget | None = None
    runtime: RuntimeTarget | None = None
    config_id: str = always(str)
    config_name: str = always(str)


class DNSConfig(Object, frozen=True):
    nameservers: list[str] = []
    search: list[str] = []
    options: list[str] = []


class Ulimit(Object, frozen=True):
    name: str = always(str)
    hard: int = always(int)
    soft: int = always(int)


class CredentialSpec(Object, frozen=True):
    config: str = always(str)
    file: str = always(str)
    registry: str = always(str)


class SELinuxContext(Object, frozen=True):
    disable: bool = always(bool)
    user: str = always(str)
    role: str = always(str)
    type: str = always(str)
    level: str = always(str)


class SeccompOpts(Object, frozen=True):
    mode: str = ""
    profile: str = ""


class AppArmorOpts(Object, frozen=True):
    mode: str = ""


class Privileges(Object, frozen=True):
    credential_spec: CredentialSpec | None = always(lambda: None)
    selinux_context: SELinuxContext | None = msgspec.field(default_factory=lambda: None, name="SELinuxContext")
    seccomp: SeccompOpts | None = None
    app_armor: AppArmorOpts | None = None
    no_new_privileges: bool = always(bool)


class ContainerSpec(Object, frozen=True):
    """What the container is made from. `command` replaces the image's entrypoint, `args` its command."""

    image: str = ""
    labels: dict[str, str] = {}
    command: list[str] = []
    args: list[str] = []
    hostname: str = ""
    env: list[str] = []
    dir: str = ""
    user: str = ""
    groups: list[str] = []
    privileges: Privileges | None = None
    init: bool | None = None
    stop_signal: str = ""
    tty: bool = False
    open_stdin: bool = False
    read_only: bool = False
    mounts: list[Mount] = []
    stop_grace_period: int | None = None
    healthcheck: HealthConfig | None = None
    hosts: list[str] = []
    dns_config: DNSConfig | None = None
    secrets: list[SecretReference] = []
    configs: list[ConfigReference] = []
    isolation: str = ""
    sysctls: dict[str, str] = {}
    capability_add: list[str] = []
    capability_drop: list[str] = []
    ulimits: list[Ulimit] = []
    oom_score_adj: int = 0


# --- tasks -----------------------------------------------------------------------------------------------------------


class NamedGenericResource(Object, frozen=True):
    kind: str = ""
    value: str = ""


class DiscreteGenericResource(Object, frozen=True):
    kind: str = ""
    value: int = 0


class GenericResource(Object, frozen=True):
    named_resource_spec: NamedGenericResource | None = None
    discrete_resource_spec: DiscreteGenericResource | None = None


class Limits(Object, frozen=True):
    nano_cpus: int = 0
    memory_bytes: int = 0
    pids: int = 0


class Resources(Object, frozen=True):
    """What a task reserves, or what a node has."""

    nano_cpus: int = 0
    memory_bytes: int = 0
    generic_resources: list[GenericResource] = []


class ResourceRequirements(Object, frozen=True):
    limits: Limits | None = None
    reservations: Resources | None = None
    swap_bytes: int | None = None
    memory_swappiness: int | None = None


class RestartPolicy(Object, frozen=True):
    condition: str = ""
    delay: int | None = None
    max_attempts: int | None = None
    window: int | None = None


class SpreadOver(Object, frozen=True):
    spread_descriptor: str = always(str)


class PlacementPreference(Object, frozen=True):
    spread: SpreadOver | None = None


class Platform(Object, frozen=True):
    architecture: str = ""
    os: str = ""


class Placement(Object, frozen=True):
    constraints: list[str] = []
    preferences: list[PlacementPreference] = []
    max_replicas: int = 0
    platforms: list[Platform] = []


class NetworkAttachmentConfig(Object, frozen=True):
    target: str = ""
    aliases: list[str] = []
    driver_opts: dict[str, str] = {}


class NetworkAttachmentSpec(Object, frozen=True):
    container_id: str = ""


class TaskSpec(Object, frozen=True):
    """The template of a service's tasks."""

    container_spec: ContainerSpec | None = None
    network_attachment_spec: NetworkAttachmentSpec | None = None
    resources: ResourceRequirements | None = None
    restart_policy: RestartPolicy | None = None
    placement: Placement | None = None
    networks: list[NetworkAttachmentConfig] = []
    log_driver: Driver | None = None
    force_update: int = always(int)
    runtime: str = ""


# --- services --------------------------------------------------------------------------------------------------------


class Replicated(Object, frozen=True):
    replicas: int | None = None


class Global(Object, frozen=True):
    pass


class ReplicatedJob(Object, frozen=True):
    max_concurrent: int | None = None
    total_completions: int | None = None


class GlobalJob(Object, frozen=True):
    pass


class ServiceMode(Object, frozen=True):
    """Exactly one of the four is set; the front door makes an absent mode `Replicated(replicas=1)`."""

    replicated: Replicated | None = None
    global_: Global | None = msgspec.field(default=None, name="Global")
    replicated_job: ReplicatedJob | None = None
    global_job: GlobalJob | None = None


class UpdateConfig(Object, frozen=True):
    parallelism: int = always(int)
    delay: int = 0
    failure_action: str = ""
    monitor: int = 0
    max_failure_ratio: float = always(lambda: 0)
    order: str = always(str)


class PortConfig(Object, frozen=True):
    name: str = ""
    protocol: str = ""
    target_port: int = 0
    published_port: int = 0
    publish_mode: str = ""


class EndpointSpec(Object, frozen=True):
    mode: str = ""
    ports: list[PortConfig] = []


class ServiceSpec(Object, frozen=True):
    name: str = ""
    labels: dict[str, str] = always(dict)
    task_template: TaskSpec = always(TaskSpec)
    mode: ServiceMode = always(ServiceMode)
    update_config: UpdateConfig | None = None
    rollback_config: UpdateConfig | None = None
    networks: list[NetworkAttachmentConfig] = []
    endpoint_spec: EndpointSpec | None = None


# --- nodes, secrets, configs, networks -------------------------------------------------------------------------------


class NodeSpec(Object, frozen=True):
    name: str = ""
    labels: dict[str, str] = always(dict)
    role: str = ""
    availability: str = ""


class SecretSpec(Object, frozen=True):
    """`data` is base64 as in the API; it never leaves the managers except to nodes that run a task with it."""

    name: str = ""
    labels: dict[str, str] = always(dict)
    data: str = ""
    driver: Driver | None = None
    templating: Driver | None = None


class ConfigSpec(Object, frozen=True):
    name: str = ""
    labels: dict[str, str] = always(dict)
    data: str = ""
    templating: Driver | None = None


class IPAMConfig(Object, frozen=True):
    subnet: str = ""
    range: str = ""
    gateway: str = ""
    auxiliary_addresses: dict[str, str] = {}  # name → address that is kept free; beyond Swarm, which drops them


class IPAMOptions(Object, frozen=True):
    driver: Driver | None = None
    configs: list[IPAMConfig] = []


class NetworkSpec(Object, frozen=True):
    name: str = ""
    labels: dict[str, str] = always(dict)
    driver_configuration: Driver | None = None
    ipv6_enabled: bool = msgspec.field(default=False, name="IPv6Enabled")
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    ipam_options: IPAMOptions | None = msgspec.field(default=None, name="IPAMOptions")
    scope: str = ""


# --- the cluster -----------------------------------------------------------------------------------------------------


class OrchestrationConfig(Object, frozen=True):
    task_history_retention_limit: int | None = None


class RaftConfig(Object, frozen=True):
    snapshot_interval: int = 0
    keep_old_snapshots: int | None = None
    log_entries_for_slow_followers: int = 0
    election_tick: int = always(int)
    heartbeat_tick: int = always(int)


class DispatcherConfig(Object, frozen=True):
    heartbeat_period: int = 0


class ExternalCA(Object, frozen=True):
    protocol: str = always(str)
    url: str = always(str)
    options: dict[str, str] = {}
    ca_cert: str = msgspec.field(default_factory=str, name="CACert")


class CAConfig(Object, frozen=True):
    node_cert_expiry: int = 0
    external_cas: list[ExternalCA] = []
    signing_ca_cert: str = msgspec.field(default="", name="SigningCACert")
    signing_ca_key: str = msgspec.field(default="", name="SigningCAKey")
    force_rotate: int = 0


class TaskDefaults(Object, frozen=True):
    log_driver: Driver | None = None


class EncryptionConfig(Object, frozen=True):
    auto_lock_managers: bool = always(bool)


class SwarmSpec(Object, frozen=True):
    name: str = ""
    labels: dict[str, str] = always(dict)
    orchestration: OrchestrationConfig = always(OrchestrationConfig)
    raft: RaftConfig = always(RaftConfig)
    dispatcher: DispatcherConfig = always(DispatcherConfig)
    ca_config: CAConfig = always(CAConfig)
    task_defaults: TaskDefaults = always(TaskDefaults)
    encryption_config: EncryptionConfig = always(EncryptionConfig)
