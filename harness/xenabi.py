"""Xen's public interface as plain numbers and layouts of arm64; knows nothing of any domain.

Comes in: nothing. Goes out: hypercall and operation numbers, domids, flags, names of errors, and
structures that pack into bytes. Each number is a fact of the header beside it, which lies under
xen/include/public; a test compares the structures with the debug information of a built Xen.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT


class Hypercall(IntEnum):
    """xen.h: __HYPERVISOR_*, those Arm has."""

    memory_op = 12
    multicall = 13
    xen_version = 17
    console_io = 18
    grant_table_op = 20
    vm_assist = 21
    vcpu_op = 24
    sched_op = 29
    event_channel_op = 32
    physdev_op = 33
    hvm_op = 34
    sysctl = 35
    domctl = 36


# xen.h: domids that stand for something else than a number.
DOMID_FIRST_RESERVED = 0x7FF0
DOMID_SELF = 0x7FF0
DOMID_IO = 0x7FF1
DOMID_XEN = 0x7FF2
DOMID_INVALID = 0x7FF4
DOMIDS = {
    DOMID_SELF: "DOMID_SELF",
    DOMID_IO: "DOMID_IO",
    DOMID_XEN: "DOMID_XEN",
    DOMID_INVALID: "DOMID_INVALID",
}
INVALID_GFN = 2**64 - 1


class MemoryOp(IntEnum):
    """memory.h: XENMEM_*."""

    increase_reservation = 0
    decrease_reservation = 1
    current_reservation = 3
    maximum_reservation = 4
    populate_physmap = 6
    add_to_physmap = 7
    exchange = 11
    maximum_gpfn = 14
    remove_from_physmap = 15
    add_to_physmap_batch = 23
    acquire_resource = 28


class MapSpace(IntEnum):
    """memory.h: XENMAPSPACE_*."""

    shared_info = 0
    grant_table = 1
    gmfn = 2
    gmfn_range = 3
    gmfn_foreign = 4
    dev_mmio = 5


# memory.h: an index into the status frames, not the grant frames.
GRANT_TABLE_STATUS = 0x80000000
RESOURCE_GRANT_TABLE = 1


class VersionOp(IntEnum):
    """version.h: XENVER_*."""

    version = 0
    extraversion = 1
    compile_info = 2
    capabilities = 3
    changeset = 4
    get_features = 6
    pagesize = 7
    commandline = 9
    build_id = 10


class GrantOp(IntEnum):
    """grant_table.h: GNTTABOP_*."""

    map_grant_ref = 0
    unmap_grant_ref = 1
    setup_table = 2
    copy = 5
    query_size = 6
    unmap_and_replace = 7
    set_version = 8
    get_status_frames = 9
    get_version = 10
    swap_grant_ref = 11
    cache_flush = 12


class GrantStatus(IntEnum):
    """grant_table.h: GNTST_*, a grant operation's own answer beside the hypercall's."""

    okay = 0
    general_error = -1
    bad_domain = -2
    bad_gntref = -3
    bad_handle = -4
    bad_virt_addr = -5
    bad_dev_addr = -6
    no_device_space = -7
    permission_denied = -8
    bad_page = -9
    bad_copy_arg = -10
    address_too_big = -11
    eagain = -12
    no_space = -13


# grant_table.h: GTF_*, GNTMAP_*, GNTCOPY_*.
GTF_PERMIT_ACCESS = 1
GTF_READONLY = 1 << 2
GTF_READING = 1 << 3
GTF_WRITING = 1 << 4
GNTMAP_DEVICE_MAP = 1 << 0
GNTMAP_HOST_MAP = 1 << 1
GNTMAP_READONLY = 1 << 2
GNTCOPY_SOURCE_GREF = 1 << 0
GNTCOPY_DEST_GREF = 1 << 1
GRANT_ENTRY_V1 = struct.Struct("<HHI")  # struct grant_entry_v1: flags, domid, frame


class EventOp(IntEnum):
    """event_channel.h: EVTCHNOP_*."""

    bind_interdomain = 0
    close = 3
    send = 4
    alloc_unbound = 6
    bind_ipi = 7
    unmask = 9
    reset = 10


class SchedOp(IntEnum):
    """sched.h: SCHEDOP_*."""

    yield_ = 0
    block = 1
    shutdown = 2


class Shutdown(IntEnum):
    """sched.h: SHUTDOWN_*."""

    poweroff = 0
    reboot = 1
    suspend = 2
    crash = 3
    watchdog = 4
    soft_reset = 5


CONSOLEIO_WRITE = 0  # xen.h


@dataclass(frozen=True)
class Structure:
    """A structure of the public interface: its name in C, its size, its members."""

    name: str
    size: int
    members: Mapping[str, tuple[int, str]]
    """Offset and struct format of each, by its name in C."""

    def pack(self, /, **values: int) -> bytearray:
        """The bytes of one that holds `values`, cut to each member's width; zero elsewhere."""
        data = bytearray(self.size)
        for name, value in values.items():
            offset, code = self.members[name]
            width = 8 * struct.calcsize(code)
            value &= (1 << width) - 1
            if code.islower():  # the signed ones
                value -= (value >> (width - 1)) << width
            struct.pack_into("<" + code, data, offset, value)
        return data

    def unpack(self, data: bytes | bytearray) -> dict[str, int]:
        """Every member's value."""
        return {
            name: struct.unpack_from("<" + code, data, offset)[0]
            for name, (offset, code) in self.members.items()
        }

    def offset(self, member: str) -> int:
        """Where the member begins."""
        return self.members[member][0]


