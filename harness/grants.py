"""GNTTABOP_* as calls, and the grant table a case finds at `domain.grant_table`.

Comes in: a domain and numbers. Goes out: frames, versions, handles; a status other than okay is
raised as GrantError. Which frame is mapped where, this does not remember: that is Xen's business.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from harness import xenabi
from harness.hypercalls import Buffer, Call, GrantError, Reply, Touches, words
from harness.xenabi import DOMID_SELF, GrantOp, Hypercall, Structure, domid_text

if TYPE_CHECKING:
    from harness.domain import Domain

T = TypeVar("T")
Members = dict[str, int]


def grant_call(
    operation: GrantOp,
    layout: Structure,
    shown: str,
    read: Callable[[Members, Reply], T],
    pointers: tuple[tuple[int, Buffer], ...] = (),
    touches: Touches | None = (),
    **values: int,
) -> Call[T]:
    """A grant table hypercall with one structure; `read` gets its members afterwards."""
    text = f"GNTTABOP_{operation.name}({shown})"
    buffer = Buffer(layout.pack(**values), pointers)

    def answer(_: int, reply: Reply) -> T:
        members = layout.unpack(reply(buffer))
        if members.get("status", 0):
            raise GrantError(members["status"], text)
        return read(members, reply)

    return Call(text, Hypercall.grant_table_op, (operation, buffer, 1), answer, touches)


def setup_call(frames: int = 1, *, domid: int = DOMID_SELF) -> Call[list[int]]:
    """GNTTABOP_setup_table: grow to `frames`; the GFN of each, INVALID_GFN where unmapped."""
    listed = words([0] * frames)
    layout = xenabi.SETUP_TABLE
    return grant_call(
        GrantOp.setup_table,
        layout,
        f"frames={frames}" + ("" if domid == DOMID_SELF else f", domid={domid_text(domid)}"),
        lambda _, reply: list(struct.unpack(f"<{frames}Q", reply(listed))),
        ((layout.offset("frame_list"), listed),),
        dom=domid,
        nr_frames=frames,
    )


def size_call(domid: int = DOMID_SELF) -> Call[tuple[int, int]]:
    """GNTTABOP_query_size: frames now, and at most."""
    return grant_call(
        GrantOp.query_size,
        xenabi.QUERY_SIZE,
        domid_text(domid),
        lambda members, _: (members["nr_frames"], members["max_nr_frames"]),
        dom=domid,
    )


def version_call(domid: int = DOMID_SELF) -> Call[int]:
    """GNTTABOP_get_version."""
    return grant_call(
        GrantOp.get_version,
        xenabi.GET_VERSION,
        domid_text(domid),
        lambda members, _: members["version"],
        dom=domid,
    )


def set_version_call(version: int) -> Call[int]:
    """GNTTABOP_set_version: the version that is in force afterwards."""
    return grant_call(
        GrantOp.set_version,
        xenabi.SET_VERSION,
        str(version),
        lambda members, _: members["version"],
        touches=None,  # going back to version 1 unmaps the status frames, wherever they are
        version=version,
    )


def status_frames_call(frames: int, *, domid: int = DOMID_SELF) -> Call[list[int]]:
    """GNTTABOP_get_status_frames: the GFN of each of the first `frames` status frames."""
    listed = words([0] * frames)
    layout = xenabi.GET_STATUS_FRAMES
    return grant_call(
        GrantOp.get_status_frames,
        layout,
        f"frames={frames}",
        lambda _, reply: list(struct.unpack(f"<{frames}Q", reply(listed))),
        ((layout.offset("frame_list"), listed),),
        nr_frames=frames,
        dom=domid,
    )


def map_call(gfn: int, ref: int, domid: int, *, readonly: bool = False) -> Call[int]:
    """GNTTABOP_map_grant_ref: show what `domid` granted as `ref` at `gfn`; the handle."""
    flags = xenabi.GNTMAP_HOST_MAP | (xenabi.GNTMAP_READONLY if readonly else 0)
    return grant_call(
        GrantOp.map_grant_ref,
        xenabi.MAP_GRANT_REF,
        f"gfn={gfn:#x}, ref={ref}, domid={domid_text(domid)}{', readonly' if readonly else ''}",
        lambda members, _: members["handle"],
        touches=((DOMID_SELF, gfn, 1),),
        host_addr=gfn << xenabi.PAGE_SHIFT,
        flags=flags,
        ref=ref,
        dom=domid,
    )


def unmap_call(gfn: int, handle: int) -> Call[None]:
    """GNTTABOP_unmap_grant_ref: end the mapping `handle`, which is said to be at `gfn`."""
    return grant_call(
        GrantOp.unmap_grant_ref,
        xenabi.UNMAP_GRANT_REF,
        f"gfn={gfn:#x}, handle={handle}",
        lambda *_: None,
        touches=((DOMID_SELF, gfn, 1),),
        host_addr=gfn << xenabi.PAGE_SHIFT,
        handle=handle,
    )


def swap_call(one: int, other: int) -> Call[None]:
    """GNTTABOP_swap_grant_ref: exchange two entries of the own table."""
    return grant_call(
        GrantOp.swap_grant_ref,
        xenabi.SWAP_GRANT_REF,
        f"{one}, {other}",
        lambda *_: None,
        ref_a=one,
        ref_b=other,
    )


@dataclass(frozen=True)
class End:
    """One end of a grant copy: a grant reference of `domid`'s, or a GFN of one's own."""

    ref: int | None = None
    gfn: int = 0
    domid: int = DOMID_SELF
    offset: int = 0


def copy_call(source: End, dest: End, length: int) -> Call[None]:
    """GNTTABOP_copy: `length` bytes within a page."""
    flags = (xenabi.GNTCOPY_SOURCE_GREF if source.ref is not None else 0) | (
        xenabi.GNTCOPY_DEST_GREF if dest.ref is not None else 0
    )
    return grant_call(
        GrantOp.copy,
        xenabi.GRANT_COPY,
        f"{source}, {dest}, {length}",
        lambda *_: None,
        source=source.gfn if source.ref is None else source.ref,
        source_domid=source.domid,
        source_offset=source.offset,
        dest=dest.gfn if dest.ref is None else dest.ref,
        dest_domid=dest.domid,
        dest_offset=dest.offset,
        len=length,
        flags=flags,
    )


class GrantTable:
    """The grant table of one domain."""

    def __init__(self, domain: Domain) -> None:
        self._do = domain.do
        self._store = domain.store

    def setup(self, frames: int = 1, *, domid: int = DOMID_SELF) -> list[int]:
        """Grow the table to `frames`; the GFN Xen has for each, INVALID_GFN where there is none."""
        return self._do(setup_call(frames, domid=domid))

    def query_size(self, domid: int = DOMID_SELF) -> tuple[int, int]:
        """Frames now, and at most."""
        return self._do(size_call(domid))

    def get_version(self, domid: int = DOMID_SELF) -> int:
        """1 or 2."""
        return self._do(version_call(domid))

    def set_version(self, version: int) -> int:
        """Ask for a version; the one that is in force afterwards."""
        return self._do(set_version_call(version))

    def get_status_frames(self, frames: int, *, domid: int = DOMID_SELF) -> list[int]:
        """The GFN of each status frame (version 2)."""
        return self._do(status_frames_call(frames, domid=domid))

    def grant(
        self, table_gfn: int, ref: int, gfn: int, domid: int, *, readonly: bool = False
    ) -> None:
        """Let `domid` use our page `gfn` as `ref`: written into the frame mapped at `table_gfn`."""
        flags = xenabi.GTF_PERMIT_ACCESS | (xenabi.GTF_READONLY if readonly else 0)
        entry = xenabi.GRANT_ENTRY_V1.pack(0, domid, gfn)
        at = (table_gfn << xenabi.PAGE_SHIFT) + ref % 512 * len(entry)
        self._store(at, int.from_bytes(entry, "little"))
        self._store(at, flags, 2)  # the flags last, as the protocol has it

    def map_grant_ref(self, gfn: int, ref: int, domid: int, *, readonly: bool = False) -> int:
        """Show a page `domid` granted us at `gfn`; the handle."""
        return self._do(map_call(gfn, ref, domid, readonly=readonly))

    def unmap_grant_ref(self, gfn: int, handle: int) -> None:
        """End a mapping."""
        self._do(unmap_call(gfn, handle))

    def copy(self, source: End, dest: End, length: int) -> None:
        """Let Xen copy within a page of each end."""
        self._do(copy_call(source, dest, length))

    def swap(self, one: int, other: int) -> None:
        """Exchange two entries."""
        self._do(swap_call(one, other))
