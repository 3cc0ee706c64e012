"""Reports of an invented comparison: that nothing is lost, and that each suits whoever reads it."""

from __future__ import annotations

import shlex
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.outcomes import CaseResult, Outcome, SuiteResult, keyed
from harness.reports import json_report, mail, table
from harness.reports.failure import headline, tell
from harness.reports.files import write_json, write_whole
from harness.reports.junit import write_junit
from harness.verdicts import Comparison, Question, compare, same_binary

AREA = "testcases/grant_table/test_remap.py::test_"
OUTCOMES = {  # of each side
    "stays": ("passed", "passed"),
    "gets_better": ("failed", "passed"),
    "gets_worse": ("passed", "crashed"),
    "stays_bad": ("failed", "failed"),
    "is_not_for_this_xen": ("skipped", "skipped"),
    "breaks_the_harness": ("passed", "error"),
}
QUESTION = Question(
    "without",
    "with",
    (
        ("change", 'v7 "xen/gnttab: Store frame GFN in struct page_info on Arm", 2 patches'),
        ("on", "git:~/src/xen@staging  git staging 52196c8cd9"),
    ),
    "xenverify verify 'a patch with a long name that must not be cut anywhere.mbox' "
    "--on git:~/src/xen@staging --machine virt-gicv2 --kconfig some/fragment.config",
)
BUILD = {
    "version": "4.17.5",
    "label": "debian 4.17.5+23-ga4e5191dc0-1+deb12u1",
    "build_id": "4f0c1e" * 7,
    "debug": True,
    "compiler": "aarch64-linux-gnu-gcc (Debian 12.2.0-14) 12.2.0",
    "sandboxed": True,
}


def side(number: int) -> SuiteResult:
    cases = [
        CaseResult(
            AREA + name,
            Outcome(outcomes[number]),
            message="" if outcomes[number] == "passed" else "XenError: EBUSY (-16) from something",
            console="(XEN) a control character: \x1b[0m, and half a \ud800 pair",
        )
        for name, outcomes in OUTCOMES.items()
    ]
    return SuiteResult(BUILD, "virt-gicv3", keyed(cases), 7.1)


@pytest.fixture
def comparison() -> Comparison:
    return compare(side(0), side(1))


def test_verdict_json_has_builds_cases_and_a_count_for_each_verdict(
    comparison: Comparison,
) -> None:
    report = json_report.describe(QUESTION, comparison)
    assert report["before"]["build_id"] == report["after"]["build_id"] == BUILD["build_id"]
    by_id = {case["id"]: case for case in report["cases"]}
    assert by_id[AREA + "gets_better"]["before"] == "failed"
    assert by_id[AREA + "gets_better"]["after"] == "passed"
    assert by_id[AREA + "gets_better"]["verdict"] == "fixed"
    assert report["summary"] == {
        "fixed": 1,
        "regressed": 1,
        "still passing": 1,
        "still failing": 1,
        "flaky": 0,
        "incomparable": 2,
    }
    assert report["conclusion"] == "REGRESSED"
    assert report["exit_code"] == 1


def test_a_regression_is_the_first_row_and_what_stays_is_a_count(comparison: Comparison) -> None:
    rows = table.rows(comparison)
    assert [row.name for row in rows] == [
        "gets_worse",
        "gets_better",
        "breaks_the_harness",
        "stays_bad",
    ]
    assert table.rest(comparison) == "2 more: 1 skipped on both sides, 1 still passing"
    assert table.tally(comparison).startswith("1 fixed, 1 regressed")


def test_the_same_binary_has_no_rows_and_says_why() -> None:
    comparison = same_binary(side(0))
    assert table.rows(comparison) == []
    assert "same binary; nothing could differ" in table.tally(comparison)


def test_a_mail_fits_the_list(comparison: Comparison) -> None:
    text = mail.compose(QUESTION, comparison)
    assert all(len(line) <= 72 for line in text.splitlines())
    assert text.isprintable() or text.replace("\n", "").isprintable()
    for expected in ("REGRESSED", "gets_worse", "passed", "crashed", "4f0c1e4f0c1e", "sandbox"):
        assert expected in text
    for name in ("stays_bad", "breaks_the_harness"):
        assert name in text


def test_the_command_in_a_mail_can_be_pasted(comparison: Comparison) -> None:
    text = mail.compose(QUESTION, comparison)
    pasted = text[text.index("  xenverify verify") :].replace("\\\n", " ")
    assert shlex.split(pasted) == shlex.split(QUESTION.command)


def test_junit_tells_every_outcome_from_the_others(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    write_junit(path, side(1), "with")
    suite = ElementTree.parse(path).getroot().find("testsuite")
    assert suite is not None
    counts = [suite.get(name) for name in ("tests", "failures", "errors", "skipped")]
    assert counts == ["6", "2", "1", "1"]
    results = {
        case.get("name"): [(child.tag, child.get("type")) for child in case if child.tag[0] != "s"]
        for case in suite.iter("testcase")
    }
    assert results["test_gets_worse"] == [("failure", "crashed")]
    assert results["test_stays_bad"] == [("failure", "failed")]
    assert results["test_breaks_the_harness"] == [("error", "error")]
    assert results["test_stays"] == []


def test_a_failure_tells_what_was_done_seen_and_said_and_the_ways_on() -> None:
    case = CaseResult(
        AREA + "stale",
        Outcome.FAILED,
        message="assert FAULT is RAM",
        details="code\nE   assert FAULT is RAM\nE    +  where FAULT = content(0x38020)\n",
        operations=tuple(f"d1 call({number}) -> 0" for number in range(20)),
        console="\n".join(f"(XEN) line {number}" for number in range(40)),
        directory="/results/with/stale",
        again="xenverify run --xen debian:bullseye -k stale",
    )
    text = "\n".join(tell(case))
    assert headline(case) == f"FAILED {AREA}stale"
    assert "d1 call(19) -> 0" in text
    assert "d1 call(0) -> 0" not in text
    assert "assert FAULT is RAM" in text
    assert " +  where FAULT" in text
    assert "more lines in console.log" in text
    assert "again:    xenverify run --xen debian:bullseye -k stale" in text
    assert "/results/with/stale/qemu.sh" in text


def test_a_silent_xen_is_said_to_have_said_nothing() -> None:
    assert "Xen said: nothing" in tell(CaseResult("x", Outcome.HUNG, message="no answer"))


def test_a_file_that_cannot_be_written_whole_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json(tmp_path / "verdict.json", {"not": object()})
    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "mail.txt", "\ud800")
    assert not (tmp_path / "verdict.json").exists()
    assert not (tmp_path / "mail.txt").exists()
