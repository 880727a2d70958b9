"""What test_beside_swarm.py asks of both sides, in order. Requests are (method, path, body).

In paths NODE is the node's id, and @web, @swarm, @node stand for the present version of that object.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote


def web(name: str = "web", **parts: Any) -> dict[str, Any]:
    container = {"Image": "alpine:latest", **parts.pop("container", {})}
    template = {"ContainerSpec": container, **parts.pop("template", {})}
    return {"Name": name, "TaskTemplate": template, "Mode": {"Replicated": {"Replicas": 0}}, **parts}


def port(published: int, **parts: Any) -> dict[str, Any]:
    return {"TargetPort": 80, "PublishedPort": published, **parts}


MOUNTS = [
    {"Type": "bind", "Source": "/s", "Target": "/t", "BindOptions": {}},
    {"Type": "bind", "Source": "/s", "Target": "/u", "BindOptions": {"Propagation": "rslave"}},
    {
        "Type": "volume",
        "Source": "v",
        "Target": "/v",
        "VolumeOptions": {
            "NoCopy": True,
            "Labels": {"l": "m"},
            "DriverConfig": {"Name": "local", "Options": {"o": "p"}},
        },
    },
    {"Type": "tmpfs", "Target": "/tmp", "TmpfsOptions": {"SizeBytes": 1_000_000, "Mode": 1023}},
    {"Target": "/untyped", "Source": "x"},
]
EVERYTHING = {
    "Name": "full",
    "Labels": {"a": "b"},
    "TaskTemplate": {
        "ContainerSpec": {
            "Image": "alpine:latest",
            "Labels": {"c": "d"},
            "Command": ["x"],
            "Args": ["y"],
            "Hostname": "h",
            "Env": ["A=b"],
            "Dir": "/w",
            "User": "u",
            "Groups": ["g"],
            "Privileges": {"CredentialSpec": {"File": "f"}, "SELinuxContext": {"Disable": True}},
            "Init": True,
            "StopSignal": "SIGINT",
            "TTY": True,
            "OpenStdin": True,
            "ReadOnly": True,
            "Mounts": MOUNTS,
            "StopGracePeriod": 5,
            "Healthcheck": {"Test": ["CMD", "x"], "Interval": 10**9, "Timeout": 10**9, "StartPeriod": 1, "Retries": 3},
            "Hosts": ["1.2.3.4 host"],
            "DNSConfig": {"Nameservers": ["8.8.8.8"], "Search": ["s"], "Options": ["o"]},
            "Sysctls": {"net.a": "1"},
            "CapabilityAdd": ["CAP_NET_ADMIN"],
            "CapabilityDrop": ["CAP_CHOWN"],
            "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
        },
        "Resources": {
            "Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 50_000_000, "Pids": 10},
            "Reservations": {
                "NanoCPUs": 1_000_000,
                "MemoryBytes": 5_000_000,
                "GenericResources": [
                    {"DiscreteResourceSpec": {"Kind": "gpu", "Value": 2}},
                    {"NamedResourceSpec": {"Kind": "fpga", "Value": "a"}},
                ],
            },
        },
        "RestartPolicy": {"Condition": "on-failure", "Delay": 1, "MaxAttempts": 2, "Window": 3},
        "Placement": {
            "Constraints": ["node.role==worker"],
            "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.x"}}],
            "MaxReplicas": 3,
            "Platforms": [{"Architecture": "amd64", "OS": "linux"}, {}],
        },
        "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m"}},
        "ForceUpdate": 3,
    },
    "Mode": {"Replicated": {"Replicas": 0}},
    "UpdateConfig": {
        "Parallelism": 2,
        "Delay": 3,
        "FailureAction": "rollback",
        "Monitor": 5,
        "MaxFailureRatio": 0.25,
        "Order": "start-first",
    },
    "RollbackConfig": {},
    "EndpointSpec": {
        "Mode": "vip",
        "Ports": [
            {"Name": "http", "Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8088, "PublishMode": "ingress"},
            {"Protocol": "udp", "TargetPort": 53, "PublishedPort": 53, "PublishMode": "host"},
            {"TargetPort": 9},
        ],
    },
}

Step = tuple[str, str, Any]


def get(path: str) -> Step:
    return "GET", path, None


def post(path: str, body: Any = None) -> Step:
    return "POST", path, body


def delete(path: str) -> Step:
    return "DELETE", path, None


def listed(path: str, **filters: list[str]) -> Step:
    """GET with filters, in whose names _ stands for -."""
    return get(f"{path}?filters={quote(json.dumps({key.replace('_', '-'): item for key, item in filters.items()}))}")


def new(**parts: Any) -> Step:
    return post("/services/create", web("other", **parts))


STORY: dict[str, list[Step]] = {
    "an empty cluster": [
        get("/swarm"),
        get("/nodes"),
        get("/nodes/NODE"),
        get("/services"),
        get("/tasks"),
        get("/secrets"),
        get("/configs"),
    ],
    "services are echoed": [
        post("/services/create", EVERYTHING),
        get("/services/full"),
        get("/services/full?insertDefaults=1"),
        post("/services/create", web()),
        get("/services/web"),
        get("/services/web?insertDefaults=true"),
        get("/services?status=true"),
        get("/services?filters={%22name%22:[%22w%22]}"),
        new(EndpointSpec={"Ports": [port(1, PublishMode="odd", Protocol="odd")]}),
        get("/services/other"),
        delete("/services/other"),
        new(Mode=None, template={"Placement": {"Constraints": ["node.id==none"]}}),
        get("/services/other"),
        delete("/services/other"),
        new(Mode={"ReplicatedJob": {"MaxConcurrent": 0}}),
        get("/services/other"),
        delete("/services/other"),
        new(container={"Isolation": "odd"}),
        get("/services/other"),
        delete("/services/other"),
    ],
    "services are refused": [
        post("/services/create", {}),
        post("/services/create", {"Name": "x"}),
        post("/services/create", web("bad name")),
        post("/services/create", web("-x")),
        post("/services/create", web("a" * 64)),
        post("/services/create", web()),
        new(container={"Image": ""}),
        new(container={"Image": "Bad/IMAGE"}),
        new(EndpointSpec={"Ports": [port(8088)]}),
        new(EndpointSpec={"Ports": [port(8088, PublishMode="host")]}),
        new(EndpointSpec={"Ports": [port(53, Protocol="udp")]}),
        new(EndpointSpec={"Mode": "dnsrr", "Ports": [port(1)]}),
        new(EndpointSpec={"Mode": "odd"}),
        new(EndpointSpec={"Ports": [port(7), port(7)]}),
        new(template={"Placement": {"Constraints": ["foo"]}}),
        new(template={"Placement": {"Constraints": ["1x==a"]}}),
        new(template={"Placement": {"Constraints": ["node.id==a>b"]}}),
        new(template={"Resources": {"Limits": {"NanoCPUs": 1}}}),
        new(template={"Resources": {"Limits": {"MemoryBytes": 1}}}),
        new(template={"Resources": {"Reservations": {"NanoCPUs": -1}}}),
        new(template={"RestartPolicy": {"Condition": "odd"}}),
        new(template={"RestartPolicy": {"Delay": -1}}),
        new(UpdateConfig={"FailureAction": "odd"}),
        new(UpdateConfig={"Order": "odd"}),
        new(UpdateConfig={"MaxFailureRatio": 2}),
        new(UpdateConfig={"Delay": -1}),
        new(UpdateConfig={"Monitor": -1}),
        new(UpdateConfig={"Parallelism": -1}),
        new(container={"Mounts": [{"Type": "odd", "Target": "/x"}]}),
        new(container={"Mounts": [{"Target": "/x"}, {"Target": "/x"}]}),
        new(container={"Mounts": [{"Type": "bind", "Target": "/x", "BindOptions": {"Propagation": "odd"}}]}),
        new(container={"Healthcheck": {"Interval": 1}}),
        new(container={"Healthcheck": {"Retries": -1}}),
        new(container={"Secrets": [{"SecretID": "a", "SecretName": "b"}]}),
        new(container={"Secrets": [{"SecretID": "a", "SecretName": "b", "File": {"Name": "f"}}]}),
        new(container={"Configs": [{"ConfigID": "a", "ConfigName": "b", "File": {"Name": "f"}}]}),
        new(template={"Networks": [{"Target": "nope"}]}),
        new(template={"Networks": [{"Target": "ingress"}]}),
        new(template={"Runtime": "odd"}),
        new(template={"Runtime": "attachment"}),
        new(Mode={"Global": {}, "Replicated": {}}),
        new(Mode={"Replicated": {"Replicas": -1}}),
        new(Mode={"GlobalJob": {}}, UpdateConfig={}),
        post("/services/create", b"{"),
        post("/services/create", b'{"Name":3}'),
        get("/services/nope"),
        delete("/services/nope"),
        get("/services/web?insertDefaults=odd"),
        get("/services?status=odd"),
        get("/services?filters={%22mode%22:[%22odd%22]}"),
        get("/services?filters={%22odd%22:[%22w%22]}"),
        get("/services?filters={"),
        get("/services/web/logs"),
    ],
    "services are updated": [
        post("/services/nope/update?version=1", web()),
        post("/services/web/update", web()),
        post("/services/web/update?version=x", web()),
        post("/services/web/update?version=99999999999999999999", web()),
        post("/services/web/update?version=1", web()),
        post("/services/web/update?version=@web&rollback=previous", web()),
        post("/services/web/update?version=@web&rollback=odd", web()),
        post("/services/web/update?version=@web&registryAuthFrom=odd", web()),
        post("/services/web/update?version=@web&registryAuthFrom=previous-spec", web()),
        post("/services/web/update?version=@web", web("new")),
        post("/services/web/update?version=@web", web("")),
        post("/services/web/update?version=@web", {**web(), "Mode": {"Global": {}}}),
        post("/services/web/update?version=@web", web(Labels={"x": "y"})),
        get("/services/web"),
        post("/services/web/update?version=@web&rollback=previous", web()),
        get("/services/web"),
    ],
    "tasks and nodes": [
        get("/tasks?filters={%22service%22:[%22nope%22]}"),
        get("/tasks?filters={%22node%22:[%22nope%22]}"),
        get("/tasks?filters={%22desired-state%22:[%22nope%22]}"),
        *(listed("/tasks", desired_state=[word]) for word in ("completed", "allocated", "complete", "RUNNING", "")),
        listed("/tasks", service=["nope"], desired_state=["nope"]),
        listed("/tasks", runtime=["attachment"], label=["a=b"], name=["x"], id=["-"]),
        get("/tasks/nope"),
        get("/tasks/nope/logs?stdout=1"),
        get("/tasks/nope/logs"),
        listed("/nodes", role=["MANAGER", ""], membership=["accepted"]),
        listed("/nodes", membership=["pending"]),
        *(listed("/nodes", **{key: ["-"]}) for key in ("name", "id", "label", "node.label")),
        get("/nodes?filters={%22role%22:[%22nope%22]}"),
        get("/nodes?filters={%22membership%22:[%22nope%22]}"),
        get("/nodes/nope"),
        delete("/nodes/nope"),
        delete("/nodes/NODE"),
        delete("/nodes/NODE?force=1"),
        post("/nodes/NODE/update", {}),
        post("/nodes/NODE/update?version=999", {"Role": "manager", "Availability": "active"}),
        post("/nodes/NODE/update?version=@node", {"Role": "worker", "Availability": "active"}),
        post("/nodes/NODE/update?version=@node", {"Role": "odd"}),
        post("/nodes/NODE/update?version=@node", {}),
        post("/nodes/NODE/update?version=@node", {"Role": "manager", "Availability": "odd"}),
        post(
            "/nodes/NODE/update?version=@node",
            {"Role": "manager", "Availability": "drain", "Labels": {"a": "b"}, "Name": "n"},
        ),
        get("/nodes/NODE"),
        post("/nodes/NODE/update?version=@node", {"Role": "MANAGER", "Availability": "ACTIVE"}),
        get("/nodes/NODE"),
    ],
    "secrets and configs": [
        post("/secrets/create", {}),
        post("/secrets/create", {"Name": "s"}),
        post("/secrets/create", {"Name": "s", "Data": "??"}),
        post("/secrets/create", {"Name": "a b", "Data": "YQ=="}),
        post("/secrets/create", {"Name": "s", "Data": "YQ==", "Labels": {"a": "b"}}),
        post("/secrets/create", {"Name": "s", "Data": "YQ=="}),
        get("/secrets/s"),
        get("/secrets"),
        get("/secrets/S"),
        listed("/secrets", names=["s"]),
        listed("/secrets", names=["S"]),
        listed("/secrets", name=["S"], id=["-"]),
        *(listed("/secrets", label=[label]) for label in ("a", "a=b", "a=c", "c")),
        *(post("/secrets/create", {"Name": name, "Data": "YQ=="}) for name in ("S", ".x", "x.", "a" * 65, "é")),
        post("/secrets/create", {"Name": "driven", "Driver": {}}),
        post("/secrets/create", {"Name": "driven", "Driver": {"Name": "odd"}}),
        post("/v1.36/secrets/create", {"Name": "old", "Data": "YQ==", "Templating": {"Name": "golang"}}),
        post("/secrets/s/update?version=x", {}),
        post("/secrets/s/update?version=1", {"Name": "s"}),
        post("/secrets/s/update?version=1", {"Name": "t"}),
        post("/secrets/s/update?version=1", {"Name": "s", "Data": "Yg=="}),
        delete("/secrets/nope"),
        post("/secrets/create", {"Name": "tpl", "Data": "YQ==", "Templating": {"Name": "golang"}}),
        get("/secrets/tpl"),
        post("/configs/create", {"Name": "c", "Data": "YQ=="}),
        post("/configs/create", {"Name": "c", "Data": "YQ=="}),
        post("/configs/create", {"Name": "d"}),
        get("/configs/c"),
        get("/configs"),
        listed("/configs", name=["C"]),
        listed("/configs", name=["x"], id=["-"]),
        listed("/configs", label=["a"]),
        post("/v1.36/configs/create", {"Name": "old", "Data": "YQ==", "Templating": {"Name": "golang"}}),
        post("/configs/c/update?version=x", {}),
        post("/configs/c/update?version=1", {"Name": "c", "Labels": {}}),
        delete("/configs/c"),
        get("/configs/c"),
        delete("/secrets/s"),
    ],
    "networks": [
        post(
            "/networks/create",
            {
                "Name": "net",
                "Driver": "overlay",
                "Attachable": True,
                "Labels": {"a": "b"},
                "Options": {"x": "y"},
                "IPAM": {"Driver": "default", "Config": [{"Subnet": "10.9.0.0/24", "Gateway": "10.9.0.1"}]},
            },
        ),
        post("/networks/create", {"Name": "net", "Driver": "overlay"}),
        get("/networks/net"),
        get("/networks/net?scope=swarm&verbose=true"),
        get("/networks/net?verbose=odd"),
        get("/networks/net?scope=local"),
        get("/networks/net?scope=odd"),
        post("/networks/create", {"Name": "in", "Driver": "overlay", "Ingress": True}),
        post("/networks/create", {"Name": "in", "Driver": "overlay", "Ingress": True, "Attachable": True}),
        *(post("/networks/create", {"Name": name, "Driver": "overlay"}) for name in ("host", "none", "default")),
        post("/networks/create", {"Name": "a b", "Driver": "overlay"}),
        post("/networks/create", {"Name": "q", "Driver": "overlay", "Labels": {"com.docker.swarm.predefined": "true"}}),
        get("/networks/nope"),
        delete("/networks/nope"),
        post(
            "/services/create",
            web("onnet", template={"Networks": [{"Target": "net", "Aliases": ["al"], "DriverOpts": {"a": "b"}}]}),
        ),
        get("/services/onnet"),
        delete("/networks/net"),
        delete("/networks/ingress"),
        delete("/services/onnet"),
        post("/networks/prune"),
        get("/networks/net"),
    ],
    "settings": [
        post("/swarm/update?version=@swarm", {"Name": "odd"}),
        post("/swarm/update?version=x", {}),
        post("/swarm/update?version=999", {"Name": "default"}),
        post("/swarm/update?version=@swarm", {"CAConfig": {"NodeCertExpiry": 1}}),
        post("/swarm/update?version=@swarm", {"Dispatcher": {"HeartbeatPeriod": -1}}),
        post("/swarm/update?version=@swarm&rotateWorkerToken=odd", {}),
        get("/swarm/unlockkey"),
        post("/swarm/unlock", {"UnlockKey": "x"}),
        post("/swarm/init", {}),
        post("/swarm/join", {}),
        get("/v1.99/services"),
    ],
}
