"""What the lab decides without touching anything: names, addresses, what to make anew, which frames to drop."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from ansible_collections.swarm.lab.plugins.module_utils import hosts, identity, links
from ansible_collections.swarm.lab.plugins.module_utils.command import LabError
from ansible_collections.swarm.lab.plugins.module_utils.state import Home, State

NETWORK = ipaddress.IPv4Network


def there(**machines: str) -> dict[str, hosts.Machine]:
    """Machines by name, given as `state` or `state:config`; the configuration is `new` unless said."""
    found = {}
    for name, text in machines.items():
        state, _, config = text.partition(":")
        found[name] = hosts.Machine(name, state, pid=1, mac="", config=config or "new")
    return found


def wanted(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "new")


# --- addresses -------------------------------------------------------------------------------------------------------


def test_two_checkouts_have_labs_of_their_own(tmp_path: Path) -> None:
    assert identity.lab_id(tmp_path / "a") != identity.lab_id(tmp_path / "b")
    assert identity.lab_id(tmp_path / "a") == identity.lab_id(tmp_path / "x" / ".." / "a")


def test_a_taken_subnet_is_skipped() -> None:
    first = identity.choose_subnet("0000a107", [])
    assert first == NETWORK("10.71.161.0/24")
    assert identity.choose_subnet("0000a107", [NETWORK("10.71.0.0/16")]) == NETWORK("10.72.161.0/24")


def test_the_walk_ends_with_an_error_when_all_is_taken() -> None:
    with pytest.raises(LabError, match="--subnet"):
        identity.choose_subnet("0000a107", [NETWORK("10.64.0.0/10")])


def test_hosts_count_from_eleven_and_never_meet_the_registry() -> None:
    network = NETWORK("10.77.0.0/24")
    addresses = [identity.host_address(network, name) for name in identity.host_names(identity.MAX_HOSTS)]
    assert addresses[0] == "10.77.0.11"
    others = {identity.registry_address(network), identity.machine_address(network)}
    assert len(set(addresses)) == identity.MAX_HOSTS and not others & set(addresses)


@pytest.mark.parametrize("count", [0, -1, identity.MAX_HOSTS + 1])
def test_a_count_out_of_range_is_refused(count: int) -> None:
    with pytest.raises(LabError, match="1 to 100"):
        identity.host_names(count)


# --- what to make ----------------------------------------------------------------------------------------------------


def test_a_lab_that_is_right_is_left_alone() -> None:
    plan = hosts.decide(wanted("host1", "host2"), there(host1="running", host2="running"), new_network=False)
    assert plan.empty


def test_hosts_that_are_off_or_frozen_are_started_not_remade() -> None:
    plan = hosts.decide(wanted("host1", "host2"), there(host1="exited", host2="paused"), new_network=False)
    assert plan == hosts.Plan(create=(), start=("host1", "host2"), remove=(), network=False)


def test_hosts_made_otherwise_or_dead_are_made_anew() -> None:
    plan = hosts.decide(wanted("host1", "host2"), there(host1="running:old", host2="dead"), new_network=False)
    assert plan == hosts.Plan(create=("host1", "host2"), start=(), remove=("host1", "host2"), network=False)


def test_hosts_beyond_the_number_go_and_the_registry_stays() -> None:
    present = there(host1="running", host2="running", registry="running:other")
    plan = hosts.decide(wanted("host1"), present, new_network=False)
    assert plan == hosts.Plan(create=(), start=(), remove=("host2",), network=False)


def test_a_new_network_takes_everything_with_it() -> None:
    plan = hosts.decide(wanted("host1"), there(host1="running", registry="running"), new_network=True)
    assert plan == hosts.Plan(create=("host1",), start=(), remove=("host1", "registry"), network=True)


# --- links -----------------------------------------------------------------------------------------------------------

MACS = {"host1": "02:00:00:00:00:01", "host2": "02:00:00:00:00:02"}


def test_a_cut_is_both_ways_unless_said() -> None:
    assert links.between("host1", "host2") == {("host1", "host2"), ("host2", "host1")}
    assert links.between("host1", "host2", one_way=True) == {("host1", "host2")}


def test_a_cut_around_a_host_leaves_the_others_alone() -> None:
    cut = links.around("host1", ["host1", "host2", "host3"])
    assert cut == links.between("host1", "host2") | links.between("host1", "host3")
    assert links.around("host1", ["host1"]) == frozenset()


def test_the_receiver_drops_the_senders_frames() -> None:
    script = links.ruleset("host2", links.between("host1", "host2", one_way=True), MACS)
    assert "ether saddr { 02:00:00:00:00:01 } counter drop" in script
    assert "drop" not in links.ruleset("host1", links.between("host1", "host2", one_way=True), MACS)


def test_a_healed_host_has_no_rules_and_one_that_is_off_needs_none() -> None:
    healed = "add table netdev swarmlab\ndelete table netdev swarmlab\n"
    assert links.ruleset("host1", frozenset(), MACS) == healed
    assert links.ruleset("host1", links.between("host1", "host3"), MACS) == healed


# --- what is remembered ----------------------------------------------------------------------------------------------


def test_the_state_is_read_as_written(tmp_path: Path) -> None:
    home = Home(tmp_path)
    state = State("10.77.0.0/24", "image:1", {"host1": "10.77.0.11"}, frozenset({("host1", "host2")}))
    home.save(state)
    assert home.load() == state
    assert home.update(cuts=frozenset()).hosts == state.hosts


@pytest.mark.parametrize("left_behind", ["", "{", "[]", '{"subnet": "10.77.0.0/24"}'])
def test_a_state_that_cannot_be_read_counts_as_none(tmp_path: Path, left_behind: str) -> None:
    (tmp_path / ".lab").mkdir()
    (tmp_path / ".lab" / "state.json").write_text(left_behind)
    assert Home(tmp_path).load() == State()


def test_forgetting_leaves_nothing_but_what_is_to_be_kept(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.save(State("10.77.0.0/24"))
    home.socket("host1", "docker.sock").parent.mkdir()
    home.socket("host1", "docker.sock").symlink_to("/proc/1/root/nowhere")
    (home.directory / "engine.pid").write_text("1")
    home.forget(keep="engine.")
    assert [path.name for path in home.directory.iterdir()] == ["engine.pid"]
    home.forget(keep="")
    assert not home.directory.exists()
