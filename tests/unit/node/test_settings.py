"""The settings file: defaults without it, clear errors for what it cannot mean."""

from pathlib import Path

import pytest

from swarm_agent.node.settings import Settings, SettingsError, load


def test_no_file_means_defaults(tmp_path):
    assert load(tmp_path / "missing.toml") == Settings()


def test_values_replace_defaults(tmp_path):
    file = tmp_path / "agent.toml"
    file.write_text('socket = "/tmp/x.sock"\ngossip_port = 8000\n')
    assert load(file) == Settings(socket=Path("/tmp/x.sock"), gossip_port=8000)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("socket = 3", "must be of type str"),
        ("gosip_port = 1", "unknown setting 'gosip_port'"),
        ("=", "agent.toml"),
        ("gossip_port = true", "must be of type int"),
        ('balancer = "nft"', "must be one of auto, ipvs, iptables"),
    ],
)
def test_mistakes_are_named(tmp_path, text, complaint):
    file = tmp_path / "agent.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=complaint):
        load(file)
