"""Why the inspector cannot answer: comes in nothing, goes out two exceptions.

Both mean "no answer about Xen's tables", never "Xen is wrong": a case that meets one runs on
without the inspector and is reported as run without.
"""

from __future__ import annotations

from harness.errors import HarnessError


class CannotInspect(HarnessError):
    """This Xen's memory cannot be read here: no or foreign symbols, no drgn, no RAM."""


class MidUpdate(CannotInspect):
    """Xen holds one of the locks over what is to be read, so what would be read is torn."""
