"""The inspector: what Xen itself recorded, read from outside on an unmodified hypervisor.

`attach(ram, syms, build_id, cache)` gives an `Inspector`; its `snapshot()` is a value that the
invariants judge, the footprint compares and the renderings show.
"""

from harness.inspection.errors import CannotInspect, MidUpdate
from harness.inspection.hypervisor import Inspector, attach
from harness.inspection.physmap import Change, Entry, Physmap, Range, changes
from harness.inspection.snapshot import DomainState, Snapshot

__all__ = [
    "CannotInspect",
    "Change",
    "DomainState",
    "Entry",
    "Inspector",
    "MidUpdate",
    "Physmap",
    "Range",
    "Snapshot",
    "attach",
    "changes",
]
