"""Boots a host and holds it: what the tests of host processes start, to end it the hard way.

    python -m harness.tests.real.hold_host XEN BUILD-ID VERSION KERNEL DIRECTORY here|thread

Says "begin" when it is about to boot, and "up" with QEMU's process id when Xen runs. Booted by a
"thread", which has ended by then, or "here", in the main thread, where a Ctrl-C arrives.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.errors import XenverifyError
from harness.hosts import Host
from harness.machines import load_machine
from harness.scenarios import SCENARIOS
from harness.tests.real.poison import PoisonedXen


def main(xen: str, build_id: str, version: str, kernel: str, directory: str, booting: str) -> None:
    """Boot, and hold what has booted."""
    build = PoisonedXen(Path(xen), build_id, version)
    scenario = SCENARIOS["domu"]
    host = Host(build, load_machine(), scenario, Path(directory), default_kernel=Path(kernel))
    print("begin", flush=True)
    if booting == "here":
        with host:
            hold(host)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(host.__enter__).result()
    hold(host)


def hold(host: Host) -> None:
    """Say that it is up, and wait for the worst."""
    print("up", host.process.pid, flush=True)
    time.sleep(60)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except XenverifyError as problem:
        sys.exit(f"{type(problem).__name__}: {problem.message}")
