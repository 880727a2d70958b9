"""Networks, secrets, configs, stacks, tokens, certificates: create, repeat, check, change, refuse, absent."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.swarm.cluster.plugins.module_utils import client
from ansible_collections.swarm.cluster.plugins.module_utils.compose import Reader
from ansible_collections.swarm.cluster.plugins.module_utils.place import removal_problem

from tests.unit.api.kit import CLUSTER_ID, Door, make_node

from .conftest import Module, run_module

SECRET = {"name": "db_password", "data": "correct horse"}


async def stored(door: Door, path: str) -> list[dict[str, Any]]:
    status, found = await door.call("GET", path)
    assert status == 200
    return list(found)


# --- secrets and configs ---------------------------------------------------------------------------------------------


async def test_a_secret_is_known_again_without_being_shown(swarm: Door, module: Module) -> None:
    told = await module("swarm_secret", check=True, **SECRET)
    assert told["changed"] and await stored(swarm, "/secrets") == []
    made = await module("swarm_secret", **SECRET)
    assert made["changed"] and made["secret_name"] == "db_password" and made["secret_id"]
    assert (await module("swarm_secret", **SECRET))["changed"] is False
    label = (await stored(swarm, "/secrets"))[0]["Spec"]["Labels"]["swarm.cluster.content"]
    for text in (json.dumps(made["diff"]), json.dumps(told["diff"]), label):
        assert "correct horse" not in text and base64.b64encode(b"correct horse").decode() not in text


async def test_two_secrets_of_one_content_look_different(swarm: Door, module: Module) -> None:
    await module("swarm_secret", name="a", data="same")
    await module("swarm_secret", name="b", data="same")
    labels = {item["Spec"]["Labels"]["swarm.cluster.content"] for item in await stored(swarm, "/secrets")}
    assert len(labels) == 2


@pytest.mark.parametrize("kind", ["secret", "config"])
async def test_other_content_replaces_what_nobody_uses_and_is_refused_else(
    kind: str, swarm: Door, module: Module
) -> None:
    first = await module(f"swarm_{kind}", name="x", data="one")
    told = await module(f"swarm_{kind}", check=True, name="x", data="two")
    assert told["changed"] and (await stored(swarm, f"/{kind}s"))[0]["ID"] == first[f"{kind}_id"]
    second = await module(f"swarm_{kind}", name="x", data="two")
    assert second["actions"] == [f"replaced {kind} x"] and second[f"{kind}_id"] != first[f"{kind}_id"]
    await module("swarm_service", name="web", image="web", wait=False, **{f"{kind}s": [{"name": "x"}]})
    refused = await module(f"swarm_{kind}", name="x", data="three")
    assert refused["failed"] and "is in use by web" in refused["msg"] and "versioned: true" in refused["msg"]
    refused = await module(f"swarm_{kind}", name="x", state="absent")
    assert "in use by the following service: web" in refused["msg"]


@pytest.mark.parametrize("kind", ["secret", "config"])
async def test_versions_follow_each_other_and_old_ones_go(kind: str, swarm: Door, module: Module) -> None:
    arguments = {"name": "x", "versioned": True, "versions_to_keep": 1}
    names = []
    for content in ("one", "two", "two", "three"):
        made = await module(f"swarm_{kind}", **arguments, data=content)
        names.append(made[f"{kind}_name"])
        await module("swarm_service", name="web", image="web", wait=False, **{f"{kind}s": [{"name": names[-1]}]})
    assert names == ["x_v1", "x_v2", "x_v2", "x_v3"]
    assert [item["Spec"]["Name"] for item in await stored(swarm, f"/{kind}s")] == ["x_v2", "x_v3"]
    await module("swarm_service", name="web", state="absent", wait=False)
    gone = await module(f"swarm_{kind}", name="x", versioned=True, state="absent")
    assert len(gone["actions"]) == 2 and await stored(swarm, f"/{kind}s") == []
    assert (await module(f"swarm_{kind}", name="x", versioned=True, state="absent"))["changed"] is False


async def test_labels_change_in_place(swarm: Door, module: Module) -> None:
    await module("swarm_secret", **SECRET, labels={"a": "1"})
    await module("swarm_service", name="web", image="web", wait=False, secrets=[{"name": "db_password"}])
    changed = await module("swarm_secret", **SECRET, labels={"b": "2"})
    assert changed["actions"] == ["set labels of secret db_password"]
    assert changed["diff"]["after"] == {"secret db_password": {"labels": {"b": "2"}}}
    again = await module("swarm_secret", **SECRET, labels={"b": "2"})
    assert again["changed"] is False


async def test_a_secret_of_somebody_else_is_left_with_a_warning(swarm: Door, module: Module) -> None:
    body = {"Name": "db_password", "Labels": {}, "Data": base64.b64encode(b"other").decode()}
    assert (await swarm.call("POST", "/secrets/create", body))[0] == 201
    kept = await module("swarm_secret", **SECRET)
    assert kept["changed"] is False and "cannot be compared" in str(kept["warnings"])
    assert (await module("swarm_secret", **SECRET, force=True))["actions"] == ["replaced secret db_password"]


async def test_a_configs_diff_shows_its_text(swarm: Door, module: Module) -> None:
    made = await module("swarm_config", name="ini", data="colour=blue\n")
    assert made["diff"]["after"]["config ini"]["content"] == "colour=blue\n"
    changed = await module("swarm_config", name="ini", data="colour=red\n")
    assert changed["diff"]["before"]["config ini"]["content"] == "colour=blue\n"
    read = await module("swarm_config_info", name=["ini"])
    assert read["configs"][0]["Text"] == "colour=red\n"


async def test_contents_that_cannot_be(swarm: Door, module: Module) -> None:
    assert "0 bytes; a secret holds 1 to 511999" in (await module("swarm_secret", name="x", data=""))["msg"]
    assert "is not base64" in (await module("swarm_secret", name="x", data_base64="%"))["msg"]
    assert "data" in (await module("swarm_secret", name="x"))["msg"]


# --- networks --------------------------------------------------------------------------------------------------------

NETWORK: dict[str, Any] = {
    "name": "back",
    "subnets": [{"subnet": "10.20.0.0/24", "gateway": "10.20.0.1"}],
    "attachable": True,
    "labels": {"a": "1"},
}


async def test_a_network_from_creation_to_removal(swarm: Door, module: Module) -> None:
    assert (await module("swarm_network", check=True, **NETWORK))["changed"] is True
    made = await module("swarm_network", **NETWORK)
    assert made["actions"] == ["created network back"] and made["network"]["Attachable"] is True
    again = await module("swarm_network", **NETWORK)
    assert again["changed"] is False, again["diff"]
    assert (await module("swarm_network", name="back"))["changed"] is False
    found = await module("swarm_network_info", name=["back"])
    assert [network["Name"] for network in found["networks"]] == ["back"]
    refused = await module("swarm_network", name="back", attachable=False)
    assert "differs in attachable" in refused["msg"] and "recreate: true" in refused["msg"]
    told = await module("swarm_network", check=True, name="back", attachable=False, recreate=True)
    assert told["diff"]["after"] == {"network back": {"attachable": False}}
    assert (await module("swarm_network", name="back", attachable=False, recreate=True))["changed"] is True
    await module("swarm_service", name="web", image="web", wait=False, networks=[{"name": "back"}])
    refused = await module("swarm_network", name="back", internal=True, recreate=True)
    assert "is in use by web" in refused["msg"]
    refused = await module("swarm_network", name="back", state="absent")
    assert "is in use by service" in refused["msg"]
    await module("swarm_service", name="web", state="absent", wait=False)
    assert (await module("swarm_network", name="back", state="absent"))["changed"] is True
    assert (await module("swarm_network", name="back", state="absent"))["changed"] is False


async def test_a_manager_that_cannot_answer_for_a_moment_is_asked_again(
    swarm: Door, module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows its host's own networks only; the network is not made a second time for that."""
    await module("swarm_network", name="back")
    call, asked = client.Client.call, []

    def once_wrong(self: Any, method: str, path: str, *rest: Any) -> Any:
        asked.append(path)
        if asked.count(path) == 1 and path == "/networks/back":
            raise client.ApiError("GET", 404, "network back not found")
        return call(self, method, path, *rest)

    monkeypatch.setattr(client.Client, "call", once_wrong)
    assert (await module("swarm_network", name="back"))["changed"] is False
    assert asked[:3] == ["/networks/back", "/swarm", "/networks/back"]


