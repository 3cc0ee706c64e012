"""The lock file, and what becomes of a broken one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.debian_apt import BinaryPackage
from harness.errors import HarnessError
from harness.linux_dom0.packages import fingerprint, read_lock, write_lock

PACKAGE = BinaryPackage("toy", "1:2.3-4", "pool/main/t/toy/toy_2.3-4_arm64.deb", 12, "ab" * 32)


def test_our_own_lock_has_what_a_dom0_needs() -> None:
    names = {package.name for package in read_lock()["dom0"]}
    assert {"bash", "busybox-static", "libc6", "openssh-server", "xen-utils-4.17"} <= names
    assert len([name for name in names if name.startswith("linux-image-")]) == 1


def test_a_lock_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_lock({"dom0": [PACKAGE], "sysroot": []}, tmp_path / "lock")
    assert read_lock(tmp_path / "lock") == {"dom0": [PACKAGE], "sysroot": []}
    assert PACKAGE.file == "toy_2.3-4_arm64.deb"


@pytest.mark.parametrize("text", ["", "{}", '{"groups": {"dom0": [{"name": "toy"}]}}', "[1]"])
def test_a_broken_lock_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "lock").write_text(text)
    with pytest.raises(HarnessError, match="lock is no list of packages"):
        read_lock(tmp_path / "lock")


def test_every_change_of_the_lock_is_another_image() -> None:
    other = replace(PACKAGE, sha256="cd" * 32)
    assert fingerprint([PACKAGE]) != fingerprint([other])
