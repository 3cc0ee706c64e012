"""A name and a size in, memory out that has no place in any file system and can be inherited."""

from __future__ import annotations

import mmap
import os


def anonymous_memory(name: str, size: int) -> tuple[int, mmap.mmap]:
    """Return the descriptor and our map of `size` bytes of zeroes; raises OSError if there is no
    room. `name` is only seen in /proc.
    """
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, size)
        return descriptor, mmap.mmap(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise
