"""What the profile counts: the innermost function of this project, whoever's code it asked to work."""

from __future__ import annotations

from tests.bench.profiles import HZ, Profile

RUN = "run (asyncio/runners.py:118)"
FOLDED = f"""\
{RUN};run (/opt/a/swarm_agent/daemon.py:90);_pump (/opt/a/swarm_agent/raft/driver.py:7);dumps (json/x.py:3) 30
{RUN};_pump (/opt/a/swarm_agent/raft/driver.py:9) 10
select (selectors.py:468) 60
"""


def test_samples_count_for_the_innermost_own_function():
    profile = Profile("at rest", seconds=2)
    profile.add(FOLDED)
    assert profile.functions == {
        "`raft/driver.py` `_pump`": 40,
        "the interpreter and its event loop": 60,
    }
    assert profile.busy == 100 * 100 / (HZ * 2)
    assert "| `raft/driver.py` `_pump` | 40 % |" in profile.table()
