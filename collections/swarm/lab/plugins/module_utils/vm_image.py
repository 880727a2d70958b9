"""The disk and kernel that lab VMs are started from: the packages of a lab host, and a Debian cloud kernel.

mmdebstrap makes a root file system, mke2fs puts it on a disk image without mounting anything, and kernel and initial
RAM disk are taken out, so that QEMU starts them itself: no boot loader, no firmware menu. Each VM's disk is an overlay
of the one image. All is kept in a folder named by a hash of what went in, as for the image of container hosts.

How the guests' processor is made is decided here, too, since it takes this kernel to know: hardware virtualisation when
a trial boot under it prints its first line within seconds, else emulation. That /dev/kvm is there says too little. On
machines that are virtual themselves it may open, and then hold every guest still before its first instruction.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from .command import LabError, environment, run
from .image import BUILD_SECONDS, Recipe, mmdebstrap

QEMU = "qemu-system-x86_64"
_DISK = "8G"
_TRIAL_SECONDS = 6
_KVM = Path("/dev/kvm")


@dataclass(frozen=True, slots=True)
class Accelerator:
    """How a guest's processor is made: QEMU's flags, and how many times slower than hardware to expect it."""

    name: str
    flags: tuple[str, ...]
    patience: int


HARDWARE = Accelerator("kvm", ("-accel", "kvm", "-cpu", "host"), 1)
EMULATION = Accelerator("tcg", ("-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max"), 10)


@dataclass(frozen=True, slots=True)
class VmImage:
    """The files of a recipe in the cache."""

    directory: Path

    @property
    def disk(self) -> Path:
        return self.directory / "disk.raw"

    @property
    def kernel(self) -> Path:
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.directory / "initrd.img"

    @property
    def present(self) -> bool:
        return self.directory.is_dir()


def image_of(cache: Path, recipe: Recipe) -> VmImage:
    """Where the image of this recipe is, or would be."""
    return VmImage(cache / f"vm-{recipe.fingerprint}")


def ensure(cache: Path, recipe: Recipe) -> bool:
    """Have the image; whether it had to be built, which takes a minute or two and replaces an older one.

    Raises LabError for a machine that cannot build it.
    """
    wanted = image_of(cache, recipe)
    if wanted.present:
        return False
    if platform.machine() != "x86_64":
        raise LabError(f"lab VMs are made on x86_64 machines only, this one is {platform.machine()}")
    if os.geteuid() != 0:
        raise LabError("the VMs' disk is built as root, once; run this one time as root, then as whom you like")
    cache.mkdir(parents=True, exist_ok=True)
    for old in cache.glob("vm-*"):
        shutil.rmtree(old)
    scratch = cache / f"vm-{recipe.fingerprint}.part{os.getpid()}"
    tree, partial = scratch / "tree", VmImage(scratch / "image")
    partial.directory.mkdir(parents=True)
    try:
        run(mmdebstrap(recipe, "directory", tree), timeout=BUILD_SECONDS)
        for pattern, target in (("vmlinuz-*", partial.kernel), ("initrd.img-*", partial.initrd)):
            [source] = (tree / "boot").glob(pattern)
            shutil.move(source, target)
        run(["truncate", "--size", _DISK, str(partial.disk)])
        run(["mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", str(tree), str(partial.disk)], timeout=BUILD_SECONDS)
        partial.directory.rename(wanted.directory)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return True


def accelerator(image: VmImage) -> Accelerator:
    """The better of the two that works here. Found once per boot of this machine and image, then remembered."""
    note = image.directory / "accelerator"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    known = note.read_text().split() if note.exists() else []
    if known[:1] == [boot]:
        return HARDWARE if known[1] == HARDWARE.name else EMULATION
    chosen = HARDWARE if os.access(_KVM, os.R_OK | os.W_OK) and boots(image, HARDWARE, _TRIAL_SECONDS) else EMULATION
    note.write_text(f"{boot} {chosen.name}\n")
    return chosen


def boots(image: VmImage, accelerator: Accelerator, seconds: float) -> bool:
    """Whether a guest without disk or network prints its kernel's first line within that time. It is ended then."""
    guest = subprocess.Popen(
        [
            *(QEMU, "-nodefaults", "-display", "none", "-no-reboot", "-m", "256", *accelerator.flags),
            *("-serial", "stdio", "-kernel", str(image.kernel), "-initrd", str(image.initrd)),
            *("-append", "console=ttyS0 panic=-1"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    assert guest.stdout is not None
    os.set_blocking(guest.stdout.fileno(), False)
    said, deadline = b"", time.monotonic() + seconds
    try:
        while b"Linux version" not in said and guest.poll() is None and time.monotonic() < deadline:
            said += guest.stdout.read() or b""
            time.sleep(0.05)
        return b"Linux version" in said
    finally:
        guest.send_signal(signal.SIGKILL)
        guest.wait()
        guest.stdout.close()
