"""What `git bisect run` is told: 0, 1 or 125 for a commit, 128 and up for every fault of ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.bisection.samples import Reached, Sample
from harness.bisection.step import Rule, Step, judge
from harness.outcomes import CaseResult, Outcome

ROOT = Path(__file__).resolve().parents[3]


def ran(*outcomes: Outcome, message: str = "") -> Sample:
    cases = {
        f"case{number}": (CaseResult(f"case{number}", outcome, message=message),)
        for number, outcome in enumerate(outcomes)
    }
    return Sample("", Reached.RAN, cases=cases)


UNBUILT = Sample("", Reached.SOURCE, "mm.c:12: error: no such thing")
UNBOOTED = Sample("", Reached.BUILT, "Panic on CPU 0: no further")


@pytest.mark.parametrize(
    ("sample", "rule", "step"),
    [
        (ran(Outcome.PASSED), Rule(), Step.GOOD),
        (ran(Outcome.PASSED, Outcome.FAILED), Rule(), Step.BAD),
        (ran(Outcome.PASSED, Outcome.CRASHED), Rule(), Step.BAD),
        (ran(Outcome.HUNG), Rule(), Step.BAD),
        (ran(Outcome.SKIPPED), Rule(), Step.SKIP),
        (ran(Outcome.SKIPPED, Outcome.PASSED), Rule(), Step.GOOD),
        (UNBUILT, Rule(), Step.SKIP),
        (UNBOOTED, Rule(), Step.SKIP),
        (UNBUILT, Rule(build=True), Step.BAD),
        (UNBUILT, Rule(boot=True), Step.SKIP),
        (UNBOOTED, Rule(boot=True), Step.BAD),
        (UNBOOTED, Rule(build=True), Step.BAD),
        (Sample("", Reached.RAN), Rule(boot=True), Step.GOOD),
        (ran(Outcome.CRASHED), Rule(bad_is=("failed",)), Step.SKIP),
        (ran(Outcome.CRASHED), Rule(bad_is=("crashed",)), Step.BAD),
        (ran(Outcome.FAILED, message="-16 at 0x38"), Rule(bad_is=("-N at N",)), Step.BAD),
        (ran(Outcome.FAILED, message="-22"), Rule(bad_is=("-16",)), Step.SKIP),
        (ran(Outcome.PASSED), Rule(fixed=True), Step.BAD),
        (ran(Outcome.FAILED), Rule(fixed=True), Step.GOOD),
        (UNBUILT, Rule(fixed=True), Step.SKIP),
        (Sample("", Reached.UNCHANGED, "hunk 2"), Rule(build=True), Step.SKIP),
    ],
)
def test_a_sample_becomes_an_exit_code(sample: Sample, rule: Rule, step: Step) -> None:
    assert judge(sample, rule)[0] is step


@pytest.mark.parametrize(
    "words",
    [
        ["--nonsense"],
        ["-k", "no_such_case_anywhere"],
        ["--boot", "--xen", "/no/such/directory"],
        ["--boot", "--machine", "no-such-machine"],
        ["--boot", "--with", "/no/such.patch", "--xen", "/no/such/directory"],
        ["--boot", "--kconfig", "/no/such/fragment"],
    ],
)
def test_no_fault_of_ours_looks_like_an_answer(words: list[str], tmp_path: Path) -> None:
    main = "from harness.cli import main; raise SystemExit(main())"
    done = subprocess.run(
        [sys.executable, "-c", main, "bisect-step", *words],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "XENVERIFY_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode >= 128, done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_program_stops_git(tmp_path: Path) -> None:
    """With nothing on the PATH not even git is there: the machine's fault, not the commit's."""
    main = "from harness.cli import main; raise SystemExit(main())"
    (tmp_path / "xen").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", main, "bisect-step", "--boot"],
        cwd=tmp_path,
        env={"PATH": "/nowhere", "PYTHONPATH": str(ROOT), "XENVERIFY_CACHE": str(tmp_path / "c")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 128, done.stderr