def _structure(name: str, size: int, /, **members: tuple[int, str]) -> Structure:
    return Structure(name, size, members)


# memory.h. Guest handles are 8 bytes on either Arm; "Q" where a pointer is.
ADD_TO_PHYSMAP = _structure(
    "xen_add_to_physmap",
    24,
    domid=(0, "H"),
    size=(2, "H"),
    space=(4, "I"),
    idx=(8, "Q"),
    gpfn=(16, "Q"),
)
# "foreign" is the union that begins with u.foreign_domid.
ADD_TO_PHYSMAP_BATCH = _structure(
    "xen_add_to_physmap_batch",
    32,
    domid=(0, "H"),
    space=(2, "H"),
    size=(4, "H"),
    u=(6, "H"),
    idxs=(8, "Q"),
    gpfns=(16, "Q"),
    errs=(24, "Q"),
)
REMOVE_FROM_PHYSMAP = _structure("xen_remove_from_physmap", 16, domid=(0, "H"), gpfn=(8, "Q"))
MEMORY_RESERVATION = _structure(
    "xen_memory_reservation",
    32,
    extent_start=(0, "Q"),
    nr_extents=(8, "Q"),
    extent_order=(16, "I"),
    mem_flags=(20, "I"),
    domid=(24, "H"),
)
ACQUIRE_RESOURCE = _structure(
    "xen_mem_acquire_resource",
    32,
    domid=(0, "H"),
    type=(2, "H"),
    id=(4, "I"),
    nr_frames=(8, "I"),
    pad=(12, "I"),
    frame=(16, "Q"),
    frame_list=(24, "Q"),
)

# grant_table.h
SETUP_TABLE = _structure(
    "gnttab_setup_table",
    24,
    dom=(0, "H"),
    nr_frames=(4, "I"),
    status=(8, "h"),
    frame_list=(16, "Q"),
)
QUERY_SIZE = _structure(
    "gnttab_query_size",
    16,
    dom=(0, "H"),
    nr_frames=(4, "I"),
    max_nr_frames=(8, "I"),
    status=(12, "h"),
)
SET_VERSION = _structure("gnttab_set_version", 4, version=(0, "I"))
GET_VERSION = _structure("gnttab_get_version", 8, dom=(0, "H"), version=(4, "I"))
GET_STATUS_FRAMES = _structure(
    "gnttab_get_status_frames",
    16,
    nr_frames=(0, "I"),
    dom=(4, "H"),
    status=(6, "h"),
    frame_list=(8, "Q"),
)
MAP_GRANT_REF = _structure(
    "gnttab_map_grant_ref",
    32,
    host_addr=(0, "Q"),
    flags=(8, "I"),
    ref=(12, "I"),
    dom=(16, "H"),
    status=(18, "h"),
    handle=(20, "I"),
    dev_bus_addr=(24, "Q"),
)
UNMAP_GRANT_REF = _structure(
    "gnttab_unmap_grant_ref",
    24,
    host_addr=(0, "Q"),
    dev_bus_addr=(8, "Q"),
    handle=(16, "I"),
    status=(20, "h"),
)
# The two pointers' members are in unnamed unions and structures: union first, then domid, offset.
GRANT_COPY = _structure(
    "gnttab_copy",
    40,
    source=(0, "Q"),
    source_domid=(8, "H"),
    source_offset=(10, "H"),
    dest=(16, "Q"),
    dest_domid=(24, "H"),
    dest_offset=(26, "H"),
    len=(32, "H"),
    flags=(34, "H"),
    status=(36, "h"),
)
SWAP_GRANT_REF = _structure(
    "gnttab_swap_grant_ref", 12, ref_a=(0, "I"), ref_b=(4, "I"), status=(8, "h")
)

# event_channel.h
ALLOC_UNBOUND = _structure(
    "evtchn_alloc_unbound", 8, dom=(0, "H"), remote_dom=(2, "H"), port=(4, "I")
)
BIND_INTERDOMAIN = _structure(
    "evtchn_bind_interdomain",
    12,
    remote_dom=(0, "H"),
    remote_port=(4, "I"),
    local_port=(8, "I"),
)
BIND_IPI = _structure("evtchn_bind_ipi", 8, vcpu=(0, "I"), port=(4, "I"))
CLOSE = _structure("evtchn_close", 4, port=(0, "I"))
SEND = _structure("evtchn_send", 4, port=(0, "I"))
UNMASK = _structure("evtchn_unmask", 4, port=(0, "I"))
RESET = _structure("evtchn_reset", 2, dom=(0, "H"))

# sched.h
SCHED_SHUTDOWN = _structure("sched_shutdown", 4, reason=(0, "I"))

# xen.h, with one vcpu_info (XEN_LEGACY_MAX_VCPUS in arch-arm.h); the bitmaps are 64 words each.
SHARED_INFO_LAYOUT = _structure(
    "shared_info", 1088, vcpu_info=(0, "Q"), evtchn_pending=(48, "Q"), evtchn_mask=(560, "Q")
)

STRUCTURES = [value for value in list(globals().values()) if isinstance(value, Structure)]


def error_name(number: int) -> str:
    """ "EBUSY" for 16: Xen's errors (errno.h) are numbered as Linux's are."""
    return errno.errorcode.get(number, f"error {number}")


def domid_text(domid: int) -> str:
    """ "DOMID_SELF", or "d1"."""
    return DOMIDS.get(domid, f"d{domid}")
