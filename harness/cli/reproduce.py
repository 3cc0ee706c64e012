"""`xenverify reproduce`: bugs in the field, shown again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.cli import options as opt
from harness.cli.display import Display, page
from harness.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from harness.builds import Build
    from harness.cache import Cache
    from harness.progress import Progress
    from harness.reproductions.uboot_shared_info import Cell, Role
    from harness.trees import Tree
    from harness.uboot.images import UBoot

BEFORE, AFTER = "debian:bullseye", "debian:bookworm"
UBOOTS = ("debian:bullseye", "debian:bookworm")
RESULTS = "reproduction.json"

app = typer.Typer(
    help="Show a bug of the field again, without and with what mends it.",
    rich_markup_mode=None,
    no_args_is_help=True,
)

Xens = Annotated[
    list[str] | None,
    typer.Argument(metavar="[BEFORE AFTER]", help="Two Xens: one that has the bug, one to judge."),
]
On = Annotated[
    str | None,
    typer.Option("--on", metavar="REF", help="The Xen the change is for: judged without and with."),
]
Change = Annotated[
    list[str] | None,
    typer.Option(
        "--change", metavar="CHANGE", help="Judge a change to one Xen; in the order given."
    ),
]
Uboots = Annotated[
    list[str] | None,
    typer.Option(
        "--uboot", metavar="REF", help="A U-Boot of yours in place of Debian's; repeatable."
    ),
]


@app.callback()
def _reproduce() -> None:
    """Keep the story's name part of the command line, though there is only one so far."""


@app.command("uboot-shared-info")
def uboot_shared_info(
    xens: Xens = None,
    change: Change = None,
    on: On = None,
    uboot: Uboots = None,
    machine: opt.MachineName = opt.DEFAULT_MACHINE,
    release: opt.Release = False,
    kconfig: opt.Kconfig = None,
    cc: opt.Compiler = None,
    no_sandbox: opt.NoSandbox = False,
    output: opt.Output = None,
    quiet: opt.Quiet = False,
) -> ExitCode:
    """Show what U-Boot's forgotten mapping of shared_info does to the OS after it.

    \b
    xenverify reproduce uboot-shared-info
    xenverify reproduce uboot-shared-info git:~/xen@52196c8cd9 git:~/xen@71320946d5
    xenverify reproduce uboot-shared-info --change fix.patch --on debian:bullseye
    xenverify reproduce uboot-shared-info --uboot git:~/u-boot@v2020.10

    The first Xen must have the bug: it is the proof that this can show it.
    """
    from harness import agent
    from harness.builds import build_all
    from harness.cache import default_cache
    from harness.machines import load_machine
    from harness.reports.folder import results_folder
    from harness.reproductions import uboot_shared_info as story
    from harness.uboot import second_stage

    board = load_machine(machine)
    shared = opt.Shared(machine, release, tuple(kconfig or ()), cc, no_sandbox)
    options, cache, console = shared.build_options(), default_cache(), page()
    with results_folder(output) as folder, Display(quiet=quiet) as display:
        trees = _trees(xens, change, on, cache, display.say)
        builds = build_all(list(trees.values()), options, cache, display.say)
        sides = dict(zip(trees, builds, strict=True))
        uboots = _uboots(uboot or (), cache, display.say, sandbox=not no_sandbox)
        _show_sides(console, sides, uboots)
        stage = story.Stage(uboots, second_stage.image(cache), agent.image(cache), board, folder)
        cells = story.run(sides, stage, display.say)
        _write(folder / RESULTS, sides, uboots, cells)
        before, after = sides
        wrong = story.judge(cells, before, after)
    console.print()
    console.print(_table(cells, list(sides), uboots))
    for line in _explain(cells):
        console.print(line, soft_wrap=True)
    console.print()
    word = Text("STILL BROKEN", "bold red") if wrong else Text("REPRODUCED", "bold green")
    rest = "; ".join(wrong) or f"the bug shows on {before} and not on {after}"
    place = Text(f"    results in {opt.relative(folder)}/", "dim")
    console.print(word + Text(f"  {rest}") + place, soft_wrap=True)
    return ExitCode.REGRESSED if wrong else ExitCode.OK


