"""/networks on a worker, which knows the overlays that it has: those that the leader told of, and our bridges."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest

from swarm_agent.model.errors import NoLeader
from swarm_agent.model.objects import Network, NetworkDriverState
from swarm_agent.model.specs import IPAMConfig, IPAMOptions, NetworkSpec
from swarm_agent.network.names import NETWORK_LABEL
from tests.unit.api.kit import Door, HttpEngine

ID = "overlay000000000000000000"
BACK = Network(
    id=ID,
    spec=NetworkSpec(name="back", labels={"team": "a"}, attachable=True, scope="swarm"),
    driver_state=NetworkDriverState(name="overlay", options={"com.docker.network.driver.overlay.vxlanid_list": "4097"}),
    ipam_options=IPAMOptions(configs=[IPAMConfig(subnet="10.0.1.0/24", gateway="10.0.1.1")]),
)
SHOWN = {
    "Name": "back",
    "Id": ID,
    "Created": "0001-01-01T00:00:00Z",
    "Scope": "swarm",
    "Driver": "overlay",
    "EnableIPv6": False,
    "IPAM": {"Driver": "default", "Options": None, "Config": [{"Subnet": "10.0.1.0/24", "Gateway": "10.0.1.1"}]},
    "Internal": False,
    "Attachable": True,
    "Ingress": False,
    "ConfigFrom": {"Network": ""},
    "ConfigOnly": False,
    "Containers": None,
    "Options": {"com.docker.network.driver.overlay.vxlanid_list": "4097"},
    "Labels": {"team": "a"},
}


@pytest.fixture
def worker(door: Door, engine: HttpEngine) -> Door:
    """With one overlay, and the bridge for it."""
    door.node.local_state = "active"
    door.node.attachments = SimpleNamespace(networks=[BACK])
    engine.add("back", labels={NETWORK_LABEL: ID})
    return door


async def listed(door: Door, filters: str = "{}") -> list[dict[str, Any]]:
    status, found = await door.call("GET", f"/networks?filters={quote(filters)}")
    assert status == 200
    return [item for item in found if item["Name"] not in ("bridge", "host", "none")]  # this engine does not filter


async def test_an_overlay_stands_in_the_place_of_our_bridge(worker: Door) -> None:
    assert await listed(worker) == [SHOWN]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ('{"driver":["overlay"]}', 1),
        ('{"driver":["bridge"]}', 0),
        ('{"scope":["swarm"]}', 1),
        ('{"scope":["local"]}', 0),
        ('{"label":["team=a"]}', 1),
        ('{"id":["overlay"]}', 1),
        ('{"name":["other"]}', 0),
        ('{"dangling":["true"]}', 0),
        ('{"dangling":["false"]}', 1),
    ],
)
async def test_filters_are_about_the_overlay(worker: Door, filters: str, found: int) -> None:
    assert len(await listed(worker, filters)) == found


async def test_an_overlay_is_found_by_name_id_and_beginning(worker: Door) -> None:
    for term in ("back", ID, "overlay00", "back?scope=swarm", "back?verbose=true"):
        status, found = await worker.call("GET", f"/networks/{term}")
        assert (status, found) == (200, {**SHOWN, "Containers": {}}), term
    assert (await worker.call("GET", "/networks/back?scope=local"))[0] == 404


async def test_a_bridge_of_which_nothing_was_told_is_shown_as_an_overlay(worker: Door, engine: HttpEngine) -> None:
    worker.node.attachments = None
    engine.networks[-1] |= {
        "Created": "2026-01-01T00:00:00Z",
        "Internal": True,
        "IPAM": {"Config": [{"Subnet": "10.0.1.0/24", "Gateway": "10.0.1.1", "IPRange": "10.0.1.8/29"}]},
        "Options": {"com.docker.network.bridge.name": "swb-overlay0000"},
    }
    unknown = {"Attachable": False, "Options": None, "Labels": None}
    expected = {**SHOWN, **unknown, "Created": "2026-01-01T00:00:00Z", "Internal": True}
    assert await listed(worker) == [expected]
    assert (await worker.call("GET", f"/networks/{ID}"))[1] == {**expected, "Containers": {}}


NOT_A_MANAGER = "This node is not a swarm manager. Worker nodes can't"


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("term", ["back", ID])
async def test_a_worker_removes_no_overlay(worker: Door, engine: HttpEngine, told: bool, term: str) -> None:
    """Least of all the bridge alone, which would cut its own containers off."""
    if not told:
        worker.node.attachments = None
    status, answer = await worker.call("DELETE", f"/networks/{term}")
    assert status == 503 and answer["message"].startswith(NOT_A_MANAGER)
    assert not [call for call in engine.seen if call[0] == "DELETE"]


async def test_a_worker_creates_no_overlay(worker: Door) -> None:
    status, answer = await worker.call("POST", "/networks/create", {"Name": "x", "Driver": "overlay"})
    assert status == 503 and answer["message"].startswith(NOT_A_MANAGER)


async def test_a_manager_without_a_quorum_shows_what_it_has_and_removes_nothing(
    swarm: Door, engine: HttpEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(*_: Any) -> None:
        raise NoLeader

    monkeypatch.setattr(swarm.store, "read", lost)
    monkeypatch.setattr(swarm.store, "update", lost)
    swarm.node.attachments = SimpleNamespace(networks=[BACK])
    engine.add("back", labels={NETWORK_LABEL: ID})
    assert await listed(swarm) == [SHOWN]
    status, answer = await swarm.call("DELETE", "/networks/back")
    assert status == 500 and "The swarm does not have a leader." in answer["message"]
    assert not [call for call in engine.seen if call[0] == "DELETE"]
