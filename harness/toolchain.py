"""An architecture, a compiler and a Xen's version in, the words that make needs out.

Comes in: the names. Goes out: `Toolchain`, and the flags that make an old Xen build with a new gcc.
Refuses to know: where and how make runs.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError, UsageError
from harness.programs import require

# Architecture: prefix of Debian's cross compiler, and Xen's own configuration to begin with.
ARCHES = {"arm64": ("aarch64-linux-gnu-", Path("xen/arch/arm/configs/arm64_defconfig"))}
# What else the build of the hypervisor runs; flex and bison make its kconfig.
HOST_PROGRAMS = ("make", "gcc", "flex", "bison", "python3")


@dataclass(frozen=True)
class Flags:
    """What a compiler newer than the tree needs to build it."""

    before: tuple[int, int]  # for Xen older than this
    words: tuple[str, ...]
    reason: str


FLAGS = (
    Flags(
        (4, 13),
        ("-Wno-error",),
        "gcc 9 and later warn about addresses of packed members, and more",
    ),
    Flags(
        (4, 15),
        ("-mno-outline-atomics",),
        "gcc 10 calls libgcc for atomics; Xen's arch.mk has this itself from 4.14.6 and 4.15 on",
    ),
)


@dataclass(frozen=True)
class Toolchain:
    """One cross compiler, with what else decides what it makes."""

    arch: str
    prefix: str  # CROSS_COMPILE
    compiler: Path
    description: str  # the first lines of --version of compiler and linker

    @property
    def defconfig(self) -> Path:
        """Return the path in the tree of Xen's own configuration for the architecture."""
        return ARCHES[self.arch][1]

    @property
    def homes(self) -> tuple[Path, ...]:
        """Return the directories that hold a compiler which is not the system's."""
        places = {self.compiler.parent, self.compiler.resolve().parent}
        homes = {
            place.parent if place.name == "bin" and place.parent != Path.home() else place
            for place in places
        }
        return tuple(sorted(home for home in homes if not home.is_relative_to("/usr")))


def find_toolchain(arch: str, cc: str | None) -> Toolchain:
    """Return the toolchain to build for `arch`; `cc` names another gcc than Debian's."""
    if arch not in ARCHES:
        raise UsageError(f"Xen is not built for {arch} here", advice=f"Use {' or '.join(ARCHES)}.")
    prefix = ARCHES[arch][0]
    if cc is None:
        compiler = require(f"{prefix}gcc")
    else:
        found = shutil.which(Path(cc).expanduser())
        if found is None:
            raise UsageError(
                f"there is no compiler {cc}",
                advice=f"Name a cross gcc for {arch}, in PATH or by its path.",
            )
        compiler = Path(found).absolute()
        prefix = _binutils_prefix(compiler) or prefix
    _refuse_wrong_target(compiler, arch)
    description = ", ".join(_first_line(program) for program in (str(compiler), f"{prefix}ld"))
    return Toolchain(arch, prefix, compiler, description)


def extra_flags(release: tuple[int, int]) -> list[str]:
    """Return the compiler flags that a Xen of this release needs."""
    return [word for flags in FLAGS if release < flags.before for word in flags.words]


def _binutils_prefix(compiler: Path) -> str | None:
    """Return the CROSS_COMPILE of a compiler that has its own binutils beside it."""
    named = re.fullmatch(r"(.*-)gcc(?:-[\d.]+)?", compiler.name)
    if named and (compiler.parent / f"{named[1]}ld").exists():
        return f"{compiler.parent}/{named[1]}"
    return None


def _refuse_wrong_target(compiler: Path, arch: str) -> None:
    """Raise UsageError for a compiler that makes code for another machine, or is no gcc."""
    try:
        machine = _output(str(compiler), "-dumpmachine")
    except HarnessError:
        raise UsageError(f"{compiler} is no compiler that says what it makes code for") from None
    if not machine.startswith(ARCHES[arch][0].split("-")[0]):
        raise UsageError(
            f"the compiler {compiler} makes code for {machine or 'no machine it names'}",
            advice=f"Name a cross gcc for {arch}.",
        )


def _first_line(program: str) -> str:
    return (_output(program, "--version").splitlines() or [program])[0]


def _output(*command: str) -> str:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise HarnessError(f"{command[0]} does not run: {error}") from None
    return done.stdout.strip()
