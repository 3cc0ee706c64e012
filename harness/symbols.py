"""Addresses and xen-syms in, functions, files and lines out, inlined calls included.

One run of addr2line for all addresses; pyelftools' line table would miss the call sites of inlined
functions. Paths come out as Xen names them in a patch: xen/common/page_alloc.c. What the addresses
mean to whoever asks, this does not know.
"""

from __future__ import annotations

import posixpath
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
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
    found = dict(trace(syms, wanted))
    return {address: tuple(found.get(address, ())) for address in wanted}


def trace(syms: Path, addresses: Sequence[int]) -> Iterator[tuple[int, list[Location]]]:
    """Yield each address with its places as addr2line comes to it; 7 us an address."""
    command = [str(require("aarch64-linux-gnu-addr2line")), "-e", str(syms), "-a", "-f", "-i"]
    done = subprocess.run(
        command,
        input="\n".join(f"{address:#x}" for address in addresses),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or (addresses and not done.stdout):
        raise HarnessError(
            f"addr2line cannot read {syms}", evidence=done.stderr.strip().splitlines()[-3:]
        )
    lines = iter(done.stdout.splitlines())
    address = 0
    places: list[Location] = []
    known: dict[tuple[str, str], Location | None] = {}
    for line in lines:
        if line.startswith("0x"):
            if places:
                yield address, places
            address, places = int(line, 16), []
            continue
        pair = line, next(lines, "")
        if pair not in known:
            known[pair] = _location(*pair)
        place = known[pair]
        if place is not None:
            places.append(place)
    if places:
        yield address, places


def _location(function: str, where: str) -> Location | None:
    """Read addr2line's two lines for one place; None for "??", which is its "unknown"."""
    file, _, number = where.partition(" (discriminator")[0].rpartition(":")
    if function == UNKNOWN and file == UNKNOWN:
        return None
    return Location(function, in_xen(file), int(number) if number.isdigit() else 0)


def in_xen(path: str) -> str:
    """Return a source path from the top of Xen's tree: xen/common/page_alloc.c."""
    return IN_XEN.sub("xen/", posixpath.normpath(path), count=1)
