"""The options that several commands share, and what they are turned into."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.builds import BuildOptions

_BUILD = "How Xen is built"
_RUN = "How cases run"

Release = Annotated[
    bool, typer.Option("--release", help="Build without debug=y.", rich_help_panel=_BUILD)
]
Kconfig = Annotated[
    list[Path] | None,
    typer.Option(
        "--kconfig", metavar="FILE", help="Add a Kconfig fragment.", rich_help_panel=_BUILD
    ),
]
Compiler = Annotated[
    str | None,
    typer.Option("--cc", metavar="COMPILER", help="Build with it.", rich_help_panel=_BUILD),
]
NoSandbox = Annotated[
    bool,
    typer.Option(
        "--no-sandbox",
        help="Let make do as it likes on this machine: only for changes you trust.",
        rich_help_panel=_BUILD,
    ),
]
With = Annotated[
    list[str] | None,
    typer.Option("--with", metavar="CHANGE", help="Apply a change first; in the order given."),
]
Reverse = Annotated[bool, typer.Option("--reverse", help="Take the changes out instead.")]
MachineName = Annotated[
    str,
    typer.Option(
        "--machine", metavar="NAME", help="A machine of qemu/NAME.toml.", rich_help_panel=_RUN
    ),
]
Keyword = Annotated[
    str,
    typer.Option(
        "-k", metavar="WORDS", help="Only cases whose name has WORDS, as pytest -k.",
        rich_help_panel=_RUN,
    ),
]  # fmt: skip
Marker = Annotated[
    str,
    typer.Option(
        "-m", metavar="MARK", help="Only cases so marked, as pytest -m: linux_dom0.",
        rich_help_panel=_RUN,
    ),
]  # fmt: skip
Cases = Annotated[
    list[str] | None,
    typer.Option(
        "--cases", metavar="PATH", help="Only the cases of a file or folder.",
        rich_help_panel=_RUN,
    ),
]  # fmt: skip
Jobs = Annotated[
    int,
    typer.Option(
        "--jobs", "-j", min=0, help="Cores to use; 0: all there are.", rich_help_panel=_RUN
    ),
]
Paranoid = Annotated[
    bool,
    typer.Option(
        "--paranoid", help="Hold all rules against Xen's tables after every call.",
        rich_help_panel=_RUN,
    ),
]  # fmt: skip
NoTables = Annotated[
    bool,
    typer.Option("--no-tables", help="Do not look at Xen's tables.", rich_help_panel=_RUN),
]
NoLines = Annotated[
    bool,
    typer.Option(
        "--no-lines", help="Do not count the lines of Xen that run.", rich_help_panel=_RUN
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", help="For results: default ./xenverify-N."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but the result.")]

DEFAULT_MACHINE = "virt-gicv3"


@dataclass(frozen=True)
class Shared:
    """How Xen is built and on what it runs, as every command can be told."""

    machine: str = DEFAULT_MACHINE
    release: bool = False
    kconfig: tuple[Path, ...] = ()
    cc: str | None = None
    no_sandbox: bool = False

    def build_options(self) -> BuildOptions:
        """Return what builds are given; raises UsageError for a fragment that is not there."""
        from harness.builds import BuildOptions

        for path in self.kconfig:
            if not path.is_file():
                raise UsageError(f"there is no Kconfig fragment {path}")
        return BuildOptions(
            debug=not self.release,
            kconfig=tuple(path.absolute() for path in self.kconfig),
            cc=self.cc,
            sandbox=not self.no_sandbox,
        )

    def words(self) -> list[str]:
        """Return the options that say the same again, defaults left out."""
        words = ["--machine", self.machine] if self.machine != DEFAULT_MACHINE else []
        words += ["--release"] * self.release
        words += [word for path in self.kconfig for word in ("--kconfig", str(path))]
        words += ["--cc", self.cc] if self.cc else []
        return words + ["--no-sandbox"] * self.no_sandbox


def watching(paranoid: bool, no_tables: bool, no_lines: bool) -> tuple[str, ...]:
    """Return the options that say the same again; pytest takes them by the same names."""
    given = {"--paranoid": paranoid, "--no-tables": no_tables, "--no-lines": no_lines}
    return tuple(option for option, is_given in given.items() if is_given)


def cores(jobs: int) -> int:
    """Return how many cores to use."""
    return jobs or len(os.sched_getaffinity(0))


def read_stdin(changes: list[str]) -> bytes | None:
    """Return standard input if a change is `-`; raise UsageError if a person sits at it."""
    if "-" not in changes:
        return None
    if sys.stdin.isatty():
        raise UsageError("standard input is a terminal", advice="Pipe a patch into it.")
    return sys.stdin.buffer.read()


def keep_stdin(changes: list[str], data: bytes | None, folder: Path) -> list[str]:
    """Return the changes by names that still hold when this run is over; `-` becomes a file."""
    if data is None:
        return changes
    kept = folder / "stdin.patch"
    kept.write_bytes(data)
    return [relative(kept) if change == "-" else change for change in changes]


def relative(path: Path) -> str:
    """Return a path as a person in this directory would write it."""
    try:
        return f"./{path.relative_to(Path.cwd())}"
    except ValueError:
        return str(path)


def repeating(renamed: dict[str, str] | None = None) -> str:
    """Return the command that was given, to be given again: another --output, `-` by its name."""
    words, given = ["xenverify"], iter(sys.argv[1:])
    for word in given:
        if word in ("--output", "-o"):
            next(given, None)
        elif not word.startswith("--output="):
            words.append((renamed or {}).get(word, word))
    return shlex.join(words)
