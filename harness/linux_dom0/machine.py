"""A build and the image in; a host whose dom0 is a Linux that one has logged into out.

Booted cold once for each Xen, then continued from a snapshot: a fresh dom0 for every case. Refuses
to know: what is done in dom0.

Facts from trials: dom0 is direct-mapped, so RAM must have 512 MiB in one piece, and modules at
0x50000000 would split it; qemu/*.toml puts them lower. An SSH port is chosen by the kernel and
asked of QEMU, since one chosen by us could be taken before QEMU has it.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from harness import agent
from harness.booting import Booted
from harness.builds import Build
from harness.cache import Cache
from harness.errors import HarnessError, XenFailure
from harness.hosts import Probe
from harness.linux_dom0 import snapshot
from harness.linux_dom0.cpio import Entry, directory, regular
from harness.linux_dom0.image import Image, image, personal
from harness.linux_dom0.ssh import LOGIN_SECONDS, CommandFailed, Keys, Shell
from harness.linux_dom0.tools import DEBIANS, debians_may_do, tools
from harness.linux_dom0.toolstack import Toolstack
from harness.linux_dom0.tray import Tray
from harness.machines import Machine
from harness.programs import require
from harness.progress import Progress, quiet
from harness.scenarios import Scenario
from harness.trees import Tree

RECIPE = 2  # raised whenever a dom0 of the same parts would be another than before
RAM_MIB = 1024  # dom0's, and room for what xl makes
BOOT_SECONDS = 180.0
BOOTARGS = "console=hvc0 quiet loglevel=4 panic=-1 init_on_free=1"
NETWORK = (
    "-netdev", "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:22",
    "-device", "virtio-net-device,netdev=net",
    "-global", "virtio-mmio.force-legacy=false",
)  # fmt: skip
LISTENS = "xenverify: dom0 listens"
DEAF = re.compile(r"xenverify: (dom0 has no SSH server: .*)")
UP = "xenverify: dom0 is up"
FORWARD = re.compile(r"(?m)^\s*TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s")
# What QEMU says of a state that it cannot take up: migration/ and block/ there.
LOADING = re.compile(
    r"loadvm|savevm|loading (VM )?state|load of migration|Length mismatch|snapshot"
)
STATE = "state.qcow2"
TRAY = "tray.img"
RECORD = "snapshot.json"
BOOT_LOG = "boot-console.log"  # what was said before the snapshot
COLD = "cold-boot"  # of the case's folder, where the first boot on a Xen leaves its logs
LAST_LINES = 12


@dataclass(frozen=True)
class Snapshot:
    """A dom0 that is up, kept in the cache."""

    state: Path
    keys: Keys
    build_id: str
    console: Path


class LinuxHost(Booted):
    """A host whose dom0 is Linux; enter it, and it is up and logged into."""

    may_sleep = True
    login_seconds = LOGIN_SECONDS

    dom0_linux: Shell
    toolstack: Toolstack

    def __init__(
        self,
        build: Build,
        machine: Machine,
        scenario: Scenario,
        directory: Path,
        *,
        image: Image,
        kernel: Path,
        cache: Cache | None = None,
        probe: Probe | None = None,
        snapshot: Snapshot | None = None,
    ) -> None:
        """`kernel` is the agent, for domUs that Xen starts beside dom0.

        With a snapshot the machine goes on from there; else it boots.
        """
        self.keys = snapshot.keys if snapshot else Keys.make()
        self._snapshot = snapshot
        directory.mkdir(parents=True, exist_ok=True)
        # From a snapshot RAM is what it was, so the image may be anybody's.
        root = image.root if snapshot else self._root(image, directory)
        super().__init__(
            build,
            machine.at_least(ram_mib=RAM_MIB),
            _with_linux(scenario, image, root),
            directory,
            kernel=kernel,
            cache=cache,
            probe=probe,
        )

    def _root(self, image: Image, directory: Path) -> Path:
        return personal(image, _personal(self.keys), directory / "root.cpio")

    def __enter__(self) -> Self:
        copied = None
        self._tray = Tray(self.directory / TRAY)
        self._open.callback(self._tray.close)
        self._qemu_args = (*NETWORK, *self._tray.arguments)
        if self._snapshot:
            copied = snapshot.copy(self._snapshot.state, self.directory / STATE)
            shutil.copyfile(self._snapshot.console, self.directory / BOOT_LOG)
            self._qemu_args = (*self._qemu_args, *snapshot.arguments(copied))
        try:
            super().__enter__()
            self._log_in()
        except BaseException as problem:
            self.close()
            if isinstance(problem, HarnessError):
                raise self._refused(problem) from problem
            raise
        finally:
            if copied:
                copied.unlink(missing_ok=True)  # QEMU has it open
        return self

    def _refused(self, problem: HarnessError) -> HarnessError:
        """Say it of a snapshot, if that is what QEMU could not do anything with."""
        if self._snapshot is None or not hasattr(self, "process"):
            return problem
        said = [line for line in self.process.said() if LOADING.search(line)]
        if not said:
            return problem
        return HarnessError(
            "the snapshot of dom0 is of another QEMU or machine than it shall go on in",
            evidence=[*said, *problem.evidence],
            advice=f"It is made anew after:  rm -r {self._snapshot.state.parent}",
        )

    def _listens(self) -> bool:
        if deaf := DEAF.search(self.console.text):
            raise HarnessError(deaf[1])
        return LISTENS in self.console.text

    def _log_in(self) -> None:
        if self._snapshot is None:
            self.wait(self._listens, BOOT_SECONDS, "dom0's SSH server")
        self.dom0_linux = Shell(
            self._port(), self.keys, seconds=self.login_seconds, check=self.check
        )
        self._open.callback(self.dom0_linux.close)
        if self._snapshot is None:
            self.wait(lambda: UP in self.console.text, BOOT_SECONDS, "Xen's toolstack in dom0")
        self.toolstack = Toolstack(self, self.dom0_linux, self._image, self._tray)

    def _prove_build(self) -> None:
        """Of a machine that goes on from a snapshot, its boot has proved the Xen."""
        if self._snapshot is None:
            super()._prove_build()
        elif self._snapshot.build_id != self.build.build_id:
            raise HarnessError(
                "the snapshot is of another Xen than the one that was built",
                evidence=[
                    f"built:    {self.build.build_id}",
                    f"snapshot: {self._snapshot.build_id}",
                ],
            )

    def _port(self) -> int:
        self.qmp.patience = BOOT_SECONDS  # it says nothing before the state is loaded
        try:
            said = self.qmp.execute("human-monitor-command", command_line="info usernet")
        except HarnessError:
            self.check()  # a QEMU that is no more has a better reason
            raise
        found = FORWARD.search(said)
        if found is None:
            raise HarnessError("QEMU forwards no port to dom0", evidence=str(said).splitlines())
        return int(found[1])

    def save(self, file: Path) -> None:
        """Log out, and write the machine's state to `file`."""
        self.dom0_linux.run("sync; echo 3 > /proc/sys/vm/drop_caches")
        self.dom0_linux.close()
        snapshot.save(self.qmp, file)


