"""A name and a size in, memory out that has no place in any file system and can be inherited."""

from __future__ import annotations

import fcntl
import mmap
import os


def anonymous_memory(name: str, size: int) -> tuple[int, mmap.mmap]:
    """Return the descriptor and our map of `size` bytes of zeroes; raises OSError if there is no
    room. `name` is only seen in /proc.

    Nobody can cut it short, which would end by SIGBUS whoever looks at what is gone.
    """
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        return descriptor, mmap.mmap(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise
