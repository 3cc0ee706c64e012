"""What a user says to choose cases in, the ids of those cases out, before anything is built.

Refuses to know: what a case does, and on which Xen.

A case is named by its pytest id from the harness's root, or from / if it lies elsewhere: a name
holds for whatever else is chosen with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable

from harness.errors import HarnessError, UsageError
from harness.suites import NO_OTHER_PLUGINS, NO_TESTS_COLLECTED, ROOT, Selection


def collect(selection: Selection) -> tuple[str, ...]:
    """Return the names of the chosen cases; raises UsageError if there are none."""
    words = [sys.executable, "-m", "pytest", "--collect-only", "-q", "--no-header"]
    words += [
        "-p",
        "no:cacheprovider",
        "-p",
        "harness.pytest_plugin",
        f"--rootdir={selection.root}",
    ]
    done = subprocess.run(
        [*words, *selection.arguments()],
        cwd=selection.root,
        env={**os.environ, **NO_OTHER_PLUGINS, "PYTHONUTF8": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode == NO_TESTS_COLLECTED or not lines:
        words = [*selection.paths, selection.keyword, selection.marker]
        raise UsageError(
            f"no case matches {' '.join(filter(None, words)) or 'that'}",
            advice="See what there is:  pytest testcases --collect-only -q",
        )
    if done.returncode != 0:
        raise HarnessError("pytest cannot collect the cases", evidence=lines[-15:])
    return tuple(name(selection, line) for line in lines if "::" in line)


def name(selection: Selection, case: str) -> str:
    """Return the name of a case whose id is `case` when the selection is run."""
    path = selection.root / case
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def choose(names: Iterable[str]) -> Selection:
    """Return the selection of the cases with these names."""
    return Selection(tuple(str(ROOT / one) for one in names))
