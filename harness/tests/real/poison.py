"""A real Xen with an instruction or two of it exchanged: it dies, hangs or ends where we want.

This takes no build: the raw image is xen-syms from its first loaded address on.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from harness.builds import Build
from harness.tests.real.kernels import branch


@dataclass(frozen=True)
class PoisonedXen:
    """What a host needs of a build."""

    xen: Path
    build_id: str
    version: str


def poisoned(build: Build, directory: Path, function: str, *instructions: int) -> PoisonedXen:
    """`build` with `function` beginning with `instructions`."""
    image = bytearray(build.xen.read_bytes())
    at = _offset(build.syms, function)
    image[at : at + 4 * len(instructions)] = struct.pack(f"<{len(instructions)}I", *instructions)
    return _written(build, directory, image)


def diverted(build: Build, directory: Path, function: str, target: str) -> PoisonedXen:
    """`build` with `function` going to `target` instead."""
    distance = _offset(build.syms, target) - _offset(build.syms, function)
    return poisoned(build, directory, function, branch(distance))


def _written(build: Build, directory: Path, image: bytearray) -> PoisonedXen:
    path = directory / "poisoned-xen"
    path.write_bytes(image)
    return PoisonedXen(path, build.build_id, build.tree.version)


def _offset(syms: Path, function: str) -> int:
    return _offsets(syms)[function]


@functools.cache
def _offsets(syms: Path) -> dict[str, int]:
    with syms.open("rb") as file:
        elf = ELFFile(file)
        table = elf.get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        start = min(s["p_vaddr"] for s in elf.iter_segments() if s["p_type"] == "PT_LOAD")
        return {symbol.name: symbol["st_value"] - start for symbol in table.iter_symbols()}
