"""A compose file as parameters of services: the rules of `docker stack deploy`, and errors that say where."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import yaml
from ansible_collections.swarm.cluster.plugins.module_utils.compose import Reader, interpolate, merge
from ansible_collections.swarm.cluster.plugins.module_utils.compose_parts import ComposeError
from ansible_collections.swarm.cluster.plugins.module_utils.stack import full_params

FILES = {"/stack/password": b"s3cret", "/stack/web.env": b"# comment\nA=1\nFROM_OUTSIDE\nB=file\n"}


def read_file(path: str) -> bytes:
    if path not in FILES:
        raise FileNotFoundError(path)
    return FILES[path]


def reader(text: str, **environment: str) -> Reader:
    document = interpolate(yaml.safe_load(text), environment)
    return Reader("shop", document, read_file, "/stack", environment)


def service(text: str, **environment: str) -> dict[str, Any]:
    """The one service of a file, of which only the body is given."""
    indented = "\n".join("    " + line for line in text.strip().splitlines())
    read = reader(f"services:\n  web:\n    image: web:1\n{indented}\nvolumes: {{data: , other: {{external: true}}}}\n"
                  "secrets: {key: {file: password}, far: {external: true}}\n"
                  "networks: {back: , front: {external: true}}\n",
                  **environment).read()  # fmt: skip
    return dict(read["services"]["web"])


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("$A-${A}", "1-1"),
        ("${NO}", ""),
        ("${NO:-x} ${NO-x} ${EMPTY:-x} ${EMPTY-x}", "x x x "),
        ("${A:+y}${NO:+y}", "y"),
        ("$$A", "$A"),
        ("{{.Node.Hostname}}", "{{.Node.Hostname}}"),
    ],
)
def test_variables(text: str, filled: str) -> None:
    assert interpolate({"a": [text]}, {"A": "1", "EMPTY": ""}) == {"a": [filled]}


def test_variables_that_have_to_be_set_say_where() -> None:
    with pytest.raises(ComposeError, match=r"f.services.web.image: TAG is not set: say which"):
        interpolate({"services": {"web": {"image": "web:${TAG:?say which}"}}}, {}, "f")
    with pytest.raises(ComposeError, match=r"write \$\$"):
        interpolate("50$", {})


def test_names_and_labels_are_dockers() -> None:
    read = reader("services: {web: {image: web, deploy: {labels: {tier: front}}}}").read()
    web = read["services"]["web"]
    assert web["labels"] == {
        "tier": "front",
        "com.docker.stack.namespace": "shop",
        "com.docker.stack.image": "web",
    }
    assert web["container_labels"] == {"com.docker.stack.namespace": "shop"}
    assert web["networks"] == [{"name": "shop_default", "aliases": ["web"], "driver_opts": None}]
    assert read["networks"]["default"]["name"] == "shop_default"


def test_only_networks_that_are_used_are_made() -> None:
    read = reader(
        "services: {web: {image: web, networks: [back]}}\nnetworks: {back: {attachable: true}, idle: }"
    ).read()
    assert list(read["networks"]) == ["back"] and read["networks"]["back"]["attachable"] is True


@pytest.mark.parametrize(
    ("given", "ports"),
    [
        ("8080:80", [(8080, 80, "tcp")]),
        ("80", [(None, 80, "tcp")]),
        ("53:53/udp", [(53, 53, "udp")]),
        ("9000-9001:90-91", [(9000, 90, "tcp"), (9001, 91, "tcp")]),
    ],
)
def test_ports(given: str, ports: list[tuple[int | None, int, str]]) -> None:
    found = service(f'ports: ["{given}"]')["publish"]
    assert [(port["published_port"], port["target_port"], port["protocol"]) for port in found] == ports


def test_mounts() -> None:
    found = service("""
volumes:
  - data:/var/lib/data:ro
  - other:/other
  - ./conf:/conf:rslave
  - /anonymous
  - {type: tmpfs, target: /tmp, tmpfs: {size: 64000000}}
tmpfs: /run""")["mounts"]
    assert found[0] == {
        "type": "volume", "source": "shop_data", "target": "/var/lib/data", "readonly": True,
        "labels": {"com.docker.stack.namespace": "shop"},
    }  # fmt: skip
    assert found[1] == {"type": "volume", "source": "other", "target": "/other"}
    assert found[2] == {"type": "bind", "source": "/stack/conf", "target": "/conf", "propagation": "rslave"}
    assert found[3] == {"type": "volume", "target": "/anonymous"}
    assert (found[4]["tmpfs_size"], found[5]["type"], found[5]["target"]) == ("64000000", "tmpfs", "/run")


def test_environment_of_file_list_and_outside() -> None:
    found = service("env_file: web.env\nenvironment: [B=own, OUTSIDE, GONE]", OUTSIDE="o", FROM_OUTSIDE="f")
    assert found["env"] == {"A": "1", "B": "own", "OUTSIDE": "o", "FROM_OUTSIDE": "f"}


def test_secrets_bring_their_content_apart() -> None:
    read = reader("services: {web: {image: w, secrets: [key, {source: far, target: f, mode: 0400}]}}\n"
                  "secrets: {key: {file: password}, far: {external: true}}")  # fmt: skip
    found = read.read()
    assert [(ref["name"], ref["target"], ref["mode"]) for ref in found["services"]["web"]["secrets"]] == [
        ("shop_key", "key", "0444"),
        ("far", "f", "400"),
    ]
    assert read.contents == {"secrets/key": base64.b64encode(b"s3cret").decode()}
    assert "s3cret" not in str(found) and found["secrets"]["far"] == {"name": "far", "external": True}


def test_deployment() -> None:
    found = service("""
