"""The driver's promises that need no kernel."""

from __future__ import annotations

import pytest

from swarm_agent.model.objects import Network, NetworkDriverState
from swarm_agent.model.specs import NetworkSpec
from swarm_agent.network import NetworkManager, NetworkTables, NetworkUnavailable
from swarm_agent.network.tables import VNI_OPTION

OVERLAY = Network(
    id="n1", spec=NetworkSpec(name="back"), driver_state=NetworkDriverState("overlay", {VNI_OPTION: "5000"})
)
NODE_LOCAL = Network(id="n2", spec=NetworkSpec(name="host"), driver_state=NetworkDriverState("host"))


def manager() -> NetworkManager:
    return NetworkManager(node_id="a", underlay="192.0.2.1", engine_socket="/nonexistent/docker.sock")


async def test_attach_says_what_it_waited_for() -> None:
    network = manager()
    with pytest.raises(NetworkUnavailable, match=r"network n1 .* the manager has not told this host about it"):
        await network.attach("n1", timeout=0.01)
    network.update(NetworkTables(networks=[OVERLAY]))
    with pytest.raises(NetworkUnavailable, match=r"network back .* has not given this host an address on it"):
        await network.attach("n1", timeout=0.01)
    network.update(NetworkTables(networks=[OVERLAY], own={"n1": "10.0.1.2/24"}))
    with pytest.raises(NetworkUnavailable, match=r"network back .* it is still being made"):
        await network.attach("n1", timeout=0.01)
    await network.stop()


async def test_networks_of_the_host_itself_are_used_by_their_name() -> None:
    network = manager()
    network.update(NetworkTables(networks=[NODE_LOCAL]))
    assert await network.attach("n2", timeout=0.01) == "host"
    await network.stop()


async def test_generations_rise_and_are_not_applied_before_their_round() -> None:
    network = manager()
    first, second = network.update(NetworkTables()), network.update(NetworkTables())
    assert first < second
    assert network.applied_generation == 0
    assert await network.wait_applied(second, timeout=0.01) is False
    await network.stop()


async def test_an_address_that_no_link_has_is_refused_at_the_start() -> None:
    network = manager()
    with pytest.raises(LookupError, match=r"192\.0\.2\.1"):
        await network.start()
    await network.stop()
