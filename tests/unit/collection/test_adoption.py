"""Adopting what another cluster holds, the gate of an upgrade, and an agent that goes."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.swarm.cluster.plugins.filter.planning import adoption_text
from ansible_collections.swarm.cluster.plugins.module_utils import adoption
from ansible_collections.swarm.cluster.plugins.module_utils.health import problems

from tests.unit.api.kit import Door, http_engine, make_node, open_door

from .conftest import Module, run_module


async def old_cluster(module: Module) -> dict[str, Any]:
    """A cluster with one of each, and what it exports."""
    await module("swarm_network", name="back", attachable=True, subnets=[{"subnet": "10.44.0.0/24"}])
    await module("swarm_secret", name="key", data="s3cret")
    await module("swarm_config", name="ini", data="colour=blue")
    await module("swarm_service", name="web", image="web:1", replicas=3, wait=False, networks=[{"name": "back"}],
                 configs=[{"name": "ini"}])  # fmt: skip
    await module("swarm_service", name="db", image="db:1", wait=False, secrets=[{"name": "key"}])
    return dict((await module("swarm_export_info"))["export"])


async def test_an_export_has_names_and_no_secrets(swarm: Door, module: Module) -> None:
    export = await old_cluster(module)
    assert [network["Name"] for network in export["networks"]] == ["back"]
    assert export["secrets"][0]["Name"] == "key" and "s3cret" not in json.dumps(export)
    web = next(service for service in export["services"] if service["Name"] == "web")
    assert web["TaskTemplate"]["Networks"][0]["Target"] == "back"
    [config] = web["TaskTemplate"]["ContainerSpec"]["Configs"]
    assert config["ConfigName"] == "ini" and "ConfigID" not in config


async def test_another_cluster_takes_it(swarm: Door, module: Module, tmp_path: Path) -> None:
    export = await old_cluster(module)
    folder = tmp_path / "new"
    folder.mkdir()
    async with http_engine(folder / "engine.sock"), open_door(folder, folder / "engine.sock") as new:
        assert (await new.call("POST", "/swarm/init", {}))[0] == 200

        async def take(check: bool = False, **more: Any) -> dict[str, Any]:
            arguments = {"socket": str(new.path), "export": export, **more}
            return await asyncio.to_thread(run_module, "swarm_import", arguments, check)

        plan = await take(check=True)
        assert plan["actions"] == ["created network back", "created config ini", "created service web"]
        assert plan["skipped"] == ["service db lacks secret key: give its value in secrets"]
        assert "  created service web" in adoption_text(plan)
        assert (await new.call("GET", "/services"))[1] == []

        done = await take(secrets={"key": "s3cret"}, replicas=1)
        assert done["actions"][-2:] == ["created service db", "created service web"] and done["skipped"] == []
        assert "s3cret" not in json.dumps(done["diff"])
        found = {item["Spec"]["Name"]: item["Spec"] for item in (await new.call("GET", "/services"))[1]}
        assert found["web"]["Mode"] == {"Replicated": {"Replicas": 1}}
        configs = (await new.call("GET", "/configs"))[1]
        assert base64.b64decode(configs[0]["Spec"]["Data"]) == b"colour=blue"
        assert found["web"]["TaskTemplate"]["ContainerSpec"]["Configs"][0]["ConfigID"] == configs[0]["ID"]

        again = await take(secrets={"key": "s3cret"})
        assert again["changed"] is False and again["conflicts"] == [], again
        assert adoption_text(again) == ["All of it is there already."]
        export["services"][1]["TaskTemplate"]["ContainerSpec"]["Image"] = "web:2"
        assert (await take())["conflicts"] == ["service web is there and differs"]
        assert (await take(services=["gone"]))["skipped"] == ["there is no service gone in what was exported"]


def test_what_is_missing_is_named() -> None:
    spec = {"Name": "web", "TaskTemplate": {"Networks": [{"Target": "a"}], "ContainerSpec": {"Image": "w"}}}
    _spec, missing = adoption.localized(spec, {"network": {}, "secret": {}, "config": {}})
    assert missing == ["network a"]


async def test_an_engine_without_swarm_cannot_be_adopted(door: Door, module: Module) -> None:
    assert "cannot tell what its cluster holds" in (await module("swarm_export_info"))["msg"]


# --- the gate --------------------------------------------------------------------------------------------------------


async def test_a_gate_waits_for_the_nodes_that_are_named(swarm: Door, module: Module) -> None:
    down = make_node("n2", "host2", state="down")
    await swarm.store.update(lambda tx: [tx.create(down)])
    assert (await module("swarm_ready", nodes=["first"]))["nodes"] == 2
    late = await module("swarm_ready", wait_timeout=0)
    assert late["problems"] == ["node host2 is down"] and "the cluster is not whole" in late["msg"]
    assert (await module("swarm_ready", check=True))["changed"] is False
    assert (await module("swarm_ready", nodes=["nobody"], wait_timeout=0))["problems"] == ["there is no node nobody"]


def service(running: int, desired: int, update: str = "", mode: str = "Replicated") -> dict[str, Any]:
    status = {"RunningTasks": running, "DesiredTasks": desired}
    changed = {"UpdateStatus": {"State": update}} if update else {}
    return {"ID": "s", "Spec": {"Name": "web", "Mode": {mode: {}}}, "ServiceStatus": status, **changed}


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (service(2, 2), ""),
        (service(2, 2, "completed"), ""),
        (service(0, 1, mode="ReplicatedJob"), ""),
        (service(1, 2), "service web has 1 of 2 tasks running"),
        (service(2, 2, "updating"), "service web is being changed (updating)"),
    ],
)
def test_services_at_the_gate(found: dict[str, Any], text: str) -> None:
    leader = {"ID": "n", "Status": {"State": "ready"}, "Spec": {"Role": "manager"},
              "ManagerStatus": {"Leader": True, "Reachability": "reachable"}}  # fmt: skip
    assert problems([leader], [found]) == ([text] if text else [])
    assert problems([leader], [found], ignore_services=["web"]) == []
    assert problems([], []) == ["there is no leader"]


# --- an agent that goes ----------------------------------------------------------------------------------------------


def test_nothing_of_an_agent_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemctl is a small program here that says what systemd would, and remembers what it was told."""
    from ansible_collections.swarm.cluster.plugins.modules import swarm_agent

    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(
        f"#!/bin/sh\necho $@ >> {tmp_path}/told\n"
        "[ $1 != show ] || printf 'LoadState=loaded\\nActiveState=active\\nUnitFileState=enabled\\n'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(swarm_agent, "UNIT_FILE", str(tmp_path / "swarm-agent.service"))
    (tmp_path / "swarm-agent.service").write_text("[Unit]")
    (tmp_path / "home" / "v1").mkdir(parents=True)
    (tmp_path / "home" / "current").symlink_to("v1")
    (tmp_path / "state").mkdir()
    arguments = {"state": "absent", "home": str(tmp_path / "home"), "config": str(tmp_path / "agent.toml"),
                 "state_dir": str(tmp_path / "state")}  # fmt: skip
    told = run_module("swarm_agent", arguments, True)
    assert told["changed"] and told["previous"] == "v1" and (tmp_path / "home").exists()
    done = run_module("swarm_agent", arguments, False)
    assert done["actions"] == told["actions"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "told"]
    said = (tmp_path / "told").read_text()
    assert "stop swarm-agent.service" in said and "disable swarm-agent.service" in said and "daemon-reload" in said


def test_an_archive_is_needed_to_be_present() -> None:
    refused = run_module("swarm_agent", {"settings": {}}, False)
    assert refused["failed"] and "archive" in refused["msg"]
