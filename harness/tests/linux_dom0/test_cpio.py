"""The archive against the kernel's description of it, read back by a reader of its own."""

from __future__ import annotations

import io
import stat

from harness.linux_dom0.cpio import Entry, character_device, directory, link, regular, write


def read(data: bytes) -> dict[str, Entry]:
    """Read an archive by the kernel's buffer-format.rst."""
    found: dict[str, Entry] = {}
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        at += -(-(110 + name_size) // 4) * 4
        if name == "TRAILER!!!":
            assert at == len(data)
            return found
        found[name] = Entry(name, mode, data[at : at + size], (fields[9], fields[10]))
        at += -(-size // 4) * 4


def archive(*entries: Entry) -> bytes:
    file = io.BytesIO()
    write(entries, file)
    return file.getvalue()


def test_what_is_written_can_be_read() -> None:
    entries = [
        regular("etc/hostname", b"dom0\n"),
        link("etc/name", "hostname"),
        directory("etc", 0o700),
        character_device("console", 5, 1),
        regular("empty", b"", 0o755),
    ]
    assert read(archive(*entries)) == {entry.path: entry for entry in entries}


def test_directories_come_before_what_is_in_them() -> None:
    found = read(archive(regular("a/b/c/file", b"x")))
    assert list(found) == ["a", "a/b", "a/b/c", "a/b/c/file"]
    assert all(stat.S_ISDIR(found[path].mode) for path in ("a", "a/b", "a/b/c"))


def test_the_last_of_two_entries_counts() -> None:
    assert read(archive(regular("f", b"old"), regular("f", b"new")))["f"].data == b"new"


def test_order_does_not_matter() -> None:
    one, other = regular("one", b"1"), regular("other", b"2")
    assert archive(one, other) == archive(other, one)
