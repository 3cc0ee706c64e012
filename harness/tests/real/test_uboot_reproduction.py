"""The story of U-Boot's forgotten page on Debian's Xens, as a user has it told."""

from __future__ import annotations

import json
from pathlib import Path

import pexpect
import pytest

from harness.cache import default_cache
from harness.references import resolve
from harness.tests.edits import make_patch
from harness.tests.real.commands import XENVERIFY, run
from harness.uboot.sources import UBOOT

STORY = ("reproduce", "uboot-shared-info")
BULLSEYE, BOOKWORM = "debian:bullseye", "debian:bookworm"
SECONDS = 600.0
# U-Boot is built once for all of these.
pytestmark = pytest.mark.xdist_group("uboot")


def found(folder: Path) -> dict[tuple[str, str], str]:
    cells = json.loads((folder / "reproduction.json").read_text())["cells"]
    return {(cell["row"], cell["side"]): cell["found"] for cell in cells}


def test_the_matrix(tmp_path: Path) -> None:
    """Each row as PHYSMAP.md has it, and the evidence that is needed to believe it."""
    status, text = run(*STORY, directory=tmp_path)
    assert status == 0, text
    folder = tmp_path / "xenverify-1"
    assert found(folder) == {
        ("forgetful", BULLSEYE): "alias", ("forgetful", BOOKWORM): "refused",
        ("tidy", BULLSEYE): "panic", ("tidy", BOOKWORM): "panic",
        ("tidy-slack", BULLSEYE): "clean", ("tidy-slack", BOOKWORM): "clean",
        ("tidy-releasing", BULLSEYE): "clean", ("tidy-releasing", BOOKWORM): "clean",
        ("none", BULLSEYE): "clean", ("none", BOOKWORM): "clean",
    }  # fmt: skip
    control = json.loads((folder / "reproduction.json").read_text())["cells"][0]
    assert control["event_before"], control["event_after"] == ("delivered", "lost")
    assert control["mask_before"] != control["mask_after"]
    assert "Over-allocation for d1" in text
    assert f"REPRODUCED  the bug shows on {BULLSEYE} and not on {BOOKWORM}" in text
    assert len(list(folder.rglob("qemu.sh"))) == len(list(folder.rglob("console.log"))) == 10


def test_where_the_bug_does_not_show_nothing_is_said(tmp_path: Path) -> None:
    """The positive control: an error, and not a pass."""
    status, text = run(*STORY, BOOKWORM, BULLSEYE, directory=tmp_path)
    assert status == 5, text
    assert f"the bug does not show on {BOOKWORM}, so nothing can be said about {BULLSEYE}" in text


def test_a_change_that_does_not_help_leaves_it_broken(tmp_path: Path) -> None:
    change = tmp_path / "comment.patch"
    change.write_bytes(make_patch(["comment-only"], resolve(BULLSEYE, default_cache())))
    words = ("--change", change, "--on", BULLSEYE, "--output", "out")
    status, text = run(*STORY, *words, directory=tmp_path)
    assert status == 1, text
    assert "STILL BROKEN  forgetful on with: alias, not refused" in text
    assert set(found(tmp_path / "out")) >= {("forgetful", "without"), ("forgetful", "with")}


def test_linux_is_stopped_or_harmed(tmp_path: Path) -> None:
    status, text = run(*STORY, "--os", "linux", directory=tmp_path)
    assert status == 0, text
    assert found(tmp_path / "xenverify-1") == {
        ("forgetful", BULLSEYE): "alias", ("forgetful", BOOKWORM): "refused",
        ("tidy-slack", BULLSEYE): "clean", ("tidy-slack", BOOKWORM): "clean",
    }  # fmt: skip
    assert "kernel BUG at" in text and "xen_guest_init" in text


def test_a_person_sits_at_the_prompt(tmp_path: Path) -> None:
    child = pexpect.spawn(
        str(XENVERIFY), [*STORY, "--prompt", BOOKWORM],
        cwd=str(tmp_path), encoding="utf-8", timeout=SECONDS,
    )  # fmt: skip
    child.expect("xenguest# ")
    child.sendline("version")
    child.expect(r"U-Boot 2021\.01")
    child.expect("xenguest# ")
    child.sendline("mw.l 48200038 644d5241; run bootcmd")
    child.expect(r"second stage: shared_info at 0x38800000: -16")
    child.send("\x1d")  # Ctrl-]
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Debian's U-Boot 2021.01, to be broken."""
    directory = tmp_path / "u-boot"
    resolve(BULLSEYE, default_cache(), project=UBOOT).checkout(directory)
    return directory


def told_of(source: Path, tmp_path: Path, status: int) -> str:
    """What is said of a U-Boot that cannot be had."""
    came, text = run(*STORY, "--uboot", source, directory=tmp_path)
    assert came == status, text
    assert "Traceback" not in text
    assert not list(tmp_path.glob("xenverify-*"))
    return text


def test_a_uboot_that_is_no_guest_of_xen_is_named(source: Path, tmp_path: Path) -> None:
    (source / "configs" / "xenguest_arm64_defconfig").unlink()
    text = told_of(source, tmp_path, 2)
    assert "is a U-Boot without xenguest_arm64_defconfig: it is no guest of Xen" in text


def test_a_uboot_that_an_edit_does_not_fit_is_named(source: Path, tmp_path: Path) -> None:
    hypervisor = source / "drivers" / "xen" / "hypervisor.c"
    text = hypervisor.read_text().replace("map_shared_info", "map_the_shared_page")
    hypervisor.write_text(text)
    told = told_of(source, tmp_path, 5)
    assert "no place for an edit of ours in drivers/xen/hypervisor.c" in told
    assert "there is no function map_shared_info()" in told


def test_a_uboot_that_does_not_build_is_named(source: Path, tmp_path: Path) -> None:
    offsets = source / "lib" / "asm-offsets.c"  # compiled before anything else
    offsets.write_text(offsets.read_text() + "\nwhat nobody declared;\n")
    text = told_of(source, tmp_path, 4)
    assert "U-Boot of directory u-boot" in text and "does not build" in text
    assert "asm-offsets.c" in text
