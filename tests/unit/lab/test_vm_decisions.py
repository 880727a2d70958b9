"""What the lab's driver for virtual machines decides: what to make anew, ports and addresses, whose process it is."""

from __future__ import annotations

import os
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.swarm.lab.plugins.module_utils import vm_image, vms
from ansible_collections.swarm.lab.plugins.module_utils.command import LabError
from ansible_collections.swarm.lab.plugins.module_utils.image import Recipe
from ansible_collections.swarm.lab.plugins.module_utils.state import Home

SETTINGS = vms.Settings("10.77.0.0/24", 16220, 1024, "/cache/vm-1", "AAAA", ("host1", "host2"))


def line(settings: vms.Settings = SETTINGS, name: str = "host1") -> str:
    return " ".join(vms.command_line(settings, name, Path("/fleet") / name, vm_image.EMULATION))


def test_vms_that_are_right_and_run_are_left_alone() -> None:
    assert vms.decide({"host1": "a"}, {"host1": "a"}, ["host1"]) == vms.Plan()


def test_what_is_off_starts_what_changed_is_made_anew_what_is_too_many_goes() -> None:
    wanted = {"host1": "a", "host2": "b", "host4": "d"}
    present = {"host1": "a", "host2": "old", "host3": "c"}
    plan = vms.decide(wanted, present, ["host2", "host3"])
    assert plan == vms.Plan(create=("host2", "host4"), start=("host1",), remove=("host2", "host3"))
    assert plan.actions == [
        "removed host2", "removed host3", "created host2", "created host4", "started host1",
    ]  # fmt: skip


def test_guests_are_reached_by_ssh_alone_and_reach_nothing_but_each_other() -> None:
    door, wire = (word for word in line().split() if word.startswith(("user,", "socket,")))
    assert "restrict=on" in door and "hostfwd=tcp:127.0.0.1:16221-:22" in door
    assert wire == "socket,id=wire,mcast=230.63.92.1:16220,localaddr=127.0.0.1"
    other = next(word for word in line(name="host2").split() if word.startswith("socket,"))
    assert other == wire
    macs = {word for name in SETTINGS.names for word in line(name=name).split() if "mac=" in word}
    assert len(macs) == 2


def test_the_kernel_is_told_who_it_is() -> None:
    assert "lab.name=host2 lab.address=10.77.0.12/24" in line(name="host2")
    assert "lab.hosts=host1:10.77.0.11,host2:10.77.0.12" in line()


def test_a_vm_is_made_anew_for_other_settings_but_not_for_another_accelerator() -> None:
    def mark(settings: vms.Settings) -> str:
        return vms.mark(settings, "host1", Path("/fleet/host1"))

    assert mark(SETTINGS) == mark(replace(SETTINGS))
    for changed in (replace(SETTINGS, memory=512), replace(SETTINGS, image="/cache/vm-2"), replace(SETTINGS, key="B")):
        assert mark(changed) != mark(SETTINGS)


def test_a_pid_file_counts_only_for_a_qemu_of_that_folder(tmp_path: Path) -> None:
    assert vms.pid_of(tmp_path) is None
    (tmp_path / "pid").write_text(f"{os.getpid()}\n")
    assert vms.pid_of(tmp_path) is None
    (tmp_path / "pid").write_text("not a number")
    assert vms.pid_of(tmp_path) is None
    program = tmp_path / vms.QEMU
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(program), "60"])
    try:
        (tmp_path / "pid").write_text(str(process.pid))
        assert vms.pid_of(tmp_path) is None  # a QEMU, but of another folder
    finally:
        process.kill()
        process.wait()


def test_a_fleet_keeps_its_ports_and_moves_when_others_have_them(tmp_path: Path) -> None:
    fleet, image = vms.Fleet(tmp_path / "fleet"), vm_image.VmImage(tmp_path / "vm-1")
    fleet.directory.mkdir()
    first = vms.settle(fleet, image, 3, 1024, "")
    fleet.save(first)
    assert vms.settle(fleet, image, 3, 1024, "") == first
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as busy:
        busy.bind(("127.0.0.1", first.port + 2))
        busy.listen()
        moved = vms.settle(fleet, image, 3, 1024, "")
    assert moved.port != first.port and moved.subnet == first.subnet


def test_fleets_of_two_folders_differ(tmp_path: Path) -> None:
    image = vm_image.VmImage(tmp_path / "vm-1")
    one, other = (vms.settle(vms.Fleet(tmp_path / name), image, 3, 1024, "") for name in "ab")
    assert one.subnet != other.subnet


@pytest.mark.parametrize("count", [0, 17])
def test_a_count_out_of_range_is_refused(tmp_path: Path, count: int) -> None:
    with pytest.raises(LabError, match="1 to 16"):
        vms.settle(vms.Fleet(tmp_path), vm_image.VmImage(tmp_path), count, 1024, "")


def test_power_is_refused_for_a_vm_that_is_not_there(tmp_path: Path) -> None:
    fleet = vms.Fleet(tmp_path)
    fleet.save(SETTINGS)
    with pytest.raises(LabError, match=r"no VM 'host9'.*host1, host2"):
        vms.power(fleet, ["host9"], on=False)


def test_the_container_lab_forgets_its_own_files_only(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.directory.mkdir()
    (home.directory / "state.json").write_text("{}")
    fleet = vms.Fleet(home.directory / "vms")
    fleet.directory.mkdir()
    fleet.save(SETTINGS)
    home.forget(keep="")
    assert fleet.load() == SETTINGS and not (home.directory / "state.json").exists()


def test_an_image_is_known_by_the_packages_and_files_of_both_folders(tmp_path: Path) -> None:
    base, source = tmp_path / "base", tmp_path / "source"
    for folder, package in ((base, "python3"), (source, "linux-image-cloud-amd64")):
        folder.mkdir()
        (folder / "packages").write_text(f"# why\n{package}\n")
    recipe = Recipe(source, "bookworm", base=base)
    assert recipe.packages() == ["linux-image-cloud-amd64", "python3"]
    before = recipe.fingerprint
    (base / "packages").write_text("python3\ncurl\n")
    assert recipe.fingerprint != before


def test_a_trial_boot_that_says_nothing_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 600\n")
    silent.chmod(0o755)
    monkeypatch.setattr(vm_image, "QEMU", str(silent))
    assert not vm_image.boots(vm_image.VmImage(tmp_path), vm_image.HARDWARE, 0.2)
    silent.write_text("#!/bin/sh\necho '[0.000000] Linux version 6.1'\nexec sleep 600\n")
    assert vm_image.boots(vm_image.VmImage(tmp_path), vm_image.HARDWARE, 30)
