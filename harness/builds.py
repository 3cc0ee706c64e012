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
import stat
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event

from harness import compiling, kconfig
from harness.buildlog import decisive_lines, ran_out_of_room
from harness.cache import NEVER, Cache, Cancelled, DamagedEntryError
from harness.errors import BuildError, HarnessError, UsageError
from harness.programs import require
from harness.progress import Progress, quiet
from harness.sandbox import Sandbox
from harness.toolchain import HOST_PROGRAMS, extra_flags, find_toolchain
from harness.trees import Tree
from harness.xenbinary import NotXenError, identify

# Raised whenever the same inputs would give other files than before.
RECIPE = 3
# File of the entry: where the build leaves it.
PRODUCTS = {
    "xen": Path("xen/xen"),
    "xen-syms": Path("xen/xen-syms"),
    "config": Path("xen/.config"),
}
LOG = "build.log"
RECORD = "build.json"
# What Xen would otherwise say of time and place; equal sources must give equal bytes.
IDENTITY = {
    "XEN_BUILD_DATE": "undated",
    "XEN_BUILD_TIME": "undated",
    "XEN_BUILD_HOST": "xenverify",
    "XEN_DOMAIN": "invalid",
    "XEN_WHOAMI": "xenverify",
}
AT_ONCE = 2


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
    seconds: float  # how long configuring and making took, when it was built
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


def build(
    tree: Tree,
    options: BuildOptions,
    cache: Cache,
    progress: Progress = quiet,
    *,
    cancelled: Event = NEVER,
) -> Build:
    """Return the built Xen of `tree`, from the cache or by building it.

    Raises BuildError if Xen does not build, HarnessError if the machine is at fault; an interrupt
    or `cancelled` leaves no process and no half entry behind.
    """
    job = _Job(tree, options, cache, progress, cancelled)
    directory = cache.entry(
        "builds", job.key, job.make, check=_check, progress=progress, cancelled=cancelled
    )
    return replace(load(directory), tree=tree, options=options, cached=not job.made)


def load(directory: Path) -> Build:
    """Return the build in `directory`, described by the tree and options it was first made for.

    Raises UsageError if there is none.
    """
    try:
        record = json.loads((directory / RECORD).read_bytes())
        _check(directory)
    except (OSError, ValueError, DamagedEntryError) as problem:
        raise UsageError(
            f"{directory} is no build of ours: {problem}", advice="`xenverify build` makes one."
        ) from None
    tree, options = record["tree"], record["options"]
    tree |= {"repository": Path(tree["repository"]), "changes": tuple(tree["changes"])}
    options["kconfig"] = tuple(map(Path, options["kconfig"]))
    return Build(
        directory=directory,
        xen=directory / "xen",
        syms=directory / "xen-syms",
        config=directory / "config",
        log=directory / LOG,
        tree=Tree(**tree),
        options=BuildOptions(**options),
        cached=True,
        **record["build"],
    )


def build_all(
    jobs: Sequence[Tree], options: BuildOptions, cache: Cache, progress: Progress = quiet
) -> list[Build]:
    """Build all `jobs` with the same options, several at once, and return them in their order.

    The first that fails ends the others.
    """
    cancelled = Event()
    distinct = list({tree.identity: tree for tree in jobs}.values())
    with ThreadPoolExecutor(max_workers=AT_ONCE) as executor:
        try:
            started = {
                tree.identity: executor.submit(
                    build, tree, options, cache, progress, cancelled=cancelled
                )
                for tree in distinct
            }
            wait(started.values(), return_when=FIRST_EXCEPTION)
        finally:
            cancelled.set()
    failures = [error for future in started.values() if (error := future.exception()) is not None]
    for error in sorted(failures, key=lambda error: isinstance(error, Cancelled)):
        raise error
    built = {identity: future.result() for identity, future in started.items()}
    return [replace(built[tree.identity], tree=tree) for tree in jobs]


def identical(a: Build, b: Build) -> bool:
    """Say whether both builds load the same bytes, so that no case can tell them apart."""
    return a.fingerprint == b.fingerprint


