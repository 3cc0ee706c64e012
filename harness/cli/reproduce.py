"""`xenverify reproduce`: bugs in the field, shown again."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from harness.cli import options as opt
from harness.cli.display import Display, page
from harness.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from harness.builds import Build, BuildOptions
    from harness.cache import Cache
    from harness.machines import Machine
    from harness.progress import Progress
    from harness.reproductions.uboot_linux import LinuxCell
    from harness.reproductions.uboot_shared_info import Cell, Role, Stage
    from harness.trees import Tree
    from harness.uboot.images import UBoot

BEFORE, AFTER = "debian:bullseye", "debian:bookworm"
UBOOTS = ("debian:bullseye", "debian:bookworm")
RESULTS = "reproduction.json"


class System(StrEnum):
    """What U-Boot starts."""

    SECOND_STAGE = "second-stage"
    LINUX = "linux"


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


OperatingSystem = Annotated[
    System,
    typer.Option("--os", help="What U-Boot starts: our second stage, or Debian's Linux."),
]
Prompt = Annotated[
    bool, typer.Option("--prompt", help="Sit at U-Boot's prompt on one Xen, and start it yourself.")
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
    system: OperatingSystem = System.SECOND_STAGE,
    prompt: Prompt = False,
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
    xenverify reproduce uboot-shared-info --os linux
    xenverify reproduce uboot-shared-info --prompt debian:bookworm

    The first Xen must have the bug: it is the proof that this can show it.
    """
    from harness.cache import default_cache
    from harness.cli import reproduced
    from harness.machines import load_machine
    from harness.reports.folder import results_folder

    board = load_machine(machine)
    shared = opt.Shared(machine, release, tuple(kconfig or ()), cc, no_sandbox)
    options, cache, console = shared.build_options(), default_cache(), page()
    with contextlib.ExitStack() as stack, Display(quiet=quiet) as display:
        if prompt and output is None:  # as for a shell: nothing is to be kept
            made = stack.enter_context(tempfile.TemporaryDirectory(prefix="xenverify-prompt-"))
            folder = Path(made)
        else:
            folder = stack.enter_context(results_folder(output))
        trees = _trees(xens, change, on, cache, display.say, one=prompt)
        sides, stage = _prepare(trees, uboot or (), options, cache, board, folder, display)
        reproduced.show_sides(console, sides, stage.uboots)
        if prompt:
            return _sit_at_prompt(stage, uboot or (), sides, display)
        tell = _tell_of_linux if system is System.LINUX else _tell
        cells, wrong = tell(sides, stage, display.say)
    reproduced.show_cells(console, cells, stage.uboots)
    before, after = sides
    word = Text("STILL BROKEN", "bold red") if wrong else Text("REPRODUCED", "bold green")
    rest = "; ".join(wrong) or f"the bug shows on {before} and not on {after}"
    place = Text(f"    results in {opt.relative(folder)}/", "dim")
    console.print(word + Text(f"  {rest}") + place, soft_wrap=True)
    return ExitCode.REGRESSED if wrong else ExitCode.OK


def _prepare(
    trees: dict[str, Tree],
    uboots: Sequence[str],
    options: BuildOptions,
    cache: Cache,
    board: Machine,
    folder: Path,
    display: Display,
) -> tuple[dict[str, Build], Stage]:
    """Build everything that is booted."""
    from harness import agent
    from harness.builds import build_all
    from harness.reproductions.uboot_shared_info import Stage
    from harness.uboot import second_stage

    builds = build_all(list(trees.values()), options, cache, display.say)
    built = _uboots(uboots, cache, display.say, sandbox=options.sandbox)
    stage = Stage(built, second_stage.image(cache), agent.image(cache), board, folder)
    display.clear()
    return dict(zip(trees, builds, strict=True)), stage


def _tell(
    sides: dict[str, Build], stage: Stage, progress: Progress
) -> tuple[Sequence[Cell], list[str]]:
    """Boot the second stage by every U-Boot on both sides; what was found, and what is wrong."""
    from harness.reproductions import uboot_shared_info as story

    cells = story.run(sides, stage, progress)
    _write(System.SECOND_STAGE, sides, stage, cells)
    return cells, story.judge(cells, *sides)


def _tell_of_linux(
    sides: dict[str, Build], stage: Stage, progress: Progress
) -> tuple[Sequence[LinuxCell], list[str]]:
    """Do the same with Linux."""
    from harness.cache import default_cache
    from harness.reproductions import uboot_linux as story

    cells = story.run(sides, stage, story.kernel(default_cache(), progress), progress)
    _write(System.LINUX, sides, stage, cells)
    return cells, story.judge(cells, *sides)


def _sit_at_prompt(
    stage: Stage, named: Sequence[str], sides: dict[str, Build], display: Display
) -> ExitCode:
    """Give the terminal to U-Boot: the one that was named, or the one with the bug."""
    from harness.cli.terminal import hand_over
    from harness.reproductions import uboot_prompt
    from harness.reproductions.uboot_shared_info import Role

    role = Role.FORGETFUL
    if named and stage.uboots[Role.FORGETFUL].tree.reference not in named:
        role = Role.TIDY
    ((name, build),) = sides.items()
    display.say("booting")
    with uboot_prompt.booted(role, build, stage) as host:
        display.clear()
        hand_over(
            host,
            f"{stage.uboots[role].label} in d1 on {name}. Ctrl-] leaves; three times Ctrl-A goes to"
            f" Xen's own keys, and on.\nTo start the second stage:  {uboot_prompt.START}\n",
        )
    return ExitCode.OK


def _trees(
    xens: Sequence[str] | None,
    change: list[str] | None,
    on: str | None,
    cache: Cache,
    progress: Progress,
    *,
    one: bool,
) -> dict[str, Tree]:
    """Return the tree of each side by its name, the one with the bug first; or just one."""
    from harness.references import resolve
    from harness.sides import Side

    if bool(change) != bool(on) or (change and xens):
        raise UsageError(
            "two Xens, or one Xen and a change to it",
            advice="Name BEFORE and AFTER, or --change CHANGE --on REF.",
        )
    if one:
        if len(xens or ()) > 1:
            raise UsageError("a prompt is on one Xen", advice="Name just one, or none.")
        name = on or (xens or (AFTER,))[0]
        return {name: Side(name, tuple(change or ())).tree(cache, progress)}
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


def _write(
    system: System, sides: dict[str, Build], stage: Stage, cells: Sequence[Cell | LinuxCell]
) -> None:
    result = {
        "reproduction": "uboot-shared-info",
        "os": system.value,
        "sides": {name: build.describe() for name, build in sides.items()},
        "uboots": {
            role.value: {"label": uboot.tree.label, "tree": uboot.tree.tree}
            for role, uboot in stage.uboots.items()
        },
        "cells": [cell.describe() for cell in cells],
    }
    (stage.folder / RESULTS).write_text(json.dumps(result, indent=1) + "\n")
