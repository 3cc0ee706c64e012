"""pytest's configuration in, whether its user asked for the cases under a Linux dom0 out.

They take packages from Debian, perhaps a toolstack to build, and seconds for each case: so they run
when they are named, by `-m`, by `-k`, or by their folder. What they need made first is made here,
where it can be told; the workers find it made.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.errors import XenverifyError
from harness.progress import Progress

if TYPE_CHECKING:
    from harness.builds import Build

MARKER = "linux_dom0"


def asked(config: pytest.Config) -> bool:
    """Say whether the command line names these cases."""
    expressions = f"{config.option.markexpr} {config.option.keyword}"
    paths = (Path(argument.partition("::")[0]) for argument in config.args)
    return MARKER in expressions or any(MARKER in path.parts for path in paths)


def prepare(build: Build, progress: Progress) -> None:
    """Make the image, and tools where this Xen needs its own; a failure is left to the cases."""
    from harness.cache import default_cache
    from harness.linux_dom0.machine import equipped

    with suppress(XenverifyError):
        equipped(build, default_cache(), progress)
