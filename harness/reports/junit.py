"""A suite's result in, JUnit XML out; element and type tell every outcome from the others."""

from __future__ import annotations

import re
from pathlib import Path

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from harness.outcomes import CaseResult, Outcome, SuiteResult
from harness.reports.files import write_whole

# A console may hold what XML 1.0 has no way to say.
UNSPEAKABLE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(path: Path, suite: SuiteResult, name: str) -> None:
    """Write `suite` as one <testsuite> called `name`."""
    report = TestSuite(_clean(name))
    for key, value in suite.build.items():
        report.add_property(key, _clean(str(value)))
    report.add_property("machine", suite.machine)
    for case in suite.cases.values():
        report.add_testcase(_testcase(case))
    report.update_statistics()  # type: ignore[no-untyped-call]
    report.time = round(suite.seconds, 3)
    document = JUnitXml()
    document.add_testsuite(report)
    document.update_statistics()  # type: ignore[no-untyped-call]
    text: bytes = document.tostring()  # type: ignore[no-untyped-call]
    write_whole(path, text.decode())


def _testcase(case: CaseResult) -> TestCase:
    classname = case.id.partition("::")[0].removesuffix(".py").replace("/", ".")
    testcase = TestCase(case.id.rpartition("::")[2], classname, round(case.seconds, 3))
    message, details = _clean(case.message), _clean(case.details)
    if case.outcome.blames_xen:
        testcase.result = [Failure(message, case.outcome.value)]
    elif case.outcome is Outcome.ERROR:
        testcase.result = [Error(message, case.outcome.value)]
    elif case.outcome is Outcome.SKIPPED:
        testcase.result = [Skipped(message, case.outcome.value)]
    for result in testcase.result:
        result.text = details
    if case.console:
        testcase.system_out = _clean(case.console)
    return testcase


def _clean(text: str) -> str:
    return UNSPEAKABLE.sub("\N{REPLACEMENT CHARACTER}", text)
