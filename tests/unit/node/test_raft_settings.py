"""The cluster's spec sets raft's timing and how much log is kept; zero means the default."""

from swarm_agent.model.specs import RaftConfig
from swarm_agent.node.manager_role import raft_settings
from swarm_agent.raft.settings import Settings


def test_nothing_said_means_the_defaults():
    assert raft_settings(RaftConfig()) == Settings()


def test_every_field_is_honoured():
    spec = RaftConfig(
        snapshot_interval=7, keep_old_snapshots=2, log_entries_for_slow_followers=9, election_tick=20, heartbeat_tick=2
    )
    found = raft_settings(spec)
    assert (found.snapshot_interval, found.keep_snapshots, found.keep_entries) == (7, 2, 9)
    assert (found.election_ticks, found.heartbeat_ticks) == (20, 2)


def test_elections_leave_time_for_beats():
    assert raft_settings(RaftConfig(election_tick=2, heartbeat_tick=5)).election_ticks == 15
