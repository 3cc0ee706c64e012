"""XENMEM_* as calls: what a domain may ask Xen about its own physmap, or another's.

Comes in: spaces, indices, GFNs, domids. Goes out: `Call` values for a domain to make. Numbers that
make no sense pass as they are: whether Xen refuses them is what cases ask.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from harness import xenabi
from harness.hypercalls import Buffer, Call, Reply, Touches, as_is, words
from harness.xenabi import DOMID_SELF, Hypercall, MapSpace, MemoryOp, domid_text

UNTOUCHED = 0x7FFF
"""What no error of Xen's is: the entry of a batch that Xen did not write."""


def _domid(domid: int) -> str:
    return "" if domid == DOMID_SELF else f", domid={domid_text(domid)}"


def _gfns(gfns: Sequence[int]) -> str:
    shown = ", ".join(f"{gfn:#x}" for gfn in gfns[:4])
    return f"[{shown}{', …' if len(gfns) > 4 else ''}]"


def _space(space: int) -> str:
    """ "shared_info" for 0, or the number of a space that does not exist."""
    return MapSpace(space).name if space in list(MapSpace) else str(space)


def memory_op(
    operation: int, text: str, argument: Buffer | int, touches: Touches | None = None
) -> Call[int]:
    """XENMEM_* with one argument, given as it lies in memory or as an address."""
    return Call(f"XENMEM_{text}", Hypercall.memory_op, (operation, argument), as_is, touches)


def _pages(gfns: Sequence[int], domid: int, pages: int = 1) -> Touches:
    return tuple((domid, gfn, pages) for gfn in gfns)


def add_to_physmap(
    space: int, *, gfn: int, idx: int = 0, size: int = 0, domid: int = DOMID_SELF
) -> Call[int]:
    """Map page `idx` of `space` at `gfn`; `size` only counts for the space gmfn_range."""
    data = xenabi.ADD_TO_PHYSMAP.pack(domid=domid, size=size, space=space, idx=idx, gpfn=gfn)
    text = f"add_to_physmap(space={_space(space)}, idx={_index(idx)}, gfn={gfn:#x}"
    text += (f", size={size}" if size else "") + _domid(domid) + ")"
    return memory_op(
        MemoryOp.add_to_physmap, text, Buffer(data), _pages([gfn], domid, max(1, size))
    )


def _index(idx: int) -> str:
    return str(idx) if idx < 1024 else f"{idx:#x}"


def remove_from_physmap(gfn: int, *, domid: int = DOMID_SELF) -> Call[int]:
    """Take away what is at `gfn`."""
    data = xenabi.REMOVE_FROM_PHYSMAP.pack(domid=domid, gpfn=gfn)
    text = f"remove_from_physmap(gfn={gfn:#x}{_domid(domid)})"
    return memory_op(MemoryOp.remove_from_physmap, text, Buffer(data), _pages([gfn], domid))


def add_to_physmap_batch(
    space: int,
    entries: Sequence[tuple[int, int]],
    *,
    foreign_domid: int = 0,
    domid: int = DOMID_SELF,
) -> Call[list[int]]:
    """Map pages of `space`: (idx, gfn) each. Gives an error for each entry: 0, or as -16.

    An entry Xen did not come to keeps UNTOUCHED.
    """
    errors = Buffer(struct.pack("<i", UNTOUCHED) * len(entries))
    data = xenabi.ADD_TO_PHYSMAP_BATCH.pack(
        domid=domid, space=space, size=len(entries), u=foreign_domid
    )
    where = xenabi.ADD_TO_PHYSMAP_BATCH.offset
    arrays = (
        (where("idxs"), words([idx for idx, _ in entries])),
        (where("gpfns"), words([gfn for _, gfn in entries])),
        (where("errs"), errors),
    )

    def read(_: int, reply: Reply) -> list[int]:
        return list(struct.unpack(f"<{len(entries)}i", reply(errors)))

    shown = ", ".join(f"({_index(idx)}, {gfn:#x})" for idx, gfn in entries[:4])
    shown += ", …" if len(entries) > 4 else ""
    foreign = f", foreign_domid={domid_text(foreign_domid)}" if foreign_domid else ""
    where_to = f"[{shown}]{foreign}{_domid(domid)}"
    return Call(
        f"XENMEM_add_to_physmap_batch(space={_space(space)}, {where_to})",
        Hypercall.memory_op,
        (MemoryOp.add_to_physmap_batch, Buffer(data, arrays)),
        read,
        _pages([gfn for _, gfn in entries], domid),
    )


