"""pytest's side of the harness: `--xen` in, a fresh Xen for every case and its outcome out.

The only module that knows pytest. Without `--xen` or `--xen-build` it adds fixtures and options and
does nothing. The Xen is resolved and built once, where pytest was started, and xdist's workers are
told where it lies. Each worker boots its own hosts, one ahead of the case that runs (stands.py).
"""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import shutil
import signal
import tempfile
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import XenCrashed, XenExited, XenFailure, XenverifyError
from harness.outcomes import CaseResult, Outcome, outcome_of

if TYPE_CHECKING:
    from harness.attendance import Watch
    from harness.booting import Booted
    from harness.builds import Build
    from harness.domain import Domain
    from harness.observing import Findings
    from harness.scenarios import Scenario
    from harness.stands import Stands

LETTERS = {Outcome.FAILED: "F", Outcome.CRASHED: "C", Outcome.HUNG: "H", Outcome.ERROR: "E"}
TESTCASES = Path(__file__).resolve().parent.parent / "testcases"
OPERATIONS_KEPT = 20
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("xenverify", "real Xen under QEMU")
    add = group.addoption
    add("--xen", metavar="REF", help="run the cases on this Xen: debian:4.17, git:PATH@REV, DIR")
    add("--xen-build", metavar="DIR", help="run the cases on a Xen that `xenverify build` made")
    add("--with", dest="xen_with", metavar="CHANGE", action="append", default=[],
        help="apply this change to the Xen first (repeatable, in order)")  # fmt: skip
    add("--reverse", dest="xen_reverse", action="store_true", help="take the changes out instead")
    add("--machine", default="virt-gicv3", help="QEMU machine profile (default: %(default)s)")
    add("--release", action="store_true", help="build without debug=y")
    add("--kconfig", metavar="FILE", action="append", default=[], help="Kconfig fragment")
    add("--cc", metavar="COMPILER", help="the C compiler that builds Xen")
    add("--no-sandbox", action="store_true", help="build outside the sandbox")
    add(
        "--paranoid",
        action="store_true",
        help="hold all rules against Xen's tables after every call",
    )
    add("--no-tables", action="store_true", help="do not look at Xen's tables")
    add("--no-lines", action="store_true", help="do not count the lines of Xen that run")
    add("--xenverify-output", metavar="DIR", help="keep logs and results here")
    add("--xenverify-again", metavar="COMMAND", default="", help="how a report says to repeat")
    add("--xenverify-leave-out", metavar="FILE", help="do not run the cases whose ids are in it")
    add("--xenverify-events", metavar="FD", type=int, help="write results here as they come")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "scenario(name, **changes): which domains Xen starts for this case; changes are those of "
        "every domain (vcpus=, memory_mib=, ...) or of the scenario (xen_args=, pcpus=, ...)",
    )
    wanted = config.getoption("--xen") or config.getoption("--xen-build")
    if wanted and not config.getoption("collectonly"):
        config.pluginmanager.register(CasesOnXen(config), "xenverify-cases")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if listed := config.getoption("--xenverify-leave-out"):
        left_out = set(Path(listed).read_text().splitlines())
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in left_out])
        items[:] = [item for item in items if item.nodeid not in left_out]
    homeless = not config.pluginmanager.has_plugin("xenverify-cases")
    if homeless and not config.getoption("collectonly") and any(map(needs_host, items)):
        raise pytest.UsageError("these cases need a Xen:  pytest testcases --xen debian:bookworm")


def needs_host(item: pytest.Item) -> bool:
    """Whether a collected item is a case: whatever uses a host, directly or by another fixture."""
    return "host" in getattr(item, "fixturenames", ())


@pytest.fixture
def host(request: pytest.FixtureRequest) -> Iterator[Booted]:
    """The running QEMU with a Xen that nothing else has touched."""
    cases = request.config.pluginmanager.get_plugin("xenverify-cases")
    assert isinstance(cases, CasesOnXen), "pytest_collection_modifyitems lets no case in without"
    stand = cases.take(request.node)
    try:
        yield stand.host
    finally:
        stand.close()


@pytest.fixture
def domains(host: Booted) -> list[Domain]:
    """Every domU of the scenario, in the order Xen started them."""
    return [domain for domain in host.domains if domain.domid != 0]


@pytest.fixture
def domain(domains: list[Domain]) -> Domain:
    """The first domU of the scenario."""
    return domains[0]


@pytest.fixture
def dom0(host: Booted) -> Domain:
    """The agent that runs as dom0; the scenario must have one."""
    return host.domain(0)


@dataclass(frozen=True)
class Plan:
    """What the process that was started tells xdist's workers."""

    build: str  # directory
    machine: str
    output: str
    again: str


class TablesBroken(AssertionError):
    """The case went well, but Xen's own tables did not come out of it whole."""


