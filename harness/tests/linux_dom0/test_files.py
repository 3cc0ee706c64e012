"""What an image takes from packages: toy packages, built by dpkg-deb from toy files."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.linux_dom0.cpio import Entry, link, regular
from harness.linux_dom0.files import (
    Files,
    Found,
    merged,
    read_packages,
    select,
    select_modules,
)

CONTROL = "Package: toy\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: toy\n"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for path, text in {"DEBIAN/control": CONTROL, "bin/tool": "t", "usr/share/doc/x": "d"}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    (root / "bin/tool").chmod(0o755)
    (root / "usr/lib").mkdir(parents=True)
    (root / "usr/lib/alias").symlink_to("../bin/tool")
    file = tmp_path / "toy.deb"
    subprocess.run(["dpkg-deb", "--build", root, file], check=True, capture_output=True)
    return file


def test_a_package_is_read_without_being_unpacked(package: Path) -> None:
    files = read_packages([package], lambda path: not path.startswith("usr/share"))
    tool = files["usr/bin/tool"].entry
    assert (tool.data, tool.mode) == (b"t", stat.S_IFREG | 0o755)
    assert files["usr/lib/alias"].entry == link("usr/lib/alias", "../bin/tool")
    assert "usr/share/doc/x" not in files


def test_a_cut_package_is_our_error(package: Path) -> None:
    package.write_bytes(package.read_bytes()[:-40])
    with pytest.raises(HarnessError, match=r"toy\.deb cannot be read"):
        read_packages([package], lambda _: True)


def files_of(*entries: Entry) -> Files:
    return {entry.path: Found(entry, Path("toy.deb")) for entry in entries}


def test_a_link_brings_its_target() -> None:
    files = files_of(link("usr/bin/sh", "tool"), regular("usr/bin/tool", b"t"), regular("x", b""))
    assert set(select(files, ["usr/bin/sh"])) == {"usr/bin/sh", "usr/bin/tool"}


def test_a_pattern_that_matches_nothing_is_named() -> None:
    with pytest.raises(HarnessError, match=r"no package of the image has usr/bin/xl"):
        select(files_of(regular("usr/bin/sh", b"")), ["usr/bin/xl"])


def test_a_program_brings_its_libraries() -> None:
    """A program of this very machine: what is asked of it is the same on every architecture."""
    program = regular("usr/bin/true", Path("/usr/bin/true").read_bytes())
    with pytest.raises(HarnessError, match=r"/usr/bin/true needs .*, which no package"):
        select(files_of(program), ["usr/bin/*"])


def test_merged_directories() -> None:
    assert merged("./lib/ld.so") == "usr/lib/ld.so"
    assert merged("/bin/sh") == "usr/bin/sh"
    assert merged("./usr/bin/../lib/x") == "usr/lib/x"
    assert merged("./boot/vmlinuz") == "boot/vmlinuz"


def module(name: str, depends: str) -> Entry:
    return regular(
        f"usr/lib/modules/6.1/kernel/{name}.ko", b"x\0depends=" + depends.encode() + b"\0"
    )


def test_modules_come_with_what_they_need_the_deepest_last() -> None:
    files = files_of(module("top-one", "mid,low"), module("mid", "low"), module("low", ""),
                     module("other", ""))  # fmt: skip
    entries = {entry.path: entry.data for entry in select_modules(files, ["top-one", "built-in"])}
    place = "usr/lib/modules/6.1"
    assert set(entries) == {
        f"{place}/{n}" for n in ("top_one.ko", "mid.ko", "low.ko", "modules.dep")
    }
    lines = entries[f"{place}/modules.dep"].decode().splitlines()
    assert "top_one.ko: mid.ko low.ko" in lines
    assert "low.ko:" in lines


def test_a_kernel_without_modules_is_our_error() -> None:
    with pytest.raises(HarnessError, match="no modules"):
        select_modules(files_of(regular("boot/vmlinuz-6.1", b"")), ["loop"])
