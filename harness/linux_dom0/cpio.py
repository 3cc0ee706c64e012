"""Files in, the archive that Linux unpacks as its first root file system out (cpio, "newc").

The format is the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. Equal files
give equal bytes: owner is root, all times are 0. Archives may be concatenated; the kernel unpacks
one after the other.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

MAGIC = b"070701"
END = "TRAILER!!!"
ALIGNMENT = 4


@dataclass(frozen=True)
class Entry:
    """One file, by its path from the root without a leading slash."""

    path: str
    mode: int  # type and permissions, as in stat
    data: bytes = b""  # content, or where a symbolic link points
    device: tuple[int, int] = (0, 0)  # major and minor, of a device


def directory(path: str, mode: int = 0o755) -> Entry:
    """A directory."""
    return Entry(path, stat.S_IFDIR | mode)


def regular(path: str, data: bytes, mode: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(path, stat.S_IFREG | mode, data)


def link(path: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def character_device(path: str, major: int, minor: int, mode: int = 0o600) -> Entry:
    """A character device."""
    return Entry(path, stat.S_IFCHR | mode, device=(major, minor))


def write(entries: Iterable[Entry], file: BinaryIO) -> None:
    """Write an archive of `entries`, every one's directory before it."""
    known = {entry.path: entry for entry in entries}
    for path in list(known):
        for parent in _parents(path):
            known.setdefault(parent, directory(parent))
    for number, path in enumerate(sorted(known), start=1):
        _write_one(known[path], number, file)
    _write_one(Entry(END, 0), 0, file)


def _parents(path: str) -> Iterable[str]:
    parts = path.split("/")
    return ("/".join(parts[:length]) for length in range(1, len(parts)))


def _write_one(entry: Entry, number: int, file: BinaryIO) -> None:
    name = entry.path.encode() + b"\0"
    major, minor = entry.device
    fields = (number, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, major, minor, len(name), 0)
    head = MAGIC + b"".join(b"%08X" % field for field in fields) + name
    for part in (head, entry.data):
        file.write(part + bytes(-len(part) % ALIGNMENT))
