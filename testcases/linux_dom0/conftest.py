"""What cases under a Linux dom0 hold in their hands, and when they run.

They boot a Debian with Xen's toolstack, which takes packages from Debian and a second or two for
each case: they run when asked for, by `-m linux_dom0`, by `-k` or by this folder's name.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.booting import Booted
from harness.cache import default_cache
from harness.linux_dom0.machine import LinuxHost
from harness.linux_dom0.toolstack import Toolstack
from harness.pytest_plugin.on_request import MARKER, asked
from harness.references import resolve
from harness.uboot.edits import Flavour
from harness.uboot.images import UBoot, build
from harness.uboot.sources import UBOOT


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{MARKER}: needs a Linux dom0; runs when asked for")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    ours = [item for item in items if here in item.path.parents]
    for item in ours:
        item.add_marker(MARKER)
    if ours and not asked(config):
        config.hook.pytest_deselected(items=ours)
        items[:] = [item for item in items if item not in ours]


@pytest.fixture
def toolstack(host: Booted) -> Toolstack:
    """xl, xenstore and privcmd of a dom0 that nothing else has touched."""
    assert isinstance(host, LinuxHost)
    return host.toolstack


@pytest.fixture
def uboot() -> Callable[[str], UBoot]:
    """Debian's U-Boot of a suite, built for a domU that xl makes."""

    def of(suite: str) -> UBoot:
        cache = default_cache()
        return build(resolve(f"debian:{suite}", cache, project=UBOOT), Flavour.TOOLSTACK, cache)

    return of
