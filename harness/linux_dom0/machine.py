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
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from harness import agent
from harness.booting import Booted, InspectableXen
from harness.cache import Cache
from harness.errors import HarnessError, XenFailure
from harness.hosts import Probe
from harness.linux_dom0 import snapshot
from harness.linux_dom0.cpio import Entry, directory, regular
from harness.linux_dom0.image import Image, image, personal
from harness.linux_dom0.ssh import Keys, Shell
from harness.linux_dom0.toolstack import Toolstack
from harness.machines import Machine
from harness.programs import require
from harness.progress import Progress, quiet
from harness.scenarios import Scenario

RAM_MIB = 1536  # dom0's, and room for what xl makes
BOOT_SECONDS = 180.0
BOOTARGS = "console=hvc0 quiet loglevel=4 panic=-1"
NETWORK = (
    "-netdev", "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:22",
    "-device", "virtio-net-device,netdev=net",
    "-global", "virtio-mmio.force-legacy=false",
)  # fmt: skip
LISTENS = "xenverify: dom0 listens"
UP = "xenverify: dom0 is up"
FORWARD = re.compile(r"(?m)^\s*TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s")
STATE = "state.qcow2"
RECORD = "snapshot.json"


@dataclass(frozen=True)
class Snapshot:
    """A dom0 that is up, kept in the cache."""

    state: Path
    keys: Keys
    build_id: str


class LinuxHost(Booted):
    """A host whose dom0 is Linux; enter it, and it is up and logged into."""

    may_sleep = True

    dom0_linux: Shell
    toolstack: Toolstack

    def __init__(
        self,
        build: InspectableXen,
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
        self._qemu_args = NETWORK

    def _root(self, image: Image, directory: Path) -> Path:
        return personal(image, _personal(self.keys), directory / "root.cpio")

    def __enter__(self) -> Self:
        copied = None
        if self._snapshot:
            copied = snapshot.copy(self._snapshot.state, self.directory / STATE)
            self._qemu_args = (*NETWORK, *snapshot.arguments(copied))
        try:
            super().__enter__()
            self._log_in()
        except BaseException:
            self.close()
            raise
        finally:
            if copied:
                copied.unlink(missing_ok=True)  # QEMU has it open
        return self

    def _log_in(self) -> None:
        if self._snapshot is None:
            self.wait(lambda: LISTENS in self.console.text, BOOT_SECONDS, "dom0's SSH server")
        self.dom0_linux = Shell(self._port(), self.keys)
        self._open.callback(self.dom0_linux.close)
        if self._snapshot is None:
            self.wait(lambda: UP in self.console.text, BOOT_SECONDS, "Xen's toolstack in dom0")
        self.toolstack = Toolstack(self, self.dom0_linux, self._image)

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
    build: InspectableXen,
    machine: Machine,
    scenario: Scenario,
    directory: Path,
    cache: Cache,
    *,
    probe: Probe | None = None,
    progress: Progress = quiet,
) -> LinuxHost:
    """A host to enter, that goes on from the snapshot of this Xen; it is made if there is none."""
    host_image, kernel = image(cache, progress), agent.image(cache)
    made = _snapshot(build, machine, scenario, host_image, kernel, cache, progress)
    return LinuxHost(
        build,
        machine,
        scenario,
        directory,
        image=host_image,
        kernel=kernel,
        cache=cache,
        probe=probe,
        snapshot=made,
    )


def _snapshot(
    build: InspectableXen,
    machine: Machine,
    scenario: Scenario,
    image: Image,
    kernel: Path,
    cache: Cache,
    progress: Progress,
) -> Snapshot:
    """Return the snapshot of a dom0 on this Xen and machine, by this QEMU."""

    def make(entry: Path) -> None:
        progress("booting a Linux dom0 for the first time on this Xen")
        host = LinuxHost(
            build, machine, scenario, entry / "boot", image=image, kernel=kernel, cache=cache
        )
        try:
            with host:
                host.save(entry / STATE)
        except (XenFailure, HarnessError) as problem:
            raise _explained(problem, entry / "boot") from problem
        (entry / "boot" / "root.cpio").unlink()
        record = {"keys": asdict(host.keys), "build_id": build.build_id}
        path = entry / RECORD
        path.touch(0o600)
        path.write_text(json.dumps(record))

    inputs: Sequence[object] = (
        build.build_id, image.identity, _version(machine), machine.arguments(), NETWORK, RAM_MIB,
        repr(scenario), hashlib.sha256(kernel.read_bytes()).hexdigest(),
    )  # fmt: skip
    key = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:32]
    entry = cache.entry("linux-dom0-snapshots", key, make, progress=progress)
    record = json.loads((entry / RECORD).read_bytes())
    return Snapshot(entry / STATE, Keys(**record["keys"]), record["build_id"])


def _version(machine: Machine) -> str:
    """Return what QEMU says it is: another one may not understand this one's state."""
    command: list[str | Path] = [require(machine.program), "--version"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _explained(problem: XenFailure | HarnessError, directory: Path) -> XenFailure | HarnessError:
    """Add the console's end to an error, since its folder will be gone."""
    log = directory / "console.log"
    last = log.read_text(errors="replace").split("\n")[-12:] if log.exists() else []
    if isinstance(problem, XenFailure):
        return type(problem)("\n".join([str(problem), *last]))
    return HarnessError(problem.message, evidence=[*problem.evidence, *last], advice=problem.advice)
