"""xenverify bisect against plain `git bisect run` with make and one boot: same range, same machine.

    ci/bench-bisect                                      planted.py's history, from Debian's Xen
    ci/bench-bisect --repo CLONE --bad REV --good REV    a real one, in which a second map came to
                                                         be refused between bad and good

Plainly means: a clone of its own, `git bisect run` limited to what Xen is built from, make with
both cores in the tree as the last step left it, then one boot in which a guest maps shared_info
twice. Ours is timed with an empty cache, then repeated.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from harness.booting import boot
from harness.cache import Cache, default_cache
from harness.errors import XenFailure
from harness.machines import load_machine
from harness.projects import XEN
from harness.references import resolve
from harness.scenarios import DEFAULT
from harness.tests.real.planted import CASE, plant
from harness.trees import read_version
from harness.vocabulary import SHARED_INFO
from harness.xenbinary import identify

MAKE = "make -C xen XEN_TARGET_ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-"
ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Range:
    """What to bisect."""

    repository: Path
    old: str
    new: str
    fixed: bool  # whether the second map came to be refused, or ceased to be


@dataclass(frozen=True)
class Made:
    """A Xen that make left in a work tree."""

    xen: Path
    syms: Path
    build_id: str
    version: str


def boot_once(tree: Path, *, fixed: bool) -> int:
    """Boot the Xen that was made, and return what `git bisect run` wants to know."""
    version = read_version(tree / ".git", "HEAD", str(tree))
    syms = tree / "xen/xen-syms"
    made = Made(tree / "xen/xen", syms, identify(syms).build_id, version)
    with tempfile.TemporaryDirectory() as directory:
        try:
            with boot(made, load_machine("virt-gicv3"), DEFAULT, Path(directory)) as host:
                (domain,) = host.domains
                refused = False
                for gfn in domain.hole_pages(2):
                    try:
                        domain.add_to_physmap(SHARED_INFO, gfn=gfn)
                    except OSError:
                        refused = True
        except XenFailure:
            return 125
    return int(refused) if fixed else int(not refused)


def plainly(wanted: Range, directory: Path) -> tuple[float, str]:
    """Bisect with git, make and one boot; return the seconds and the commit."""
    clone = directory / "plain"
    run = ["git", "clone", "--quiet", "--shared", str(wanted.repository), str(clone)]
    subprocess.run(run, check=True)
    again = f"{shlex.quote(sys.executable)} -m harness.tests.real.bench_bisect --boot-once"
    script = directory / "step.sh"
    script.write_text(
        "#!/bin/sh\n"
        f"{MAKE} defconfig && echo CONFIG_DEBUG=y >> xen/.config || exit 125\n"
        f"{MAKE} olddefconfig || exit 125\n"
        f"{MAKE} EXTRA_CFLAGS_XEN_CORE=-g -j{len(os.sched_getaffinity(0))} || exit 125\n"
        f"exec {again} {'--fixed' if wanted.fixed else ''} .\n"
    )
    script.chmod(0o755)
    git = ["git", "-C", str(clone), "bisect"]
    terms = ["--term-old=before", "--term-new=after"]
    began = time.monotonic()
    subprocess.run(
        [*git, "start", *terms, wanted.new, wanted.old, "--", *XEN.reads],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    done = subprocess.run(
        [*git, "run", str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=clone,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - began
    said = [line for line in done.stdout.splitlines() if "first after commit" in line]
    return seconds, said[0] if said else "; ".join(done.stdout.splitlines()[-3:])


def ours(wanted: Range, cache: Path, output: Path) -> tuple[float, str]:
    """Bisect with xenverify; return the seconds and the commit."""
    names = ("--bad", "--good", "--fixed") if wanted.fixed else ("--good", "--bad")
    main = "from harness.cli import main; raise SystemExit(main())"
    words = [names[0], wanted.old, names[1], wanted.new, *names[2:]]
    began = time.monotonic()
    done = subprocess.run(
        [
            sys.executable, "-c", main, "bisect", "--repo", str(wanted.repository), *words,
            CASE, "--output", str(output), "--quiet",
        ],
        env={**os.environ, "XENVERIFY_CACHE": str(cache)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    seconds = time.monotonic() - began
    lines = (done.stdout + done.stderr).splitlines()
    found = [line.strip() for line in lines if line.strip().startswith(("COMMIT", "effort"))]
    return seconds, "; ".join(found) or "; ".join(lines[-3:])


def main() -> int:
    """Time all three, and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--repo", type=Path)
    parser.add_argument("--good", default="")
    parser.add_argument("--bad", default="")
    parser.add_argument("--boot-once", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--fixed", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.boot_once:
        return boot_once(options.boot_once.resolve(), fixed=options.fixed)
    with tempfile.TemporaryDirectory(prefix="xenverify-bench-") as name:
        directory = Path(name)
        if options.repo:
            wanted = Range(options.repo.resolve(), options.bad, options.good, fixed=True)
        else:
            planted = plant(resolve("debian:bookworm", default_cache()), directory / "planted")
            wanted = Range(planted.path, planted.ids["base"], planted.ids["notes"], fixed=False)
        cache = Cache(directory / "cache").root
        cold, answer = ours(wanted, cache, directory / "one")
        print(f"xenverify bisect, empty cache  {cold:7.1f} s  {answer}", flush=True)
        again, answer = ours(wanted, cache, directory / "two")
        print(f"xenverify bisect, repeated     {again:7.1f} s  {answer}", flush=True)
        plain, answer = plainly(wanted, directory)
        print(f"plain git bisect run           {plain:7.1f} s  {answer}", flush=True)
        print(f"cold, ours takes {cold / plain:.2f} of the plain time (aim: 0.5)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