def _reservation(gfns: Sequence[int], order: int, domid: int, flags: int = 0) -> Buffer:
    layout = xenabi.MEMORY_RESERVATION
    data = layout.pack(nr_extents=len(gfns), extent_order=order, mem_flags=flags, domid=domid)
    return Buffer(data, ((layout.offset("extent_start"), words(gfns)),))


def _on_extents(
    operation: MemoryOp, gfns: Sequence[int], order: int, domid: int, flags: int = 0
) -> Call[int]:
    text = f"{operation.name}({_gfns(gfns)}{f', order={order}' if order else ''}{_domid(domid)})"
    touches = _pages(gfns, domid, 1 << order)
    return memory_op(operation, text, _reservation(gfns, order, domid, flags), touches)


def populate_physmap(
    gfns: Sequence[int], order: int = 0, *, domid: int = DOMID_SELF, flags: int = 0
) -> Call[int]:
    """Put new RAM behind each GFN, 2**order pages; the value counts the extents that were done."""
    return _on_extents(MemoryOp.populate_physmap, gfns, order, domid, flags)


def decrease_reservation(
    gfns: Sequence[int], order: int = 0, *, domid: int = DOMID_SELF
) -> Call[int]:
    """Give RAM back; the value counts the extents that were done."""
    return _on_extents(MemoryOp.decrease_reservation, gfns, order, domid)


def increase_reservation(
    extents: int, order: int = 0, *, domid: int = DOMID_SELF
) -> Call[list[int]]:
    """Allocate RAM with nothing of the physmap behind it; gives what Xen wrote for each extent."""
    numbers = words([xenabi.INVALID_GFN] * extents)
    data = xenabi.MEMORY_RESERVATION.pack(nr_extents=extents, extent_order=order, domid=domid)
    where = xenabi.MEMORY_RESERVATION.offset("extent_start")
    text = f"{extents}{f', order={order}' if order else ''}{_domid(domid)}"
    return Call(
        f"XENMEM_increase_reservation({text})",
        Hypercall.memory_op,
        (MemoryOp.increase_reservation, Buffer(data, ((where, numbers),))),
        lambda value, reply: list(struct.unpack(f"<{extents}Q", reply(numbers)))[:value],
        (),
    )


def memory_exchange(
    given: Sequence[int], wanted: Sequence[int], *, domid: int = DOMID_SELF
) -> Call[int]:
    """XENMEM_exchange, single pages: Arm's Xen knows it, and refuses with EOPNOTSUPP."""
    inside, outside = _reservation(given, 0, domid), _reservation(wanted, 0, domid)
    size = xenabi.MEMORY_RESERVATION.size
    where = xenabi.MEMORY_RESERVATION.offset("extent_start")
    data = bytes(inside.data) + bytes(outside.data) + bytes(8)  # struct xen_memory_exchange
    pointers = ((where, inside.pointers[0][1]), (size + where, outside.pointers[0][1]))
    text = f"exchange({_gfns(given)}, {_gfns(wanted)}{_domid(domid)})"
    touches = _pages([*given, *wanted], domid)
    return memory_op(MemoryOp.exchange, text, Buffer(data, pointers), touches)


def about_domain(operation: MemoryOp, domid: int = DOMID_SELF) -> Call[int]:
    """current_reservation, maximum_reservation (pages), maximum_gpfn: a number about a domain."""
    text = f"{operation.name}({domid_text(domid)})"
    return memory_op(operation, text, Buffer(struct.pack("<H", domid)), ())


def acquire_resource(
    domid: int, resource: int, *, gfns: Sequence[int], identifier: int = 0, frame: int = 0
) -> Call[int]:
    """Map `domid`'s resource, from `frame` on, at the caller's `gfns`."""
    data = xenabi.ACQUIRE_RESOURCE.pack(
        domid=domid, type=resource, id=identifier, nr_frames=len(gfns), frame=frame
    )
    where = xenabi.ACQUIRE_RESOURCE.offset("frame_list")
    text = f"acquire_resource({domid_text(domid)}, type={resource}, id={identifier}, {_gfns(gfns)})"
    buffer = Buffer(data, ((where, words(gfns)),))
    return memory_op(MemoryOp.acquire_resource, text, buffer, _pages(gfns, DOMID_SELF))
