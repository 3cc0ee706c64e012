"""U-Boot in a domU of xl's: stock xenguest_arm64, console ring, block device and all.

What it leaves mapped is found by the second stage it starts (guest-kernels/second-stage), read from
a block device as U-Boot reads a kernel. In a domU that Xen itself makes the same is shown, without
and with the change, by `xenverify reproduce uboot-shared-info`.
"""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.booting import Booted
from harness.cache import default_cache
from harness.linux_dom0.toolstack import Guest, Toolstack
from harness.uboot import second_stage
from harness.uboot.images import UBoot
from harness.uboot.second_stage import Event, Report, find_report

pytestmark = pytest.mark.scenario("linux_dom0")

DISK = "/root/second-stage.disk"
BLOCK = 512  # bytes; U-Boot counts in these
BLOCKS = 0x40
LOAD = "0x48200000"
SECONDS = 60.0


def boot_second_stage(toolstack: Toolstack, host: Booted, image: Path) -> Report:
    """Have U-Boot read the second stage from its disk and start it, by typing at its prompt."""
    stage = second_stage.image(default_cache())
    content = stage.image.read_bytes()
    assert len(content) <= BLOCK * BLOCKS
    bringing = toolstack.bringing(content.ljust(BLOCK * BLOCKS, b"\0"), DISK)
    toolstack.shell.run(f"{bringing} && losetup /dev/loop0 {DISK}")
    disk = "format=raw, vdev=xvda, access=r, target=/dev/loop0"
    domid = toolstack.create(Guest("uboot", image, memory_mib=256, disks=(disk,)))
    toolstack.wait_for_console("uboot", "xenguest# ")
    toolstack.type(domid, f"pvblock read {LOAD} 0 {BLOCKS:#x}\n")
    toolstack.wait_for_console("uboot", f"{BLOCKS} blocks read: OK")
    toolstack.type(domid, f"booti {LOAD} - ${{fdtcontroladdr}}\n")
    return host.wait(lambda: find_report(host.ram, stage), SECONDS, "the second stage")


def test_a_forgotten_shared_info_is_not_mapped_again(
    toolstack: Toolstack, host: Booted, uboot: Callable[[str], UBoot]
) -> None:
    """U-Boot 2021.01 leaves shared_info mapped: the next kernel gets EBUSY (71320946d5)."""
    report = boot_second_stage(toolstack, host, uboot("bullseye").image)
    assert report.result == -errno.EBUSY


def test_a_tidy_uboot_leaves_nothing(
    toolstack: Toolstack, host: Booted, uboot: Callable[[str], UBoot]
) -> None:
    """U-Boot 2023.01 unmaps it and, with libxl's slack, has its page of RAM back."""
    report = boot_second_stage(toolstack, host, uboot("bookworm").image)
    assert (report.result, report.aliases, report.holes) == (0, 0, 0)
    assert report.event_before is Event.DELIVERED
