"""The lab keeps its promises: hosts are bare machines of their own, and accidents happen as ordered."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.lab.labkit import ROOT, Host, Lab, eventually, run

pytestmark = pytest.mark.lab

COMMAND = str(ROOT / "tests" / "lab" / "lab")


@pytest.fixture(autouse=True)
def _mended(lab: Lab) -> Iterator[None]:
    yield
    lab.restore()


def reaches(source: Host, target: Host) -> bool:
    return source.exec("ping", "-c1", "-W1", target.address, check=False).code == 0


def engine_of(host: Host) -> Host:
    """The host with its engine running, as site.yml leaves it."""
    host.exec("systemctl start docker")
    eventually(lambda: host.engine("version", check=False).code == 0)
    return host


# --- hosts are machines of their own ---------------------------------------------------------------------------------


def test_hosts_have_identities_of_their_own(lab: Lab) -> None:
    for fact in ("cat /etc/machine-id", "cat /etc/ssh/ssh_host_ed25519_key.pub", "hostname"):
        assert len({host.exec(fact).out for host in lab}) == len(lab.hosts), fact


def test_systemd_is_up_with_no_failed_unit(lab: Lab) -> None:
    for host in lab:
        assert host.exec("systemctl show --property SystemState").out == "SystemState=running", host
        assert host.exec("cat /proc/1/comm").out == "systemd"


def test_ansible_reaches_the_hosts_with_host_keys_checked(lab: Lab) -> None:
    ansible = str(ROOT / ".venv" / "bin" / "ansible")
    answer = run([ansible, "-i", str(ROOT / "inventories" / "lab.yml"), "all", "-o", "-m", "ping"])
    assert answer.out.count("SUCCESS") == len(lab.hosts)
    names = {line.split()[0].split(",")[0] for line in (ROOT / ".lab" / "known_hosts").read_text().splitlines()}
    assert names == {host.address for host in lab}


def test_hosts_reach_each_other_and_nothing_else(lab: Lab) -> None:
    first, second = lab.host("host1"), lab.host("host2")
    assert reaches(first, second)
    assert first.exec("ip route show default").out == ""
    outside = first.exec("ping", "-c1", "-W1", "192.0.2.1", check=False)
    assert "unreachable" in outside.err.lower()


def test_an_unknown_name_fails_by_refusal_not_by_waiting(lab: Lab) -> None:
    asked = lab.host("host1").exec("curl --silent --show-error http://registry.example/", check=False)
    assert "Could not resolve host" in asked.err
    assert lab.host("host1").exec("getent hosts host2").out.split()[0] == lab.host("host2").address


def test_a_nested_engine_runs_containers_and_publishes_ports(lab: Lab) -> None:
    host = engine_of(lab.host("host1"))
    lab.images("whoami", on=["host1"])
    assert host.engine("info --format {{.Driver}}").out == "overlay2"
    host.engine("rm --force labtest", check=False)
    host.engine("run --detach --name labtest --publish 18080:80 --publish 18080:80/udp whoami")
    try:
        told = eventually(lambda: host.http(18080))
        assert told["container"] == host.engine("inspect --format {{.Id}} labtest").out
        assert told["peer"]["address"] == lab.machine_address
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(3)
            client.sendto(b"who", (host.address, 18080))
            assert json.loads(client.recv(65535))["container"] == told["container"]
        host.engine("stop labtest")
        assert host.engine("inspect --format {{.State.ExitCode}} labtest").out == "0"
    finally:
        host.engine("rm --force labtest")


def test_a_host_can_make_bridges_and_vxlan_devices(lab: Lab) -> None:
    lab.host("host1").exec(
        "ip link add labbr0 type bridge && ip link add labvx0 type vxlan id 77 dstport 4790 nolearning proxy && "
        "ip link set labvx0 master labbr0 up; made=$?; ip link del labvx0; ip link del labbr0; exit $made"
    )


# --- accidents -------------------------------------------------------------------------------------------------------


def test_a_cut_host_is_alone_until_healed(lab: Lab) -> None:
    first, second, third, *_ = lab
    lab.cut("host1")
    assert not reaches(first, second) and not reaches(third, first)
    assert reaches(second, third)
    lab.heal()
    assert eventually(lambda: reaches(first, second) and reaches(third, first))


def test_a_link_between_two_hosts_can_be_cut(lab: Lab) -> None:
    first, second, third, *_ = lab
    lab.cut("host1", "host2")
    assert not reaches(first, second) and not reaches(second, first)
    assert reaches(first, third) and reaches(second, third)


def test_a_one_way_cut_drops_only_what_the_host_sends(lab: Lab) -> None:
    first, second, *_ = lab
    second.exec("ip neigh flush all; ping -c1 -W1 host1")
    lab.cut("host1", "host2", one_way=True)
    listen = "timeout 10 tcpdump -n -i eth0 -c1 icmp and src {} 2>/dev/null"
    heard = subprocess.Popen(
        ["docker", "exec", f"lab-{lab.home.identity}-host1", "sh", "-c", listen.format(second.address)],
        stdout=subprocess.PIPE,
        text=True,
    )
    eventually(lambda: first.exec("pgrep tcpdump", check=False).code == 0)
    assert not reaches(second, first)
    assert "echo request" in heard.communicate(timeout=15)[0]


def test_power_loss_keeps_the_disk_and_nothing_else(lab: Lab) -> None:
    host = lab.host("host3")
    host.exec("echo kept > /root/mark; sync; echo gone > /run/mark")
    was = host.exec("cat /etc/machine-id").out
    host.kill()
    assert host.state == "exited"
    assert not (ROOT / ".lab" / "host3" / "engine.sock").is_symlink()
    assert not reaches(lab.host("host1"), host)
    host.start()
    assert host.exec("cat /root/mark").out == "kept"
    assert host.exec("cat /run/mark", check=False).code != 0
    assert host.exec("cat /etc/machine-id").out == was
    assert eventually(lambda: reaches(lab.host("host1"), host))
    assert host.exec("ip route show default").out == ""


def test_units_start_again_after_power_loss(lab: Lab) -> None:
    host = lab.host("host3")
    unit = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
    host.exec("cat > /etc/systemd/system/labtest.service && systemctl enable labtest", stdin=unit)
    try:
        host.kill()
        host.start()
        assert host.exec("systemctl is-active labtest").out == "active"
    finally:
        host.exec("systemctl disable --now labtest; rm /etc/systemd/system/labtest.service")


def test_a_cut_outlasts_a_power_loss(lab: Lab) -> None:
    lab.cut("host3", "host1")
    lab.host("host3").kill()
    lab.host("host3").start()
    assert not reaches(lab.host("host3"), lab.host("host1"))
    assert reaches(lab.host("host3"), lab.host("host2"))


def test_a_frozen_host_holds_its_connections_and_says_nothing(lab: Lab) -> None:
    host = lab.host("host2")
    with socket.create_connection((host.address, 22), timeout=5) as connection:
        assert connection.recv(4) == b"SSH-"
        host.freeze()
        with socket.create_connection((host.address, 22), timeout=5) as second:
            second.settimeout(1)
            with pytest.raises(TimeoutError):
                second.recv(1)
        host.thaw()
        connection.sendall(b"SSH-2.0-test\r\n")
        connection.settimeout(5)
        assert connection.recv(1)


# --- images and registry ---------------------------------------------------------------------------------------------


def test_images_can_be_on_some_hosts_only(lab: Lab) -> None:
    first, second, *_ = (engine_of(host) for host in lab)
    for host in (first, second):
        host.engine("image rm --force redis:broken", check=False)
    lab.images("redis:broken", on=["host1"])
    assert first.engine("run --rm redis:broken", check=False).code == 1
    refused = second.engine("run --rm redis:broken", check=False)
    assert refused.code == 125 and "Unable to find image" in refused.err
    lab.images("redis:broken")


def test_the_two_releases_have_ids_of_their_own_and_stop_at_once(lab: Lab) -> None:
    host = engine_of(lab.host("host1"))
    lab.images("redis:3.0.6", "redis:3.0.7", on=["host1"])
    ids = host.engine("image inspect --format {{.Id}} redis:3.0.6 redis:3.0.7").lines
    assert len(set(ids)) == 2
    host.engine("run --detach --name labtest redis:3.0.7")
    try:
        host.engine("stop --time 60 labtest")
        assert host.engine("inspect --format {{.State.ExitCode}} labtest").out == "0"
    finally:
        host.engine("rm --force labtest")


def test_the_registry_serves_what_was_pushed(lab: Lab) -> None:
    address = lab.registry("redis:3.0.6")
    listed = lab.host("host2").exec(f"curl --silent --fail http://{address}/v2/redis/tags/list").json
    assert listed == {"name": "redis", "tags": ["3.0.6"]}
    missing = lab.host("host2").exec(f"curl --silent http://{address}/v2/nosuch/tags/list").json
    assert missing["errors"][0]["code"] == "NAME_UNKNOWN"


# --- the command -----------------------------------------------------------------------------------------------------


def test_up_again_changes_nothing(lab: Lab) -> None:
    pids = {host.name: host.socket("engine.sock") for host in lab}
    run([COMMAND, "up", "--hosts", str(len(lab.hosts))], timeout=300)
    again = run([COMMAND, "up", "--hosts", str(len(lab.hosts))], timeout=300)
    assert "changed=0" in again.out
    assert {host.name: host.socket("engine.sock") for host in lab} == pids


def test_up_repairs_a_host_that_is_off(lab: Lab) -> None:
    lab.host("host3").kill()
    run([COMMAND, "up", "--hosts", str(len(lab.hosts))], timeout=300)
    assert lab.host("host3").state == "running"


def test_status_tells_what_is_off_frozen_or_cut(lab: Lab) -> None:
    lab.host("host3").kill()
    lab.cut("host1", "host2", one_way=True)
    told = run([COMMAND, "status", "--json"], check=False)
    rows = {row["host"]: row for row in told.json["hosts"]}
    assert told.code == 3
    assert rows["host3"]["state"] == "exited" and rows["host3"]["engine"] is False
    assert rows["host2"]["cut_from"] == ["host1"] and rows["host1"]["cut_from"] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["kill", "host99"], "no 'host99' in this lab"),
        (["cut", "host1", "nosuch"], "no host 'nosuch'; there are: host1"),
        (["images", "--only", "nosuch"], "no recipe for image 'nosuch:latest'; there are: alpine:latest"),
        (["up", "--hosts", "0"], "a lab has 1 to 100 hosts, not 0"),
    ],
)
def test_wrong_calls_say_what_there_is(lab: Lab, arguments: list[str], says: str) -> None:
    refused = run([COMMAND, *arguments], check=False)
    assert refused.code == 1
    assert says in refused.err


def test_exec_passes_on_the_exit_code(lab: Lab) -> None:
    assert run([COMMAND, "exec", "host1", "--", "sh", "-c", "exit 7"], check=False).code == 7
