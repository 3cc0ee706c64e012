"""Domains on real Xens: what a case can hold, and whether it is told the truth about a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from harness import operations as ops
from harness import xenabi
from harness.booting import Booted, boot
from harness.builds import Build, BuildOptions, build
from harness.cache import default_cache
from harness.domain import Domain
from harness.errors import HarnessError
from harness.grants import End
from harness.guest_memory import DOM0_HOLES, DOMU_HOLES
from harness.machines import load_machine, machine_names
from harness.references import resolve
from harness.scenarios import SCENARIOS, DomainPlan, Scenario
from harness.tests.structures import layouts
from harness.vocabulary import (
    DOMID_INVALID,
    EBUSY,
    EFAULT,
    EINVAL,
    EOPNOTSUPP,
    GRANT_TABLE,
    GRANT_TABLE_STATUS,
    HOLE,
    INVALID_GFN,
    PAGE_SHIFT,
    RAM,
    SHARED_INFO,
    SHARED_INFO_PAGE,
    UNKNOWN,
    Call,
    EventOp,
    GrantError,
    GrantFrame,
    GrantStatus,
    GuestFault,
    Hypercall,
    MemoryOp,
    OtherRam,
    StatusFrame,
    XenError,
    grant_error,
    hypercalls,
    memory_calls,
    xen_error,
)

Boot = Callable[..., Booted]


def built(reference: str) -> Build:
    cache = default_cache()
    return build(resolve(reference, cache), BuildOptions(), cache)


@pytest.fixture(scope="module")
def xen() -> Build:
    """4.17: with one mapping for a shared page, and no need of a dom0."""
    return built("debian:bookworm")


@pytest.fixture(scope="module")
def old_xen() -> Build:
    """4.14: with any number of them, and a dom0 always."""
    return built("debian:bullseye")


@pytest.fixture
def start(xen: Build, tmp_path: Path) -> Boot:
    def start(
        scenario: Scenario | str = "domu", build: Build = xen, machine: str = "virt-gicv3"
    ) -> Booted:
        chosen = SCENARIOS[scenario] if isinstance(scenario, str) else scenario
        return boot(build, load_machine(machine), chosen, tmp_path / f"{chosen.name}-{machine}")

    return start


@pytest.fixture
def domain(start: Boot) -> Iterator[Domain]:
    with start() as host:
        yield host.domains[0]


@pytest.mark.parametrize("reference", ["debian:bookworm", "debian:bullseye"])
def test_structures_are_those_of_xens_debug_information(reference: str) -> None:
    ours = {structure.name: structure for structure in xenabi.STRUCTURES}
    with built(reference).syms.open("rb") as file:
        found = layouts(ELFFile(file), ours.keys())
    assert found.keys() == ours.keys()
    for name, layout in found.items():
        assert layout.size == ours[name].size, name
        for member, (offset, _) in ours[name].members.items():
            place = layout.offsets.get(member, layout.offsets.get(member.replace("_", ".", 1)))
            assert place == offset, f"{name}.{member}"


@pytest.mark.parametrize("machine", machine_names())
def test_contents_on_every_machine(start: Boot, machine: str) -> None:
    with start("dom0_and_domu", machine=machine) as host:
        for domain in host.domains:
            (ram,) = domain.ram_pages(1)
            first, second, hole = domain.hole_pages(3)
            domain.add_to_physmap(SHARED_INFO, gfn=first)
            domain.add_to_physmap(GRANT_TABLE, idx=2, gfn=second)
            seen = [domain.content(gfn) for gfn in (ram, first, second, hole)]
            assert seen == [RAM, SHARED_INFO_PAGE, GrantFrame(2), HOLE]


def test_looking_leaves_a_page_as_it_was(domain: Domain) -> None:
    first, second = domain.hole_pages(2)
    domain.add_to_physmap(SHARED_INFO, gfn=first)
    domain.add_to_physmap(GRANT_TABLE, gfn=second)
    domain.content(first)  # binds the event channel it needs, which is a bit in the page
    for gfn in (first, second):
        domain.store((gfn << PAGE_SHIFT) + 4072, 0x0123456789ABCDEF)
        before = domain.read(gfn << PAGE_SHIFT, 4096)
        domain.content(gfn)
        assert domain.read(gfn << PAGE_SHIFT, 4096) == before


def test_ram_is_told_from_other_ram(domain: Domain) -> None:
    one, other, third = domain.ram_pages(3)
    domain.agent.run([ops.copy(other << PAGE_SHIFT, one << PAGE_SHIFT, 4096)])
    assert domain.content(other) == OtherRam(one)
    domain.agent.run([ops.fill(third << PAGE_SHIFT, 4096)])
    assert domain.content(third) is UNKNOWN
    domain.fill_ram([other, third])
    assert [domain.content(gfn) for gfn in (other, third)] == [RAM, RAM]


def test_a_word_or_two_written_do_not_hide_ram(domain: Domain) -> None:
    (gfn,) = domain.ram_pages(1)
    for word in (0, 511):
        domain.store((gfn << PAGE_SHIFT) + 8 * word, 0)
    assert domain.content(gfn) is RAM


def test_populated_ram_is_recognised(domain: Domain) -> None:
    (gfn,) = domain.ram_pages(1)
    (hole,) = domain.hole_pages(1)
    assert domain.decrease_reservation([gfn]) == 1
    assert domain.content(gfn) is HOLE
    assert domain.populate_physmap([hole]) == 1
    assert domain.content(hole) is RAM


def test_two_gfns_of_one_page_are_aliases(start: Boot, old_xen: Build) -> None:
    with start(build=old_xen) as host:
        (domain,) = host.domains
        first, second, hole = domain.hole_pages(3)
        domain.add_to_physmap(SHARED_INFO, gfn=first)
        domain.add_to_physmap(SHARED_INFO, gfn=second)
        assert domain.content(first) is domain.content(second) is SHARED_INFO_PAGE
        assert domain.aliases(first, second)
        assert not domain.aliases(first, hole)
        assert not domain.aliases(hole, first)
        assert not domain.aliases(first, domain.ram_pages(1)[0])


def test_status_frames_are_recognised(start: Boot) -> None:
    scenario = replace(SCENARIOS["domu"], xen_args=("gnttab=max-ver:2",))
    with start(scenario) as host:
        (domain,) = host.domains
        assert domain.grant_table.set_version(2) == 2
        domain.grant_table.setup(9)  # 9 * 256 entries: more than one frame of status words
        gfns = domain.hole_pages(4)
        for gfn, idx in zip(gfns, (0, 8, GRANT_TABLE_STATUS, GRANT_TABLE_STATUS + 1), strict=True):
            domain.add_to_physmap(GRANT_TABLE, idx=idx, gfn=gfn)
        seen = [domain.content(gfn) for gfn in gfns]
        assert seen == [GrantFrame(0), GrantFrame(8), StatusFrame(0), StatusFrame(1)]
        assert domain.grant_table.get_status_frames(2) == gfns[2:]


def test_domids_and_what_a_domain_says_of_itself(start: Boot) -> None:
    scenario = Scenario(
        "three", dom0=DomainPlan(memory_mib=32), domus=(DomainPlan(), DomainPlan(memory_mib=24))
    )
    with start(scenario) as host:
        assert [domain.domid for domain in host.domains] == [0, 1, 2]
        assert [domain.current_reservation() >> 8 for domain in host.domains] == [32, 16, 24]
        assert all(domain.xen_version() == (4, 17) for domain in host.domains)
        assert "aarch64" in host.domain(2).capabilities()
        assert host.domain(0).do(hypercalls.build_id()).hex() == host.build.build_id
        with pytest.raises(HarnessError, match="d7"):
            host.domain(7)


def test_an_idle_dom0_is_not_shown(start: Boot, old_xen: Build) -> None:
    with start(build=old_xen) as host:
        assert [domain.domid for domain in host.domains] == [1]


def test_pages_are_handed_out_once(domain: Domain) -> None:
    ram, more = domain.ram_pages(512), domain.ram_pages(3)
    assert len({*ram, *more}) == 515
    assert ram == list(range(ram[0], ram[0] + 512))
    assert domain.hole_pages(4000)[0] == DOMU_HOLES[0]
    assert domain.content(DOMU_HOLES[0]) is domain.content(DOMU_HOLES[-1]) is HOLE
    with pytest.raises(HarnessError, match="holes"):
        domain.hole_pages(100)
    with pytest.raises(HarnessError, match="RAM"):
        domain.ram_pages(4096)


def test_dom0_gets_other_holes(start: Boot) -> None:
    with start("dom0") as host:
        (dom0,) = host.domains
        assert dom0.hole_pages(1) == [DOM0_HOLES[0]]
        assert dom0.content(DOM0_HOLES[0]) is dom0.content(DOM0_HOLES[-1]) is HOLE


def test_refusals_name_error_call_and_arguments(domain: Domain) -> None:
    first, second = domain.hole_pages(2)
    domain.add_to_physmap(SHARED_INFO, gfn=first)
    with pytest.raises(XenError) as refused:
        domain.add_to_physmap(SHARED_INFO, gfn=second)
    assert refused.value.errno == EBUSY
    assert str(refused.value) == (
        "EBUSY (-16) from XENMEM_add_to_physmap(space=shared_info, idx=0, gfn=0x38001)"
    )
    assert domain.history[-1] == (
        "d1 XENMEM_add_to_physmap(space=shared_info, idx=0, gfn=0x38001) -> EBUSY (-16)"
    )
    with pytest.raises(AssertionError, match="expected EINVAL, but got EBUSY"), xen_error(EINVAL):
        domain.add_to_physmap(SHARED_INFO, gfn=second)
    with pytest.raises(AssertionError, match="expected EBUSY, but Xen allowed"), xen_error(EBUSY):
        domain.remove_from_physmap(first)


def test_batches(domain: Domain) -> None:
    first, second = domain.hole_pages(2)
    with domain.batch() as batch:
        mapped = batch.do(memory_calls.add_to_physmap(SHARED_INFO, gfn=first))
        with pytest.raises(ValueError, match="not made before its batch ends"):
            _ = mapped.value
    assert mapped.value == 0
    with pytest.raises(XenError, match="EBUSY"), domain.batch() as batch:
        batch.do(memory_calls.add_to_physmap(SHARED_INFO, gfn=second))
    with domain.batch(check=False) as batch:
        refused = batch.do(memory_calls.add_to_physmap(SHARED_INFO, gfn=second))
        version = batch.do(hypercalls.version_number())
    assert (refused.errno, version.value) == (EBUSY, 4 << 16 | 17)
    entries = [(0, first), (5, second), (0, second)]
    domain.remove_from_physmap(first)
    assert domain.add_to_physmap_batch(SHARED_INFO, entries) == [0, -EINVAL, -EBUSY]


def test_batches_larger_than_the_room_for_arguments(domain: Domain) -> None:
    gfns = domain.hole_pages(1000)
    big = memory_calls.add_to_physmap_batch(GRANT_TABLE, [(0, gfn) for gfn in gfns])
    calls: list[Call[Any]] = [big, *[hypercalls.version_number()] * 5000, *[big] * 30]
    answers = domain.attempt(calls)
    assert answers[0].value == [0] + [-EBUSY] * 999
    assert {answer.value for answer in answers[1:5001]} == {4 << 16 | 17}
    assert all(answer.value == [-EBUSY] * 1000 for answer in answers[5001:])


def test_a_call_made_twice_has_two_answers(domain: Domain) -> None:
    (gfn,) = domain.hole_pages(1)
    call = memory_calls.add_to_physmap_batch(SHARED_INFO, [(0, gfn)])
    one, other = domain.attempt([call, call])
    assert (one.value, other.value) == ([0], [-EBUSY])


def test_arguments_anywhere(domain: Domain) -> None:
    (hole,) = domain.hole_pages(1)
    call = memory_calls.add_to_physmap(SHARED_INFO, gfn=hole).arguments[1]
    assert isinstance(call, hypercalls.Buffer)
    address = domain.put(bytes(call.data), align=4096, offset=4096 - 9)  # across two pages
    number, operation = Hypercall.memory_op, MemoryOp.add_to_physmap
    assert domain.hypercall(number, operation, address) == 0
    assert domain.content(hole) is SHARED_INFO_PAGE
    with xen_error(EFAULT):
        domain.hypercall(number, operation, hole + 1 << PAGE_SHIFT)


def test_faults_name_the_address(domain: Domain) -> None:
    (hole,) = domain.hole_pages(1)
    with pytest.raises(GuestFault, match=f"FAR {hole << PAGE_SHIFT:#x}") as fault:
        domain.load(hole << PAGE_SHIFT)
    assert fault.value.far == hole << PAGE_SHIFT
    with pytest.raises(GuestFault):
        domain.read((hole << PAGE_SHIFT) - 4, 8)


def test_races_need_no_luck_to_meet(start: Boot) -> None:
    scenario = SCENARIOS["domu"].with_(domus=(DomainPlan(vcpus=2),), pcpus=2)
    with start(scenario) as host:
        (domain,) = host.domains
        first, second = domain.hole_pages(2)
        for skew in (0, 5000, -5000):
            (one,), (other,) = domain.race(
                [memory_calls.add_to_physmap(SHARED_INFO, gfn=first)],
                [memory_calls.add_to_physmap(SHARED_INFO, gfn=second)],
                skew_ns=skew,
            )
            assert sorted((one.errno, other.errno)) == [0, EBUSY]
            domain.remove_from_physmap(second if one.errno else first)
        assert domain.history[-3].startswith("d1 XENMEM") or "d1v1 " in " ".join(domain.history)


def test_a_race_needs_two_vcpus(domain: Domain) -> None:
    with pytest.raises(HarnessError, match="vCPU 1"):
        domain.race([hypercalls.version_number()], [hypercalls.version_number()])


def test_grants_between_domains(start: Boot) -> None:
    with start("dom0_and_domu") as host:  # XSM's silo mode keeps domUs from each other
        taker, giver = host.domains
        (page,) = giver.ram_pages(1)
        (frame,) = giver.hole_pages(1)
        at, copied = taker.hole_pages(1)[0], taker.ram_pages(1)[0]
        giver.add_to_physmap(GRANT_TABLE, gfn=frame)
        giver.grant_table.grant(frame, 9, page, taker.domid)
        handle = taker.grant_table.map_grant_ref(at, 9, giver.domid)
        giver.store(page << PAGE_SHIFT, 0x600D)
        assert taker.load(at << PAGE_SHIFT) == 0x600D
        assert taker.content(at) == OtherRam(page)
        taker.grant_table.copy(End(ref=9, domid=giver.domid), End(gfn=copied), 8)
        assert taker.load(copied << PAGE_SHIFT) == 0x600D
        taker.grant_table.unmap_grant_ref(at, handle)
        assert taker.content(at) is HOLE
        with grant_error(GrantStatus.bad_gntref):
            taker.grant_table.map_grant_ref(at, 10_000, giver.domid)
        with pytest.raises(GrantError, match=r"GNTST_bad_domain \(-2\)"):
            taker.grant_table.setup(1, domid=DOMID_INVALID)


def test_a_read_only_grant_is_recognised_without_writing(start: Boot) -> None:
    """Xen lets a guest that writes there try again and again: one store would be the last."""
    with start("dom0_and_domu") as host:
        taker, giver = host.domains
        (page,) = giver.ram_pages(1)
        (frame,) = giver.hole_pages(1)
        (at,) = taker.hole_pages(1)
        giver.add_to_physmap(GRANT_TABLE, gfn=frame)
        giver.grant_table.grant(frame, 9, page, taker.domid, readonly=True)
        taker.grant_table.map_grant_ref(at, 9, giver.domid, readonly=True)
        assert taker.content(at) == OtherRam(page)


def test_an_event_reaches_shared_info(domain: Domain) -> None:
    (gfn,) = domain.hole_pages(1)
    domain.add_to_physmap(SHARED_INFO, gfn=gfn)
    local = domain.event_channel(EventOp.alloc_unbound, dom=xenabi.DOMID_SELF, remote_dom=1)
    other = domain.event_channel(EventOp.bind_interdomain, remote_dom=1, remote_port=local)
    domain.event_channel(EventOp.send, port=other)
    pending = (gfn << PAGE_SHIFT) + xenabi.SHARED_INFO_LAYOUT.offset("evtchn_pending")
    assert domain.load(pending) >> local & 1


def test_grant_table_queries(domain: Domain) -> None:
    (gfn,) = domain.hole_pages(1)
    frames, most = domain.grant_table.query_size()
    assert 1 <= frames < most
    assert domain.grant_table.get_version() == 1
    assert domain.grant_table.setup(1) == [INVALID_GFN]
    domain.add_to_physmap(GRANT_TABLE, gfn=gfn)
    assert domain.grant_table.setup(1) == [gfn]


def test_memory_that_arm_does_not_exchange(domain: Domain) -> None:
    with xen_error(EOPNOTSUPP):
        domain.memory_exchange(domain.ram_pages(1), domain.hole_pages(1))


def test_words_on_the_console(start: Boot) -> None:
    with start() as host:
        host.domains[0].console_write("hello from a case\n")
        host.wait(lambda: "hello from a case" in host.console.text or None, 5, "the words")


def test_a_domain_that_shuts_down_leaves_xen_running(start: Boot) -> None:
    with start("two_domus") as host:
        one, other = host.domains
        one.shutdown()
        assert other.xen_version() == (4, 17)