def _with_linux(scenario: Scenario, image: Image, root: Path) -> Scenario:
    if scenario.dom0 is None:
        raise HarnessError(f"the scenario {scenario.name!r} has no dom0")
    dom0 = replace(scenario.dom0, kernel=image.kernel, ramdisk=root, bootargs=BOOTARGS)
    return replace(scenario, dom0=dom0)


def _personal(keys: Keys) -> list[Entry]:
    return [
        directory("root", 0o700),
        directory("root/.ssh", 0o700),
        regular("root/.ssh/authorized_keys", keys.authorized.encode(), 0o600),
        regular("etc/ssh/ssh_host_ed25519_key", keys.server.encode(), 0o600),
    ]


def boot(
    build: Build,
    machine: Machine,
    scenario: Scenario,
    directory: Path,
    cache: Cache,
    *,
    probe: Probe | None = None,
    progress: Progress = quiet,
) -> LinuxHost:
    """A host to enter, that goes on from the snapshot of this Xen; it is made if there is none.

    Its tools are Debian's where these can make a domain on this Xen, and else the Xen's own.
    Raises ToolsDoNotFit if not even those can.
    """
    stage = _Stage(build, machine, scenario, directory, cache, progress)
    first = equipped(build, cache, progress)
    try:
        return stage.host(first, probe)
    except ToolsDoNotFit as problem:
        if first.tools is not None:
            raise
        progress(f"{problem}; trying its own")
    return stage.host(equipped(build, cache, progress, own=True), probe)


