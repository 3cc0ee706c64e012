"""Calls as values: their text, their bytes, and what their answers become."""

from __future__ import annotations

import struct
from errno import EBUSY, EINVAL
from typing import Any

import pytest

from harness import grants, hypercalls, memory_calls, xenabi
from harness.hypercalls import (
    Answer,
    Buffer,
    Call,
    GrantError,
    XenError,
    grant_error,
    xen_error,
)
from harness.vocabulary import DOMID_XEN, GMFN_FOREIGN, GRANT_TABLE, SHARED_INFO


def argument(call: Call[Any]) -> Buffer:
    found = call.arguments[1]
    assert isinstance(found, Buffer)
    return found


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            memory_calls.add_to_physmap(SHARED_INFO, gfn=0x38001),
            "XENMEM_add_to_physmap(space=shared_info, idx=0, gfn=0x38001)",
        ),
        (
            memory_calls.add_to_physmap(99, gfn=1, idx=1 << 32, domid=DOMID_XEN),
            "XENMEM_add_to_physmap(space=99, idx=0x100000000, gfn=0x1, domid=DOMID_XEN)",
        ),
        (
            memory_calls.add_to_physmap_batch(GMFN_FOREIGN, [(7, 1), (8, 2)], foreign_domid=2),
            "XENMEM_add_to_physmap_batch(space=gmfn_foreign, [(7, 0x1), (8, 0x2)], "
            "foreign_domid=d2)",
        ),
        (
            memory_calls.populate_physmap(range(1, 7), order=1),
            "XENMEM_populate_physmap([0x1, 0x2, 0x3, 0x4, …], order=1)",
        ),
        (grants.map_call(0x38000, 9, 1), "GNTTABOP_map_grant_ref(gfn=0x38000, ref=9, domid=d1)"),
        (hypercalls.hypercall(12, 7, 0x1000), "memory_op(0x7, 0x1000)"),
        (hypercalls.hypercall(99), "hypercall 99()"),
    ],
    ids=str,
)
def test_texts(call: Call[object], text: str) -> None:
    assert str(call) == text


def test_structures_cut_values_to_their_members() -> None:
    data = xenabi.ADD_TO_PHYSMAP.pack(domid=0x1_7FF0, idx=-1, gpfn=(1 << 64) + 5)
    assert xenabi.ADD_TO_PHYSMAP.unpack(data) == {
        "domid": 0x7FF0,
        "size": 0,
        "space": 0,
        "idx": 2**64 - 1,
        "gpfn": 5,
    }
    assert len(data) == xenabi.ADD_TO_PHYSMAP.size


def test_signed_members_stay_signed() -> None:
    assert xenabi.SETUP_TABLE.unpack(xenabi.SETUP_TABLE.pack(status=-8))["status"] == -8


def test_batches_point_to_their_arrays() -> None:
    buffer = argument(memory_calls.add_to_physmap_batch(GRANT_TABLE, [(1, 10), (2, 20)]))
    indices, gfns, errors = (inner for _, inner in buffer.pointers)
    assert [offset for offset, _ in buffer.pointers] == [8, 16, 24]
    assert struct.unpack("<2Q", indices.data) == (1, 2)
    assert struct.unpack("<2Q", gfns.data) == (10, 20)
    assert struct.unpack("<2i", errors.data) == (memory_calls.UNTOUCHED,) * 2


def settled(call: Call[int], value: int) -> Answer[int]:
    answer = Answer(call)
    answer.settle(value, lambda buffer: bytes(buffer.data))
    return answer


def test_a_negative_result_is_an_error() -> None:
    answer = settled(hypercalls.hypercall(12, 7), -EBUSY)
    assert answer.errno == EBUSY
    assert repr(answer) == "memory_op(0x7) -> EBUSY (-16)"
    with pytest.raises(XenError) as error:
        _ = answer.value
    assert isinstance(error.value, OSError)
    assert str(error.value) == "EBUSY (-16) from memory_op(0x7)"


def test_an_error_nobody_named_keeps_its_number() -> None:
    assert repr(settled(hypercalls.hypercall(12), -9999)).endswith("error 9999 (-9999)")


def test_a_result_that_is_no_error_is_a_value() -> None:
    answer = settled(hypercalls.hypercall(17), 0x40011)
    assert (answer.value, answer.errno) == (0x40011, 0)


def test_an_answer_before_its_batch_ends_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="not made before its batch ends"):
        _ = Answer(hypercalls.hypercall(17)).value


def test_a_status_is_an_error_of_its_own() -> None:
    call = grants.size_call(5)
    answer = Answer(call)
    answer.settle(0, lambda _: bytes(xenabi.QUERY_SIZE.pack(status=-2)))
    assert answer.errno == 0
    with pytest.raises(GrantError, match=r"GNTST_bad_domain \(-2\) from GNTTABOP_query_size"):
        _ = answer.value
    with pytest.raises(AssertionError, match="expected GNTST_bad_gntref"), grant_error(-3):
        _ = answer.value
    with grant_error(-2):
        _ = answer.value


def test_xen_error_wants_exactly_what_it_names() -> None:
    refused = settled(hypercalls.hypercall(12), -EBUSY)
    with xen_error(EBUSY):
        _ = refused.value
    with xen_error(EINVAL, EBUSY):
        _ = refused.value
    wrong = r"expected EINVAL, but got EBUSY \(-16\)"
    with pytest.raises(AssertionError, match=wrong), xen_error(EINVAL):
        _ = refused.value
    with pytest.raises(AssertionError, match="expected EBUSY, but Xen allowed"), xen_error(EBUSY):
        pass


def test_xen_error_is_not_for_other_exceptions() -> None:
    with pytest.raises(FileNotFoundError), xen_error(EBUSY):
        raise FileNotFoundError
