"""`xenverify cache`: what is kept, and how to be rid of it."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from harness.cli.display import page
from harness.errors import ExitCode, UsageError

app = typer.Typer(help="List, measure, check and prune what is kept.", rich_markup_mode=None)

DAY = 86400.0
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

Days = Annotated[
    float | None,
    typer.Option("--older-than", metavar="DAYS", min=0, help="Remove what was unused so long."),
]
Size = Annotated[
    str | None,
    typer.Option("--down-to", metavar="SIZE", help="Remove the longest unused until 500M, 2G, …"),
]
All = Annotated[bool, typer.Option("--all", help="Remove everything, clones of sources included.")]


@app.callback(invoke_without_command=True)
def command(context: typer.Context) -> ExitCode:
    """List what is kept: builds, agents and sources, the one used last first."""
    return ExitCode.OK if context.invoked_subcommand else show()


@app.command("list")
def show() -> ExitCode:
    """List every entry, the one used last first."""
    from harness.cache import default_cache

    console, cache = page(), default_cache()
    for entry in cache.entries():
        days = (time.time() - entry.used) / DAY
        console.print(
            f"{entry.kind:<10} {entry.key[:16]:<16} {human(entry.size):>8}  "
            f"used {days:5.1f} days ago  {entry.directory}",
            soft_wrap=True,
        )
    return size()


@app.command()
def size() -> ExitCode:
    """Say how much room everything takes."""
    from harness.cache import default_cache

    cache = default_cache()
    page().print(f"{human(cache.size())} in {cache.root}", soft_wrap=True)
    return ExitCode.OK


@app.command()
def prune(older_than: Days = None, down_to: Size = None, everything: All = False) -> ExitCode:
    """Remove entries that are not needed; what was removed is made again when it is.

    \b
    xenverify cache prune --older-than 30
    xenverify cache prune --down-to 2G
    xenverify cache prune --all
    """
    from harness.cache import default_cache

    if older_than is None and down_to is None and not everything:
        raise UsageError("say what to remove", advice="Give --older-than, --down-to or --all.")
    cache = default_cache()
    removed = cache.prune(
        older_than=older_than * DAY if older_than is not None else None,
        down_to=_bytes(down_to) if down_to is not None else None,
        everything=everything,
    )
    freed = human(sum(entry.size for entry in removed))
    page().print(f"{len(removed)} entries removed, {freed}; {human(cache.size())} left")
    return ExitCode.OK


@app.command()
def check() -> ExitCode:
    """Read every file and compare it with its record; exit code 5 if any is damaged."""
    from harness.cache import default_cache

    console, cache = page(), default_cache()
    damaged = cache.damaged()
    for entry, reason in damaged:
        console.print(f"damaged: {entry.directory}: {reason}", soft_wrap=True)
    if damaged:
        console.print("What is damaged is made again when it is next needed.")
        return ExitCode.HARNESS_FAILED
    console.print(f"{len(cache.entries())} entries are as they were made")
    return ExitCode.OK


def human(size: int) -> str:
    """Return bytes as a person says them: 1.5G."""
    for unit in ("T", "G", "M", "K"):
        if size >= UNITS[unit]:
            return f"{size / UNITS[unit]:.1f}{unit}"
    return f"{size}B"


def _bytes(text: str) -> int:
    number, unit = (
        text.upper().removesuffix("B").rstrip("KMGT"),
        text.upper().removesuffix("B")[-1:],
    )
    try:
        return int(float(number) * UNITS.get(unit, 1))
    except ValueError:
        raise UsageError(f"{text!r} is no size", advice="Write 500M or 2G.") from None
