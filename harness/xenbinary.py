"""xen-syms in, its build-id and the fingerprint of what it loads out.

Comes in: the path of an ELF file. Goes out: two hex strings. Refuses to know: how it was built.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import NoteSection

BUILD_ID = ".note.gnu.build-id"


@dataclass(frozen=True)
class Identification:
    """What tells one built Xen from another."""

    build_id: str  # hex; of the whole file, debug information included
    fingerprint: str  # hex SHA-256 of every loaded section, the build-id's left out


class NotXenError(Exception):
    """The file is no ELF file with a build-id and DWARF; the message says what is missing."""


def identify(syms: Path) -> Identification:
    """Return build-id and fingerprint of `syms`; raises NotXenError if it is not what it should be.

    Equal fingerprints mean equal code and data: no test can tell the two apart, whatever lines and
    comments moved in their sources.
    """
    digest = hashlib.sha256()
    build_id = ""
    try:
        with syms.open("rb") as file:
            elf = ELFFile(file)
            for section in elf.iter_sections():
                if isinstance(section, NoteSection) and section.name == BUILD_ID:
                    build_id = next(section.iter_notes())["n_desc"]
                elif section["sh_flags"] & SH_FLAGS.SHF_ALLOC:
                    place = f"{section.name} {section['sh_addr']:#x} {section['sh_size']:#x}\n"
                    digest.update(place.encode())
                    if section["sh_type"] != "SHT_NOBITS":
                        digest.update(section.data())
            has_dwarf = elf.get_section_by_name(".debug_info") is not None
    except (ELFError, StopIteration) as error:
        raise NotXenError(f"it is no whole ELF file: {error}") from None
    if not build_id:
        raise NotXenError("it has no build-id")
    if not has_dwarf:
        raise NotXenError("it has no debug information")
    return Identification(build_id, digest.hexdigest())
