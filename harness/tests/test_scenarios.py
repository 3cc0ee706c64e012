"""Scenarios, and what becomes of them on each version of Xen."""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.machines import load_machine
from harness.scenarios import SCENARIOS, DomainPlan, Scenario, named, release_of


@pytest.mark.parametrize(
    ("version", "release"),
    [
        ("4.17.5", (4, 17)),
        ("4.22-unstable", (4, 22)),
        ("4.9.0", (4, 9)),
        ("4.20.2+7-g1badcf5035", (4, 20)),
    ],
)
def test_a_version_belongs_to_a_release(version: str, release: tuple[int, int]) -> None:
    assert release_of(version) == release


@pytest.mark.parametrize("version", ["", "unstable", "v4.17"])
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(UsageError):
        release_of(version)


@pytest.mark.parametrize(
    ("version", "domids"),
    [("4.12.0", [0, 1]), ("4.15.9", [0, 1]), ("4.16.0", [1]), ("4.22-unstable", [1])],
)
def test_a_xen_that_needs_a_dom0_gets_one(version: str, domids: list[int]) -> None:
    assert list(SCENARIOS["domu"].for_version(version).domains) == domids


def test_a_dom0_that_is_there_stays() -> None:
    scenario = SCENARIOS["dom0_and_domu"]
    assert scenario.for_version("4.14.6") == scenario


@pytest.mark.parametrize("name", ["domu", "two_domus", "dom0_and_domu"])
def test_a_xen_without_dom0less_refuses_domus(name: str) -> None:
    with pytest.raises(UsageError, match=r"needs dom0less, which Xen 4\.11\.4 does not have"):
        SCENARIOS[name].for_version("4.11.4")


def test_a_xen_without_dom0less_runs_a_dom0() -> None:
    assert SCENARIOS["dom0"].for_version("4.11.4") == SCENARIOS["dom0"]


def test_the_machine_grows_with_its_domains() -> None:
    machine = load_machine()
    assert SCENARIOS["two_domus"].fitted(machine) == machine
    big = Scenario("big", domus=(DomainPlan(memory_mib=1024), DomainPlan(vcpus=3)))
    assert big.fitted(machine).ram_mib > 1024
    assert big.fitted(machine).cpus == 3
    assert big.with_(pcpus=4).fitted(machine).cpus == 4


def test_a_variant_changes_scenario_and_plans() -> None:
    variant = SCENARIOS["dom0_and_domu"].with_(memory_mib=64, xen_args=("debug",))
    assert variant.xen_args == ("debug",)
    assert [plan.memory_mib for plan in variant.domains.values()] == [64, 64]


def test_what_is_unknown_is_refused_with_what_is_known() -> None:
    with pytest.raises(UsageError, match="colour") as caught:
        SCENARIOS["domu"].with_(colour="red")
    assert "vcpus" in caught.value.advice
    with pytest.raises(UsageError) as caught:
        named("three_domus")
    assert "two_domus" in caught.value.advice
