"""What users see of Xen's tables and lines: inspect, --lines, --paranoid, a verdict's sections."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from pathlib import Path

import pytest

from harness.cache import default_cache
from harness.git import git
from harness.references import resolve
from harness.tests.edits import make_patch
from harness.tests.real.commands import path_without, run

BOOKWORM, BULLSEYE = "debian:bookworm", "debian:bullseye"
SECOND_MAP = ("-k", "shared_info and test_second_map_is_refused")
MM = "xen/arch/arm/mm.c"
ONE_MAP = ("-k", "shared_info and test_appears_where_asked")
# What a call for d1's grant table then dies of, whatever the version.
WILD_POINTER = """
place = inspector.domain(d1).address + inspector.layout.offsets["domain.grant_table"]
host.ram.write(inspector.memory.physical(place), (0xdead0000).to_bytes(8, "little"))
d1.add_to_physmap(GRANT_TABLE, gfn=0x38000)
"""


def inspect(directory: Path, *words: str, xen: str = BOOKWORM) -> tuple[int, str]:
    return run("inspect", "--xen", xen, *words, directory=directory)


def test_every_view_shows_what_it_is_asked_for(tmp_path: Path) -> None:
    code = (
        "d1.add_to_physmap(SHARED_INFO, gfn=0x40200); print(hex(inspector.domain(1).shared_info))"
    )
    views = ("domains", "physmap", "d1", "gfn", "d1", "0x40200", "grants", "rules")
    status, text = inspect(tmp_path, *views, "-c", code)
    assert status == 0, text
    mfn = re.search(r"^(0x[0-9a-f]+)$", text, re.MULTILINE)
    assert mfn is not None, text
    for line in (
        r"  d1  alive, 4096 pages of at most 4096 \(16 MiB\), 1 vCPU, .*",
        r"  d1  1 page is owned and not mapped",
        rf"  0x40200 +mfn {mfn[1]}  ram_rw rwx  shared_info \(recorded 0x40200\)",
        r"- 0x40200  mfn 0x[0-9a-f]+  ram_rw rwx  1 page",
        rf"\+ 0x40200  mfn {mfn[1]}  ram_rw rwx  shared_info \(recorded 0x40200\)",
        rf"  level 3  entry 0 .* ram_rw rwx mfn {mfn[1]}",
        r"  it is shared_info of d1",
        r"  gfn 0x40200 is recorded",
        r"  grant frame 0 +mfn 0x[0-9a-f]+  no GFN recorded, not mapped",
        r"  no rule is broken",
    ):
        assert re.search(f"^{line}$", text, re.MULTILINE), (line, text)


def test_a_broken_rule_is_told_and_is_exit_code_1(tmp_path: Path) -> None:
    code = "[d1.add_to_physmap(SHARED_INFO, gfn=gfn) for gfn in d1.hole_pages(2)]"
    status, text = inspect(tmp_path, "physmap", "d1", "-c", code, xen=BULLSEYE)
    assert status == 1
    assert "shared_info of d1 is mapped at 2 GFNs: 0x38000, 0x38001" in text
    assert "[shared_page_is_mapped_once]" in text
    assert "shared_page_is_mapped_once: A xenheap page is behind one GFN at a time." in text


def test_a_xen_that_died_is_shown_with_its_source_and_its_tables(tmp_path: Path) -> None:
    status, text = inspect(tmp_path, "physmap", "d1", "rules", "-c", WILD_POINTER)
    assert status == 1, text
    assert "trap on CPU 0: Data Abort Trap. Syndrome=" in text
    assert re.search(r"^  at +\w+ +xen/.*\(inlined\)$", text, re.MULTILINE), text
    assert re.search(r"gnttab_map_frame +xen/common/grant_table\.c:\d+", text)
    assert re.search(r"^  0x40000-0x40fff +mfn 0x[0-9a-f]+  ram_rw rwx  4096 pages$", text, re.M)
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("gfn", "d9", "0x40000"), "Xen has no domain 9"),
        (("page", "0x1"), "mfn 0x1 is no RAM of this machine"),
        (("-c", "d1."), "what follows -c is no Python: invalid syntax"),
        (("-c", "d1.fly()"), "what follows -c fails: AttributeError: 'Domain' object has no"),
    ],
)
def test_what_the_user_got_wrong_is_a_sentence(
    tmp_path: Path, words: tuple[str, ...], expected: str
) -> None:
    status, text = inspect(tmp_path, *words)
    assert status == 2, text
    assert expected in text
    assert "Traceback" not in text and text.rstrip().endswith("(exit 2)")


CASES = """
from harness.vocabulary import GRANT_TABLE, SHARED_INFO


