"""A machine and the domains of a scenario in, the device tree that makes Xen start them out.

The board's own tree is QEMU's (`-machine dumpdtb=`), never written by hand; this adds what Xen
reads from /chosen: its command line, and for each domain a node with its modules (Xen's
docs/misc/arm/device-tree/booting.txt). What kind of kernel a file is, this does not know.
"""

from __future__ import annotations

import functools
import struct
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import libfdt

from harness.errors import HarnessError
from harness.machines import Machine
from harness.programs import require
from harness.scenarios import DomainPlan

# libfdt writes into a tree of fixed size: this much is added for what Xen reads.
ROOM = 1 << 16
# Modules start at multiples of this, so that no two share a page or a superpage.
ALIGNMENT = 2 << 20


@dataclass(frozen=True)
class Module:
    """A file that QEMU's loader puts into RAM before Xen starts, and that Xen hands to a domain."""

    file: Path
    address: int
    size: int
    kind: str
    """What Xen's tree calls it: "kernel", "ramdisk" or "device-tree"."""

    @property
    def loader(self) -> str:
        """The argument of QEMU's `-device` that puts the file there, byte for byte."""
        name = str(self.file).replace(",", ",,")
        return f"loader,file={name},addr={self.address:#x},force-raw=on"


def place(
    machine: Machine, domains: Mapping[int, DomainPlan], kernel: Path
) -> dict[int, list[Module]]:
    """Give every domain's files an address of their own; `kernel` runs where a plan names none.

    Raises HarnessError when a file is not there or RAM is too small for all.
    """
    address = machine.modules
    placed: dict[int, list[Module]] = {}
    for domid, plan in domains.items():
        files = [(plan.kernel or kernel, "kernel")]
        if plan.ramdisk is not None:
            files.append((plan.ramdisk, "ramdisk"))
        if plan.fragment is not None:
            files.append((plan.fragment, "device-tree"))
        for file, kind in files:
            module = Module(file.resolve(), address, _size(file), kind)
            placed.setdefault(domid, []).append(module)
            address += -(-module.size // ALIGNMENT) * ALIGNMENT
    if address > machine.ram_end:
        raise HarnessError(f"the domains' images do not fit into {machine.ram_mib} MiB of RAM")
    return placed


def compose(
    board: bytes,
    xen_bootargs: str,
    domains: Mapping[int, DomainPlan],
    modules: Mapping[int, Iterable[Module]],
) -> bytes:
    """The tree `board` with everything Xen needs to start `domains`."""
    tree = libfdt.Fdt(bytearray(board))
    tree.resize(tree.totalsize() + ROOM)
    chosen = tree.path_offset("/chosen")
    for seed in ("rng-seed", "kaslr-seed"):  # random in every dump, and Xen reads neither
        if tree.hasprop(chosen, seed):
            tree.delprop(chosen, seed)
    _cells(tree, chosen)
    tree.setprop_str(chosen, "xen,xen-bootargs", xen_bootargs)
    # Xen makes domUs in the order of their nodes, and a new node comes first: d1's must be last.
    for domid, plan in sorted(domains.items(), reverse=True):
        if domid == 0:
            chosen = tree.path_offset("/chosen")
            tree.setprop_str(chosen, "xen,dom0-bootargs", plan.bootargs)
            _add_modules(tree, chosen, modules[domid])
        else:
            _add_domu(tree, domid, plan, modules[domid])
    tree.pack()
    return bytes(tree.as_bytearray())


def _add_domu(tree: libfdt.Fdt, domid: int, plan: DomainPlan, modules: Iterable[Module]) -> None:
    node = _add_node(tree, tree.path_offset("/chosen"), f"domU{domid}")
    tree.setprop(node, "compatible", b"xen,domain\0")
    _cells(tree, node)
    tree.setprop_u64(node, "memory", plan.memory_mib * 1024)
    tree.setprop_u32(node, "cpus", plan.vcpus)
    for name, value in plan.properties.items():
        tree.setprop(node, name, value)
    _add_modules(tree, node, modules, plan.bootargs)


def _add_modules(
    tree: libfdt.Fdt, parent: int, modules: Iterable[Module], bootargs: str = ""
) -> None:
    for module in modules:
        node = _add_node(tree, parent, f"module@{module.address:x}")
        tree.setprop(node, "compatible", f"multiboot,{module.kind}\0multiboot,module\0".encode())
        tree.setprop(node, "reg", struct.pack(">QQ", module.address, module.size))
        if bootargs and module.kind == "kernel":
            tree.setprop_str(node, "bootargs", bootargs)


def _add_node(tree: libfdt.Fdt, parent: int, name: str) -> int:
    # libfdt puts a new node first among its siblings: the parent's offset stays what it was.
    return int(tree.add_subnode(parent, name))


def _cells(tree: libfdt.Fdt, node: int) -> None:
    tree.setprop_u32(node, "#address-cells", 2)
    tree.setprop_u32(node, "#size-cells", 2)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as problem:
        raise HarnessError(f"a domain's image cannot be read: {problem}") from problem


def board_tree(machine: Machine) -> bytes:
    """QEMU's own device tree of `machine`; asked of QEMU once for each machine and process."""
    return _dump(require(machine.program), tuple(machine.arguments()))


@functools.cache
def _dump(program: Path, arguments: tuple[str, ...]) -> bytes:
    with tempfile.TemporaryDirectory(prefix="xenverify-") as directory:
        dump = Path(directory, "board.dtb")
        command = [str(program), *arguments, "-machine", f"dumpdtb={dump}"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode != 0 or not dump.exists():
            raise HarnessError(
                "QEMU does not make this machine",
                evidence=[" ".join(command), *run.stderr.splitlines()],
                advice="Is this QEMU older than the machine's CPU or board? 7.2 knows them all.",
            )
        return dump.read_bytes()
