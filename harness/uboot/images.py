"""U-Boot's source in, an image that boots as a Xen guest out; the same inputs are built once.

Comes in: a `Tree` of U-Boot and for which kind of domain it is to be. Goes out: `UBoot`.
Refuses to know: what the image is booted for.

The configuration is U-Boot's own xenguest_arm64, with the few lines of guest-kernels/u-boot/ where
no toolstack looks after the domain; the edits are `harness.uboot.edits`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from harness import compiling, kconfig
from harness.buildlog import decisive_lines, ran_out_of_room
from harness.cache import NEVER, Cache
from harness.errors import BuildError, HarnessError, UsageError
from harness.programs import require
from harness.progress import Progress, quiet
from harness.sandbox import Sandbox
from harness.toolchain import HOST_PROGRAMS, Toolchain, find_toolchain
from harness.trees import Tree
from harness.uboot import edits
from harness.uboot.edits import Flavour

RECIPE = 2
DEFCONFIG = "configs/xenguest_arm64_defconfig"
FRAGMENTS = {
    Flavour.TOOLSTACK: edits.OURS / "toolstack.config",
    Flavour.DOMU: edits.OURS / "domu.config",
}
PRODUCT = "u-boot.bin"
LOG = "build.log"
RECORD = "uboot.json"
# U-Boot's tools for its build machine want OpenSSL, whether they are asked to sign or not.
OPENSSL = Path("/usr/include/openssl/evp.h")


@dataclass(frozen=True)
class UBoot:
    """One built U-Boot."""

    image: Path  # with the header of an arm64 Image
    tree: Tree
    flavour: Flavour
    unmaps: bool  # whether its source takes shared_info back before it starts an OS
    log: Path
    seconds: float  # how long it took, when it was built
    cached: bool

    @property
    def label(self) -> str:
        """Return what to call it: "U-Boot 2021.01"."""
        return f"U-Boot {self.tree.version}"


def build(
    tree: Tree,
    flavour: Flavour,
    cache: Cache,
    progress: Progress = quiet,
    *,
    sandbox: bool = True,
    cancelled: Event = NEVER,
) -> UBoot:
    """Return the U-Boot of `tree`, from the cache or by building it.

    Raises UsageError if that U-Boot is no guest of Xen, BuildError if it does not build,
    HarnessError if an edit of ours has no place in it.
    """
    toolchain = find_toolchain("arm64", None)
    made = False

    def make(directory: Path) -> None:
        nonlocal made
        made = True
        progress(f"building {tree.project.name} {tree.version} for a {flavour} domU")
        job = _Job(tree, flavour, toolchain, cache, sandbox=sandbox, cancelled=cancelled)
        job.make(directory)

    inputs = (RECIPE, tree.identity, flavour, toolchain.description, _ours(flavour), sandbox)
    key = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:32]
    entry = cache.entry("u-boot", key, make, progress=progress, cancelled=cancelled)
    record = json.loads((entry / RECORD).read_bytes())
    return UBoot(entry / PRODUCT, tree, flavour, log=entry / LOG, cached=not made, **record)


def _ours(flavour: Flavour) -> str:
    """Return a hash over everything that we add to a U-Boot."""
    digest = hashlib.sha256(Path(edits.__file__).read_bytes())
    more = [edits.OURS / name for name in edits.PLACES] if flavour is Flavour.DOMU else []
    for path in (FRAGMENTS[flavour], *more):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class _Job:
    """One build, in a copy of the source that is gone afterwards."""

    def __init__(
        self,
        tree: Tree,
        flavour: Flavour,
        toolchain: Toolchain,
        cache: Cache,
        *,
        sandbox: bool,
        cancelled: Event,
    ) -> None:
        self._tree = tree
        self._flavour = flavour
        self._toolchain = toolchain
        self._cache = cache
        self._confined = sandbox
        self._cancelled = cancelled
        self._wishes = kconfig.read_fragment(FRAGMENTS[flavour])

    def make(self, directory: Path) -> None:
        """Build into `directory`."""
        for program in HOST_PROGRAMS:
            require(program)
        if not OPENSSL.exists():
            raise HarnessError(
                "U-Boot does not build without OpenSSL's headers",
                advice="Install them:  sudo apt install libssl-dev",
            )
        with self._cache.scratch("u-boot") as source:
            sandbox = compiling.place(
                source,
                self._toolchain,
                self._cache,
                trusted=not self._tree.changes,
                confined=self._confined,
            )
            sandbox.check()
            self._tree.checkout(source)
            compiling.note_headers(source)
            unmaps = "XENMEM_remove_from_physmap" in self._read(source / edits.HYPERVISOR)
            defconfig = self._read(source / DEFCONFIG)
            edits.edit(source, self._flavour)
            (source / DEFCONFIG).write_text(kconfig.merge(defconfig, self._wishes))
            started = time.monotonic()
            log = directory / LOG
            self._run_make(sandbox, log, Path(DEFCONFIG).name)
            kconfig.check((source / ".config").read_text(), self._wishes, self._tree.label)
            self._run_make(sandbox, log, f"-j{len(os.sched_getaffinity(0))}", PRODUCT)
            record = {"unmaps": unmaps, "seconds": time.monotonic() - started}
            shutil.copyfile(source / PRODUCT, directory / PRODUCT, follow_symlinks=False)
        (directory / RECORD).write_text(json.dumps(record))

    def _read(self, path: Path) -> str:
        """Return the text of a file that every U-Boot for Xen guests has."""
        try:
            return path.read_text()
        except OSError:
            raise UsageError(
                f"{self._tree.reference} is a U-Boot without {path.name}: it is no guest of Xen",
                advice="xenguest_arm64 came with v2020.10.",
            ) from None

    def _run_make(self, sandbox: Sandbox, log: Path, *goals: str) -> None:
        variables = [
            f"CROSS_COMPILE={self._toolchain.prefix}",
            f"CC={compiling.compiler(self._toolchain, sandbox)}",
        ]
        command: list[str | Path] = [require("make"), "-C", sandbox.inside, *variables, *goals]
        with log.open("ab") as output:
            status = sandbox.run(
                command,
                environment=compiling.environment(sandbox),
                log=output,
                cancelled=self._cancelled,
            )
        if status != 0:
            text = log.read_text(errors="replace")
            if ran_out_of_room(text):
                raise self._cache.full()
            raise BuildError(
                f"U-Boot of {self._tree.label} does not build", evidence=decisive_lines(text)
            )