def equipped(build: Build, cache: Cache, progress: Progress = quiet, *, own: bool = False) -> Image:
    """Return the image with the tools that speak this Xen's domctl interface, or its `own`."""
    plain = image(cache, progress)
    if not own and debians_may_do(build.tree):
        return plain
    return plain.with_tools(tools(build.tree, cache, progress, confined=build.options.sandbox))


@dataclass(frozen=True)
class _Stage:
    """Everything that a host needs but its image."""

    build: Build
    machine: Machine
    scenario: Scenario
    directory: Path
    cache: Cache
    progress: Progress

    def host(self, image: Image, probe: Probe | None) -> LinuxHost:
        """Return a host of that image, with the snapshot it goes on from."""
        kernel = agent.image(self.cache)
        made = self.snapshot(image, kernel)
        return LinuxHost(
            self.build,
            self.machine,
            self.scenario,
            self.directory,
            image=image,
            kernel=kernel,
            cache=self.cache,
            probe=probe,
            snapshot=made,
        )

    def snapshot(self, image: Image, kernel: Path) -> Snapshot:
        """Return the snapshot of a dom0 on this Xen and machine, by this QEMU."""

        def make(entry: Path) -> None:
            self.progress("booting a Linux dom0 for the first time on this Xen")
            record = self._boot_cold(image, kernel, entry)
            path = entry / RECORD
            path.touch(0o600)
            path.write_text(json.dumps(record))

        inputs: Sequence[object] = (
            RECIPE, self.build.build_id, image.identity, _identity(self.machine),
            self.machine.arguments(), NETWORK, RAM_MIB, repr(self.scenario),
            hashlib.sha256(kernel.read_bytes()).hexdigest(),
        )  # fmt: skip
        key = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:32]
        entry = self.cache.entry("linux-dom0-snapshots", key, make, progress=self.progress)
        record = json.loads((entry / RECORD).read_bytes())
        keys = Keys(**record["keys"])
        return Snapshot(entry / STATE, keys, record["build_id"], entry / BOOT_LOG)

    def _boot_cold(self, image: Image, kernel: Path, entry: Path) -> dict[str, object]:
        """Boot, see that a domain can be made, and save; logs stay where they fail."""
        directory = self.directory / COLD
        host = LinuxHost(
            self.build,
            self.machine,
            self.scenario,
            directory,
            image=image,
            kernel=kernel,
            cache=self.cache,
        )
        try:
            with host:
                host.toolstack.prove()
                host.save(entry / STATE)
        except CommandFailed as problem:
            raise ToolsDoNotFit(self.build.tree, image, problem) from problem
        except (XenFailure, HarnessError) as problem:
            raise _located(problem, directory) from problem
        shutil.copyfile(directory / "console.log", entry / BOOT_LOG)
        shutil.rmtree(directory)
        return {"keys": asdict(host.keys), "build_id": self.build.build_id}


class ToolsDoNotFit(CommandFailed):
    """xl makes no domain on this Xen; if it is the Xen's own xl, then that is Xen's failure."""

    def __init__(self, tree: Tree, image: Image, problem: CommandFailed) -> None:
        super().__init__(problem.output)
        whose = f"the tools of {tree.label}" if image.tools else DEBIANS
        said = (problem.output.stderr.strip() or problem.output.stdout.strip()).splitlines()
        first = f"{whose} make no domain on Xen {tree.version}"
        self.args = ("\n  ".join([first, *said[-8:]]),)


def _identity(machine: Machine) -> str:
    """Return which file QEMU is: another one may not understand this one's state.

    Not its version: two of one version may differ.
    """
    program = require(machine.program).resolve()
    status = program.stat()
    return f"{program} {status.st_size} {status.st_mtime_ns}"


def _located(problem: XenFailure | HarnessError, directory: Path) -> XenFailure | HarnessError:
    """Say where the console of a boot that failed is, and how it ends."""
    log = directory / "console.log"
    last = log.read_text(errors="replace").split("\n")[-LAST_LINES:] if log.exists() else []
    evidence = [*problem.evidence, *last, f"console: {log}"]
    if isinstance(problem, XenFailure):
        return type(problem)(problem.message, evidence=evidence)
    return HarnessError(problem.message, evidence=evidence, advice=problem.advice)
