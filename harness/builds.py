"""A tree and options in, a built Xen out; the same inputs are never built twice.

Comes in: a `Tree` (changes already applied) and `BuildOptions`. Goes out: `Build`: xen, xen-syms,
.config and log in the cache, with compiler, duration, build-id, and a fingerprint that tells
whether two builds differ at all. Refuses to know: what the build is for.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from elftools.elf.elffile import ELFFile

from harness.cache import Cache
from harness.errors import BuildError, UsageError
from harness.programs import require
from harness.progress import Progress, quiet
from harness.toolchain import extra_flags, find_toolchain
from harness.trees import Tree

# Raised whenever the same inputs would give other files than before.
RECIPE = 2


@dataclass(frozen=True)
class BuildOptions:
    """What a user may choose about a build."""

    arch: str = "arm64"
    debug: bool = True
    kconfig: tuple[Path, ...] = ()
    cc: str | None = None
    sandbox: bool = True


@dataclass(frozen=True)
class Build:
    """One built Xen."""

    directory: Path
    xen: Path
    syms: Path
    config: Path
    log: Path
    tree: Tree
    options: BuildOptions
    compiler: str
    seconds: float  # how long make took, when it was built
    build_id: str  # hex
    sandboxed: bool
    cached: bool  # whether it was there already
    fingerprint: str  # hash of what is loaded, build-id left out

    @property
    def version(self) -> str:
        """The version of its Xen, such as "4.17.5"."""
        return self.tree.version

    def describe(self) -> dict[str, object]:
        """Return what verdict.json says about the build."""
        return {
            "reference": self.tree.reference,
            "label": self.tree.label,
            "version": self.tree.version,
            "tree": self.tree.tree,
            "commit": self.tree.commit,
            "identity": self.tree.identity,
            "changes": list(self.tree.changes),
            "arch": self.options.arch,
            "debug": self.options.debug,
            "kconfig": [str(path) for path in self.options.kconfig],
            "compiler": self.compiler,
            "seconds": round(self.seconds, 2),
            "build_id": self.build_id,
            "sandboxed": self.sandboxed,
            "cached": self.cached,
            "fingerprint": self.fingerprint,
            "directory": str(self.directory),
        }


def build(tree: Tree, options: BuildOptions, cache: Cache, progress: Progress = quiet) -> Build:
    """Return the built Xen of `tree`, from the cache or by building it; BuildError if it cannot."""
    toolchain = find_toolchain(options.arch, options.cc)
    inputs = {
        "recipe": RECIPE,
        "identity": tree.identity,
        "compiler": toolchain.description,
        "options": {**asdict(options), "kconfig": []},
    }
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]
    built = False

    def make(directory: Path) -> None:
        nonlocal built
        built = True
        progress(f"building {tree.label}")
        with cache.scratch("build") as scratch:
            tree.checkout(scratch)
            started = time.monotonic()
            shutil.copy(
                scratch / "xen/arch/arm/configs" / toolchain.defconfig, scratch / "xen/.config"
            )
            with (scratch / "xen/.config").open("a") as config:
                config.write(
                    f"\nCONFIG_DEBUG={'y' if options.debug else 'n'}\nCONFIG_DEBUG_INFO=y\n"
                )
            words = [
                str(require("make")),
                "-C",
                str(scratch / "xen"),
                f"XEN_TARGET_ARCH={options.arch}",
                f"CROSS_COMPILE={toolchain.prefix}",
                f"CC={toolchain.compiler}",
                f"EXTRA_CFLAGS_XEN_CORE={' '.join(['-g', *extra_flags(tree.release)])}",
                "XEN_BUILD_DATE=",
                "XEN_BUILD_TIME=",
                "XEN_BUILD_HOST=xenverify",
                "XEN_DOMAIN=",
                "XEN_WHOAMI=xenverify",
            ]
            with (directory / "build.log").open("w") as log:
                for goal in (["olddefconfig"], [f"-j{os.cpu_count()}"]):
                    done = subprocess.run([*words, *goal], stdout=log, stderr=log, check=False)
                    if done.returncode:
                        lines = (directory / "build.log").read_text().splitlines()
                        raise BuildError(f"{tree.label} does not build", evidence=lines[-10:])
            for name, kept in (("xen", "xen"), ("xen-syms", "xen-syms"), (".config", "config")):
                shutil.copy(scratch / "xen" / name, directory / kept)
            record = {
                "seconds": time.monotonic() - started,
                "compiler": toolchain.description,
                "sandboxed": False,
                **_examine(directory / "xen-syms"),
            }
            whole = {"build": record, "tree": asdict(tree), "options": asdict(options)}
            (directory / "build.json").write_text(json.dumps(whole, default=str))

    directory = cache.entry("builds", key, make, progress=progress)
    return replace(load(directory), tree=tree, options=options, cached=not built)


def load(directory: Path) -> Build:
    """Return the build in `directory`, described by the tree and options it was first made for.

    Raises UsageError if there is none.
    """
    try:
        whole = json.loads((directory / "build.json").read_text())
    except (OSError, ValueError) as problem:
        raise UsageError(
            f"{directory} is no build of ours: {problem}", advice="`xenverify build` makes one."
        ) from None
    tree = {**whole["tree"], "repository": Path(whole["tree"]["repository"])}
    options = {**whole["options"], "kconfig": tuple(map(Path, whole["options"]["kconfig"]))}
    return Build(
        directory,
        directory / "xen",
        directory / "xen-syms",
        directory / "config",
        directory / "build.log",
        Tree(**{**tree, "changes": tuple(tree["changes"])}),
        BuildOptions(**options),
        cached=True,
        **whole["build"],
    )


def build_all(
    jobs: Sequence[Tree], options: BuildOptions, cache: Cache, progress: Progress = quiet
) -> list[Build]:
    """Build all trees with the same options; both sides at once when cores allow."""
    return [build(tree, options, cache, progress) for tree in jobs]


def identical(a: Build, b: Build) -> bool:
    """Say whether both builds load the same bytes, so that no case can tell them apart."""
    return a.fingerprint == b.fingerprint


def _examine(syms: Path) -> dict[str, str]:
    """Read build-id and fingerprint from xen-syms."""
    digest = hashlib.sha256()
    build_id = ""
    with syms.open("rb") as file:
        elf = ELFFile(file)
        for section in elf.iter_sections():
            if section.name == ".note.gnu.build-id":
                build_id = section.data()[16:].hex()
            elif section["sh_flags"] & 2:
                digest.update(
                    f"{section.name} {section['sh_addr']} {section['sh_size']}\n".encode()
                )
                digest.update(section.data())
    return {"build_id": build_id, "fingerprint": digest.hexdigest()}