# --- stacks ----------------------------------------------------------------------------------------------------------

COMPOSE = """
services:
  web:
    image: web:1
    ports: ["8080:80"]
    secrets: [password]
    deploy: {replicas: 2, update_config: {parallelism: 2, delay: 5s}}
  db:
    image: db:1
    networks: [back]
networks: {back: }
secrets: {password: {file: password}}
"""


@pytest.fixture
def stack(module: Module) -> Module:
    """swarm_stack with what its action plugin would read from the text; the secret's content is `password`."""

    async def run(text: str = COMPOSE, *, password: str = "s3cret", check: bool = False, **more: Any) -> dict[str, Any]:
        reader = Reader("shop", yaml.safe_load(text), lambda path: password.encode())
        desired = reader.read()
        return await module("swarm_stack", check=check, name="shop", definition={"x": 1}, desired=desired,
                            contents=reader.contents, wait=False, **more)  # fmt: skip

    return run  # type: ignore[return-value]


async def test_a_stack_from_creation_to_removal(swarm: Door, module: Module, stack: Module) -> None:
    told = await stack(check=True)
    assert told["changed"] and await stored(swarm, "/services") == []
    made = await stack()
    assert made["actions"] == [
        "created network shop_back",
        "created network shop_default",
        "created secret shop_password",
        "created service shop_web",
        "created service shop_db",
    ]
    assert (await stack())["changed"] is False
    changed = await stack(COMPOSE.replace("web:1", "web:2"))
    assert changed["actions"] == ["changed image, labels of service shop_web"], changed
    assert changed["diff"]["after"]["service shop_web"]["image"] == "web:2"
    gone = await module("swarm_stack", name="shop", state="absent", wait=False)
    assert len(gone["actions"]) == 5
    for path in ("/services", "/secrets"):
        assert await stored(swarm, path) == []
    assert (await module("swarm_stack", name="shop", state="absent", wait=False))["changed"] is False


