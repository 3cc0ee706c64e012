"""The cross compiler: found, described, and refused where it makes code for something else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.toolchain import extra_flags, find_toolchain


def test_debians_cross_compiler_is_the_default() -> None:
    toolchain = find_toolchain("arm64", None)
    assert toolchain.prefix == "aarch64-linux-gnu-"
    assert toolchain.compiler.name == "aarch64-linux-gnu-gcc"
    assert toolchain.description.startswith("aarch64-linux-gnu-gcc (")
    assert "GNU ld" in toolchain.description
    assert toolchain.homes == ()


def test_a_compiler_elsewhere_brings_its_home_and_its_binutils(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("gcc", "ld"):
        real = shutil.which(f"aarch64-linux-gnu-{name}")
        assert real is not None
        (programs / f"aarch64-none-elf-{name}").write_text(f'#!/bin/sh\nexec {real} "$@"\n')
        (programs / f"aarch64-none-elf-{name}").chmod(0o755)
    toolchain = find_toolchain("arm64", str(programs / "aarch64-none-elf-gcc"))
    assert toolchain.prefix == f"{programs}/aarch64-none-elf-"
    assert toolchain.homes == (tmp_path,)


@pytest.mark.parametrize("cc", ["no-such-compiler", "/no/such/compiler"])
def test_a_compiler_that_is_not_there_is_named(cc: str) -> None:
    with pytest.raises(UsageError, match=f"there is no compiler {cc}"):
        find_toolchain("arm64", cc)


def test_a_compiler_for_another_machine_is_refused() -> None:
    with pytest.raises(UsageError, match="makes code for x86_64"):
        find_toolchain("arm64", "gcc")


def test_a_program_that_is_no_compiler_is_refused() -> None:
    with pytest.raises(UsageError, match="is no compiler"):
        find_toolchain("arm64", "false")


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(UsageError, match="not built for sparc"):
        find_toolchain("sparc", None)


def test_only_old_trees_need_more_flags() -> None:
    assert extra_flags((4, 17)) == []
    assert "-mno-outline-atomics" in extra_flags((4, 14))
    assert "-Wno-error" in extra_flags((4, 11))
