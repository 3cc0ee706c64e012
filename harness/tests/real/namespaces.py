"""Commands in a mount namespace of their own, where a disk may be as small as a test wants."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

import pytest


def own_mounts(script: str) -> Sequence[str]:
    """The beginning of a command that runs `script` first, where it may mount what it likes."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    begin = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    if subprocess.run([*begin, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace of our own here")
    return [*begin, "sh", "-c", script, "sh"]
