"""Every phase's report in, one result a case out: to whoever listens, and to the terminal.

Lives where pytest was started; xdist brings the workers' reports there. How a case came to its
outcome, this does not know.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from harness.outcomes import CaseResult, Outcome

if TYPE_CHECKING:
    from harness.pytest_plugin.session import Session

LETTERS = {Outcome.FAILED: "F", Outcome.CRASHED: "C", Outcome.HUNG: "H", Outcome.ERROR: "E"}
PHASES = ("setup", "call", "teardown")


class Recorder:
    """Gathers the phases of each case, and tells what the case came to."""

    def __init__(self, config: pytest.Config, session: Session) -> None:
        self.config = config
        self.session = session
        self.phases: dict[str, list[CaseResult]] = {}
        self.all_well = True
        self.events: int | None = config.getoption("--xenverify-events")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._send(collected=len(session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        del node
        self._send(collected=len(ids))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.all_well = False
        phase = self._phase(report)
        if phase is None:
            return
        self.phases.setdefault(report.nodeid, []).append(phase)
        if report.when == "teardown" or report.when not in PHASES:
            self._finish(self.phases.pop(report.nodeid))

    def _phase(self, report: pytest.TestReport) -> CaseResult | None:
        if hasattr(report, "xenverify"):
            return CaseResult.from_json(report.xenverify)
        if report.failed and report.when not in PHASES:
            # xdist's own words for a worker that died; no case of ours said them
            return CaseResult(report.nodeid, Outcome.ERROR, 0.0, "the pytest worker died")
        return None

    def _finish(self, phases: list[CaseResult]) -> None:
        """The first phase that went wrong is what the case came to; the time is that of all."""
        decisive = next((p for p in phases if p.outcome is not Outcome.PASSED), phases[-1])
        case = replace(decisive, seconds=round(sum(phase.seconds for phase in phases), 4))
        self._send(case=case.to_json())

    def tell(self, phrase: str) -> None:
        """Pass on what takes long before the first case."""
        self._send(said=phrase)

    def _send(self, **event: Any) -> None:
        """Write one line of JSON to whoever started this; if nobody listens any more, let it be."""
        if self.events is not None:
            data = memoryview(json.dumps(event).encode() + b"\n")
            with suppress(BrokenPipeError):
                while data:
                    data = data[os.write(self.events, data) :]

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        if not report.failed or not hasattr(report, "xenverify"):
            return None
        outcome = Outcome(report.xenverify["outcome"])
        return outcome.value, LETTERS[outcome], outcome.upper()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """pytest tells failures and errors itself; Xen's crashes and hangs it has no words for."""
        for outcome in (Outcome.CRASHED, Outcome.HUNG):
            for report in terminalreporter.getreports(outcome.value):
                terminalreporter.write_sep("_", f"{outcome.upper()} {report.nodeid}", red=True)
                report.toterminal(self.config.get_terminal_writer())
                for _, text in report.sections:
                    terminalreporter.write_line(text)
        if self.session.is_temporary and not self.all_well:
            terminalreporter.write_line(f"logs of every case: {self.session.plan.output}")

    def pytest_unconfigure(self) -> None:
        if self.session.is_temporary and self.all_well and hasattr(self.session, "plan"):
            shutil.rmtree(self.session.plan.output, ignore_errors=True)
