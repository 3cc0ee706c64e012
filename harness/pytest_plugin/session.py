"""Options in, the one Xen of a whole run out: resolved and built once, where pytest was started.

xdist's workers are told where it lies. Which cases will run on it, this does not know.
"""

from __future__ import annotations

import ctypes
import shlex
import signal
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import XenverifyError
from harness.pytest_plugin.on_request import asked, prepare

if TYPE_CHECKING:
    from harness.attendance import Watch
    from harness.builds import Build

RECORDER = "xenverify-recorder"
PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Plan:
    """What the process that was started tells xdist's workers."""

    build: str  # directory
    machine: str
    output: str  # directory
    again: str  # the command that runs cases on this Xen


class Session:
    """One run of pytest with `--xen`."""

    build: Build
    plan: Plan

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.is_worker = hasattr(config, "workerinput")
        self.is_temporary = config.getoption("--xenverify-output") is None
        if self.is_worker or config.getoption("--xenverify-events") is not None:
            _die_with_parent()

    def pytest_sessionstart(self) -> None:
        from harness.builds import load

        try:
            if self.is_worker:
                self.plan = Plan(**getattr(self.config, "workerinput")["xenverify"])  # noqa: B009
            else:
                self.plan = self._plan()
            self.build = load(Path(self.plan.build))
        except XenverifyError as error:
            pytest.exit(_sentence(error), returncode=int(error.exit_code))
        if not self.is_worker and asked(self.config):
            prepare(self.build, self._say)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput["xenverify"] = asdict(self.plan)

    @property
    def watch(self) -> Watch:
        """What is looked at while a case runs."""
        from harness.attendance import Watch

        option = self.config.getoption
        return Watch(
            tables=not option("--no-tables"),
            paranoid=option("--paranoid"),
            lines=not option("--no-lines"),
        )

    def _plan(self) -> Plan:
        option = self.config.getoption
        directory = option("--xen-build") or self._build_reference()
        output = option("--xenverify-output") or tempfile.mkdtemp(prefix="xenverify-")
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
        recorder = self.config.pluginmanager.get_plugin(RECORDER)
        if recorder is not None:
            recorder.tell(phrase)


def _sentence(error: XenverifyError) -> str:
    return "\n".join(filter(None, [f"xenverify: {error.message}", *error.evidence, error.advice]))


def _die_with_parent() -> None:
    """End by SIGTERM when whoever started this process ends, and take SIGTERM for Ctrl-C.

    So a killed `xenverify` leaves nothing: this goes down as after an interruption, hosts and all.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
