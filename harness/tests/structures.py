"""Debug information in, the layout of C structures out; for tests that compare it with ours."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Any

from elftools.elf.elffile import ELFFile


@dataclass(frozen=True)
class Layout:
    """Size of a structure, and where its members begin; nested ones as "outer.inner"."""

    size: int
    offsets: dict[str, int]


def layouts(file: ELFFile, wanted: Set[str]) -> dict[str, Layout]:
    """The structures of these names, as the first compilation unit that has one describes it."""
    found: dict[str, Layout] = {}
    for unit in file.get_dwarf_info().iter_CUs():
        for entry in unit.get_top_DIE().iter_children():
            name = _name(entry)
            complete = "DW_AT_byte_size" in entry.attributes
            if entry.tag == "DW_TAG_structure_type" and complete and name in wanted - found.keys():
                size = entry.attributes["DW_AT_byte_size"].value
                found[name] = Layout(size, dict(_members(entry, 0)))
        if found.keys() == wanted:
            break
    return found


def _members(structure: Any, base: int) -> Iterator[tuple[str, int]]:
    for member in structure.iter_children():
        if member.tag != "DW_TAG_member":
            continue
        offset = base + _number(member, "DW_AT_data_member_location")
        name, kind = _name(member), _stripped(member)
        if name:
            yield name, offset
        if kind is not None:
            inner = f"{name}." if name else ""
            yield from ((inner + nested, at) for nested, at in _members(kind, offset))


def _stripped(member: Any) -> Any:
    """The structure or union a member is, below its typedefs; None if it is neither."""
    kind = member.get_DIE_from_attribute("DW_AT_type")
    while kind.tag in ("DW_TAG_typedef", "DW_TAG_const_type", "DW_TAG_volatile_type"):
        if "DW_AT_type" not in kind.attributes:
            return None
        kind = kind.get_DIE_from_attribute("DW_AT_type")
    return kind if kind.tag in ("DW_TAG_structure_type", "DW_TAG_union_type") else None


def _name(entry: Any) -> str:
    attribute = entry.attributes.get("DW_AT_name")
    return attribute.value.decode() if attribute else ""


def _number(entry: Any, attribute: str) -> int:
    found = entry.attributes.get(attribute)
    return int(found.value) if found else 0
