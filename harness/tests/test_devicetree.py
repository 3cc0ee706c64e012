"""What Xen is told about its domains, read back from the tree."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

import libfdt
import pytest

from harness.devicetree import compose, place
from harness.errors import HarnessError
from harness.machines import load_machine
from harness.scenarios import DomainPlan

MACHINE = load_machine()


@pytest.fixture
def board() -> bytes:
    """A board's tree, as much of it as matters here."""
    tree = libfdt.Fdt.create_empty_tree(4096)
    chosen = tree.add_subnode(0, "chosen")
    tree.setprop_str(chosen, "stdout-path", "/pl011@9000000")
    tree.setprop(chosen, "rng-seed", b"random")
    tree.pack()
    return bytes(tree.as_bytearray())


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    path = tmp_path / "a, kernel"
    path.write_bytes(bytes(5 << 20))
    return path


def read(tree: bytes, path: str, name: str) -> bytes:
    fdt = libfdt.Fdt(bytearray(tree))
    return bytes(fdt.getprop(fdt.path_offset(path), name))


def test_modules_do_not_touch_each_other(tmp_path: Path, kernel: Path) -> None:
    small = tmp_path / "small"
    small.write_bytes(b"x")
    plans = {0: DomainPlan(kernel=small), 1: DomainPlan(fragment=small), 2: DomainPlan()}
    placed = place(MACHINE, plans, kernel)
    assert [[module.kind for module in modules] for modules in placed.values()] == [
        ["kernel"],
        ["kernel", "device-tree"],
        ["kernel"],
    ]
    everything = sorted((m.address, m.size) for modules in placed.values() for m in modules)
    assert everything[0][0] == MACHINE.modules
    for (address, size), (following, _) in itertools.pairwise(everything):
        assert address + size <= following
        assert following % (2 << 20) == 0


def test_a_comma_in_a_name_is_doubled_for_qemu(kernel: Path) -> None:
    (module,) = place(MACHINE, {1: DomainPlan()}, kernel)[1]
    assert f"file={kernel.parent}/a,, kernel,addr=0x4a000000," in module.loader


def test_images_that_do_not_fit_are_refused(kernel: Path) -> None:
    with pytest.raises(HarnessError, match="do not fit"):
        place(MACHINE, {domid: DomainPlan() for domid in range(1, 30)}, kernel)


def test_an_image_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="cannot be read"):
        place(MACHINE, {1: DomainPlan()}, tmp_path / "nothing")


def test_xen_finds_its_domains(board: bytes, kernel: Path) -> None:
    plans = {
        0: DomainPlan(bootargs="for dom0"),
        1: DomainPlan(memory_mib=32, vcpus=2, bootargs="for d1", properties={"vpl011": b""}),
        2: DomainPlan(),
    }
    placed = place(MACHINE, plans, kernel)
    tree = compose(board, "console=dtuart", plans, placed)

    assert read(tree, "/chosen", "xen,xen-bootargs") == b"console=dtuart\0"
    assert read(tree, "/chosen", "xen,dom0-bootargs") == b"for dom0\0"
    assert read(tree, "/chosen", "stdout-path") == b"/pl011@9000000\0"
    assert read(tree, "/chosen/domU1", "compatible") == b"xen,domain\0"
    assert read(tree, "/chosen/domU1", "memory") == struct.pack(">Q", 32 * 1024)
    assert read(tree, "/chosen/domU1", "cpus") == struct.pack(">I", 2)
    assert read(tree, "/chosen/domU1", "vpl011") == b""
    for parent, domid in (("/chosen", 0), ("/chosen/domU1", 1), ("/chosen/domU2", 2)):
        (module,) = placed[domid]
        path = f"{parent}/module@{module.address:x}"
        assert read(tree, path, "reg") == struct.pack(">QQ", module.address, 5 << 20)
        assert read(tree, path, "compatible") == b"multiboot,kernel\0multiboot,module\0"
    module_of_d1 = f"/chosen/domU1/module@{placed[1][0].address:x}"
    assert read(tree, module_of_d1, "bootargs") == b"for d1\0"


def test_nothing_random_is_left_in_the_tree(board: bytes, kernel: Path) -> None:
    plans = {1: DomainPlan()}
    tree = compose(board, "", plans, place(MACHINE, plans, kernel))
    with pytest.raises(libfdt.FdtException):
        read(tree, "/chosen", "rng-seed")
