"""The data plane comes up as soon as what was in its way is gone, without another word from the leader."""

import asyncio
import base64
import dataclasses
import socket

from swarm_agent.model.objects import Node
from swarm_agent.model.session import ManagerPeer, Welcome
from swarm_agent.node.data_plane import DataPlane
from swarm_agent.node.settings import Settings
from swarm_agent.node.state import SavedState


class NoKernel:
    """Stands for the network part: it would change this machine's kernel."""

    has_ipv6_vips = True
    public_key = ""

    async def start(self): ...
    async def stop(self): ...
    def update(self, tables):
        return 1


async def test_a_taken_gossip_port_delays_the_start_and_does_not_end_it(tmp_path, monkeypatch):
    blocker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    blocker.bind(("127.0.0.1", 0))
    settings = dataclasses.replace(Settings(), gossip_port=blocker.getsockname()[1], run_dir=tmp_path, dns_port=0)
    state = SavedState(
        node_id="n1", cluster_id="c1", role="worker", listen="127.0.0.1", listen_port=2377, advertise="127.0.0.1",
        advertise_port=2377, data_path="127.0.0.1", managers=[],
    )  # fmt: skip
    monkeypatch.setattr("swarm_agent.node.data_plane.START_RETRY", 0.02)
    plane = DataPlane(state, settings)
    monkeypatch.setattr(plane, "_network_part", lambda port: NoKernel())
    plane.welcome(
        Welcome(
            node=Node(id="n1"), cluster_id="c1", heartbeat=1.0, managers=[ManagerPeer("m", "127.0.0.1:1")],
            gossip_keys=[base64.b64encode(b"k" * 32).decode()], gossip_seeds=[], root_ca="", data_path_port=4789,
            networks=[],
        )
    )  # fmt: skip
    await asyncio.sleep(0.1)
    assert not plane._started.is_set()
    blocker.close()
    async with asyncio.timeout(5):
        await plane._started.wait()
    await plane.stop(leave=False)
