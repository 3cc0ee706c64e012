"""Edits by meaning: toy files in the shape of three ages of U-Boot, none of them U-Boot's."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.uboot import edits
from harness.uboot.edits import Flavour, edit, find_function

BOARD_OLD = """\
#include <toy.h>
#include <other.h>

#define REGIONS 5
static struct mm_region xen_mem_map[REGIONS];
struct mm_region *mem_map = xen_mem_map;

void *board_fdt_blob_setup(void)
{
	if (magic(rom_pointer[0])) {
		return NULL;
	}
	return (void *)rom_pointer[0];
}

static int setup_mem_map(void)
{
	int i;

	for (i = 0; i < 3; i++) {
		if (bad(i)) {
			return 0;
		}
	}
	return 0;
}

int dram_init(void)
{
	return 0;
}
"""
BOARD_NEW = BOARD_OLD.replace(
    """void *board_fdt_blob_setup(void)
{
	if (magic(rom_pointer[0])) {
		return NULL;
	}
	return (void *)rom_pointer[0];
}
""",
    """int board_fdt_blob_setup(void **tree)
{
	*tree = (void *)rom_pointer[0];

	return 0;
}
""",
)
HYPERVISOR = """\
#include <toy.h>

struct shared_info *map_shared_info(void *p);

struct shared_info *map_shared_info(void *p)
{
	struct xen_add_to_physmap xatp = { 0 };

	if (HYPERVISOR_memory_op(XENMEM_add_to_physmap, &xatp) != 0)
		BUG();
	return 0;
}
"""


@pytest.fixture(params=[BOARD_OLD, BOARD_NEW], ids=["old", "new"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A tree with just the files that edits touch."""
    texts = {
        edits.BOARD: request.param,
        edits.HYPERVISOR: HYPERVISOR,
        "drivers/xen/Makefile": "obj-y += hypervisor.o",
        "drivers/serial/serial_xen.c": "the driver that goes",
        "include/toy.h": "",
    }
    for name, text in texts.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_a_domu_gets_every_edit(source: Path) -> None:
    edit(source, Flavour.DOMU)
    board = (source / edits.BOARD).read_text()
    assert 'xen_mem_map[REGIONS + 1] __attribute__((section(".data")));' in board
    assert "xenverify_device_tree((void *)rom_pointer[0])" in board
    assert board.count("xenverify_map_console(xen_mem_map);") == 1
    end_of_function = board.index("xenverify_map_console")
    assert board.index("if (bad(i))") < end_of_function < board.index("int dram_init")
    hypervisor = (source / edits.HYPERVISOR).read_text()
    assert "if (xenverify_map_shared_info(&xatp) != 0)" in hypervisor
    assert board.count("#include <xenverify.h>") == hypervisor.count("#include <xenverify.h>") == 1
    assert (source / "drivers/xen/Makefile").read_text().endswith("\nobj-y += xenverify.o\n")
    assert "xenverify" in (source / "drivers/serial/serial_xen.c").read_text()


def test_a_toolstack_domu_keeps_its_own_driver(source: Path) -> None:
    edit(source, Flavour.TOOLSTACK)
    assert (source / "drivers/serial/serial_xen.c").read_text() == "the driver that goes"
    assert "section" in (source / edits.BOARD).read_text()
    assert (source / edits.HYPERVISOR).read_text() == HYPERVISOR


@pytest.mark.parametrize(
    ("file", "was", "becomes", "named"),
    [
        (edits.HYPERVISOR, "map_shared_info", "map_the_page", "no function map_shared_info()"),
        (edits.HYPERVISOR, "XENMEM_add_to_physmap", "ADD", "matches 0 times"),
        (edits.BOARD, "xen_mem_map[REGIONS]", "xen_mem_map[2 * REGIONS]", "matches 0 times"),
    ],
)
def test_an_edit_without_its_place_is_named(
    source: Path, file: str, was: str, becomes: str, named: str
) -> None:
    path = source / file
    path.write_text(path.read_text().replace(was, becomes))
    with pytest.raises(HarnessError, match=f"no place for an edit of ours in {file}") as caught:
        edit(source, Flavour.DOMU)
    assert named in caught.value.evidence[0]


def test_a_file_that_is_gone_is_named(source: Path) -> None:
    (source / edits.HYPERVISOR).unlink()
    with pytest.raises(HarnessError, match="no place"):
        edit(source, Flavour.DOMU)


def test_a_declaration_is_no_definition() -> None:
    found = find_function(HYPERVISOR, "map_shared_info")
    assert found is not None
    assert HYPERVISOR[slice(*found)].rstrip().endswith("return 0;\n}")
    assert find_function("int f(void);\n", "f") is None
    assert find_function("int f(void)\n{\n\tif (1) {\n", "f") is None
