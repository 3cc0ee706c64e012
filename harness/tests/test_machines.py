"""Profiles as they are in qemu/, and profiles that are not as they should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.machines import DEFAULT, load_machine, machine_names, read_profile

WHOLE = """
summary = "a machine"
[qemu]
program = "qemu-system-aarch64"
machine = "virt"
[qemu.options]
gic-version = "3"
[cpu]
model = "cortex-a57"
count = 1
[memory]
base = 0x40000000
mib = 256
modules = 0x4a000000
"""


def test_the_default_comes_first() -> None:
    assert machine_names()[0] == DEFAULT == load_machine().name


@pytest.mark.parametrize("name", machine_names())
def test_every_profile_is_whole_and_keeps_its_addresses_apart(name: str) -> None:
    machine = load_machine(name)
    assert machine.summary
    # QEMU's hw/arm/boot.c puts the DTB at base + 128 MiB, if there is that much RAM; it is not
    # larger than 2 MiB (Linux: Documentation/arm64/booting.rst).
    assert machine.modules >= machine.ram_base + (130 << 20)
    assert machine.modules < machine.ram_end


def test_arguments_name_the_memory_backend_only_when_there_is_one() -> None:
    machine = load_machine("virt-gicv2")
    board = "virt,virtualization=on,gic-version=2"
    assert machine.arguments()[:2] == ["-machine", board]
    assert machine.arguments("ram")[:2] == ["-machine", f"{board},memory-backend=ram"]


def test_a_machine_grows_but_never_shrinks() -> None:
    machine = load_machine()
    assert machine.at_least() == machine
    grown = machine.at_least(cpus=4, ram_mib=1024)
    assert (grown.cpus, grown.ram_mib) == (4, 1024)
    assert grown.at_least(cpus=1, ram_mib=1) == grown


@pytest.mark.parametrize("name", ["", "virt", "../qemu/virt-gicv3", "/etc/passwd"])
def test_a_name_without_a_profile_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_machine(name)
    assert DEFAULT in caught.value.advice


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("count = 1", "", "cpu.count must be a number"),
        ("count = 1", "count = true", "cpu.count must be a number"),
        ("mib = 256", 'mib = "256"', "memory.mib must be a number"),
        ('model = "cortex-a57"', "model = 57", "cpu.model must be a string"),
        ('gic-version = "3"', "gic-version = 3", "qemu.options must be a table of strings"),
        ("modules = 0x4a000000", "modules = 0x10", "memory.modules lies outside RAM"),
        ("[cpu]", "[cpu", "not a machine profile"),
        ("[cpu]", "[other]", "cpu.model must be a string"),
        ('gic-version = "3"', "[qemu.options.deep]", "qemu.options must be a table of strings"),
    ],
)
def test_a_profile_that_is_not_whole_says_where(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(WHOLE.replace(old, new))
    with pytest.raises(UsageError, match=message):
        read_profile(path)


def test_the_profile_those_are_made_from_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "whole.toml"
    path.write_text(WHOLE)
    assert read_profile(path).options == {"gic-version": "3"}
