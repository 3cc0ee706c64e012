"""An item to run in, a host booted for it alone and a CaseResult for each of its phases out.

The next item's host boots while this one runs (stands.py); each of xdist's workers has its own.
What the results of a whole run are, this does not know.
"""

from __future__ import annotations

import shlex
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import XenCrashed, XenExited, XenFailure, XenverifyError
from harness.outcomes import CaseResult, Outcome, outcome_of
from harness.pytest_plugin.on_request import MARKER
from harness.reports.failure import tell_around
from harness.stands import Stands

if TYPE_CHECKING:
    from harness.attendance import Watch
    from harness.builds import Build
    from harness.observing import Findings
    from harness.pytest_plugin.session import Session
    from harness.scenarios import Scenario

OPERATIONS_KEPT = 20
TESTCASES = Path(__file__).resolve().parent.parent.parent / "testcases"


def needs_host(item: pytest.Item) -> bool:
    """Whether a collected item is a case: whatever uses a host, directly or by another fixture."""
    return "host" in getattr(item, "fixturenames", ())


class TablesBroken(AssertionError):
    """The case went well, but Xen's own tables did not come out of it whole."""


class Stand:
    """A booted host with who looks on, and where the case begins on its console."""

    def __init__(
        self, build: Build, machine: str, scenario: Scenario, directory: Path, watch: Watch
    ) -> None:
        from harness.attendance import Attendance
        from harness.booting import boot
        from harness.cache import default_cache
        from harness.machines import load_machine

        cache = default_cache()
        self.attendance = Attendance(build, directory, cache, watch)
        try:
            probe = self.attendance.counters
            self.host = boot(build, load_machine(machine), scenario, directory, cache, probe)
            self.host.__enter__()
        except BaseException:
            self.attendance.close()
            raise
        self.attendance.meet(self.host)
        self.mark = self.host.console.mark()

    def close(self) -> None:
        """End QEMU."""
        self.host.close()
        self.attendance.close()


