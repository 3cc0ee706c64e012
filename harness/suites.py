"""A build and a choice of cases in, a suite's result out: pytest in a process of its own.

A process, because cases are other people's code, and because one that hangs or dies must cost its
own suite only. Its results come through a pipe as they happen. Several suites run at once in one
loop here, without threads. Refuses to know: what the result will be compared with.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from harness.errors import HarnessError, UsageError
from harness.outcomes import CaseResult, SuiteResult, keyed
from harness.reports.files import write_json, write_whole

if TYPE_CHECKING:
    from harness.builds import Build

ROOT = Path(__file__).resolve().parent.parent
TESTCASES = ROOT / "testcases"
SECONDS_TO_END = 5.0
# What else is installed must not change a verdict; hypothesis alone takes a second to load.
NO_OTHER_PLUGINS = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
NO_TESTS_COLLECTED = 5  # pytest.ExitCode, not imported: pytest takes longer to load than to tell
LOG_LINES_SHOWN = 15


@dataclass(frozen=True)
class Selection:
    """Which cases to run: paths or pytest ids, none for all of them; `-k` and `-m` expressions."""

    paths: tuple[str, ...] = ()
    keyword: str = ""
    marker: str = ""

    @property
    def root(self) -> Path:
        """The folder ids are relative to: the harness's own, unless cases lie outside it."""
        files = [Path(_located(path).partition("::")[0]) for path in self.paths]
        if all(file.is_relative_to(ROOT) for file in files):
            return ROOT
        folders = [file if file.is_dir() else file.parent for file in files]
        return Path(os.path.commonpath(folders))

    def only(self, ids: Iterable[str]) -> Self:
        """Choose of these the very cases whose ids an earlier run gave."""
        return type(self)(tuple(f"{self.root}/{case}" for case in ids))

    def arguments(self) -> list[str]:
        """Return what pytest is given. A path is the user's, so as seen from where the user is."""
        keyword = ["-k", self.keyword] if self.keyword else []
        marker = ["-m", self.marker] if self.marker else []
        return [*keyword, *marker, *(_located(path) for path in self.paths or [str(TESTCASES)])]


def _located(path: str) -> str:
    """Make a case's path absolute; one that is not here may be meant from the harness's root."""
    name, colons, case = path.partition("::")
    for place in (Path.cwd(), ROOT, TESTCASES):
        if (place / name).exists():
            return str((place / name).resolve()) + colons + case
    raise UsageError(
        f"there is no case {path}",
        advice=f"Give a file or folder, as in {TESTCASES.name}/, or choose by name with -k.",
    )


@dataclass(frozen=True)
class Suite:
    """One suite to run. `again` is the command a failure says to repeat it with."""

    build: Build
    machine: str
    selection: Selection
    directory: Path  # results.json, pytest.log, and a folder for each case
    again: str = ""
    workers: int = 1
    watch: tuple[str, ...] = ()  # pytest's options on what to look at: --paranoid, --no-lines, ...
    leave_out: tuple[str, ...] = ()  # ids of cases not to run


@dataclass(frozen=True)
class Event:
    """What is heard while suites run: `case` of suite number `suite`, or how many it will have.

    Or what it does before its first case, where that takes long.
    """

    suite: int
    collected: int | None = None
    case: CaseResult | None = None
    said: str = ""


Listener = Callable[[Event], None]


def run_suite(suite: Suite, listener: Listener | None = None) -> SuiteResult:
    """Run one suite."""
    return run_suites([suite], listener)[0]


def run_suites(suites: Sequence[Suite], listener: Listener | None = None) -> list[SuiteResult]:
    """Run all suites at once and return their results in the same order.

    Raises UsageError if no case was chosen, HarnessError if pytest itself could not go on. However
    it ends, no process is left.
    """
    with contextlib.ExitStack() as stack:
        runs = [stack.enter_context(_running(suite)) for suite in suites]
        with selectors.DefaultSelector() as selector:
            for number, run in enumerate(runs):
                selector.register(run.events, selectors.EVENT_READ, number)
            while selector.get_map():
                for key, _ in selector.select():
                    number = key.data
                    heard = runs[number].hear()
                    if heard is None:
                        selector.unregister(runs[number].events)
                        continue
                    if listener is not None:
                        for event in heard:
                            listener(_event(number, event))
        return [run.result() for run in runs]