def test_maps_shared_info(domain):
    domain.add_to_physmap(SHARED_INFO, gfn=domain.hole_pages(1)[0])


def test_maps_nothing(domain):
    domain.xen_version()
"""


def line_of(text: str) -> str:
    """Return FILE:LINE where Xen 4.17 looks for a second mapping."""
    tree = resolve(BOOKWORM, default_cache())
    source = git(tree.repository, "cat-file", "blob", f"{tree.tree}:xen/arch/arm/mm.c").decode()
    number = next(n for n, line in enumerate(source.splitlines(), 1) if text in line)
    return f"xen/arch/arm/mm.c:{number}"


def test_cases_are_chosen_by_a_line_once_they_are_known(tmp_path: Path) -> None:
    file = tmp_path / "test_mine.py"
    file.write_text(f"# {uuid.uuid4()}: never seen before\n{CASES}")
    line = line_of("page_get_xenheap_gfn(")
    arguments = ("run", "--xen", BOOKWORM, "--lines", line, "--paranoid", file)
    status, text = run(*arguments, directory=tmp_path)
    assert status == 0 and "2 passed" in text, text
    status, text = run(*arguments, directory=tmp_path)
    assert status == 0 and "1 passed" in text, text
    assert f"{line} in xenmem_add_to_physmap_one: " in text
    status, text = run("run", "--xen", BOOKWORM, "--lines", f"{MM}:1", file, directory=tmp_path)
    assert status == 2 and "became no code" in text and "nearest lines with code" in text


def a_change(name: str, directory: Path) -> Path:
    change = directory / "change.patch"
    change.write_bytes(make_patch([name], resolve(BOOKWORM, default_cache())))
    return change


@pytest.mark.parametrize(("selection", "state"), [(ONE_MAP, "never ran"), (SECOND_MAP, "ran")])
def test_a_verdict_says_whether_the_changed_line_ran(
    tmp_path: Path, selection: tuple[str, ...], state: str
) -> None:
    """The change is to what a second map comes to, and a first map does not."""
    change, results = a_change("panic-on-hypercall", tmp_path), tmp_path / "out"
    status, text = run(
        "verify", change, "--on", BOOKWORM, *selection, "-o", results, directory=tmp_path
    )
    assert status == int(state == "ran"), text
    (line,) = json.loads((results / "verdict.json").read_text())["lines"]["lines"]
    assert (line["file"], line["state"]) == (MM, state)
    assert line["function"] == "xenmem_add_to_physmap_one"
    assert len(line["cases"]) == int(state == "ran")
    place = f"{MM}:{line['line']}"
    summary = {
        "ran": "1 of 1 changed lines with code ran",
        "never ran": f"0 of 1 changed lines with code ran; not run: {place} in",
    }[state]
    assert f"lines    {summary}" in text
    assert summary in " ".join((results / "mail.txt").read_text().split())
    margin = {"ran": " ran in 1", "never ran": "NEVER RAN"}[state]
    diff = (results / "lines.txt").read_text()
    assert re.search(rf"^{margin} \| \+ +panic\(", diff, re.MULTILINE), diff
    record = (results / "lines.info").read_text().partition(f"SF:{MM}\n")[2]
    hits = re.search(rf"^DA:{line['line']},(\d+)$", record.partition("end_of_record")[0], re.M)
    assert hits is not None and bool(int(hits[1])) == (state == "ran")


def test_a_qemu_without_plugins_gives_its_verdict_all_the_same(tmp_path: Path) -> None:
    name = "qemu-system-aarch64"
    real, path = shutil.which(name), path_without(name, tmp_path / "bin")
    without = tmp_path / "bin" / name
    without.write_text(
        f'#!/bin/sh\ncase " $* " in *" -plugin "*) echo "-plugin: invalid option"; exit 1;; esac\n'
        f'exec {real} "$@"\n'
    )
    without.chmod(0o755)
    change = a_change("wrong-errno", tmp_path)
    status, text = run(
        "verify", change, "--on", BOOKWORM, *SECOND_MAP, directory=tmp_path, PATH=path
    )
    assert status == 1, text
    assert "1 regressed" in text
    assert re.search(
        r"^lines +lines are not counted: this QEMU does not load TCG plugins", text, re.M
    ), text