class Stand:
    """A booted host with who looks on, where the case begins on its console, and what was done."""

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
        self.history: deque[str] = deque(maxlen=OPERATIONS_KEPT)
        for domain in self.host.domains:  # one story of all domains, in the order it happened
            domain.history = self.history

    def close(self) -> None:
        """End QEMU."""
        self.host.close()
        self.attendance.close()


class CasesOnXen:
    """Everything that `--xen` turns on."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.is_worker = hasattr(config, "workerinput")
        self.plan: Plan | None = None
        self.build: Build | None = None
        self.stands: Stands[Stand] | None = None
        self.standing: Stand | None = None
        self.findings: Findings | None = None
        self.next: pytest.Item | None = None
        self.phases: dict[str, list[CaseResult]] = {}
        self.results: list[CaseResult] = []
        self.temporary = False
        self.events = config.getoption("--xenverify-events")
        if self.events is not None or self.is_worker:
            _die_with_parent()

    # ---- the session: one build, told to every worker

    def pytest_sessionstart(self) -> None:
        from harness.builds import load
        from harness.stands import Stands

        try:
            if self.is_worker:
                self.plan = Plan(**getattr(self.config, "workerinput")["xenverify"])  # noqa: B009
            else:
                self.plan = self._plan()
            self.build = load(Path(self.plan.build))
        except XenverifyError as error:
            pytest.exit(_sentence(error), returncode=int(error.exit_code))
        self.stands = Stands()

    def _plan(self) -> Plan:
        option = self.config.getoption
        directory = option("--xen-build") or self._build_reference()
        output = option("--xenverify-output")
        if output is None:
            self.temporary = True
            output = tempfile.mkdtemp(prefix="xenverify-")
        Path(output).mkdir(parents=True, exist_ok=True)
        again = option("--xenverify-again") or self._again()
        return Plan(str(directory), option("--machine"), str(Path(output).resolve()), again)

    def _build_reference(self) -> Path:
        from harness.builds import BuildOptions
        from harness.sides import Side, build_sides

        option = self.config.getoption
        options = BuildOptions(
            debug=not option("--release"),
            kconfig=tuple(Path(path).resolve() for path in option("--kconfig")),
            cc=option("--cc"),
            sandbox=not option("--no-sandbox"),
        )
        side = Side(option("--xen"), tuple(option("xen_with")), option("xen_reverse"))
        (build,) = build_sides([side], options, progress=self._say)
        return build.directory

    def _again(self) -> str:
        option = self.config.getoption
        if option("--xen") is None:
            return shlex.join(["pytest", "testcases", "--xen-build", option("--xen-build")])
        words = ["xenverify", "run", "--xen", option("--xen")]
        words += [word for change in option("xen_with") for word in ("--with", change)]
        words += ["--reverse"] * option("xen_reverse")
        if option("--machine") != "virt-gicv3":
            words += ["--machine", option("--machine")]
        return shlex.join(words)

    def _say(self, phrase: str) -> None:
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(f"xenverify: {phrase}")

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        assert self.plan is not None
        node.workerinput["xenverify"] = asdict(self.plan)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._event(collected=len(session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        del node
        self._event(collected=len(ids))

    def pytest_unconfigure(self) -> None:
        if self.stands is not None:
            self.stands.close()
        if self.plan is not None and not self.is_worker:
            self._leave_results()

    def _leave_results(self) -> None:
        assert self.plan is not None and self.build is not None
        if self.temporary and not any(case.outcome.blames_xen for case in self.results):
            shutil.rmtree(self.plan.output, ignore_errors=True)

    # ---- the case: a host of its own, booted ahead

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
            assert self.stands is not None
            self.stands.discard_but(nextitem.nodeid if nextitem is not None else "")

    def take(self, item: pytest.Item) -> Stand:
        """Return the host booted for `item`, and begin with the next item's."""
        assert self.stands is not None
        self._prepare(item)
        stand = self.stands.take(item.nodeid)
        if self.next is not None and needs_host(self.next):
            self._prepare(self.next)
        self.standing = stand
        stand.attendance.begin()
        return stand

    def _prepare(self, item: pytest.Item) -> None:
        assert self.stands is not None and self.build is not None and self.plan is not None
        build, machine, directory = self.build, self.plan.machine, self._directory(item)
        watch = self._watch()

        def boot() -> Stand:
            directory.mkdir(parents=True, exist_ok=True)
            return Stand(build, machine, scenario_of(item), directory, watch)

        self.stands.prepare(item.nodeid, boot)

    def _watch(self) -> Watch:
        from harness.attendance import Watch

        option = self.config.getoption
        return Watch(
            tables=not option("--no-tables"),
            paranoid=option("--paranoid"),
            lines=not option("--no-lines"),
        )

    def _directory(self, item: pytest.Item) -> Path:
        assert self.plan is not None
        case = CaseResult(item.nodeid, Outcome.PASSED)
        return Path(self.plan.output) / case.slug

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

    # ---- the outcome: named, told, and sent

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if needs_host(item):
            case = self._result(item, call, report)
            if report.failed:
                from harness.reports.failure import tell_around

                report.sections.append(("xenverify", "\n".join(tell_around(case))))
                item.user_properties.append(("outcome", case.outcome.value))
            report.xenverify = case.to_json()  # type: ignore[attr-defined]
        return report

    def _result(
        self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport
    ) -> CaseResult:
        """Say what one phase of a case came to."""
        result = self._with_findings(CaseResult(item.nodeid, Outcome.PASSED, call.duration))
        if call.when != "call":  # the boot, most of which went on in the case before
            result = replace(result, seconds=0.0)
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            return replace(result, outcome=Outcome.SKIPPED, message=str(reason))
        if not report.failed or call.excinfo is None:
            return replace(result, directory=str(self._directory(item)))
        return replace(
            result,
            outcome=outcome_of(call.excinfo.value, answers=answers()),
            message=_message(call.excinfo.value),
            details=report.longreprtext,
            evidence=_evidence(call.excinfo.value),
            operations=self._operations(),
            console=self._console(),
            directory=str(self._directory(item)),
            again=self._repeat(item),
            **self._crash(item, call.excinfo.value),
        )

    def _with_findings(self, case: CaseResult) -> CaseResult:
        if self.findings is None:
            return case
        return replace(
            case,
            violations=tuple(map(str, self.findings.violations)),
            observed=tuple(map(str, self.findings.observations)),
            unseen=self.findings.unseen,
        )

    def _crash(self, item: pytest.Item, problem: BaseException) -> dict[str, Any]:
        """Return what Xen died of, by the console that the case left."""
        from harness.attendance import crash_in

        if not isinstance(problem, XenCrashed) or self.build is None:
            return {}
        report = crash_in(self._directory(item) / "console.log", self.build.syms)
        if report is None:
            return {}
        return {"crash": tuple(report.render()), "crash_signature": " ".join(report.signature)}

    def _operations(self) -> tuple[str, ...]:
        return tuple(self.standing.history) if self.standing is not None else ()

    def _console(self) -> str:
        if self.standing is None:
            return ""
        return self.standing.host.console.since(self.standing.mark)

    def _repeat(self, item: pytest.Item) -> str:
        assert self.plan is not None
        case = CaseResult(item.nodeid, Outcome.PASSED)
        if item.path.is_relative_to(TESTCASES) and case.name.isidentifier():
            return f"{self.plan.again} -k {case.name}"
        return f"{self.plan.again} {shlex.quote(f'{item.path}::{item.name}')}"

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        if not report.failed or not hasattr(report, "xenverify"):
            return None
        outcome = Outcome(report.xenverify["outcome"])
        return outcome.value, LETTERS[outcome], outcome.upper()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Gather a case's phases; called for every worker's reports where pytest was started."""
        if self.is_worker:
            return
        phase = self._phase(report)
        if phase is None:
            return
        phases = self.phases.setdefault(report.nodeid, [])
        phases.append(phase)
        if report.when == "teardown" or report.when not in ("setup", "call"):
            self._finish(self.phases.pop(report.nodeid))

    def _phase(self, report: pytest.TestReport) -> CaseResult | None:
        if hasattr(report, "xenverify"):
            return CaseResult.from_json(report.xenverify)
        if report.failed and report.when not in ("setup", "call", "teardown"):
            # xdist's own words for a worker that died; no case of ours said them
            return CaseResult(report.nodeid, Outcome.ERROR, 0.0, "the pytest worker died")
        return None

    def _finish(self, phases: list[CaseResult]) -> None:
        """The first phase that went wrong is what the case came to; the time is that of all."""
        decisive = next((p for p in phases if p.outcome is not Outcome.PASSED), phases[-1])
        case = replace(decisive, seconds=round(sum(phase.seconds for phase in phases), 4))
        self.results.append(case)
        self._event(case=case.to_json())

    def _event(self, **event: Any) -> None:
        if self.events is not None and not self.is_worker:
            with suppress(BrokenPipeError):
                os.write(self.events, json.dumps(event).encode() + b"\n")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """pytest tells failures and errors itself; Xen's crashes and hangs it has no words for."""
        for outcome in (Outcome.CRASHED, Outcome.HUNG):
            for report in terminalreporter.getreports(outcome.value):
                terminalreporter.write_sep("_", f"{outcome.upper()} {report.nodeid}", red=True)
                report.toterminal(self.config.get_terminal_writer())
                for _, text in report.sections:
                    terminalreporter.write_line(text)
        if self.temporary and self.plan is not None and Path(self.plan.output).is_dir():
            terminalreporter.write_line(f"logs of every case: {self.plan.output}")


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


def _sentence(error: XenverifyError) -> str:
    return "\n".join(filter(None, [f"xenverify: {error.message}", *error.evidence, error.advice]))


def _die_with_parent() -> None:
    """End by SIGTERM when whoever started this process ends, and take SIGTERM for Ctrl-C.

    So a killed `xenverify` leaves nothing: this goes down as after an interruption, hosts and all.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
