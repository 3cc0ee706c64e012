"""A Xen's version and the user's wishes in, the words for make out.

Comes in: architecture, compiler, version of the tree. Goes out: make variables, and a line that
says which compiler that is. Refuses to know: where and how make runs.
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
ARCHES = {"arm64": ("aarch64-linux-gnu-", "arm64_defconfig")}


@dataclass(frozen=True)
class Flags:
    """What a compiler newer than the tree needs to build it."""

    before: tuple[int, int]  # for Xen older than this
    words: tuple[str, ...]
    reason: str


FLAGS = (
    Flags(
        (4, 15),
        ("-mno-outline-atomics",),
        "gcc 10 calls helpers of libgcc for atomics; Xen 4.15 turned that off itself",
    ),
)


@dataclass(frozen=True)
class Toolchain:
    """One cross compiler, with what else decides what it makes."""

    arch: str
    prefix: str  # CROSS_COMPILE
    compiler: Path
    description: str  # "gcc 12.2.0 (Debian 12.2.0-14)", and the linker's likewise

    @property
    def defconfig(self) -> str:
        """Return the file name of Xen's own configuration for the architecture."""
        return ARCHES[self.arch][1]


def find_toolchain(arch: str, cc: str | None) -> Toolchain:
    """Return the toolchain to build for `arch`; `cc` names another gcc than Debian's."""
    if arch not in ARCHES:
        raise UsageError(
            f"no build for the architecture {arch}", advice=f"Use {', '.join(ARCHES)}."
        )
    prefix = ARCHES[arch][0]
    if cc is None:
        compiler = require(f"{prefix}gcc")
    else:
        found = shutil.which(Path(cc).expanduser())
        if found is None:
            raise UsageError(f"there is no compiler {cc}")
        compiler = Path(found)
        if named := re.fullmatch(r"(.*-)gcc(-[\d.]+)?", compiler.name):
            prefix = named[1]
        if (compiler.parent / f"{prefix}ld").exists():
            prefix = f"{compiler.parent}/{prefix}"
    lines = [_first_line(str(compiler)), _first_line(f"{prefix}ld")]
    return Toolchain(arch, prefix, compiler, ", ".join(lines))


def extra_flags(release: tuple[int, int]) -> list[str]:
    """Return the compiler flags that a Xen of this release needs."""
    return [word for flags in FLAGS if release < flags.before for word in flags.words]


def _first_line(program: str) -> str:
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise HarnessError(f"{program} does not run: {error}") from None
    return done.stdout.splitlines()[0]
