"""A copy of U-Boot's source in, the same with our small edits in its place out.

Comes in: the directory of a copy, and for which kind of domain it is to be built.
Goes out: nothing; the copy has changed.
Refuses to know: versions and line numbers. Each edit looks for what a line *means* (the definition
of `xen_mem_map`, the end of `setup_mem_map()`), so that 2020.10 and today's U-Boot are the same to
it. One that does not find its place is a HarnessError, since it is the edit that no longer fits.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from harness.errors import HarnessError

OURS = Path(__file__).parents[2] / "guest-kernels" / "u-boot"

BOARD = "board/xen/xenguest_arm64/xenguest_arm64.c"
HYPERVISOR = "drivers/xen/hypervisor.c"
# Where our own files go in the copy. The console replaces the driver that needs a console ring.
PLACES = {
    "console.c": "drivers/serial/serial_xen.c",
    "domu.c": "drivers/xen/xenverify.c",
    "xenverify.h": "include/xenverify.h",
}
INCLUDE = "#include <xenverify.h>\n"


class Flavour(StrEnum):
    """For which kind of domain U-Boot is built."""

    TOOLSTACK = "toolstack"  # a domU that libxl makes: U-Boot as it is, console ring and all
    DOMU = "domu"  # a domU that Xen makes: our console and device tree


@dataclass(frozen=True)
class Edit:
    """A pattern that must match once in a function, or in a whole file, and what replaces it."""

    file: str
    pattern: str
    replacement: str
    why: str
    function: str | None = None


# U-Boot runs setup_mem_map() first while BSS is not cleared yet, and its table lies there. Xen
# leaves a domU's RAM as it is, a debug Xen even fills it (0xc2). Upstream's memset came later, with
# virtio. The table ends at its first empty entry, and until then had no room for one when RAM has
# two banks: Xen before 4.16 says so in every domU's device tree, and the second is empty.
MEMORY_MAP_HAS_AN_END = Edit(
    BOARD,
    r"(?m)^(static struct mm_region xen_mem_map\[\w+)\]\s*;",
    r'\1 + 1] __attribute__((section(".data")));',
    "keep the memory map out of the BSS, which is not cleared when it is first used, and end it",
)
CONSOLE_IS_MAPPED = Edit(
    BOARD,
    r"\breturn 0;(?=\s*\}\s*\Z)",
    "xenverify_map_console(xen_mem_map);\n\treturn 0;",
    "map the emulated UART where the console ring would be",
    function="setup_mem_map",
)
TREE_HAS_XEN = Edit(
    BOARD,
    r"\(void \*\)\s*rom_pointer\[0\]",
    "xenverify_device_tree((void *)rom_pointer[0])",
    "add the node for Xen that a toolstack would have put into the device tree",
    function="board_fdt_blob_setup",
)
PAGE_MAY_BE_RELEASED = Edit(
    HYPERVISOR,
    r"HYPERVISOR_memory_op\(\s*XENMEM_add_to_physmap\s*,\s*(&\w+)\s*\)",
    r"xenverify_map_shared_info(\1)",
    "have the RAM page given back, where that is asked for, before shared_info takes its place",
    function="map_shared_info",
)

EDITS = {
    Flavour.TOOLSTACK: (MEMORY_MAP_HAS_AN_END,),
    Flavour.DOMU: (MEMORY_MAP_HAS_AN_END, CONSOLE_IS_MAPPED, TREE_HAS_XEN, PAGE_MAY_BE_RELEASED),
}


def edit(source: Path, flavour: Flavour) -> None:
    """Make the edits of `flavour` in the copy at `source`; HarnessError if one has no place."""
    for change in EDITS[flavour]:
        _apply(source, change)
    if flavour is not Flavour.TOOLSTACK:
        for name, place in PLACES.items():
            shutil.copyfile(OURS / name, source / place)
        with (source / "drivers/xen/Makefile").open("a") as makefile:
            makefile.write("\nobj-y += xenverify.o\n")


def _apply(source: Path, edit: Edit) -> None:
    path = source / edit.file
    try:
        text = path.read_text()
    except OSError as error:
        raise _has_no_place(edit, error.strerror or "unreadable") from error
    start, end = 0, len(text)
    if edit.function is not None:
        start, end = find_function(text, edit.function) or (0, 0)
        if not end:
            raise _has_no_place(edit, f"there is no function {edit.function}()")
    changed, count = re.subn(edit.pattern, edit.replacement, text[start:end])
    if count != 1:
        raise _has_no_place(edit, f"the pattern {edit.pattern!r} matches {count} times")
    text = text[:start] + changed + text[end:]
    if "xenverify_" in edit.replacement and INCLUDE not in text:
        text = _include(text)
    path.write_text(text)


def _include(text: str) -> str:
    """Add our header behind the last one that the file includes at its top level."""
    last = list(re.finditer(r"(?m)^#include .*\n", text))[-1]
    return text[: last.end()] + INCLUDE + text[last.end() :]


def find_function(text: str, name: str) -> tuple[int, int] | None:
    """Return where the definition of the C function `name` starts and ends, None if it has none."""
    head = re.search(rf"(?m)^[\w\s*]*\b{name}\s*\([^;{{}}]*\)\s*\{{", text)
    if head is None:
        return None
    depth, position = 1, head.end()
    for brace in re.finditer(r"[{}]", text[head.end() :]):
        depth += 1 if brace.group() == "{" else -1
        position = head.end() + brace.end()
        if depth == 0:
            return head.start(), position
    return None


def _has_no_place(edit: Edit, reason: str) -> HarnessError:
    return HarnessError(
        f"this U-Boot has no place for an edit of ours in {edit.file}: to {edit.why}",
        evidence=(reason,),
        advice="It is newer, or more changed, than harness/uboot/edits.py knows: adapt it there.",
    )
