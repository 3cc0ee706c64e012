"""Addresses and xen-syms in, functions, files and lines out, inlined calls included.

One run of addr2line for all addresses; pyelftools' line table would miss the call sites of inlined
functions. Paths come out as Xen names them in a patch: xen/common/page_alloc.c. What the addresses
mean to whoever asks, this does not know.
"""

from __future__ import annotations

import posixpath
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from harness.errors import HarnessError
from harness.programs import require

# From the directory Xen was built in, whatever it was called, to the one that a patch names.
IN_XEN = re.compile(r"^.*?/xen/(?=(?:arch|common|crypto|drivers|include|lib|test|tools|xsm)/)")
UNKNOWN = "??"


class Location(NamedTuple):
    """One place in the source; `line` is 0 where only the file is known."""

    function: str
    file: str
    line: int

    def __str__(self) -> str:
        """Return function, file and line as one would point to them."""
        return f"{self.function} at {self.file}:{self.line}"


def locate(syms: Path, addresses: Iterable[int]) -> dict[int, tuple[Location, ...]]:
    """Return for each address its places, innermost inlined call first; () where none is known."""
    wanted = sorted(set(addresses))
    command = [str(require("aarch64-linux-gnu-addr2line")), "-e", str(syms), "-a", "-f", "-i"]
    done = subprocess.run(
        command,
        input="\n".join(f"{address:#x}" for address in wanted),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or (wanted and not done.stdout):
        raise HarnessError(
            f"addr2line cannot read {syms}", evidence=done.stderr.strip().splitlines()[-3:]
        )
    found: dict[int, list[Location]] = {}
    places: list[Location] = []
    function = ""
    for line in done.stdout.splitlines():
        if line.startswith("0x") and not function:
            places = found.setdefault(int(line, 16), [])
        elif not function:
            function = line
        else:
            file, _, number = line.partition(" (discriminator")[0].rpartition(":")
            if function != UNKNOWN or file != UNKNOWN:
                places.append(
                    Location(function, in_xen(file), int(number) if number.isdigit() else 0)
                )
            function = ""
    return {address: tuple(found.get(address, ())) for address in wanted}


def in_xen(path: str) -> str:
    """Return a source path from the top of Xen's tree: xen/common/page_alloc.c."""
    return IN_XEN.sub("xen/", posixpath.normpath(path), count=1)