def _trees(
    xens: Sequence[str] | None,
    change: list[str] | None,
    on: str | None,
    cache: Cache,
    progress: Progress,
) -> dict[str, Tree]:
    """Return the tree of each side by its name, the one with the bug first."""
    from harness.references import resolve
    from harness.sides import Side

    if bool(change) != bool(on) or (change and xens):
        raise UsageError(
            "two Xens, or one Xen and a change to it",
            advice="Name BEFORE and AFTER, or --change CHANGE --on REF.",
        )
    if change and on:
        stdin = opt.read_stdin(change)
        plain, changed = Side(on), Side(on, tuple(change))
        return {
            "without": plain.tree(cache, progress),
            "with": changed.tree(cache, progress, stdin),
        }
    names = list(xens or (BEFORE, AFTER))
    if len(names) != 2 or names[0] == names[1]:
        raise UsageError(
            f"{len(set(names))} Xen where two are compared",
            advice="Name one from before Xen 4.17 and one to judge, or none at all.",
        )
    return {name: resolve(name, cache, progress) for name in names}


def _uboots(
    references: Sequence[str], cache: Cache, progress: Progress, *, sandbox: bool
) -> dict[Role, UBoot]:
    """Build the user's U-Boots and Debian's, and tell by their source which row each is for."""
    from harness.references import resolve
    from harness.reproductions.uboot_shared_info import Role
    from harness.uboot.edits import Flavour
    from harness.uboot.images import build
    from harness.uboot.sources import UBOOT

    found: dict[Role, UBoot] = {}
    for reference in (*references, *UBOOTS):
        if len(found) == len(UBOOTS):
            break
        tree = resolve(reference, cache, progress, UBOOT)
        uboot = build(tree, Flavour.DOMU, cache, progress, sandbox=sandbox)
        role = Role.TIDY if uboot.unmaps else Role.FORGETFUL
        if role in found and reference in references:
            raise UsageError(
                f"{references[0]} and {reference} are both U-Boots that"
                f" {'unmap' if uboot.unmaps else 'never unmap'} shared_info",
                advice="Name one of each kind, or one only; Debian's is the other.",
            )
        found.setdefault(role, uboot)
    return found


def _show_sides(console: Console, sides: dict[str, Build], uboots: dict[Role, UBoot]) -> None:
    from harness.cli import present

    present.show_builds(console, list(sides), list(sides.values()))
    facts = []
    for uboot in uboots.values():
        took = "cached" if uboot.cached else f"{uboot.seconds:.1f} s"
        kind = "unmaps shared_info" if uboot.unmaps else "never unmaps shared_info"
        facts.append(("u-boots", f"{uboot.label}  {uboot.tree.label}  {took}  {kind}"))
    present.show_facts(console, facts)


def _table(cells: Sequence[Cell], sides: Sequence[str], uboots: dict[Role, UBoot]) -> Table:
    from harness.reproductions.uboot_shared_info import Found

    styles = {Found.ALIAS: "bold", Found.CLEAN: "green", Found.BROKEN: "bold red"}
    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for header in ("what starts the OS", *sides):
        grid.add_column(header, overflow="fold")
    rows: dict[str, list[Text]] = {}
    for cell in cells:
        row = rows.setdefault(cell.row.name, [Text(cell.row.title(uboots))])
        row.append(Text(_words(cell), style=styles.get(cell.found, "")))
    for row in rows.values():
        grid.add_row(*row)
    return grid


def _words(cell: Cell) -> str:
    """Say in a few words what was found."""
    from harness.reproductions.uboot_shared_info import Found

    report = cell.report
    if cell.found is Found.ALIAS and report:
        lost = ", event lost" if report.corrupts else ""
        return f"RAM {report.alias:#x} is shared_info{lost}"
    if cell.found is Found.REFUSED:
        return "-EBUSY: the OS is refused"
    if cell.found is Found.PANIC:
        return "U-Boot panics"
    if cell.found is Found.BROKEN:
        return "an event does not arrive"
    return "clean"


def _explain(cells: Sequence[Cell]) -> list[str]:
    """Return the evidence below the table: each thing once, with the sides it was seen on."""
    seen: dict[tuple[str, ...], list[str]] = {}
    for cell in cells:
        if evidence := _evidence(cell):
            seen.setdefault(evidence, []).append(cell.side)
    lines = []
    for (first, *more), sides in seen.items():
        lines += ["", f"{', '.join(sides)}: {first}", *(f"  {line}" for line in more)]
    return lines


def _evidence(cell: Cell) -> tuple[str, ...]:
    """Return what a row needs to be understood, nothing if it speaks for itself."""
    from harness.reproductions.uboot_shared_info import Found

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


def _write(
    path: Path, sides: dict[str, Build], uboots: dict[Role, UBoot], cells: Sequence[Cell]
) -> None:
    result = {
        "reproduction": "uboot-shared-info",
        "sides": {name: build.describe() for name, build in sides.items()},
        "uboots": {
            role.value: {"label": uboot.tree.label, "tree": uboot.tree.tree}
            for role, uboot in uboots.items()
        },
        "cells": [cell.describe() for cell in cells],
    }
    path.write_text(json.dumps(result, indent=1) + "\n")
