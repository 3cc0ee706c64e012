"""xen-syms in, a Layout out: where this build keeps what the inspector reads.

drgn reads the debug information once for each build; the answer is kept as JSON in the cache under
the build-id. What is not in a build (a field that came or went with a version) is absent from the
layout, and absence is how the rest of the inspector tells versions apart: nothing here, and nothing
that reads it, looks at a version number. Knows nothing of any running Xen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from harness.inspection.errors import CannotInspect

#: Part of the cache key: a layout written by an older harness is not read by a newer one.
LAYOUT_VERSION = 1

NOTE_SECTION = ".note.gnu.build-id"

#: Name here: (C type, members that may hold it, newest first).  The names are stable from 4.14 to
#: master but for those with a remark; the offsets move often.
MEMBERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "domain.id": ("struct domain", ("domain_id",)),
    "domain.next": ("struct domain", ("next_in_list",)),
    "domain.dying": ("struct domain", ("is_dying",)),
    "domain.shared_info": ("struct domain", ("shared_info",)),
    "domain.grant_table": ("struct domain", ("grant_table",)),
    "domain.tot_pages": ("struct domain", ("tot_pages",)),
    "domain.max_pages": ("struct domain", ("max_pages",)),
    # 4.14 on: pages that are the domain's but not of its RAM (c793d13944).
    "domain.extra_pages": ("struct domain", ("extra_pages",)),
    "domain.xenheap_pages": ("struct domain", ("xenheap_pages",)),
    "domain.max_vcpus": ("struct domain", ("max_vcpus",)),
    "domain.page_lock.head": ("struct domain", ("page_alloc_lock.tickets.head",)),
    "domain.page_lock.tail": ("struct domain", ("page_alloc_lock.tickets.tail",)),
    "domain.p2m_root": ("struct domain", ("arch.p2m.root",)),
    "domain.vttbr": ("struct domain", ("arch.p2m.vttbr",)),
    "domain.max_mapped_gfn": ("struct domain", ("arch.p2m.max_mapped_gfn",)),
    "domain.p2m_lock": ("struct domain", ("arch.p2m.lock.cnts.counter",)),
    # The P2M pool came with XSA-409 (4.17, and the stable branches of its day).
    "domain.pool_pages": ("struct domain", ("arch.paging.p2m_total_pages",)),
    "page.count": ("struct page_info", ("count_info",)),
    "page.type": ("struct page_info", ("u.inuse.type_info",)),
    "page.owner": ("struct page_info", ("v.inuse.domain",)),
    "grants.lock": ("struct grant_table", ("lock.rwlock.cnts.counter",)),
    "grants.version": ("struct grant_table", ("gt_version",)),
    "grants.frames": ("struct grant_table", ("nr_grant_frames",)),
    "grants.max_frames": ("struct grant_table", ("max_grant_frames",)),
    "grants.shared": ("struct grant_table", ("shared_raw",)),
    "grants.status_frames": ("struct grant_table", ("nr_status_frames",)),
    "grants.status": ("struct grant_table", ("status",)),
    # Gone with 71320946d5 "Store frame GFN in struct page_info on Arm": its absence says "after".
    "grants.shared_gfns": ("struct grant_table", ("arch.shared_gfn",)),
    "grants.status_gfns": ("struct grant_table", ("arch.status_gfn",)),
}

#: What no Xen the inspector can read does without.
NEEDED = frozenset(MEMBERS) - {
    "domain.extra_pages",
    "domain.pool_pages",
    "grants.shared_gfns",
    "grants.status_gfns",
    "grants.status_frames",
    "grants.status",
}

SYMBOLS = (
    "_etext",
    "_start",
    "_stext",
    "boot_pgtable",
    "dom_cow",
    "dom_io",
    "dom_xen",
    "domain_list",
    "p2m_ipa_bits",
    "p2m_root_level",
    "p2m_root_order",
    "pfn_pdx_bottom_mask",
    "pfn_pdx_hole_shift",
    "pfn_top_mask",
    "xen_pgtable",
)
NEEDED_SYMBOLS = frozenset({"domain_list", "p2m_root_level", "p2m_root_order"})

#: Fields of `lpae_p2m_t`, a stage 2 page-table entry.
ENTRY_FIELDS = ("read", "type", "write", "xn")


@dataclass(frozen=True)
class Layout:
    """One build's addresses, offsets (bytes) and enumerations."""

    build_id: str
    note_address: int  # virtual address of the build-id note
    symbols: dict[str, int]
    offsets: dict[str, int]
    sizes: dict[str, int]  # bytes, by the names of `offsets`, and "page" for struct page_info
    p2m_types: dict[int, str]  # without the leading p2m_
    entry_fields: dict[str, tuple[int, int]]  # (first bit, width)

    @property
    def gfn_in_page_info(self) -> bool:
        """Whether a xenheap page's GFN is in its type_info (71320946d5 on) or in an array."""
        return "grants.shared_gfns" not in self.offsets


