"""The few XEN_DOMCTL_* that dom0 is asked for here, as calls for a Domain to make.

Comes in: the tree of the Xen that runs, since every version of this interface is another one (its
number is in xen/include/public/domctl.h, and Xen refuses any other). Goes out: a `Call`.
"""

from __future__ import annotations

import re
import struct

from harness.errors import HarnessError
from harness.git import GitError, git
from harness.hypercalls import Buffer, Call, as_is
from harness.trees import Tree
from harness.xenabi import Hypercall

HEADER = "xen/include/public/domctl.h"
VERSION = re.compile(r"(?m)^#define XEN_DOMCTL_INTERFACE_VERSION\s+0x([0-9a-fA-F]+)")
# struct xen_domctl: cmd, interface_version, domain, padding; then the union.
PREFIX = struct.Struct("<IIH6x")
SIZE = 128 + PREFIX.size

DESTROYDOMAIN = 2
PAUSEDOMAIN = 3
UNPAUSEDOMAIN = 4
MAX_MEM = 11
SOFT_RESET = 79


def interface_version(tree: Tree) -> int:
    """Return the version of the interface that this Xen speaks."""
    try:
        header = git(tree.repository, "cat-file", "blob", f"{tree.tree}:{HEADER}").decode()
    except GitError as error:
        raise HarnessError(f"{tree.label} has no {HEADER}: {error}") from None
    found = VERSION.search(header)
    if found is None:
        raise HarnessError(f"{tree.label} does not say which domctl interface it speaks")
    return int(found[1], 16)


def max_mem(tree: Tree, domid: int, kib: int) -> Call[int]:
    """Let the domain own `kib` KiB of RAM at most."""
    return _domctl(
        tree, MAX_MEM, domid, struct.pack("<Q", kib), f"max_mem(domid={domid}, kib={kib})"
    )


def destroydomain(tree: Tree, domid: int) -> Call[int]:
    """End the domain."""
    return _domctl(tree, DESTROYDOMAIN, domid, b"", f"destroydomain(domid={domid})")


def pausedomain(tree: Tree, domid: int) -> Call[int]:
    """Let none of its vCPUs run."""
    return _domctl(tree, PAUSEDOMAIN, domid, b"", f"pausedomain(domid={domid})")


def unpausedomain(tree: Tree, domid: int) -> Call[int]:
    """Take one pausedomain back."""
    return _domctl(tree, UNPAUSEDOMAIN, domid, b"", f"unpausedomain(domid={domid})")


def soft_reset(tree: Tree, domid: int) -> Call[int]:
    """Make the domain, which asked for it and is paused, as it was before its kernel began."""
    return _domctl(tree, SOFT_RESET, domid, b"", f"soft_reset(domid={domid})")


def _domctl(tree: Tree, command: int, domid: int, arguments: bytes, text: str) -> Call[int]:
    prefix = PREFIX.pack(command, interface_version(tree), domid)
    data = Buffer((prefix + arguments).ljust(SIZE, b"\0"))
    return Call(f"XEN_DOMCTL_{text}", Hypercall.domctl, (data,), as_is)