command: sh -c "sleep 1d"
healthcheck: {test: curl localhost, interval: 10s}
restart: on-failure:3
deploy:
  mode: replicated
  replicas: 3
  endpoint_mode: dnsrr
  placement: {constraints: [node.role == worker], preferences: [{spread: node.labels.rack}], max_replicas_per_node: 2}
  resources:
    limits: {cpus: '0.5', memory: 50M, pids: 10}
    reservations: {cpus: '0.25', generic_resources: [{discrete_resource_spec: {kind: gpu, value: 2}}]}
  update_config: {delay: 10s, order: start-first}
""")
    assert found["args"] == ["sh", "-c", "sleep 1d"] and found["healthcheck"]["test"] == ["curl localhost"]
    assert found["restart_config"] == {"condition": "on-failure", "max_attempts": 3}
    assert found["limits"] == {"cpus": 0.5, "memory": "50M", "pids": 10}
    assert found["reservations"]["generic"] == {"gpu": 2}
    assert found["placement"]["spread"] == ["node.labels.rack"] and found["update_config"]["parallelism"] == 1


def test_a_later_file_lies_over_an_earlier_one() -> None:
    base = {"services": {"web": {"image": "a", "ports": ["80"], "command": ["x"]}}}
    over = {"services": {"web": {"image": "b", "ports": ["81"], "command": ["y"]}}}
    assert merge(base, over) == {"services": {"web": {"image": "b", "ports": ["80", "81"], "command": ["y"]}}}


def test_what_docker_ignores_is_a_warning() -> None:
    read = reader("services: {web: {image: w, build: ., links: [a], depends_on: [b]}}")
    read.read()
    assert [warning.split(": ")[1].split()[0] for warning in read.warnings] == ["build", "links"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("services: {}", "declares no services"),
        ("services: {web: {build: .}}", "services.web: a service of a stack needs an image"),
        ("services: {web: {image: w, colour: red}}", "services.web: unknown: colour"),
        ("services: {web: {image: w, networks: [x]}}", "network x is used, but not declared"),
        ("services: {web: {image: w, secrets: [x]}}", "secret x is used, but not declared"),
        ("services: {web: {image: w, volumes: ['x:/x']}}", "services.web.volumes: x is not declared"),
        ("services: {web: {image: w, ports: ['127.0.0.1:80:80']}}", "publishes on all addresses"),
        ("services: {web: {image: w, ports: ['a:80']}}", "'a:80' is not"),
        ("services: {web: {image: w, environment: {ON: true}}}", "write it in quotes"),
        ("services: {web: {image: w}}\nsecrets: {x: {}}", "say where the content comes from"),
        ("services: {web: {image: w, networks: {a: {ipv4_address: 10.0.0.1}}}}\nnetworks: {a: }", "ipv4_address"),
        ("services: {web: {image: w, networks: [a]}}\nnetworks: {a: {driver: bridge}}", "overlays"),
        ("services: {web: {image: w, restart: soon}}", "'soon' is not no, always"),
        ("service: {}", "unknown at the top of the file: service"),
    ],
)
def test_what_cannot_be_says_where(text: str, message: str) -> None:
    with pytest.raises(ComposeError, match=message.replace("(", r"\(")):
        reader(text).read()


def test_every_parameter_of_a_stacks_service_is_one_of_swarm_service() -> None:
    everything = service("""
entrypoint: [a]
working_dir: /
user: u
hostname: h
extra_hosts: ["db:10.0.0.1"]
dns: 10.0.0.2
sysctls: {a: "1"}
ulimits: {nofile: {soft: 1, hard: 2}, nproc: 5}
cap_add: [NET_ADMIN]
init: true
logging: {driver: json-file, options: {max-size: 10m}}
credential_spec: {config: c}
secrets: [key]
stop_grace_period: 1m
""")
    full = full_params("web", everything, {"secrets": {"key": "shop_key_v2"}, "configs": {}})
    assert full["secrets"][0]["name"] == "shop_key_v2" and full["secrets"][0]["uid"] == "0"
    assert full["publish"] == [] and full["ulimits"][1] == {"name": "nproc", "soft": 5, "hard": 5}