class EntryStore(Protocol):
    """The part of harness.cache.Cache used here."""

    def entry(self, kind: str, key: str, make: Callable[[Path], None]) -> Path:
        """Return the directory kind/key, made by `make` the first time."""
        ...


class Facts(NamedTuple):
    """What proves that a Xen is the one that `xen-syms` describes."""

    build_id: str  # hexadecimal
    note_address: int  # virtual
    note: bytes
    loaded: tuple[int, int]  # virtual addresses, from the first to behind the last


def facts_of(syms: Path) -> Facts:
    """Return what xen-syms says of itself; CannotInspect where it says too little."""
    try:
        now = syms.stat()
    except OSError:
        raise CannotInspect(f"there is no {syms}, so Xen's tables cannot be read") from None
    return _read_facts(syms, now.st_mtime_ns, now.st_size)


@lru_cache(maxsize=16)
def _read_facts(syms: Path, written: int, size: int) -> Facts:
    """Read a file as it was `written`: 6 ms, and asked for by every host of a suite."""
    del written, size
    try:
        with syms.open("rb") as stream:
            elf = ELFFile(stream)
            note = elf.get_section_by_name(NOTE_SECTION)
            loads = [s for s in elf.iter_segments() if s["p_type"] == "PT_LOAD"]
            has_debug = elf.get_section_by_name(".debug_info") is not None
            machine = elf["e_machine"]
            data = note.data() if note is not None else b""
            address = note["sh_addr"] if note is not None else 0
    except (ELFError, OSError) as error:
        raise CannotInspect(f"{syms} cannot be read as an ELF file: {error}") from error
    if machine != "EM_AARCH64":
        raise CannotInspect(f"{syms} is of {machine}; the inspector reads arm64 Xen only")
    if note is None or not loads:
        raise CannotInspect(
            f"{syms} carries no build-id, so it cannot be proven to be the Xen that runs",
            advice="Build Xen with a linker that knows --build-id.",
        )
    if not has_debug:
        raise CannotInspect(
            f"{syms} carries no debug information, so the layout of Xen's tables is unknown",
            advice="Build it with CONFIG_DEBUG_INFO=y (up to 4.17: EXTRA_CFLAGS_XEN_CORE=-g).",
        )
    low = min(s["p_vaddr"] for s in loads)
    high = max(s["p_vaddr"] + s["p_memsz"] for s in loads)
    return Facts(data[16:].hex(), address, data, (low, high))


def load_layout(syms: Path, store: EntryStore | None = None) -> Layout:
    """Return the layout of `syms`, from `store` where this build was read before."""
    build_id = facts_of(syms).build_id
    if store is None:
        return read_layout(syms)

    def make(directory: Path) -> None:
        text = json.dumps(asdict(read_layout(syms)), indent=1, sort_keys=True)
        (directory / "layout.json").write_text(text)

    entry = store.entry("layouts", f"{build_id}-{LAYOUT_VERSION}", make)
    return from_json((entry / "layout.json").read_text())


