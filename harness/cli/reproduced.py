"""What a reproduction showed, as a person reads it: the table, and the evidence below it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.builds import Build
from harness.cli import present
from harness.reproductions.uboot_linux import MASKED, LinuxCell
from harness.reproductions.uboot_shared_info import Cell, Found, Role
from harness.uboot.images import UBoot

STYLES = {Found.ALIAS: "bold", Found.CLEAN: "green", Found.BROKEN: "bold red"}


def show_sides(console: Console, sides: dict[str, Build], uboots: dict[Role, UBoot]) -> None:
    """Print which Xens and U-Boots there are."""
    present.show_builds(console, list(sides), list(sides.values()))
    facts = []
    for uboot in uboots.values():
        took = "cached" if uboot.cached else f"{uboot.seconds:.1f} s"
        kind = "unmaps shared_info" if uboot.unmaps else "never unmaps shared_info"
        facts.append(("u-boots", f"{uboot.label}  {uboot.tree.label}  {took}  {kind}"))
    present.show_facts(console, facts)


def show_cells(
    console: Console, cells: Sequence[Cell | LinuxCell], uboots: dict[Role, UBoot]
) -> None:
    """Print the table, and what it takes to understand it."""
    console.print()
    console.print(_table(cells, uboots))
    for line in _explain(cells):
        console.print(line, soft_wrap=True)
    console.print()


def _table(cells: Sequence[Cell | LinuxCell], uboots: dict[Role, UBoot]) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for header in ("what starts the OS", *dict.fromkeys(cell.side for cell in cells)):
        grid.add_column(header, overflow="fold")
    rows: dict[str, list[Text]] = {}
    for cell in cells:
        row = rows.setdefault(cell.row.name, [Text(cell.row.title(uboots))])
        row.append(Text(_words(cell), style=STYLES.get(cell.found, "")))
    for row in rows.values():
        grid.add_row(*row)
    return grid


def _words(cell: Cell | LinuxCell) -> str:
    """Say in a few words what was found."""
    if cell.found is Found.REFUSED:
        return "-EBUSY: " + ("the OS is refused" if isinstance(cell, Cell) else "Linux stops")
    if cell.found is Found.PANIC:
        return "U-Boot panics"
    if cell.found is Found.CLEAN:
        return "clean"
    if isinstance(cell, LinuxCell):
        return f"Linux' RAM is shared_info, {cell.overwritten} bytes of the mask lost"
    if cell.found is Found.ALIAS and cell.report:
        lost = ", event lost" if cell.report.corrupts else ""
        return f"RAM {cell.report.alias:#x} is shared_info{lost}"
    return "an event does not arrive"


def _explain(cells: Sequence[Cell | LinuxCell]) -> list[str]:
    """Return the evidence below the table: each thing once, with the sides it was seen on."""
    seen: dict[tuple[str, ...], list[str]] = {}
    for cell in cells:
        evidence = _of_linux(cell) if isinstance(cell, LinuxCell) else _of_second_stage(cell)
        if evidence:
            seen.setdefault(evidence, []).append(cell.side)
    lines = []
    for (first, *more), sides in seen.items():
        lines += ["", f"{', '.join(sides)}: {first}", *(f"  {line}" for line in more)]
    return lines


def _of_second_stage(cell: Cell) -> tuple[str, ...]:
    """Return what a row needs to be understood, nothing if it speaks for itself."""
    report = cell.report
    if cell.found is Found.ALIAS and report:
        return (
            f"RAM at {report.alias:#x} is shared_info, and so is {report.mapped_at:#x}, where the"
            " OS asked for it:",
            "a store into either appears in the other. The OS stores into that page of its RAM;",
            f"the event mask goes from {report.mask_before:#x} to {report.mask_after:#x},",
            f"and an event that was delivered before is {report.event_after.name.lower()}.",
        )
    if cell.found is Found.REFUSED and report and report.aliases:
        return (
            f"U-Boot left shared_info at {report.alias:#x}, and Xen maps it once: the OS is told.",
            "Going on regardless would not help it, for that page of RAM is shared_info still.",
        )
    if cell.found is Found.PANIC:
        return (
            "U-Boot maps shared_info over RAM, which loses the page but does not free it;",
            "to populate the place later is one page too many in a domain at its maximum:",
            *(f"  {line}" for line in cell.said),
        )
    return ()


def _of_linux(cell: LinuxCell) -> tuple[str, ...]:
    gfns = " and ".join(f"{gfn:#x}" for gfn in cell.gfns)
    if cell.found is Found.ALIAS:
        return (
            f"shared_info is at the GFNs {gfns}, by Xen's own tables. Linux came up, asked for one",
            "of them, and takes the other for RAM. It keeps something else there by now: of the",
            f"{len(MASKED)} bytes that mask event channels nobody uses, {cell.overwritten} do not.",
        )
    if cell.found is Found.REFUSED:
        return (
            f"U-Boot left shared_info at the GFN {gfns}, Xen answers -EBUSY, and Linux says:",
            *(f"  {line}" for line in cell.said),
        )
    return ()