class _Job:
    """One build: what it depends on, and how it is made in an empty directory of the cache."""

    def __init__(
        self, tree: Tree, options: BuildOptions, cache: Cache, progress: Progress, cancelled: Event
    ) -> None:
        self.made = False
        self._tree = tree
        self._options = options
        self._cache = cache
        self._progress = progress
        self._cancelled = cancelled
        self._toolchain = find_toolchain(options.arch, options.cc)
        self._wishes = [
            kconfig.Wish("CONFIG_DEBUG", "y" if options.debug else kconfig.OFF, "xenverify"),
            *(wish for path in options.kconfig for wish in kconfig.read_fragment(path)),
        ]

    @property
    def key(self) -> str:
        """Return the hash of everything that the built files depend on."""
        inputs = (
            RECIPE,
            self._tree.identity,
            self._toolchain.arch,
            str(self._toolchain.compiler),
            self._toolchain.description,
            [str(wish) for wish in self._wishes],
            self._options.sandbox,
            shutil.which("checkpolicy") is not None,  # Xen's kconfig looks for it
        )
        return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:32]

    def make(self, directory: Path) -> None:
        """Build into `directory`."""
        self.made = True
        for program in HOST_PROGRAMS:
            require(program)
        self._progress(f"building {self._tree.label}")
        with self._cache.scratch("build") as source:
            sandbox = compiling.place(
                source,
                self._toolchain,
                self._cache,
                trusted=not self._tree.changes,
                confined=self._options.sandbox,
            )
            sandbox.check()
            self._checkout(source)
            started = time.monotonic()
            self._configure(sandbox, directory / LOG)
            self._run_make(sandbox, directory / LOG, f"-j{len(os.sched_getaffinity(0))}")
            seconds = time.monotonic() - started
            for name, product in PRODUCTS.items():
                shutil.copyfile(_own_file(source, product), directory / name)
        try:
            found = identify(directory / "xen-syms")
        except NotXenError as error:
            raise BuildError(f"{self._tree.label} builds no usable xen-syms: {error}") from None
        record = {
            "compiler": self._toolchain.description,
            "seconds": seconds,
            "sandboxed": self._options.sandbox,
            "build_id": found.build_id,
            "fingerprint": found.fingerprint,
        }
        tree = asdict(self._tree)
        del tree["project"]  # always Xen
        whole = {"build": record, "tree": tree, "options": asdict(self._options)}
        (directory / RECORD).write_text(json.dumps(whole, default=str))

    def _checkout(self, source: Path) -> None:
        try:
            self._tree.checkout(source)
        except HarnessError:
            if self._cache.is_full():  # git does not say why it cannot write
                raise self._cache.full() from None
            raise
        compiling.note_headers(source)

    def _configure(self, sandbox: Sandbox, log: Path) -> None:
        """Make .config from Xen's defconfig and the wishes, and see that they took."""
        source = sandbox.directory
        config = source / PRODUCTS["config"]
        defconfig = _own_file(source, self._toolchain.defconfig).read_text()
        config.unlink(missing_ok=True)  # a tree may have a link there
        config.write_text(kconfig.merge(defconfig, self._wishes))
        self._run_make(sandbox, log, "olddefconfig")
        kconfig.check(
            _own_file(source, PRODUCTS["config"]).read_text(), self._wishes, self._tree.label
        )
        os.utime(
            config, (compiling.EPOCH, compiling.EPOCH)
        )  # gzip of Xen 4.14 puts the time into the binary

    def _run_make(self, sandbox: Sandbox, log: Path, goal: str) -> None:
        """Run make in the source's xen/; raises BuildError with the log's decisive lines."""
        where: list[str | Path] = [require("make"), "-C", sandbox.inside / "xen"]
        with log.open("ab") as output:
            status = sandbox.run(
                [*where, *self._variables(sandbox), goal],
                environment=compiling.environment(sandbox),
                log=output,
                cancelled=self._cancelled,
            )
        if status != 0:
            text = log.read_text(errors="replace")
            if ran_out_of_room(text) or self._cache.is_full():
                raise self._cache.full()
            kept = self._cache.root / "failed-builds" / f"{self.key}.log"
            kept.parent.mkdir(exist_ok=True)
            shutil.copyfile(log, kept)
            raise BuildError(
                f"{self._tree.label} does not build",
                evidence=decisive_lines(text),
                advice=f"The whole log is {kept}",
            )

    def _variables(self, sandbox: Sandbox) -> list[str]:
        """Return the variables that make gets on its command line, where no makefile can differ."""
        toolchain = self._toolchain
        flags = [
            "-g",
            f"-ffile-prefix-map={sandbox.inside}=/xen",
            *extra_flags(self._tree.release),
        ]
        variables = {
            "XEN_TARGET_ARCH": toolchain.arch,
            "CROSS_COMPILE": toolchain.prefix,
            "CC": compiling.compiler(toolchain, sandbox),
            "PYTHON": "python3",  # Xen up to 4.12 asks for "python"
            "EXTRA_CFLAGS_XEN_CORE": " ".join(flags),
            **IDENTITY,
        }
        return [f"{name}={value}" for name, value in variables.items()]


def _own_file(source: Path, name: Path) -> Path:
    """Return the path of a file below `source`; raises BuildError if that is not where it leads.

    Trees and builds are other people's: they may have links to the user's files, or pipes.
    """
    path = source / name
    if path.resolve() != source.resolve() / name or not path.exists():
        raise BuildError(f"there is no file {name} in the source, but something else or nothing")
    if not stat.S_ISREG(path.lstat().st_mode):
        raise BuildError(f"{name} is no file")
    return path


def _check(directory: Path) -> None:
    """Raise DamagedEntryError if a finished entry lacks a file."""
    for name in (*PRODUCTS, LOG, RECORD):
        if not (directory / name).is_file():
            raise DamagedEntryError(f"{name} is missing")
