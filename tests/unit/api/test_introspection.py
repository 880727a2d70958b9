"""The front door's calls for people and for Prometheus."""

from __future__ import annotations

from tests.unit.api.kit import SmallNode, http_engine, open_door


async def test_metrics_are_text_and_members_need_a_cluster(tmp_path):
    async with (
        http_engine(tmp_path / "engine.sock"),
        open_door(tmp_path, tmp_path / "engine.sock", SmallNode()) as door,
    ):
        status, text = await door.call("GET", "/swarm-agent/metrics")
        assert status == 200 and "# TYPE swarm_loop_lag_seconds histogram" in text
        for path in ("/swarm-agent/v1/members", "/swarm-agent/v1/explain?term=x"):
            status, body = await door.call("GET", path)
            assert (status, body["message"]) == (503, "this host has no members to show: its state is inactive")
