"""A build, a machine and a scenario in; a host whose domains answer out.

This is where Host, which knows no guests, and Domain, which knows no machine, meet. What is done
with the domains, this refuses to know.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Protocol, Self

from harness import agent, inspection
from harness.agent import Agent
from harness.cache import Cache, default_cache
from harness.domain import HISTORY, Domain, identify
from harness.errors import HarnessError
from harness.hosts import BootableXen, Host, Probe
from harness.inspection import Inspector
from harness.machines import Machine
from harness.scenarios import LINUX, DomainPlan, Scenario

AGENT_SECONDS = 20.0
IDLE_DOM0 = "idle"
"""The name of a plan that is only there because Xen does not boot without a dom0."""


class InspectableXen(BootableXen, Protocol):
    """What of a build it takes to look into it as well."""

    @property
    def syms(self) -> Path:
        """The same Xen with its symbols."""


class Booted(Host):
    """A host and the domains on it that an agent runs in; enter it to boot."""

    domains: list[Domain]
    """In the order of their domids; a dom0 that nobody asked for is not among them."""

    def __init__(
        self,
        build: InspectableXen,
        machine: Machine,
        scenario: Scenario,
        directory: Path,
        *,
        kernel: Path,
        cache: Cache | None = None,
        probe: Probe | None = None,
    ) -> None:
        """`kernel` is the agent's image, for every domain whose plan names no other."""
        super().__init__(build, machine, scenario, directory, default_kernel=kernel, probe=probe)
        self.history: deque[str] = deque(maxlen=HISTORY)
        """One story of all domains, in the order it happened."""
        self.newcomers: list[Callable[[Domain], None]] = []
        """Told of every domain that is made after the boot."""
        self._image = kernel
        self.syms = build.syms
        """The Xen that runs, with its symbols."""
        self._cache = cache

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            self.domains = self._meet()
            for domain in self.domains:
                domain.history = self.history
        except BaseException:
            self.close()
            raise
        return self

    @cached_property
    def inspector(self) -> Inspector:
        """The view of Xen's own tables; CannotInspect says why there is none."""
        cache = self._cache or default_cache()
        inspector = inspection.attach(self.ram, self.syms, self.build.build_id, cache)
        self._open.callback(inspector.close)
        return inspector

    @property
    def agents(self) -> list[Agent]:
        """The agent of each domain."""
        return [domain.agent for domain in self.domains]

    def domain(self, domid: int) -> Domain:
        """The domain with this domid, or a HarnessError."""
        for domain in self.domains:
            if domain.domid == domid:
                return domain
        raise HarnessError(f"no agent runs in a domain d{domid}")

    def introduce(self, domain: Domain) -> None:
        """Take a domain that was made after the boot into the story, and tell who looks on."""
        domain.history = self.history
        for tell in self.newcomers:
            tell(domain)

    def _meet(self) -> list[Domain]:
        """Find the agents, learn which is whose, and send an idle dom0 to sleep."""
        plans = {d: plan for d, plan in self.scenario.domains.items() if plan.kernel is None}
        if not plans:
            return []
        agents = agent.find_agents(self.ram, self, self._image, len(plans), AGENT_SECONDS)
        by_domid = {identify(one): one for one in agents}
        if by_domid.keys() != plans.keys():
            raise HarnessError(f"agents answer in the domains {sorted(by_domid)}, not {[*plans]}")
        domains = [Domain(by_domid[domid], domid, vcpus=plans[domid].vcpus) for domid in plans]
        for domain in domains:
            if _is_idle(plans[domain.domid]):
                domain.stop()
        return [domain for domain in domains if not _is_idle(plans[domain.domid])]


def _is_idle(plan: DomainPlan) -> bool:
    return plan.name == IDLE_DOM0


def boot(
    build: InspectableXen,
    machine: Machine,
    scenario: Scenario,
    directory: Path,
    cache: Cache | None = None,
    probe: Probe | None = None,
) -> Booted:
    """A host to enter: `with boot(build, machine, scenario, directory) as host: host.domains`.

    Its logs are left in `directory`. Raises what Host raises, XenHung if an agent does not come up.
    """
    cache = cache or default_cache()
    if scenario.dom0 is not None and scenario.dom0.name == LINUX:
        from harness.builds import Build
        from harness.linux_dom0.machine import boot as boot_linux  # paramiko and all

        if not isinstance(build, Build):  # its tools may have to be built as well
            raise HarnessError(f"{build.xen} is no build of ours, so it gets no Linux dom0")
        return boot_linux(build, machine, scenario, directory, cache, probe=probe)
    return Booted(
        build, machine, scenario, directory, kernel=agent.image(cache), cache=cache, probe=probe
    )
