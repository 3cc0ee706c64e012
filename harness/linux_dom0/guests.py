"""A small Linux to run as a guest, beside our agent: Debian's kernel, and busybox for the rest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from harness.cache import Cache
from harness.errors import HarnessError
from harness.linux_dom0 import cpio
from harness.linux_dom0.cpio import character_device, directory, link, regular
from harness.linux_dom0.files import read_packages
from harness.linux_dom0.packages import fetch, read_lock
from harness.linux_dom0.toolstack import Guest
from harness.progress import Progress, quiet

BUSYBOX = "usr/bin/busybox"
KERNEL = "boot/vmlinuz-"
PACKAGES = ("busybox-static", "linux-image-")
MEMORY_MIB = 192
EXTRA = "console=hvc0 loglevel=4 panic=-1"
BEGIN = """\
#!/bin/sh
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
"""
# A shell on the console, after a word that it is there.
SHELL = """\
exec < /dev/hvc0 > /dev/hvc0 2>&1
echo "guest: hypervisor is $(busybox cat /sys/hypervisor/type)"
echo "guest: up"
poweroff() { busybox poweroff "$@"; }
while read -r line; do eval "$line"; done
"""


@dataclass(frozen=True)
class Linux:
    """A kernel, and a root file system with nothing but busybox and what its /init does."""

    kernel: Path
    root: Path


def linux(cache: Cache, commands: str = SHELL, progress: Progress = quiet) -> Linux:
    """Return a Linux that runs `commands` as its first process."""
    packages = [p for p in read_lock()["dom0"] if p.name.startswith(PACKAGES)]
    init = BEGIN + commands

    def make(entry: Path) -> None:
        fetched = fetch(packages, cache, progress)
        files = read_packages(fetched, lambda path: path == BUSYBOX or path.startswith(KERNEL))
        kernels = [file.entry.data for path, file in files.items() if path.startswith(KERNEL)]
        if len(kernels) != 1:
            raise HarnessError(f"the packages have {len(kernels)} kernels")
        (entry / "vmlinuz").write_bytes(kernels[0])
        entries = [
            files[BUSYBOX].entry,
            link("bin", "usr/bin"),
            link("usr/bin/sh", "busybox"),
            *(directory(path) for path in ("dev", "proc", "sys", "tmp")),
            character_device("dev/console", 5, 1),
            regular("init", init.encode(), 0o755),
        ]
        with (entry / "root.cpio").open("wb") as file:
            cpio.write(entries, file)

    content = init + "".join(package.sha256 for package in packages)
    key = hashlib.sha256(content.encode()).hexdigest()[:32]
    entry = cache.entry("linux-guest", key, make, progress=progress)
    return Linux(entry / "vmlinuz", entry / "root.cpio")


def linux_guest(name: str, cache: Cache) -> Guest:
    """A Linux for xl to make, with a shell on its console."""
    parts = linux(cache)
    return Guest(name, parts.kernel, MEMORY_MIB, ramdisk=parts.root, extra=EXTRA)
