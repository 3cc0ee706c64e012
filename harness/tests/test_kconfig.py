"""Kconfig fragments: what they wish, and whether the final .config grants it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import BuildError, UsageError
from harness.kconfig import check, merge, read_fragment


@pytest.fixture
def fragment(tmp_path: Path) -> Path:
    path = tmp_path / "fragment"
    path.write_text(
        '# a comment\n\nCONFIG_A=y\nCONFIG_TEXT="a b"\n# CONFIG_B is not set\nCONFIG_C=n\n'
    )
    return path


def test_a_fragment_is_read_line_by_line(fragment: Path) -> None:
    wishes = read_fragment(fragment)
    assert [(wish.symbol, wish.value) for wish in wishes] == [
        ("CONFIG_A", "y"),
        ("CONFIG_TEXT", '"a b"'),
        ("CONFIG_B", "n"),
        ("CONFIG_C", "n"),
    ]
    assert wishes[0].origin == f"{fragment}:3"


def test_merging_appends_in_kconfigs_own_words(fragment: Path) -> None:
    merged = merge("CONFIG_Z=y", read_fragment(fragment)).splitlines()
    assert merged[0] == "CONFIG_Z=y"
    assert merged[-1] == "# CONFIG_C is not set"


def test_what_took_is_not_complained_of(fragment: Path) -> None:
    config = 'CONFIG_A=y\nCONFIG_TEXT="a b"\n# CONFIG_B is not set\n'  # C does not exist: off
    check(config, read_fragment(fragment), "Xen")


def test_each_line_that_does_not_take_is_named(fragment: Path) -> None:
    config = '# CONFIG_A is not set\nCONFIG_TEXT="a b"\nCONFIG_C=y\n'
    with pytest.raises(BuildError, match="CONFIG_A=y does not take in Xen") as raised:
        check(config, read_fragment(fragment), "Xen")
    assert raised.value.evidence == (
        f"{fragment}:3: CONFIG_A=y, but the .config has # CONFIG_A is not set",
        f"{fragment}:6: # CONFIG_C is not set, but the .config has CONFIG_C=y",
    )


def test_the_last_line_of_a_symbol_counts(tmp_path: Path) -> None:
    path = tmp_path / "twice"
    path.write_text("CONFIG_A=y\nCONFIG_A=n\n")
    check("# CONFIG_A is not set\n", read_fragment(path), "Xen")


def test_a_line_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad"
    path.write_text("CONFIG_A=y\nCONFIG_B y\n")
    with pytest.raises(UsageError, match=f"{path}:2"):
        read_fragment(path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_an_unreadable_fragment_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "unreadable"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match="cannot be read"):
        read_fragment(path)