class Cases:
    """Gives every case its host, has a last look at it, and says what the case came to."""

    def __init__(self, config: pytest.Config, session: Session) -> None:
        self.config = config
        self.session = session
        self.stands: Stands[Stand] = Stands()
        self.standing: Stand | None = None
        self.findings: Findings | None = None
        self.next: pytest.Item | None = None

    def pytest_unconfigure(self) -> None:
        self.stands.close()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(
        self,
        item: pytest.Item,  # noqa: ARG002
        nextitem: pytest.Item | None,
    ) -> Generator[None, object, object]:
        self.next = nextitem
        self.standing = self.findings = None
        try:
            return (yield)
        finally:
            self.standing = None
            self.stands.discard_but(nextitem.nodeid if nextitem is not None else "")

    def take(self, item: pytest.Item) -> Stand:
        """Return the host booted for `item`, and begin with the next item's."""
        self._prepare(item)
        stand = self.stands.take(item.nodeid)
        if self.next is not None and needs_host(self.next):
            self._prepare(self.next)
        self.standing = stand
        stand.attendance.begin()
        return stand

    def release(self) -> None:
        """End the host of the case that ran."""
        if self.standing is not None:
            self.stands.release(self.standing)

    def _prepare(self, item: pytest.Item) -> None:
        build, machine = self.session.build, self.session.plan.machine
        watch, directory = self.session.watch, self._directory(item)

        def boot() -> Stand:
            directory.mkdir(parents=True, exist_ok=True)
            return Stand(build, machine, scenario_of(item), directory, watch)

        self.stands.prepare(item.nodeid, boot)

    def _directory(self, item: pytest.Item) -> Path:
        return Path(self.session.plan.output) / CaseResult(item.nodeid, Outcome.PASSED).slug

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """A case is over when Xen is known to have outlived it, its tables whole.

        A case fails in many ways when Xen dies under it; the death is the outcome, not the way.
        """
        del item
        try:
            outcome = yield
            if self.standing is not None:
                self.standing.host.check()
        except BaseException as problem:
            failure = problem if isinstance(problem, XenFailure) else self._death()
            self._look(alive=not isinstance(failure, XenCrashed | XenExited))
            if failure is None or failure is problem:
                raise
            raise failure from problem
        self._look(alive=True)
        if self.findings is not None and self.findings.violations:
            raise TablesBroken("\n".join(map(str, self.findings.violations)))
        return outcome

    def _death(self) -> XenFailure | None:
        """Return what has become of Xen, if it is no more."""
        try:
            if self.standing is not None:
                self.standing.host.check()
        except XenFailure as failure:
            return failure
        return None

    def _look(self, *, alive: bool) -> None:
        """Have a last look at Xen, and keep what was found for the report."""
        if self.standing is not None:
            self.findings = self.standing.attendance.finish(look=alive)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if needs_host(item):
            case = self._result(item, call, report)
            if report.failed:
                report.sections.append(("xenverify", "\n".join(tell_around(case))))
                item.user_properties.append(("outcome", case.outcome.value))
            report.xenverify = case.to_json()  # type: ignore[attr-defined]
        return report

    def _result(
        self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport
    ) -> CaseResult:
        """Say what one phase of a case came to."""
        # setup is the boot, most of which went on in the case before
        seconds = call.duration if call.when == "call" else 0.0
        result = CaseResult(
            item.nodeid,
            Outcome.PASSED,
            seconds,
            directory=str(self._directory(item)),
            **self._found(),
        )
        if report.skipped:
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            reason = str(why).removeprefix("Skipped: ")
            return replace(result, outcome=Outcome.SKIPPED, message=reason)
        if not report.failed or call.excinfo is None:
            return result
        problem = call.excinfo.value
        standing = self.standing
        return replace(
            result,
            outcome=outcome_of(problem, answers=answers()),
            message=_message(problem),
            details=report.longreprtext,
            evidence=_evidence(problem),
            operations=tuple(standing.host.history)[-OPERATIONS_KEPT:]
            if standing is not None
            else (),
            console=standing.host.console.since(standing.mark) if standing is not None else "",
            again=self._repeat(item),
            **self._crash(item, problem),
        )

    def _found(self) -> dict[str, Any]:
        """Return what the last look at Xen found."""
        if self.findings is None:
            return {}
        return {
            "violations": tuple(map(str, self.findings.violations)),
            "observed": tuple(map(str, self.findings.observations)),
            "unseen": self.findings.unseen,
        }

    def _crash(self, item: pytest.Item, problem: BaseException) -> dict[str, Any]:
        """Return what Xen died of, by the console that the case left."""
        from harness.attendance import crash_in

        if not isinstance(problem, XenCrashed):
            return {}
        report = crash_in(self._directory(item) / "console.log", self.session.build.syms)
        if report is None:
            return {}
        return {"crash": tuple(report.render()), "crash_signature": " ".join(report.signature)}

    def _repeat(self, item: pytest.Item) -> str:
        again, name = self.session.plan.again, CaseResult(item.nodeid, Outcome.PASSED).name
        if item.get_closest_marker(MARKER):
            return f"{again} -m {MARKER} -k {name}"
        if item.path.is_relative_to(TESTCASES) and name.isidentifier():
            return f"{again} -k {name}"
        return f"{again} {shlex.quote(f'{item.path}::{item.name}')}"


def scenario_of(item: pytest.Item) -> Scenario:
    """Return the scenario a case asks for by its marker, or the default."""
    from harness.scenarios import DEFAULT, named

    marker = item.get_closest_marker("scenario")
    if marker is None:
        return DEFAULT
    return named(*marker.args or (DEFAULT.name,)).with_(**marker.kwargs)


def answers() -> tuple[type[BaseException], ...]:
    """The exceptions by which a case says that Xen answered wrong."""
    from harness.vocabulary import GrantError, GuestFault, XenError

    return (AssertionError, XenError, GrantError, GuestFault, pytest.fail.Exception)


def _message(problem: BaseException) -> str:
    first = (str(problem).strip().splitlines() or [""])[0]
    return first if isinstance(problem, AssertionError) else f"{type(problem).__name__}: {first}"


def _evidence(problem: BaseException) -> tuple[str, ...]:
    if isinstance(problem, XenverifyError):
        return tuple(filter(None, (*problem.evidence, problem.advice)))
    return problem.evidence if isinstance(problem, XenFailure) else ()
