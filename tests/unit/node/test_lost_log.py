"""A manager whose raft log is gone must not come back as the member that it was: it has forgotten what it promised."""

import datetime
import socket
from pathlib import Path

import pytest

from swarm_agent.node.membership import Membership
from swarm_agent.node.settings import Settings
from swarm_agent.node.state import SavedState, StateFolder
from swarm_agent.pki import authority
from swarm_agent.pki.authority import Authority, Identity
from swarm_agent.pki.files import NodeCertificate
from swarm_agent.worker.engine import Engine

NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture
async def resumed(tmp_path):
    """Makes the membership of a manager as a new process finds it, and takes it up."""
    root, key = Authority.create(NOW), authority.new_key()
    cert = root.issue(
        authority.new_signing_request(key), Identity("n", "manager", "cluster1"), NOW, datetime.timedelta(days=1)
    )
    folder = StateFolder(tmp_path)
    engine = Engine(str(tmp_path / "no.sock"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder.save(
        SavedState(
            node_id="n",
            cluster_id="cluster1",
            role="manager",
            listen="127.0.0.1",
            listen_port=port,
            advertise="127.0.0.1",
            advertise_port=port,
            data_path="127.0.0.1",
            managers=[],
            raft_id=5,
        )
    )
    running = []

    async def make(*, bootstrap=False) -> Membership:
        while running:
            await running.pop().manager.stop()
        membership = Membership(
            Settings(run_dir=Path(tmp_path / "run"), state_dir=tmp_path),
            folder,
            folder.load(),
            NodeCertificate(root.cert, cert, key),
            engine,
            lambda role: None,
            on_fatal=lambda error: pytest.fail(str(error)),
        )
        await (membership.start_manager(bootstrap=True) if bootstrap else membership.resume_manager())
        running.append(membership)
        return membership

    make.folder = folder
    yield make
    while running:
        await running.pop().manager.stop()
    await engine.close()


async def test_a_manager_comes_back_as_the_member_that_its_log_is_of(resumed):
    await resumed(bootstrap=True)
    again = await resumed()
    assert again.state.raft_id == again.manager.raft.id == 5 and again.manager.is_member


async def test_without_its_log_it_comes_back_as_another_member(resumed, caplog):
    first = await resumed(bootstrap=True)
    await first.manager.stop()
    resumed.folder.forget_raft()
    again = await resumed()
    assert again.state.raft_id == again.manager.raft.id != 5 and not again.manager.is_member
    assert resumed.folder.load().raft_id == again.state.raft_id
    assert "joins anew as another member" in caplog.text
