"""What is refused in a service spec, each with Swarm's words (reference/swarm.md §1.3)."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm_agent.manager.control.names import random_name, validate_name
from swarm_agent.manager.control.normalize import normalize_service, with_defaults
from swarm_agent.manager.control.service_spec import valid_image, validate
from swarm_agent.model.errors import BadRequest, ClusterError, InvalidArgument
from swarm_agent.model.specs import ServiceSpec

RPC = "rpc error: code = InvalidArgument desc = "


def check(document: dict[str, Any]) -> None:
    spec = msgspec.convert(document, ServiceSpec)
    validate(normalize_service(spec, random.Random(0)))


def web(container: dict[str, Any] | None = None, template: dict[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    container = {"Image": "alpine", **(container or {})}
    return {"Name": "web", "TaskTemplate": {"ContainerSpec": container, **(template or {})}, **rest}


def resources(**limits: int) -> dict[str, Any]:
    return {"Resources": {"Limits": limits}}


def secret(name: str, target: str = "t", id_: str = "i") -> dict[str, Any]:
    return {"File": {"Name": target}, "SecretID": id_, "SecretName": name}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({**web(), "Name": "a b"}, "name must be valid as a DNS name component"),
    ({**web(), "Name": "-a"}, "name must be valid as a DNS name component"),
    ({**web(), "Name": "a" * 64}, "name must be 63 characters or fewer"),
    (web({"Image": ""}), "ContainerSpec: image reference must be provided"),
    (web({"Image": "Up/Case:"}), 'ContainerSpec: "Up/Case:" is not a valid repository/tag'),
    (web({"Mounts": [{"Target": "/x"}, {"Target": "/x"}]}), "ContainerSpec: duplicate mount point: /x"),
    (web(template=resources(NanoCPUs=1)), "invalid cpu value 1e-09: Must be at least 0.001"),
    (web(template=resources(NanoCPUs=-1)), "invalid cpu value -1e-09: Must be at least 0.001"),
    (web(template=resources(MemoryBytes=4096)), "invalid memory value 4096: Must be at least 4MiB"),
    (web(template={"RestartPolicy": {"Delay": -1}}), "TaskSpec: restart-delay cannot be negative"),
    (web(template={"RestartPolicy": {"Window": -1}}), "TaskSpec: restart-window cannot be negative"),
    (web(UpdateConfig={"Delay": -1}), "TaskSpec: update-delay cannot be negative"),
    (web(UpdateConfig={"Monitor": -1}), "TaskSpec: update-monitor cannot be negative"),
    (
        web(UpdateConfig={"MaxFailureRatio": 1.5}),
        "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1",
    ),
    (web(Mode={"Replicated": {"Replicas": -1}}), "Number of replicas must be non-negative"),
    (web(Mode={"ReplicatedJob": {"MaxConcurrent": -1}}), "Maximum concurrent jobs must not be negative"),
    (web(Mode={"ReplicatedJob": {"TotalCompletions": -1}}), "Total completed jobs must not be negative"),
    (web(Mode={"GlobalJob": {}}, UpdateConfig={}), "Jobs may not have an update config"),
    (
        web({"Healthcheck": {"Interval": 1}}),
        "ContainerSpec: Interval in HealthConfig cannot be less than 1ms",
    ),
    (web({"Healthcheck": {"Retries": -1}}), "ContainerSpec: Retries in HealthConfig cannot be negative"),
    (web({"Secrets": [secret("")]}), "malformed secret reference"),
    (
        web({"Secrets": [{"SecretID": "i", "SecretName": "n"}]}),
        "malformed secret reference, no target provided",
    ),
    (
        web({"Secrets": [secret("a", "")]}),
        "malformed file secret reference, invalid target file name provided",
    ),
    (
        web({"Secrets": [secret("a", "x"), secret("b", "x")]}),
        "secret references 'a' and 'b' have a conflicting target: 'x'",
    ),
    (
        web({"Privileges": {"CredentialSpec": {"Config": "c"}}}),
        "CredentialSpec references config 'c', but that config isn't in config references with RuntimeTarget",
    ),
    (
        web(EndpointSpec={"Mode": "dnsrr", "Ports": [{"TargetPort": 80}]}),
        "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
    ),
    (
        web(EndpointSpec={"Ports": [{"PublishedPort": 80}, {"PublishedPort": 80}]}),
        "EndpointSpec: duplicate published ports provided",
    ),
]


@pytest.mark.parametrize(("document", "text"), REFUSED, ids=[text[:60] for _, text in REFUSED])
def test_refused_with_swarms_text(document: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check(document)
    assert str(caught.value) == RPC + text
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("constraint", "text"),
    [
        ("node.role", "constraint expected one operator from ==, !="),
        ("1x == a", "key '1x' is invalid"),
        ("node.role == a>b", "value 'a>b' is invalid"),
    ],
)
def test_a_malformed_constraint_is_an_unknown_error_as_in_swarm(constraint: str, text: str) -> None:
    with pytest.raises(ClusterError) as caught:
        check(web(template={"Placement": {"Constraints": [constraint]}}))
    assert str(caught.value) == f"rpc error: code = Unknown desc = {text}"
    assert caught.value.status == 500


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"Name": "web"}, "mismatched Runtime and *Spec fields"),
        (
            web({"Configs": [{"ConfigID": "i", "ConfigName": "n"}]}),
            "invalid Config: either File or Runtime should be set",
        ),
        (
            web({"Privileges": {"CredentialSpec": {"Config": "a", "File": "b", "Registry": "c"}}}),
            'invalid CredentialSpec: cannot specify both "config", "file", and "registry" credential specs',
        ),
        (web(template={"Runtime": "wasm"}), "unsupported runtime"),
        (web(template={"RestartPolicy": {"Condition": "often"}}), 'invalid RestartCondition: "often"'),
        (web(UpdateConfig={"FailureAction": "cry"}), "unrecognized update failure action cry"),
        (web(UpdateConfig={"Order": "random"}), "unrecognized update order random"),
        (web(EndpointSpec={"Mode": "anycast"}), 'invalid resolution mode: "anycast"'),
        (web({"Mounts": [{"Type": "nfs"}]}), 'invalid MountType: "nfs"'),
        (
            web(UpdateConfig={"Parallelism": -1}),
            "invalid JSON: Expected a number that is not negative, got -1 - at UpdateConfig.Parallelism",
        ),
    ],
)
def test_words_that_swarm_does_not_know(document: dict[str, Any], text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        check(document)
    assert str(caught.value) == text


def test_a_port_is_published_twice_only_with_two_protocols() -> None:
    check(web(EndpointSpec={"Ports": [{"PublishedPort": 53}, {"PublishedPort": 53, "Protocol": "udp"}]}))


def test_a_job_may_restart_on_any_condition() -> None:
    check(web(template={"RestartPolicy": {"Condition": "any"}}, Mode={"GlobalJob": {}}))


@pytest.mark.parametrize(
    "image",
    [
        "alpine",
        "redis:3.0.6",
        "library/redis",
        "registry.lab:5000/team/app:1.0",
        "localhost:5000/x",
        "Registry.Example/x",
        "app@sha256:" + "a" * 64,
        "app:1@sha256:" + "a" * 64,
        "a_b/c__d/e-f.g",
    ],
)
def test_image_names(image: str) -> None:
    assert valid_image(image)


@pytest.mark.parametrize("image", ["", "Alpine", "a b", "a:", ":tag", "a/", "a:" + "x" * 129, "a" * 64, "-a", "a//b"])
def test_not_image_names(image: str) -> None:
    assert not valid_image(image)


@given(st.text(alphabet="aB1-_.:/@ ", max_size=2000))
def test_no_image_name_keeps_the_parser_busy(image: str) -> None:
    valid_image(image)
    valid_image("a" * 500 + image)


@given(st.integers())
def test_random_names_are_valid(seed: int) -> None:
    validate_name(random_name(random.Random(seed)))


def test_insert_defaults_fills_in_what_the_orchestrator_would_use() -> None:
    spec = with_defaults(normalize_service(msgspec.convert(web(), ServiceSpec), random.Random(0)))
    config = spec.update_config
    assert config is not None
    assert (config.parallelism, config.monitor, config.failure_action, config.order) == (
        1,
        5_000_000_000,
        "pause",
        "stop-first",
    )
    assert spec.rollback_config == config
    container, restart = spec.task_template.container_spec, spec.task_template.restart_policy
    assert container is not None and container.stop_grace_period == 10_000_000_000
    assert restart is not None and (restart.condition, restart.delay) == ("any", 5_000_000_000)


def test_insert_defaults_leaves_what_was_given() -> None:
    document = web(
        {"StopGracePeriod": 1}, {"RestartPolicy": {"Condition": "none", "Delay": 0}}, UpdateConfig={"Parallelism": 0}
    )
    spec = with_defaults(normalize_service(msgspec.convert(document, ServiceSpec), random.Random(0)))
    container, restart = spec.task_template.container_spec, spec.task_template.restart_policy
    assert container is not None and container.stop_grace_period == 1
    assert restart is not None and (restart.condition, restart.delay) == ("none", 0)
    assert spec.update_config is not None and spec.update_config.parallelism == 0


def test_bind_options_that_say_nothing_are_dropped_and_others_say_all() -> None:
    options: list[dict[str, Any]] = [{}, {"NonRecursive": True}]
    mounts = [{"Type": "bind", "Target": f"/{number}", "BindOptions": item} for number, item in enumerate(options)]
    spec = normalize_service(msgspec.convert(web({"Mounts": mounts}), ServiceSpec), random.Random(0))
    container = spec.task_template.container_spec
    assert container is not None
    nothing, something = (mount.bind_options for mount in container.mounts)
    assert nothing is None
    assert something is not None and something.propagation == "rprivate" and something.non_recursive