def from_json(text: str) -> Layout:
    """Undo `json.dumps(asdict(layout))`, which turned integer keys and tuples into JSON's own."""
    fields = json.loads(text)
    fields["p2m_types"] = {int(value): name for value, name in fields["p2m_types"].items()}
    fields["entry_fields"] = {n: (b, w) for n, (b, w) in fields["entry_fields"].items()}
    return Layout(**fields)


def read_layout(syms: Path) -> Layout:
    """Read the layout with drgn; 0.1 to 0.5 s."""
    facts = facts_of(syms)
    program = open_program(syms)
    offsets: dict[str, int] = {}
    sizes: dict[str, int] = {"page": _struct(program, "struct page_info").size}
    for name, (owner, paths) in MEMBERS.items():
        for path in paths:
            found = _find_member(_struct(program, owner), path.split("."))
            if found is not None:
                offsets[name], sizes[name] = found
                break
    symbols: dict[str, int] = {}
    for name in SYMBOLS:
        try:
            symbols[name] = program.symbol(name).address
        except LookupError:
            continue
    missing = sorted((NEEDED - offsets.keys()) | (NEEDED_SYMBOLS - symbols.keys()))
    if missing or not {"xen_pgtable", "boot_pgtable"} & symbols.keys():
        raise CannotInspect(
            f"{syms} is of a Xen whose tables the inspector cannot read",
            evidence=[
                "not found in its debug information: " + ", ".join(missing or ["xen_pgtable"])
            ],
        )
    entry = {member.name: member for member in _struct(program, "lpae_p2m_t").type.members}
    return Layout(
        build_id=facts.build_id,
        note_address=facts.note_address,
        symbols=symbols,
        offsets=offsets,
        sizes=sizes,
        p2m_types={
            item.value: item.name.removeprefix("p2m_")
            for item in _struct(program, "p2m_type_t").type.enumerators
        },
        entry_fields={n: (entry[n].bit_offset, entry[n].bit_field_size) for n in ENTRY_FIELDS},
    )


def open_program(syms: Path) -> Any:
    """Return a drgn Program that knows the symbols and types of `syms`, and has no memory yet."""
    loaded = facts_of(syms).loaded
    try:
        import drgn
    except ImportError as error:
        raise CannotInspect(
            f"drgn does not load on this Python: {error}",
            advice="Run ci/setup; drgn has wheels for CPython 3.8 and later on Linux.",
        ) from error
    flags = drgn.PlatformFlags.IS_64_BIT | drgn.PlatformFlags.IS_LITTLE_ENDIAN
    program = drgn.Program(drgn.Platform(drgn.Architecture.AARCH64, flags))
    module = program.extra_module("xen-syms", create=True)
    module.address_range = loaded
    module.try_file(str(syms), force=True)
    return program


def _struct(program: Any, name: str) -> Any:
    try:
        return program.type(name)
    except LookupError as error:
        raise CannotInspect(f"Xen's debug information does not describe {name}") from error


def _find_member(kind: Any, path: Iterable[str]) -> tuple[int, int] | None:
    """Follow dotted `path` from type `kind`: (offset, size) in bytes, or None where it ends."""
    offset = 0
    for name in path:
        while hasattr(kind, "type") and not _has_members(kind):
            kind = kind.type  # typedefs and qualifiers
        if not _has_members(kind) or not kind.has_member(name):
            return None
        member = kind.member(name)
        offset += member.offset
        kind = member.type
    return offset, _size(kind)


def _has_members(kind: Any) -> bool:
    try:
        return kind.members is not None
    except AttributeError:
        return False


def _size(kind: Any) -> int:
    import drgn

    return int(drgn.sizeof(kind))
