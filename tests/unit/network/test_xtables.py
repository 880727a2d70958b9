"""iptables-save is read, iptables-restore is written."""

from __future__ import annotations

from swarm_agent.network.state import Jump, Restore
from swarm_agent.network.xtables import is_first, parse_save, restore_text

SAVED = """# Generated
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:SWARM-PRE - [0:0]
:SWARM-OLD - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A PREROUTING -j SWARM-PRE
-A OUTPUT -j SWARM-PRE
-A SWARM-PRE -j SWARM-OLD
COMMIT
*filter
:FORWARD DROP [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
COMMIT
"""


def test_chains_and_rules_are_read() -> None:
    printed = parse_save(SAVED)
    assert printed.ours() == {("nat", "SWARM-PRE"): ["-j SWARM-OLD"], ("nat", "SWARM-OLD"): []}
    assert printed.chains["filter", "FORWARD"] == ["-j DOCKER-USER"]


def test_a_jump_counts_only_as_the_first_rule() -> None:
    printed = parse_save(SAVED)
    assert not is_first(printed, Jump("nat", "PREROUTING", "SWARM-PRE"))
    assert is_first(printed, Jump("nat", "OUTPUT", "SWARM-PRE"))


def test_fallback_is_used_where_the_parent_is_missing() -> None:
    jump = Jump("filter", "DOCKER-USER", "SWARM-FORWARD", fallback="FORWARD")
    text = restore_text(Restore("filter", (("SWARM-FORWARD", ()),), jumps=(jump,)), parse_save(SAVED), [])
    assert "-I DOCKER-USER 1 -j SWARM-FORWARD" in text
    bare = parse_save("*filter\n:FORWARD DROP [0:0]\nCOMMIT\n")
    text = restore_text(Restore("filter", (("SWARM-FORWARD", ()),), jumps=(jump,)), bare, [])
    assert "-I FORWARD 1 -j SWARM-FORWARD" in text


def test_a_displaced_jump_is_moved_to_the_front() -> None:
    jump = Jump("nat", "PREROUTING", "SWARM-PRE")
    text = restore_text(Restore("nat", jumps=(jump,)), parse_save(SAVED), ["SWARM-PRE", "SWARM-OLD"])
    assert text == "*nat\n-D PREROUTING 2\n-I PREROUTING 1 -j SWARM-PRE\nCOMMIT\n"


def test_old_chains_go_after_what_led_to_them() -> None:
    change = Restore("nat", (("SWARM-PRE", ("-j SWARM-NEW",)), ("SWARM-NEW", ())), removed=("SWARM-OLD", "SWARM-GONE"))
    text = restore_text(change, parse_save(SAVED), ["SWARM-PRE", "SWARM-OLD"])
    assert text.splitlines() == [
        "*nat",
        ":SWARM-PRE - [0:0]",
        ":SWARM-NEW - [0:0]",
        "-A SWARM-PRE -j SWARM-NEW",
        "-F SWARM-OLD",
        "-X SWARM-OLD",
        "COMMIT",
    ]


def test_all_jumps_of_a_target_are_removed_once() -> None:
    jumps = (Jump("nat", "PREROUTING", "SWARM-PRE"), Jump("nat", "OUTPUT", "SWARM-PRE"))
    change = Restore("nat", removed=("SWARM-PRE", "SWARM-OLD"), removed_jumps=jumps)
    lines = restore_text(change, parse_save(SAVED), ["SWARM-PRE", "SWARM-OLD"]).splitlines()
    assert lines[1:3] == ["-D PREROUTING 2", "-D OUTPUT 1"]
    assert lines[3:] == ["-F SWARM-PRE", "-F SWARM-OLD", "-X SWARM-PRE", "-X SWARM-OLD", "COMMIT"]
