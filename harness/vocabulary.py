"""The names a case is written with: `from harness.vocabulary import *` or, better, each by name.

Spaces get the short names cases use; the rest is defined elsewhere and known by Xen's own names.
"""

from errno import (
    E2BIG,
    EACCES,
    EAGAIN,
    EBUSY,
    EEXIST,
    EFAULT,
    EILSEQ,
    EINVAL,
    ENODEV,
    ENOENT,
    ENOMEM,
    ENOSPC,
    ENOSYS,
    EOPNOTSUPP,
    EPERM,
    ESRCH,
)

from harness import grants, hypercalls, memory_calls
from harness.contents import (
    FAULT,
    HOLE,
    RAM,
    SHARED_INFO_PAGE,
    UNKNOWN,
    Content,
    GrantFrame,
    OtherRam,
    StatusFrame,
)
from harness.domain import Domain, GuestFault
from harness.grants import End
from harness.hypercalls import Buffer, Call, GrantError, XenError, grant_error, xen_error
from harness.memory_calls import UNTOUCHED
from harness.xenabi import (
    DOMID_INVALID,
    DOMID_IO,
    DOMID_SELF,
    DOMID_XEN,
    GRANT_TABLE_STATUS,
    INVALID_GFN,
    PAGE_SHIFT,
    PAGE_SIZE,
    RESOURCE_GRANT_TABLE,
    EventOp,
    GrantOp,
    GrantStatus,
    Hypercall,
    MapSpace,
    MemoryOp,
    Shutdown,
)

SHARED_INFO = MapSpace.shared_info
GRANT_TABLE = MapSpace.grant_table
GMFN = MapSpace.gmfn
GMFN_RANGE = MapSpace.gmfn_range
GMFN_FOREIGN = MapSpace.gmfn_foreign
DEV_MMIO = MapSpace.dev_mmio

__all__ = [
    "DEV_MMIO",
    "DOMID_INVALID",
    "DOMID_IO",
    "DOMID_SELF",
    "DOMID_XEN",
    "E2BIG",
    "EACCES",
    "EAGAIN",
    "EBUSY",
    "EEXIST",
    "EFAULT",
    "EILSEQ",
    "EINVAL",
    "ENODEV",
    "ENOENT",
    "ENOMEM",
    "ENOSPC",
    "ENOSYS",
    "EOPNOTSUPP",
    "EPERM",
    "ESRCH",
    "FAULT",
    "GMFN",
    "GMFN_FOREIGN",
    "GMFN_RANGE",
    "GRANT_TABLE",
    "GRANT_TABLE_STATUS",
    "HOLE",
    "INVALID_GFN",
    "PAGE_SHIFT",
    "PAGE_SIZE",
    "RAM",
    "RESOURCE_GRANT_TABLE",
    "SHARED_INFO",
    "SHARED_INFO_PAGE",
    "UNKNOWN",
    "UNTOUCHED",
    "Buffer",
    "Call",
    "Content",
    "Domain",
    "End",
    "EventOp",
    "GrantError",
    "GrantFrame",
    "GrantOp",
    "GrantStatus",
    "GuestFault",
    "Hypercall",
    "MapSpace",
    "MemoryOp",
    "OtherRam",
    "Shutdown",
    "StatusFrame",
    "XenError",
    "grant_error",
    "grants",
    "hypercalls",
    "memory_calls",
    "xen_error",
]
