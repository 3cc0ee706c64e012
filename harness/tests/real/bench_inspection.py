"""What looking costs: attach, snapshot and rules on 16 and 512 MiB; a suite with and without.

    ci/bench-inspection [--xen REF] [-k WORDS]

The aims: 100 ms for a snapshot with all rules on 512 MiB, 1.3 times the suite's time. CPU time is
shown beside wall time, because the wall is that of a machine that may be busy otherwise.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from harness.booting import boot
from harness.builds import Build, BuildOptions, build
from harness.cache import default_cache
from harness.inspection import attach, invariants
from harness.machines import load_machine
from harness.references import resolve
from harness.scenarios import DEFAULT
from harness.suites import Selection, Suite, run_suite

MEASURED = 10
SIDES = {"with tables and lines": (), "without": ("--no-tables", "--no-lines")}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--xen", default="debian:bookworm", metavar="REF")
    parser.add_argument("-k", default="", dest="keyword", metavar="WORDS")
    arguments = parser.parse_args()
    cache = default_cache()
    xen = build(resolve(arguments.xen, cache), BuildOptions(), cache)
    print(f"Xen {xen.tree.version}")
    for mebibytes in (16, 512):
        measure_snapshot(xen, mebibytes)
    measure_suite(xen, arguments.keyword)


def measure_snapshot(xen: Build, mebibytes: int) -> None:
    """Time what an inspector does on one domain."""
    cache = default_cache()
    with tempfile.TemporaryDirectory() as folder:
        scenario = DEFAULT.with_(memory_mib=mebibytes)
        with boot(xen, load_machine(), scenario, Path(folder), cache) as host:
            print(f"one domU of {mebibytes} MiB, machine of {host.machine.ram_mib} MiB")
            timed("attach", lambda: attach(host.ram, xen.syms, xen.build_id, cache), 3)
            inspector = host.inspector
            timed("first snapshot and rules", lambda: invariants.check(inspector.snapshot()), 1)
            timed("snapshot and rules", lambda: invariants.check(inspector.snapshot()), MEASURED)
            timed("physmaps, as after each call", inspector.physmaps, MEASURED)


def timed(what: str, do: Callable[[], object], times: int) -> None:
    """Do something several times, and print the best wall and CPU time."""
    walls, cpus = [], []
    for _ in range(times):
        wall, cpu = time.perf_counter(), time.process_time()
        do()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    print(f"  {what:<30} {min(walls) * 1e3:8.2f} ms   ({min(cpus) * 1e3:.2f} ms of CPU)")


def measure_suite(xen: Build, keyword: str) -> None:
    """Run the cases with and without looking, in turn and twice, and print the better of each."""
    best = dict.fromkeys(SIDES, float("inf"))
    for _ in range(2):
        for name, watch in SIDES.items():
            with tempfile.TemporaryDirectory() as folder:
                suite = Suite(
                    xen, "virt-gicv3", Selection((), keyword), Path(folder), workers=2, watch=watch
                )
                result = run_suite(suite)
            best[name] = min(best[name], result.seconds)
            print(f"{len(result.cases)} cases {name:<22} {result.seconds:6.1f} s")
    looking, blind = best.values()
    print(f"looking takes {looking / blind:.2f} times as long")


if __name__ == "__main__":
    main()
