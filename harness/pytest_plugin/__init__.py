"""pytest's side of the harness: `--xen` in, a fresh Xen for every case and its outcome out.

The only package that knows pytest: options and fixtures here; session.py has the one Xen of the
whole run, cases.py the host of each case, recording.py what becomes of it. Without `--xen` or
`--xen-build` it adds options and fixtures and does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.errors import ExitCode
from harness.pytest_plugin.cases import Cases, needs_host
from harness.pytest_plugin.recording import Recorder
from harness.pytest_plugin.session import RECORDER, Session

if TYPE_CHECKING:
    from harness.booting import Booted
    from harness.domain import Domain

CASES = "xenverify-cases"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("xenverify", "real Xen under QEMU")
    add = group.addoption
    add("--xen", metavar="REF", help="run the cases on this Xen: debian:4.17, git:PATH@REV, DIR")
    add("--xen-build", metavar="DIR", help="run the cases on a Xen that `xenverify build` made")
    add(
        "--with",
        dest="xen_with",
        metavar="CHANGE",
        action="append",
        default=[],
        help="apply this change to the Xen first (repeatable, in order)",
    )
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
        session = Session(config)
        config.pluginmanager.register(session, "xenverify-session")
        config.pluginmanager.register(Cases(config, session), CASES)
        if not session.is_worker:
            config.pluginmanager.register(Recorder(config, session), RECORDER)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if listed := config.getoption("--xenverify-leave-out"):
        left_out = set(Path(listed).read_text().splitlines())
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in left_out])
        items[:] = [item for item in items if item.nodeid not in left_out]
    homeless = not config.pluginmanager.has_plugin(CASES)
    if homeless and not config.getoption("collectonly") and any(map(needs_host, items)):
        pytest.exit(
            "these cases need a Xen:  pytest testcases --xen debian:bookworm",
            returncode=ExitCode.USAGE,
        )


@pytest.fixture
def host(request: pytest.FixtureRequest) -> Iterator[Booted]:
    """The running QEMU with a Xen that nothing else has touched."""
    cases = request.config.pluginmanager.get_plugin(CASES)
    assert isinstance(cases, Cases), "pytest_collection_modifyitems lets no case in without"
    yield cases.take(request.node).host
    cases.release()


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


@pytest.fixture
def boot_again(host: Booted) -> Callable[[Domain], Domain]:
    """Have a second agent take the place of a domain's first, which cleans nothing up."""
    from harness.agent import image
    from harness.cache import default_cache
    from harness.second_kernel import boot_second

    return lambda first: boot_second(host, first, image(default_cache()))
