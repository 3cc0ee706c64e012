"""A logged-in dom0 in, domains that xl makes out, and what runs in them.

Comes in: a host and its shell. Goes out: domids, consoles, and for guests that are our agent a
`Domain` like any other. Refuses to know: what a case does with them.

xenconsoled keeps every guest's console in a file, so reading one needs no terminal; typing goes to
the terminal that xenstore names.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.agent import MAGIC, find_agents
from harness.booting import Booted
from harness.domain import Domain, identify
from harness.errors import HarnessError, XenHung
from harness.linux_dom0.privcmd import Privcmd
from harness.linux_dom0.ssh import Output, Shell
from harness.linux_dom0.tray import Tray

SECONDS = 60.0
FILES = "/run/guests"  # with room of its own: the root file system may take half of the RAM
CONSOLES = "/var/log/xen/console"
LAST_LINES = 12  # of a guest that does not say what it should
LOOKS = " ".join(map(str, range(10)))


def _log_of(name: str) -> str:
    return f"{CONSOLES}/guest-{name}.log"


@dataclass(frozen=True)
class Guest:
    """What xl shall make: an xl.cfg of few lines."""

    name: str
    kernel: Path
    memory_mib: int = 32
    vcpus: int = 1
    ramdisk: Path | None = None
    extra: str = ""  # the kernel's command line
    disks: tuple[str, ...] = ()  # as xl-disk-configuration has them
    more: Mapping[str, object] = field(default_factory=dict)  # other settings of xl.cfg

    def config(self) -> str:
        """Return the text of its xl.cfg, with files where `Toolstack.create` puts them."""
        settings: dict[str, object] = {
            "name": self.name,
            "kernel": f"{FILES}/{self.name}.kernel",
            "memory": self.memory_mib,
            "vcpus": self.vcpus,
            "on_crash": "preserve",
        }
        if self.ramdisk is not None:
            settings["ramdisk"] = f"{FILES}/{self.name}.ramdisk"
        if self.extra:
            settings["extra"] = self.extra
        if self.disks:
            settings["disk"] = list(self.disks)
        # Strings, numbers and lists of strings are the same in JSON and in xl.cfg.
        settings.update(self.more)
        lines = (f"{key} = {json.dumps(value)}" for key, value in settings.items())
        return "\n".join([*lines, ""])


class Toolstack:
    """xl, xenstore and privcmd of one dom0."""

    def __init__(self, host: Booted, shell: Shell, agent: Path, tray: Tray) -> None:
        """`agent` is the agent's image, for guests that are one; `tray` is how files get there."""
        self.shell = shell
        self.privcmd = Privcmd(shell, host.history)
        self._host = host
        self._agent = agent
        self._tray = tray
        self._mailboxes: dict[int, list[int]] = {}  # domid: where in the machine's RAM

    def xl(self, *words: str | int, check: bool = True) -> Output:
        """Run xl; raises CommandFailed unless `check` is false, and what has become of Xen."""
        output = self.shell.run("xl", *map(str, words), check=check)
        self._host.history.append(f"dom0 {output.command} -> {output.status}")
        return output

    def create(self, guest: Guest, *, paused: bool = False) -> int:
        """Have xl make a domain and return its domid."""
        config = f"{FILES}/{guest.name}.cfg"
        steps = [self.bringing(guest.kernel, f"{FILES}/{guest.name}.kernel")]
        if guest.ramdisk is not None:
            steps.append(self.bringing(guest.ramdisk, f"{FILES}/{guest.name}.ramdisk"))
        steps.append(f"printf %s {shlex.quote(guest.config())} > {config}")
        steps.append(f"xl create {'-p ' if paused else ''}{config} >&2")
        steps.append(f"xl domid {guest.name}")
        # One command, since each takes a tenth of a second more.
        domid = int(self.shell.run(" && ".join(steps)).stdout)
        self._host.history.append(f"dom0 xl create {guest.name} -> d{domid}")
        return domid

    def bringing(self, content: Path | bytes, remote: str) -> str:
        """Return the command that makes a file of dom0's with that content."""
        data = content.read_bytes() if isinstance(content, Path) else content
        return self._tray.put(data, remote)

    def prove(self) -> None:
        """Make a domain and end it: nothing less tells whether xl and this Xen fit each other.

        `xl list` works with many a Xen that xl can make no domain on. Raises CommandFailed.
        """
        self.destroy(self.create(Guest("probe", self._agent), paused=True))
        self.shell.run(f"rm -f {FILES}/probe.* {_log_of('probe')}")

    def create_agent(self, name: str = "agent", *, memory_mib: int = 32, vcpus: int = 1) -> Domain:
        """Have xl make a domain in which our agent runs, and return it."""
        domid = self.create(Guest(name, self._agent, memory_mib, vcpus))
        return self.meet(domid, vcpus=vcpus)

    def meet(self, domid: int, *, vcpus: int = 1) -> Domain:
        """Return the domain of an agent that xl has started."""
        known = [offset for offsets in self._mailboxes.values() for offset in offsets]
        agents = find_agents(self._host.ram, self._host, self._agent, len(known) + 1, SECONDS)
        for agent in agents:
            if agent.offset in known:
                continue
            found = identify(agent)
            self._mailboxes.setdefault(found, []).append(agent.offset)
            if found == domid:
                domain = Domain(agent, domid, vcpus=vcpus)
                self._host.introduce(domain)
                return domain
        raise HarnessError(f"no agent answers in d{domid}")

    def domid(self, name: str) -> int:
        """Return the domid of a domain by its name."""
        return int(self.xl("domid", name).stdout)

    def domains(self) -> dict[str, int]:
        """Return the domid of every domain but dom0, by name."""
        lines = self.xl("list").stdout.splitlines()[1:]
        return {line.split()[0]: int(line.split()[1]) for line in lines if line.split()[1] != "0"}

    def destroy(self, domid: int) -> None:
        """End a domain, and wait until Xen has nothing left of it."""
        self.xl("destroy", domid)
        self.forget(domid)

    def forget(self, domid: int) -> None:
        """Take an agent that is no more for what it is: its mailbox may still lie in free RAM."""
        for offset in self._mailboxes.pop(domid, []):
            self._host.ram.view[offset : offset + len(MAGIC)] = bytes(len(MAGIC))

    def wait_until_gone(self, name: str, seconds: float = SECONDS) -> None:
        """Wait until xl knows no domain of that name."""
        self._host.wait(lambda: name not in self.domains(), seconds, f"the end of {name}")

    def wait_for_another(self, name: str, domid: int, seconds: float = SECONDS) -> int:
        """Wait until the domain of that name is another one than `domid`, and return its domid."""
        self.forget(domid)

        def other() -> int | None:
            found = self.domains().get(name, domid)
            return None if found == domid else found

        return self._host.wait(other, seconds, f"another {name} than d{domid}")

    def commands(self) -> set[str]:
        """Return the commands that this xl has."""
        listed = self.xl("help", "--long", check=False)
        return set(re.findall(r"(?m)^ (\S+) ", listed.stdout + listed.stderr))

    def free_memory(self) -> int:
        """Return the MiB that no domain has."""
        found = re.search(r"(?m)^free_memory\s*:\s*(\d+)", self.xl("info").stdout)
        if found is None:
            raise HarnessError("xl info does not say how much memory is free")
        return int(found[1])

    def console(self, name: str) -> str:
        """Return everything that a guest has said on its console."""
        return self._said("cat", _log_of(name))

    def wait_for_console(self, name: str, text: str, seconds: float = SECONDS) -> str:
        """Wait until a guest has said `text`; return all that it has said."""
        look = f"grep -qF {shlex.quote(text)} {_log_of(name)}"
        # dom0 looks, a while each time: it shares the CPU with the guest, and a login costs more.
        line = f"for i in {LOOKS}; do {look} && break; sleep 0.1; done; cat {_log_of(name)}"

        def said() -> str | None:
            everything = self._said(line)
            return everything if text in everything else None

        try:
            return self._host.wait(said, seconds, f"{text!r} on the console of {name}")
        except XenHung as hung:
            last = [f"{name}: {line}" for line in self.console(name).splitlines()[-LAST_LINES:]]
            raise XenHung(hung.message, evidence=[*hung.evidence, *last]) from hung

    def _said(self, *command: str) -> str:
        return self.shell.run(*command, check=False).stdout.replace("\r", "")

    def type(self, domid: int, text: str) -> None:
        """Type on a guest's console."""
        key = f"/local/domain/{domid}/console/tty"
        self.shell.run(f'printf %s {shlex.quote(text)} > "$(xenstore-read {key})"')
