"""Lines counted on a real Xen under QEMU, and what happens where they cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.attendance import Attendance, Watch
from harness.booting import boot
from harness.builds import Build
from harness.cache import Cache
from harness.coverage import plugin as plugin_module
from harness.coverage.counters import Counters, Ran
from harness.coverage.gathering import RAN_AT_BOOT, RAN_IN_CASE
from harness.coverage.lines import Line, LineTable, code_range, load_lines
from harness.coverage.plugin import NoCoverage, plugin
from harness.machines import load_machine
from harness.scenarios import SCENARIOS
from harness.vocabulary import SHARED_INFO

MM = "xen/arch/arm/mm.c"


@pytest.fixture(scope="module")
def table(bookworm_build: Build, cache: Cache) -> LineTable:
    return load_lines(bookworm_build.syms, bookworm_build.build_id, cache)


def lines_of(table: LineTable, function: str) -> list[Line]:
    return [line for line, code in table if code.function == function]


@pytest.fixture(scope="module")
def folder(
    bookworm_build: Build, cache: Cache, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """What is left of a case that maps shared_info once."""
    folder = tmp_path_factory.mktemp("case")
    attendance = Attendance(bookworm_build, folder, cache, Watch())
    machine, scenario = load_machine(), SCENARIOS["domu"]
    with boot(bookworm_build, machine, scenario, folder, cache, attendance.counters) as host:
        attendance.meet(host)
        domain = host.domain(1)
        (gfn,) = domain.hole_pages(1)
        attendance.begin()
        domain.add_to_physmap(SHARED_INFO, gfn=gfn)
        assert attendance.finish(look=True).unseen == ""
    attendance.close()
    yield folder


def test_boot_and_case_are_counted_apart(folder: Path, table: LineTable) -> None:
    at_boot, in_case = Ran.load(folder / RAN_AT_BOOT), Ran.load(folder / RAN_IN_CASE)
    assert at_boot is not None and in_case is not None
    start = lines_of(table, "start_xen")
    assert start and any(table.ran(line, at_boot) for line in start)
    assert not any(table.ran(line, in_case) for line in start)
    mapping = lines_of(table, "xenmem_add_to_physmap_one")
    assert any(table.ran(line, in_case) for line in mapping)
    assert not all(table.ran(line, in_case) for line in mapping)  # grant frames, foreign pages
    assert not any(table.ran(line, in_case) for line in lines_of(table, "p2m_teardown"))


def test_every_function_with_code_is_in_a_file_of_xen(table: LineTable) -> None:
    assert table.files.keys() > {MM, "xen/arch/arm/p2m.c", "xen/common/grant_table.c"}
    assert all(file.startswith("xen/") for file in table.files)


def test_command_line_for_people_has_no_plugin(folder: Path) -> None:
    assert "-plugin" not in (folder / "qemu.sh").read_text()


def test_counters_of_all_of_xen_are_read_and_cleared_fast(
    bookworm_build: Build, cache: Cache
) -> None:
    counters = Counters(plugin(cache), *code_range(bookworm_build.syms))
    assert len(counters.ran()) == 0
    counters.close()


def test_qemu_that_loads_no_plugins_leaves_the_case_as_it_is(
    bookworm_build: Build,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A plugin of an interface that this QEMU has not, which is what an old one would say."""
    source = tmp_path / "coverage.c"
    source.write_text("int qemu_plugin_version = 99;\n")
    monkeypatch.setattr(plugin_module, "SOURCE", source)
    fresh = Cache(tmp_path / "cache")
    with pytest.raises(NoCoverage, match="does not load TCG plugins"):
        plugin(fresh)
    attendance = Attendance(bookworm_build, tmp_path, fresh, Watch(tables=False))
    assert attendance.counters is None
    assert "lines are not counted" in attendance.finish(look=True).unseen
    attendance.close()


def test_compiler_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoCoverage, match="gcc is not installed"):
        plugin(Cache(tmp_path / "cache"))
