"""Which domains Xen starts, as plain values that adapt to the version of Xen that boots them.

Where images lie in memory and how the device tree tells Xen, this does not know.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.machines import Machine

# Xen 4.12 brought dom0less; 4.16 (commit 20f0f0dc1d) made a dom0 beside it optional.
FIRST_DOM0LESS = (4, 12)
FIRST_WITHOUT_DOM0 = (4, 16)
# The name of a plan whose kernel is Debian's, with a root file system of ours.
LINUX = "linux"
# What Xen itself, its heap and the frame table take beside the domains, generously.
XEN_MIB = 96


@dataclass(frozen=True)
class DomainPlan:
    """One domain Xen starts at boot."""

    memory_mib: int = 16
    vcpus: int = 1
    kernel: Path | None = None
    """The image it runs; None means the host's default kernel, the agent."""
    name: str = ""
    bootargs: str = ""
    properties: Mapping[str, bytes] = field(default_factory=dict)
    """More of its device tree node, as raw values; of a domU only."""
    fragment: Path | None = None
    """A partial device tree passed to it as the module `multiboot,device-tree`; of a domU only."""
    ramdisk: Path | None = None
    """A file Xen puts into its RAM, and names in its device tree as Linux' initial ramdisk."""


@dataclass(frozen=True)
class Scenario:
    """The domains of one boot, and what Xen is told on its command line beside them."""

    name: str
    domus: tuple[DomainPlan, ...] = ()
    dom0: DomainPlan | None = None
    xen_args: tuple[str, ...] = ()
    pcpus: int = 1
    """Physical CPUs it needs at least; a domain with more vCPUs than that gets one for each."""

    @property
    def domains(self) -> dict[int, DomainPlan]:
        """Every domain by its domid, in order: dom0 if there is one, then d1, d2, …"""
        dom0 = {0: self.dom0} if self.dom0 else {}
        return {**dom0, **dict(enumerate(self.domus, start=1))}

    def with_(self, **changes: Any) -> Scenario:
        """A variant of this scenario, such as `scenario.with_(pcpus=2, vcpus=2, memory_mib=64)`.

        What a scenario has is changed there, what a DomainPlan has in every domain. Raises
        UsageError for what neither has.
        """
        own, theirs = _names(Scenario), _names(DomainPlan)
        if unknown := changes.keys() - own - theirs:
            raise UsageError(
                f"no scenario has {', '.join(sorted(unknown))}",
                advice="What can be changed: " + ", ".join(sorted(own | theirs)),
            )
        plan = {name: value for name, value in changes.items() if name not in own}
        domains: dict[str, Any] = {
            "domus": tuple(replace(domu, **plan) for domu in self.domus),
            "dom0": replace(self.dom0, **plan) if self.dom0 else None,
        }
        return replace(self, **{**domains, **{k: v for k, v in changes.items() if k in own}})

    def for_version(self, version: str) -> Scenario:
        """What this scenario is on Xen `version`; raises UsageError where it cannot be.

        A Xen before 4.16 does not boot without a dom0: it gets one that idles beside the domUs.
        """
        release = release_of(version)
        if self.domus and release < FIRST_DOM0LESS:
            raise UsageError(
                f"the scenario {self.name!r} needs dom0less, which Xen {version} does not have",
                advice="dom0less came with Xen 4.12; the scenario 'dom0' runs on any.",
            )
        if self.dom0 is None and release < FIRST_WITHOUT_DOM0:
            return replace(self, dom0=DomainPlan(name="idle"))
        return self

    def fitted(self, machine: Machine) -> Machine:
        """`machine`, grown to hold these domains."""
        plans = self.domains.values()
        memory = sum(plan.memory_mib for plan in plans) + XEN_MIB
        cpus = max([self.pcpus, *(plan.vcpus for plan in plans)])
        return machine.at_least(cpus=cpus, ram_mib=memory)


def _names(kind: type[Scenario | DomainPlan]) -> set[str]:
    return {field.name for field in fields(kind)}


def named(name: str) -> Scenario:
    """The scenario called `name`; raises UsageError if there is none."""
    if name not in SCENARIOS:
        raise UsageError(
            f"there is no scenario called {name!r}", advice="Scenarios: " + ", ".join(SCENARIOS)
        )
    return SCENARIOS[name]


def release_of(version: str) -> tuple[int, int]:
    """The release a version belongs to: (4, 17) of "4.17.5", (4, 22) of "4.22-unstable"."""
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None:
        raise UsageError(f"{version!r} is no version of Xen")
    return int(match[1]), int(match[2])


_ALL = (
    Scenario("domu", domus=(DomainPlan(),)),
    Scenario("two_domus", domus=(DomainPlan(), DomainPlan())),
    Scenario("dom0", dom0=DomainPlan()),
    Scenario("dom0_and_domu", dom0=DomainPlan(), domus=(DomainPlan(),)),
    # Slower to boot than the others by far, and driven over SSH: see harness/linux_dom0.
    Scenario("linux_dom0", dom0=DomainPlan(memory_mib=256, name=LINUX)),
)
SCENARIOS = {scenario.name: scenario for scenario in _ALL}
DEFAULT = SCENARIOS["domu"]