def _event(suite: int, data: dict[str, Any]) -> Event:
    if "case" in data:
        return Event(suite, case=CaseResult.from_json(data["case"]))
    return Event(suite, collected=data.get("collected"), said=data.get("said", ""))


@dataclass
class _Run:
    """One pytest process and what it said so far."""

    suite: Suite
    process: subprocess.Popen[bytes]
    events: int  # the reading end of its pipe
    started: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    unfinished: bytes = b""
    cases: list[CaseResult] = field(default_factory=list)

    def hear(self) -> list[dict[str, Any]] | None:
        """Return what came since the last call; None once there will be no more."""
        data = os.read(self.events, 1 << 16)
        if not data:
            self.ended = time.monotonic()
            return None
        *lines, self.unfinished = (self.unfinished + data).split(b"\n")
        heard: list[dict[str, Any]] = [json.loads(line) for line in lines]
        self.cases += [CaseResult.from_json(event["case"]) for event in heard if "case" in event]
        return heard

    def result(self) -> SuiteResult:
        """Return the finished suite, written to its directory too."""
        status = self.process.wait()
        if status == NO_TESTS_COLLECTED and self.suite.leave_out:
            raise UsageError("no case is left to run: those there are do not reach the line")
        if status == NO_TESTS_COLLECTED:
            raise UsageError(
                f"no case matches {' '.join(self.suite.selection.arguments())}",
                advice="See what there is:  pytest testcases --collect-only -q",
            )
        if status not in (0, 1) or not self.cases:
            raise self._broken(status)
        result = SuiteResult(
            dict(self.suite.build.describe()),
            self.suite.machine,
            keyed(self.cases),
            self.ended - self.started,
        )
        write_json(self.suite.directory / "results.json", result.to_json())
        return result

    def _broken(self, status: int) -> HarnessError:
        log = self.suite.directory / "pytest.log"
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        return HarnessError(
            f"pytest ended with {_status(status)} before the suite was complete",
            evidence=[*lines[-LOG_LINES_SHOWN:], f"command: {log.with_name('pytest.sh')}"],
            advice=f"The whole log: {log}",
        )


def _status(status: int) -> str:
    return f"status {status}" if status >= 0 else signal.Signals(-status).name


@contextlib.contextmanager
def _running(suite: Suite) -> Iterator[_Run]:
    suite.directory.mkdir(parents=True, exist_ok=True)
    reading, writing = os.pipe()
    try:
        command = _command(suite, writing)
        with (suite.directory / "pytest.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **NO_OTHER_PLUGINS},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[writing],
                start_new_session=True,  # Ctrl-C is for the command, which then ends this group
            )
        os.close(writing)
        writing = -1
        try:
            yield _Run(suite, process, reading)
        finally:
            _end(process)
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)


def _command(suite: Suite, events: int) -> list[str]:
    options = {
        "--config-file": ROOT / "pyproject.toml",
        "--rootdir": suite.selection.root,
        "--xen-build": suite.build.directory,
        "--machine": suite.machine,
        "--xenverify-output": suite.directory,
        "--xenverify-again": suite.again,
        "--xenverify-events": events,
    }
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    words += ["-p", "harness.pytest_plugin"]
    words += [f"{option}={value}" for option, value in options.items()]
    words += suite.watch
    if suite.leave_out:
        path = suite.directory / "left-out.txt"
        write_whole(path, "".join(f"{case}\n" for case in suite.leave_out))
        words.append(f"--xenverify-leave-out={path}")
    if suite.workers > 1:  # one worker needs no xdist, and starts sooner without
        words += ["-p", "xdist.plugin", "-n", str(suite.workers)]
    return [*words, *suite.selection.arguments()]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End pytest and its workers: they take SIGTERM as Ctrl-C, and close their hosts."""
    for signum, seconds in ((signal.SIGTERM, SECONDS_TO_END), (signal.SIGKILL, None)):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signum)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
    with contextlib.suppress(ProcessLookupError):  # workers that outlived the one that leads them
        os.killpg(process.pid, signal.SIGKILL)
