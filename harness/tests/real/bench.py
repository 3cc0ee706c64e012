"""What the main job costs on this machine, each thing beside what one would do without xenverify.

    ci/bench                  everything, on Debian's Xen 4.17 and 4.14
    ci/bench boots suite      only these: boots, calls, suite, looking, builds, verdict

Every figure and what it is compared with come from one run on one machine: only the ratios carry to
another. Compared are: booting by hand, that is QEMU's command line on a terminal which pexpect
reads, as Xen's own automation and XTF do; a suite that boots for one case after the other; plain
`make`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pexpect

from harness import hypercalls
from harness.booting import boot
from harness.builds import Build, BuildOptions, build, build_all
from harness.cache import Cache, default_cache
from harness.inspection import invariants
from harness.judging import Setting, Stage, judge
from harness.machines import load_machine
from harness.references import resolve
from harness.scenarios import DEFAULT
from harness.suites import Selection, Suite, run_suite
from harness.trees import Tree

BEFORE, AFTER = "debian:bullseye", "debian:bookworm"
BOOTS = 10
CALLS = 2000
BATCH = 4000
BATCHES = 5
WORKERS = 2
# About thirty cases, as many as the aim for a verdict speaks of.
THIRTY = "(shared_info or stale_gfn or frames) and not toolstack and not vcpus"


def main() -> None:
    """Measure what was asked for, and print a line for each figure."""
    parts: dict[str, Callable[[Bench], None]] = {
        "boots": boots,
        "calls": calls,
        "suite": suite,
        "looking": looking,
        "builds": builds,
        "verdict": verdict,
    }
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(parts))
    asked = parser.parse_args().parts
    if unknown := set(asked) - parts.keys():
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(f"{cores} cores, load {load:.1f} before the start: on a busy machine only ratios count")
    cache = default_cache()
    trees = [resolve(reference, cache) for reference in (BEFORE, AFTER)]
    with tempfile.TemporaryDirectory(prefix="xenverify-bench-") as folder:
        bench = Bench(cache, trees, build_all(trees, BuildOptions(), cache), Path(folder))
        for name in asked or parts:
            print(f"\n{name}")
            parts[name](bench)


@dataclass(frozen=True)
class Bench:
    """What every part measures with: both trees, and their builds in the cache."""

    cache: Cache
    trees: Sequence[Tree]
    built: Sequence[Build]
    folder: Path

    @property
    def xen(self) -> Build:
        """The Xen that cases pass on."""
        return self.built[-1]


def boots(bench: Bench) -> None:
    """QEMU's start to the first answer of an agent, beside a boot by hand to its last line."""
    answered, by_hand = [], []
    for number in range(BOOTS):  # in turn, so that a busy moment strikes both
        folder = bench.folder / f"boot-{number}"
        began = time.perf_counter()
        with boot(bench.xen, load_machine(), DEFAULT, folder, bench.cache) as host:
            host.domains[0].xen_version()
            answered.append(time.perf_counter() - began)
            last = host.console.text.strip().splitlines()[-1].strip()
        by_hand.append(_boot_by_hand(folder / "qemu.sh", last))
    ours, theirs = statistics.median(answered), statistics.median(by_hand)
    show("QEMU's start to the first answer", f"{ours * 1e3:.0f} ms", f"best {min(answered):.3f} s")
    show("by hand, to Xen's last line", f"{theirs * 1e3:.0f} ms", f"ours is {ours / theirs:.2f} x")


def _boot_by_hand(script: Path, last_line: str) -> float:
    """Start the command line a host leaves behind, and read the terminal until Xen has booted."""
    began = time.perf_counter()
    terminal = pexpect.spawn(str(script), encoding="utf-8", codec_errors="replace", timeout=60)
    try:
        terminal.expect_exact(last_line, searchwindowsize=4096)
        return time.perf_counter() - began
    finally:
        terminal.close(force=True)


def calls(bench: Bench) -> None:
    """One call and its answer, and batches of them."""
    folder = bench.folder / "calls"
    with boot(bench.xen, load_machine(), DEFAULT, folder, bench.cache) as host:
        (domain,) = host.domains
        single = []
        for _ in range(CALLS):
            began = time.perf_counter()
            domain.xen_version()
            single.append(time.perf_counter() - began)
        rates = []
        for _ in range(BATCHES):
            batch = [hypercalls.version_number() for _ in range(BATCH)]
            began = time.perf_counter()
            domain.attempt(batch)
            rates.append(BATCH / (time.perf_counter() - began))
    micro = statistics.median(single) * 1e6
    show("one hypercall and its answer", f"{micro:.0f} µs", "aim: under 50 µs")
    show("hypercalls in batches", f"{max(rates):,.0f} a second", "aim: over 100,000")
    show("a batch beside one by one", f"{max(rates) * micro / 1e6:.1f} x")


def suite(bench: Bench) -> None:
    """A case's share of the suite, with and without looking, beside boots one after the other."""
    watched = _suite(bench, "watched")
    plain = _suite(bench, "plain", "--no-tables", "--no-lines")
    one_by_one = _one_by_one(bench)
    aim = "aim: 0.15 s"
    show(f"a case at -n {WORKERS}, Xen's tables and lines watched", f"{watched:.3f} s", aim)
    show(f"a case at -n {WORKERS}, nothing watched", f"{plain:.3f} s",
         f"watching takes {watched / plain:.2f} x; aim: 1.3 x")  # fmt: skip
    show("a boot and an empty case, one by one", f"{one_by_one:.3f} s",
         f"the suite takes {watched / one_by_one:.2f} x")  # fmt: skip


