"""What two results of a case come to: the whole table, and what repeats may change about it."""

from __future__ import annotations

import pytest

from harness.errors import ExitCode
from harness.outcomes import CaseResult, Outcome, SuiteResult, keyed
from harness.verdicts import Comparison, Verdict, compare, differing, same_binary

CASE = "testcases/area/test_file.py::test_case"


def suite(*outcomes: Outcome, message: str = "") -> SuiteResult:
    """A suite whose cases test_case, test_case1, … came to `outcomes`."""
    cases = [
        CaseResult(CASE + (str(number) if number else ""), outcome, message=message)
        for number, outcome in enumerate(outcomes)
    ]
    return SuiteResult({}, "virt-gicv3", keyed(cases))


def verdict(before: Outcome, after: Outcome) -> Verdict:
    (case,) = compare(suite(before), suite(after)).cases
    return case.verdict


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("passed", "passed", "still passing"),
        ("passed", "failed", "regressed"),
        ("passed", "crashed", "regressed"),
        ("passed", "hung", "regressed"),
        ("failed", "passed", "fixed"),
        ("crashed", "passed", "fixed"),
        ("hung", "passed", "fixed"),
        ("failed", "failed", "still failing"),
        ("failed", "crashed", "regressed"),
        ("failed", "hung", "regressed"),
        ("crashed", "failed", "still failing"),
        ("crashed", "hung", "still failing"),
        ("hung", "crashed", "still failing"),
        ("skipped", "passed", "incomparable"),
        ("passed", "skipped", "incomparable"),
        ("error", "passed", "incomparable"),
        ("failed", "error", "incomparable"),
        ("error", "error", "incomparable"),
    ],
)
def test_every_pair_of_outcomes_has_its_verdict(before: str, after: str, expected: str) -> None:
    assert verdict(Outcome(before), Outcome(after)) == expected


def test_a_case_that_ran_on_one_side_only_is_incomparable() -> None:
    comparison = compare(suite(Outcome.PASSED), suite(Outcome.PASSED, Outcome.PASSED))
    assert [case.verdict for case in comparison.cases] == ["still passing", "incomparable"]
    assert comparison.cases[1].before is None
    assert comparison.cases[1].note == "ran on one side only"


def test_a_case_that_fails_in_another_way_says_so() -> None:
    before = suite(Outcome.FAILED, message="XenError: EBUSY (-16) from call(gfn=0x38000)")
    after = suite(Outcome.FAILED, message="XenError: EINVAL (-22) from call(gfn=0x38000)")
    (case,) = compare(before, after).cases
    assert (case.verdict, case.note) == (Verdict.STILL_FAILING, "fails in another way")


def test_a_failure_that_differs_in_addresses_only_is_the_same_failure() -> None:
    before = suite(Outcome.FAILED, message="fault at gfn 0x38020 after 12 calls")
    after = suite(Outcome.FAILED, message="fault at gfn 0x3BEEF after 9 calls")
    (case,) = compare(before, after).cases
    assert case.note == ""


def test_only_cases_that_both_sides_answered_differ() -> None:
    before = suite(Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED, Outcome.ERROR, Outcome.PASSED)
    after = suite(Outcome.PASSED, Outcome.PASSED, Outcome.PASSED, Outcome.PASSED, Outcome.HUNG)
    assert sorted(differing(before, after)) == [f"{CASE}1", f"{CASE}4"]


def test_repeats_that_agree_keep_the_verdict() -> None:
    failing, passing = suite(Outcome.FAILED), suite(Outcome.PASSED)
    (case,) = compare(
        failing, passing, repeats_before=[failing, failing], repeats_after=[passing, passing]
    ).cases
    assert case.verdict is Verdict.FIXED


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_repeat_that_disagrees_makes_the_case_flaky(side: str) -> None:
    failing, passing = suite(Outcome.FAILED), suite(Outcome.PASSED)
    odd = {"before": [failing, passing], "after": [passing, failing]}[side]
    repeats = {"repeats_before": [failing], "repeats_after": [passing], f"repeats_{side}": odd}
    (case,) = compare(failing, passing, **repeats).cases
    assert case.verdict is Verdict.FLAKY
    assert case.note.startswith(f"{side}: ")


def test_a_repeat_that_is_our_own_error_says_nothing() -> None:
    failing, passing = suite(Outcome.FAILED), suite(Outcome.PASSED)
    (case,) = compare(
        failing, passing, repeats_before=[suite(Outcome.ERROR)], repeats_after=[]
    ).cases
    assert case.verdict is Verdict.FIXED


def conclude(*pairs: tuple[Outcome, Outcome]) -> Comparison:
    return compare(suite(*(one for one, _ in pairs)), suite(*(other for _, other in pairs)))


PASSED, FAILED, ERROR = Outcome.PASSED, Outcome.FAILED, Outcome.ERROR


@pytest.mark.parametrize(
    ("pairs", "conclusion", "code"),
    [
        ([(PASSED, PASSED)], "NO DIFFERENCE", ExitCode.OK),
        ([(FAILED, FAILED)], "NO DIFFERENCE", ExitCode.OK),
        ([(FAILED, PASSED), (PASSED, PASSED)], "VERIFIED", ExitCode.OK),
        ([(FAILED, PASSED), (PASSED, FAILED)], "REGRESSED", ExitCode.REGRESSED),
        ([(FAILED, PASSED), (PASSED, ERROR)], "UNDECIDED", ExitCode.HARNESS_FAILED),
        ([(PASSED, FAILED), (PASSED, ERROR)], "REGRESSED", ExitCode.REGRESSED),
    ],
)
def test_a_regression_outweighs_an_error_and_an_error_a_fix(
    pairs: list[tuple[Outcome, Outcome]], conclusion: str, code: ExitCode
) -> None:
    comparison = conclude(*pairs)
    assert (comparison.conclusion, comparison.exit_code) == (conclusion, code)


def test_the_same_binary_is_never_called_still_passing() -> None:
    comparison = same_binary(suite(PASSED, FAILED))
    assert comparison.conclusion == "IDENTICAL"
    assert comparison.exit_code is ExitCode.OK
    assert {case.verdict for case in comparison.cases} == {Verdict.INCOMPARABLE}
    assert {case.note for case in comparison.cases} == {"both sides are the same binary"}


def test_an_error_on_the_same_binary_is_counted_once() -> None:
    comparison = same_binary(suite(PASSED, ERROR))
    assert len(comparison.errors) == 1
    assert comparison.exit_code is ExitCode.HARNESS_FAILED