async def test_what_the_file_no_longer_says_goes_back_to_its_default(swarm: Door, stack: Module) -> None:
    await stack()
    changed = await stack(COMPOSE.replace(", update_config: {parallelism: 2, delay: 5s}", ""))
    assert set(changed["diff"]["after"]["service shop_web"]) == {"update_config.parallelism", "update_config.delay"}
    spec = next(item for item in await stored(swarm, "/services") if item["Spec"]["Name"] == "shop_web")["Spec"]
    # Zero would mean all at once.
    assert spec["UpdateConfig"]["Parallelism"] == 1


async def test_the_number_of_tasks_stays_when_the_file_leaves_it_out(
    swarm: Door, module: Module, stack: Module
) -> None:
    await stack()
    await module("swarm_service", name="shop_web", state="scaled", replicas=7, wait=False)
    assert (await stack(COMPOSE.replace("replicas: 2, ", "")))["changed"] is False


async def test_prune_takes_what_is_not_in_the_file_any_more(swarm: Door, module: Module, stack: Module) -> None:
    await stack()
    await module("swarm_service", name="other", image="x", wait=False)
    smaller = "services: {web: {image: 'web:1'}}"
    left = await stack(smaller)
    assert not any("removed" in action for action in left["actions"])
    pruned = await stack(smaller, prune=True)
    removed = [action for action in pruned["actions"] if action.startswith("removed")]
    assert removed == ["removed service shop_db", "removed secret shop_password", "removed network shop_back"]
    assert {item["Spec"]["Name"] for item in await stored(swarm, "/services")} == {"shop_web", "other"}


async def test_another_secret_needs_versions(swarm: Door, stack: Module) -> None:
    await stack()
    refused = await stack(password="other")
    assert "is in use by shop_web" in refused["msg"]
    await stack(password="one", versioned=True)
    changed = await stack(password="two", versioned=True, prune=True)
    assert "created secret shop_password_v2" in changed["actions"] and "s3cret" not in json.dumps(changed["diff"])
    spec = next(item for item in await stored(swarm, "/services") if item["Spec"]["Name"] == "shop_web")["Spec"]
    [reference] = spec["TaskTemplate"]["ContainerSpec"]["Secrets"]
    assert (reference["SecretName"], reference["File"]["Name"]) == ("shop_password_v2", "password")
    assert [item["Spec"]["Name"] for item in await stored(swarm, "/secrets")] == ["shop_password_v2"]


async def test_what_is_external_has_to_be_there(swarm: Door, stack: Module) -> None:
    text = "services: {web: {image: w, networks: [x]}}\nnetworks: {x: {external: true}}"
    assert "network x is declared as external" in (await stack(text))["msg"]
    text = "services: {web: {image: w, secrets: [x]}}\nsecrets: {x: {external: true}}"
    assert "there is no secret x; create it first" in (await stack(text))["msg"]


# --- services: the further states ------------------------------------------------------------------------------------


