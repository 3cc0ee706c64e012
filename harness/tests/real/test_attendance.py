"""Cases that never look at Xen's tables, on a Xen that gets them wrong; and a Xen that dies."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.attendance import Attendance, Watch
from harness.booting import boot
from harness.builds import Build
from harness.cache import Cache
from harness.coverage.counters import Ran
from harness.coverage.gathering import RAN_IN_CASE, gather, recall, remember
from harness.machines import load_machine
from harness.outcomes import CaseResult, Outcome
from harness.programs import require
from harness.scenarios import DEFAULT
from harness.suites import Selection, Suite, run_suite
from harness.vocabulary import SHARED_INFO

# One to name the crash; the rest for pytest's own end, on a machine that may be busy otherwise.
SECONDS_TO_TELL = 5.0

CASES = """
from harness.vocabulary import GRANT_TABLE, SHARED_INFO


def test_alias(domain):
    one, other = domain.hole_pages(2)
    domain.add_to_physmap(SHARED_INFO, gfn=one)
    try:
        domain.add_to_physmap(SHARED_INFO, gfn=other)
    except OSError:
        pass  # a Xen that refuses is well


def test_stale_record(domain):
    (at,) = domain.hole_pages(1)
    domain.add_to_physmap(GRANT_TABLE, gfn=at)
    domain.remove_from_physmap(at)


def test_footprint(domain):
    at, elsewhere = domain.hole_pages(2)
    (spare,) = domain.ram_pages(1)
    domain.add_to_physmap(GRANT_TABLE, gfn=at)
    domain.remove_from_physmap(at)
    domain.decrease_reservation([spare])
    domain.populate_physmap([at])
    domain.add_to_physmap(GRANT_TABLE, gfn=elsewhere)


def test_nothing_special(domain):
    assert domain.xen_version() >= (4, 11)
"""

CRASH = """
import time
from pathlib import Path
from harness.vocabulary import GRANT_TABLE


def test_crash(host, domain):
    (gfn,) = domain.hole_pages(1)
    inspector = host.inspector
    place = inspector.domain(domain).address + inspector.layout.offsets["domain.grant_table"]
    offset = inspector.memory.physical(place) - host.ram.base
    host.ram.view[offset : offset + 8] = (0xDEAD0000).to_bytes(8, "little")
    Path(__file__).with_name("began").write_text(str(time.time()))
    domain.add_to_physmap(GRANT_TABLE, gfn=gfn)
"""

Run = Callable[..., dict[str, CaseResult]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run cases of the given text on a build; results by the case's name."""

    def run(build: Build, text: str, *watch: str) -> dict[str, CaseResult]:
        file = tmp_path / "test_never_looking.py"
        file.write_text(text)
        suite = Suite(
            build, "virt-gicv3", Selection((str(file),)), tmp_path / "results", watch=watch
        )
        return {case.name: case for case in run_suite(suite).cases.values()}

    return run


def test_what_a_case_never_looked_for_is_named_on_4_14(run: Run, bullseye_build: Build) -> None:
    found = run(bullseye_build, CASES)
    alias = found["alias"]
    assert alias.outcome is Outcome.FAILED
    assert "shared_info of d1 is mapped at 2 GFNs" in alias.message
    assert alias.violations[0].endswith("[shared_page_is_mapped_once]")
    stale = found["stale_record"]
    assert stale.outcome is Outcome.PASSED and stale.violations == ()
    assert "grant frame 0 of d1 is recorded at gfn" in stale.observed[0]
    assert "known: before 71320946d5" in stale.observed[0]
    footprint = found["footprint"]
    assert footprint.outcome is Outcome.FAILED
    assert "which the call did not name" in footprint.message
    assert "after d1 XENMEM_add_to_physmap(space=grant_table" in footprint.violations[0]
    assert found["nothing_special"].violations == found["nothing_special"].observed == ()


def test_nothing_is_found_on_4_17_even_after_every_call(run: Run, bookworm_build: Build) -> None:
    for case in run(bookworm_build, CASES, "--paranoid").values():
        assert (case.outcome, case.violations, case.observed) == (Outcome.PASSED, (), ())
        assert case.unseen == ""


def test_paranoid_names_the_call_after_which_a_rule_was_broken(
    run: Run, bullseye_build: Build
) -> None:
    alias = run(bullseye_build, CASES, "--paranoid")["alias"]
    assert "after d1 XENMEM_add_to_physmap(space=shared_info" in alias.violations[0]


def test_cases_run_without_where_told_to(run: Run, bullseye_build: Build) -> None:
    found = run(bullseye_build, CASES, "--no-tables", "--no-lines")
    assert {case.outcome for case in found.values()} == {Outcome.PASSED}
    assert gather(found.values()) == {}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--strip-debug", "carries no debug information"),
        ("--strip-symbol=domain_list", "is of a Xen whose tables the inspector cannot read"),
        ("--remove-section=.note.gnu.build-id", "carries no build-id"),
    ],
)
def test_symbols_that_tell_too_little_leave_a_case_that_ran_without(
    bookworm_build: Build, tmp_path: Path, words: str, reason: str
) -> None:
    syms, fresh = tmp_path / "xen-syms", Cache(tmp_path / "cache")
    objcopy = require("aarch64-linux-gnu-objcopy")
    subprocess.run([objcopy, words, bookworm_build.syms, syms], check=True)
    xen = replace(bookworm_build, syms=syms)
    attendance = Attendance(xen, tmp_path, fresh, Watch())
    with boot(xen, load_machine(), DEFAULT, tmp_path, fresh, attendance.counters) as host:
        attendance.meet(host)
        attendance.begin()
        host.domain(1).add_to_physmap(SHARED_INFO, gfn=host.domain(1).hole_pages(1)[0])
        found = attendance.finish(look=True)
    attendance.close()
    assert reason in found.unseen
    assert found.violations == found.observations == ()
    ran = Ran.load(tmp_path / RAN_IN_CASE)
    assert ran is not None and len(ran) > 100  # lines are counted all the same


def test_what_each_case_ran_is_kept(run: Run, bookworm_build: Build, tmp_path: Path) -> None:
    found = gather(run(bookworm_build, CASES).values())
    assert len(found) == 1 + 4  # the boot's as well
    kept = Cache(tmp_path / "cache")
    remember(kept, "build", found, tmp_path)
    assert recall(kept, "build", tmp_path) == found


def test_crash_is_told_with_its_source_within_a_second(
    run: Run, bookworm_build: Build, tmp_path: Path
) -> None:
    crash = run(bookworm_build, CRASH)["crash"]
    took = (tmp_path / "results" / "results.json").stat().st_mtime - float(
        (tmp_path / "began").read_text()
    )
    assert crash.outcome is Outcome.CRASHED
    assert crash.crash[0].startswith("trap on CPU 0: Data Abort Trap. Syndrome=")
    assert any("xen/common/grant_table.c:" in line for line in crash.crash)
    assert any("(inlined)" in line for line in crash.crash)
    assert "gnttab_map_frame" in crash.signature
    assert crash.operations[-1].startswith(
        "d1 XENMEM_add_to_physmap(space=grant_table, idx=0, gfn="
    )
    assert crash.operations[-1].endswith(") -> no answer")
    assert took < SECONDS_TO_TELL