def _suite(bench: Bench, name: str, *watch: str) -> float:
    """Run all cases and return the seconds for each."""
    folder = bench.folder / name
    result = run_suite(
        Suite(bench.xen, "virt-gicv3", Selection(), folder, workers=WORKERS, watch=watch)
    )
    return result.seconds / len(result.cases)


def _one_by_one(bench: Bench) -> float:
    began = time.perf_counter()
    for number in range(BOOTS):
        folder = bench.folder / f"one-{number}"
        with boot(bench.xen, load_machine(), DEFAULT, folder, bench.cache) as host:
            host.domains[0].xen_version()
    return (time.perf_counter() - began) / BOOTS


def looking(bench: Bench) -> None:
    """All tables at once with all rules held; the first look at a machine knows nothing."""
    for mebibytes, aim in ((16, ""), (512, "aim: 100 ms")):
        scenario, folder = DEFAULT.with_(memory_mib=mebibytes), bench.folder / f"{mebibytes}"
        with boot(bench.xen, load_machine(), scenario, folder, bench.cache) as host:
            for which in ("first", "second"):
                began = time.perf_counter()
                broken = invariants.check(host.inspector.snapshot())
                taken = time.perf_counter() - began
                assert not broken, broken
                show(
                    f"{which} snapshot and all rules, {mebibytes} MiB", f"{taken * 1e3:.1f} ms", aim
                )


def builds(bench: Bench) -> None:
    """A cold build beside plain make, neither with a compiler cache; and a pair that is cached."""
    tree, jobs = bench.trees[-1], len(os.sched_getaffinity(0))
    with _path_without_ccache(bench.folder / "bin"):
        ours, theirs = [], []
        for turn in range(2):
            cache = Cache(bench.folder / f"cache-{turn}")
            began = time.perf_counter()
            build(tree, BuildOptions(), cache)
            ours.append(time.perf_counter() - began)
            theirs.append(_plain_make(tree, bench.folder / f"make-{turn}", jobs))
    show("a cold build", f"{min(ours):.1f} s", "checkout, sandbox and record included")
    show(f"plain make -j{jobs} of the same tree", f"{min(theirs):.1f} s",
         f"ours is {min(ours) / min(theirs):.2f} x, aim: 1.05")  # fmt: skip
    began = time.perf_counter()
    for reference in (BEFORE, AFTER):
        resolve(reference, bench.cache)
    named = time.perf_counter()
    build_all(bench.trees, BuildOptions(), bench.cache)
    show("a cached pair, ready to boot", f"{time.perf_counter() - named:.2f} s", "aim: under 1 s")
    show("naming both references before", f"{named - began:.2f} s")


def _plain_make(tree: Tree, directory: Path, jobs: int) -> float:
    """Make the tree as its README says, with the debug setting of ours."""
    tree.checkout(directory)
    make = ["make", "-s", "-C", str(directory / "xen"), "XEN_TARGET_ARCH=arm64",
            "CROSS_COMPILE=aarch64-linux-gnu-"]  # fmt: skip
    began = time.perf_counter()
    with (directory / "make.log").open("wb") as log:
        for goal in ("defconfig", "olddefconfig", f"-j{jobs}"):
            subprocess.run([*make, goal], check=True, stdout=log, stderr=log)
            if goal == "defconfig":
                with (directory / "xen/.config").open("a") as config:
                    config.write("CONFIG_DEBUG=y\n")
    return time.perf_counter() - began


@contextlib.contextmanager
def _path_without_ccache(directory: Path) -> Iterator[None]:
    """Hide ccache: both builds shall compile."""
    from harness.tests.real.commands import path_without

    before = os.environ["PATH"]
    os.environ["PATH"] = path_without("ccache", directory)
    try:
        yield
    finally:
        os.environ["PATH"] = before


def verdict(bench: Bench) -> None:
    """Both sides of a comparison from cached builds, repeats of what differs included."""
    stages = [Stage(name, tree, "") for name, tree in zip("ab", bench.trees, strict=True)]
    folder = bench.folder / "verdict"
    folder.mkdir()
    began = time.perf_counter()
    judgement = judge(
        stages,
        Setting(
            BuildOptions(),
            "virt-gicv3",
            bench.cache,
            folder,
            Selection((), THIRTY),
            len(os.sched_getaffinity(0)),
        ),
    )
    seconds, count = time.perf_counter() - began, len(judgement.whole.cases)
    show(f"a verdict on {count} cases", f"{seconds:.1f} s", "aim: under 8 s for 30")
    show("that is, for 30", f"{seconds * 30 / count:.1f} s")
    by_hand = _one_by_one(bench) * 2 * count
    show("booting one by one on both sides", f"{by_hand:.1f} s", f"{seconds / by_hand:.2f} x")


def show(what: str, figure: str, remark: str = "") -> None:
    """Print one figure."""
    print(f"  {what:<48} {figure:>18}   {remark}".rstrip(), flush=True)


if __name__ == "__main__":
    main()