async def test_scaled_restarted_rolled_back(swarm: Door, module: Module) -> None:
    assert "there is no service web" in (await module("swarm_service", name="web", state="restarted"))["msg"]
    await module("swarm_service", name="web", image="web:1", wait=False)
    refused = await module("swarm_service", name="web", state="rolled_back")
    assert "has no spec to go back to" in refused["msg"]
    scaled = await module("swarm_service", name="web", state="scaled", replicas=3, image="ignored", wait=False)
    assert scaled["diff"] == {"before": {"replicas": 1}, "after": {"replicas": 3}}
    assert (await module("swarm_service", name="web", state="scaled", replicas=3, wait=False))["changed"] is False
    for expected in (1, 2):
        restarted = await module("swarm_service", name="web", state="restarted", wait=False)
        assert restarted["service"]["Spec"]["TaskTemplate"]["ForceUpdate"] == expected
    await module("swarm_service", name="web", image="web:2", wait=False)
    told = await module("swarm_service", check=True, name="web", state="rolled_back")
    assert told["diff"] == {"before": {"image": "web:2"}, "after": {"image": "web:1"}}
    rolled = await module("swarm_service", name="web", state="rolled_back", wait=False)
    assert rolled["service"]["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] == "web:1"
    assert (await module("swarm_service", name="web", state="rolled_back", wait=False))["changed"] is False


# --- tokens, nodes, cluster ------------------------------------------------------------------------------------------


async def test_a_known_token_is_revoked_once(swarm: Door, module: Module) -> None:
    before = await module("swarm_join_token_info")
    told = await module("swarm_join_token", check=True, revoke=before["worker"])
    assert told["rotated"] == ["worker"] and (await module("swarm_join_token_info"))["worker"] == before["worker"]
    done = await module("swarm_join_token", revoke=before["worker"])
    assert done["changed"] and done["rotated"] == ["worker"]
    after = await module("swarm_join_token_info")
    assert after["worker"] != before["worker"] and after["manager"] == before["manager"]
    assert (await module("swarm_join_token", revoke=before["worker"]))["changed"] is False
    refused = await module("swarm_join_token", cluster_id="another")
    assert CLUSTER_ID in refused["msg"] and "nothing was changed" in refused["msg"]
    assert (await module("swarm_join_token"))["rotated"] == ["worker", "manager"]


async def test_the_last_manager_stays_one(swarm: Door, module: Module) -> None:
    refused = await module("swarm_node", name="first", role="worker")
    assert refused["failed"] and "first is the last manager" in refused["msg"]
    assert "is the last manager" in (await module("swarm_node", state="left"))["msg"]
    refused = await module("swarm_node", name="first", labels={"a": "1"}, cluster_id="another")
    assert "nothing was changed" in refused["msg"]


def manager(name: str, reachable: bool = True) -> dict[str, Any]:
    status = {"Reachability": "reachable" if reachable else "unreachable"}
    return {"ID": name, "Description": {"Hostname": name}, "Spec": {"Role": "manager"}, "ManagerStatus": status}


def test_quorum_guard() -> None:
    three = [manager("a"), manager("b"), manager("c", reachable=False)]
    assert removal_problem(three, "c") == ""
    assert "of which 1 can be reached, and it takes 2" in removal_problem(three, "a")
    assert removal_problem([manager("a"), manager("b")], "b") == ""
    assert removal_problem([manager("a"), {"ID": "w", "Spec": {"Role": "worker"}}], "w") == ""


async def test_joining_and_leaving_as_a_node(door: Door, module: Module) -> None:
    tokens = {"worker": "SWMTKN-w", "manager": "SWMTKN-m", "remote_addrs": ["10.1.1.1:2377"]}
    told = await module("swarm_node", check=True, state="joined", tokens=tokens)
    assert told["changed"] and not door.node.joined
    joined = await module("swarm_node", state="joined", tokens=tokens, role="manager")
    assert joined["changed"] and joined["node"]["id"] and door.node.joined[0].join_token == "SWMTKN-m"
    assert (await module("swarm_node", state="joined", tokens=tokens))["changed"] is False
    assert (await module("swarm_node", state="left"))["changed"] is True
    assert (await module("swarm_node", state="left"))["changed"] is False


async def test_absent_nodes(swarm: Door, module: Module) -> None:
    down, up = make_node("nodedown", "gone", state="down"), make_node("nodeup", "busy")
    await swarm.store.update(lambda tx: [tx.create(down), tx.create(up)])
    told = await module("swarm_node", check=True, name="gone", state="absent")
    assert told["actions"] == ["removed gone"]
    assert (await module("swarm_node", name="gone", state="absent"))["changed"] is True
    assert (await module("swarm_node", name="gone", state="absent"))["changed"] is False
    assert "is not down" in (await module("swarm_node", name="busy", state="absent"))["msg"]
    assert (await module("swarm_node", name="busy", state="absent", force=True))["changed"] is True


async def test_settings_of_every_kind_are_found_again(swarm: Door, module: Module) -> None:
    settings: dict[str, Any] = {
        "election_tick": 20,
        "heartbeat_tick": 2,
        "log_driver": "json-file",
        "log_options": {"max-size": "10m"},
        "external_cas": [{"url": "https://ca.example/sign", "options": {"a": "b"}}],
    }
    changed = await module("swarm_cluster", **settings)
    assert changed["changed"] and (await module("swarm_cluster", **settings))["changed"] is False


# --- reading ---------------------------------------------------------------------------------------------------------


async def test_reading_each_kind(swarm: Door, module: Module) -> None:
    await module("swarm_service", name="web", image="web:1", wait=False, labels={"tier": "front"})
    await module("swarm_service", name="db", image="db:1", wait=False)
    await module("swarm_secret", **SECRET)
    assert [item["Summary"]["name"] for item in (await module("swarm_service_info"))["services"]] == ["db", "web"]
    one = await module("swarm_service_info", labels={"tier": None})
    assert [item["Spec"]["Name"] for item in one["services"]] == ["web"]
    assert (await module("swarm_service_info", name=["nobody"]))["services"] == []
    assert (await module("swarm_node_info", name=["first"]))["nodes"][0]["Summary"]["leader"] is True
    secrets = (await module("swarm_secret_info"))["secrets"]
    assert secrets[0]["Spec"]["Name"] == "db_password" and not secrets[0]["Spec"].get("Data")
    assert (await module("swarm_task_info"))["tasks"] == []


@pytest.mark.parametrize("kind", ["service", "node", "network", "secret", "config", "task"])
async def test_reading_without_a_cluster(kind: str, door: Door, module: Module) -> None:
    gone = str(door.path) + ".gone"
    assert "is swarm-agent running?" in (await module(f"swarm_{kind}_info", socket=gone))["msg"]
    assert (await module(f"swarm_{kind}_info", check=True, socket=gone))[f"{kind}s"] == []


# --- certificates ----------------------------------------------------------------------------------------------------


async def certificate(check: bool = False, **arguments: Any) -> dict[str, Any]:
    return await asyncio.to_thread(run_module, "swarm_certificate", arguments, check)


async def test_a_root_is_made_once_and_the_cluster_takes_it(tmp_path: Path, door: Door, module: Module) -> None:
    root = {"cert": str(tmp_path / "root.pem"), "key": str(tmp_path / "root.key")}
    told = await certificate(check=True, **root)
    assert told["changed"] and not any(name.startswith("root") for name in os.listdir(tmp_path))
    made = await certificate(**root)
    assert made["changed"] and os.stat(root["key"]).st_mode & 0o777 == 0o600
    again = await certificate(**root)
    assert again["changed"] is False and again["digest"] == made["digest"]
    brought = {
        "signing_ca_cert": (tmp_path / "root.pem").read_text(),
        "signing_ca_key": (tmp_path / "root.key").read_text(),
    }
    assert (await module("swarm_cluster", **brought))["changed"] is True
    (tmp_path / "root.key").unlink()
    assert "without its key" in (await certificate(**root))["msg"]


async def test_a_certificate_by_the_root(tmp_path: Path) -> None:
    root = {"cert": str(tmp_path / "root.pem"), "key": str(tmp_path / "root.key")}
    node = {
        "kind": "node", "cert": str(tmp_path / "n.pem"), "key": str(tmp_path / "n.key"), "root_cert": root["cert"],
        "root_key": root["key"], "common_name": "monitor", "cluster_id": "c", "alt_names": ["192.0.2.9"],
    }  # fmt: skip
    assert "there is no root" in (await certificate(**node))["msg"]
    await certificate(**root)
    made = await certificate(**node)
    assert made["changed"] and (await certificate(**node))["changed"] is False
    other = await certificate(**{**node, "role": "manager"})
    assert other["actions"] == ["made n.pem: its subject differs"]
    soon = await certificate(**{**node, "role": "manager", "renew_days": 365})
    assert soon["actions"][0].startswith("made n.pem: it ends ")
    (tmp_path / "root.pem").unlink()
    (tmp_path / "root.key").unlink()
    await certificate(**root)
    assert (await certificate(**{**node, "role": "manager"}))["actions"] == ["made n.pem: it is not signed by the root"]


async def test_a_rotation_is_told_in_check_mode(swarm: Door, module: Module) -> None:
    told = await module("swarm_cluster", check=True, rotate_root=True)
    assert told["actions"] == ["rotated the root certificate"]
